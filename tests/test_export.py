import shutil

import numpy as np
import pytest

from melanoma_utils.export import export_model, main
from melanoma_utils.files import read_json, write_json
from melanoma_utils.predict import list_images, load_ensemble, predict_images


@pytest.fixture
def experiment_dir(finished):
    return finished[0] / "output" / "tiny"


def test_the_exported_model_is_half_the_size_and_says_the_same(experiment_dir, data_dir, tmp_path):
    size = export_model(experiment_dir, tmp_path)
    weights, exported = (sum(p.stat().st_size for p in folder.glob("fold_*.safetensors"))
                         for folder in (experiment_dir, tmp_path))
    assert 0.45 * weights < exported < 0.6 * weights and size == pytest.approx(
        sum(p.stat().st_size for p in tmp_path.iterdir()) / 2**20)
    images = list_images([data_dir / "jpeg" / "test"])
    probs = [predict_images(load_ensemble(folder), images, n_jobs=1)[0]["probability"]
             for folder in (experiment_dir, tmp_path)]
    assert np.abs(probs[0] - probs[1]).max() < 0.01


def test_the_card_tells_data_figures_and_limits(experiment_dir, tmp_path):
    export_model(experiment_dir, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "Not a medical device" in card and "24 patients" in card and "synthetic competition" in card
    assert "ROC AUC 0." in card and "CC BY-NC 4.0" in card and "{" not in card
    point = read_json(experiment_dir / "metrics.json")["operating_points"][0]
    assert f"| {point['sensitivity']:.1%} | {point['specificity']:.1%} |" in card
    for name in ("metrics.json", "parameters.json", "calibration.json", "operating_points.csv"):
        assert (tmp_path / name).read_bytes() == (experiment_dir / name).read_bytes()


def test_folds_of_an_older_export_do_not_stay(experiment_dir, tmp_path):
    (tmp_path / "fold_7.safetensors").touch()
    export_model(experiment_dir, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("fold_*")) == ["fold_0.safetensors", "fold_1.safetensors"]


def test_an_experiment_is_not_exported_onto_itself_or_with_another_s_figures(experiment_dir, tmp_path, capsys):
    copy = shutil.copytree(experiment_dir, tmp_path / "copy")
    (tmp_path / "link").symlink_to(copy)
    assert main([str(copy), str(tmp_path / "link")]) == 1 and len(list(copy.glob("fold_?.safetensors"))) == 2
    assert "would be exported onto itself" in capsys.readouterr().err
    metrics = read_json(copy / "metrics.json")
    write_json(copy / "metrics.json", metrics | {"folds": [0]})
    assert main([str(copy), str(tmp_path / "model")]) == 1
    assert "is about the folds [0] of [0, 1]" in capsys.readouterr().err


def test_an_unfinished_experiment_is_not_exported(experiment_dir, tmp_path, capsys):
    copy = shutil.copytree(experiment_dir, tmp_path / "copy")
    (copy / "fold_1.safetensors").unlink()
    assert main([str(copy), str(tmp_path / "model")]) == 1
    assert "1 of 2 folds are trained, fold 1 not" in capsys.readouterr().err
    (copy / "metrics.json").unlink()
    assert main([str(copy), str(tmp_path / "model")]) == 1
    assert "holds no metrics.json" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
