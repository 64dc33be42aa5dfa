import shutil

import numpy as np
import pytest

from melanoma_utils.assessment import load_assessor
from melanoma_utils.experiment import hash_checkpoints
from melanoma_utils.export import export_model, main
from melanoma_utils.files import read_json, write_json
from melanoma_utils.folds import read_folds
from melanoma_utils.image_files import list_images
from melanoma_utils.predict import load_ensemble, predict_images


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


def test_the_experiment_s_card_and_files_go_along_and_half_precision_is_told(experiment_dir, tmp_path):
    export_model(experiment_dir, tmp_path)
    title, blank, half, *rest = (tmp_path / "README.md").read_text().splitlines()
    assert half.startswith("**Half precision.**") and blank == "" and "DRAWN PICTURES" in title
    card = (experiment_dir / "model_card.md").read_text()
    assert "\n".join([title, *rest]).endswith(card.partition("\n")[2].rstrip()) and card.startswith(title + "\n")
    point = read_json(experiment_dir / "metrics.json")["operating_points"][0]
    assert f"| {point['sensitivity']:.1%} (" in card and f" | {point['specificity']:.1%} (" in card
    metrics, exported = (read_json(folder / "metrics.json") for folder in (experiment_dir, tmp_path))
    assert exported == metrics | {"checkpoints_sha256": hash_checkpoints(tmp_path, [0, 1])}
    for name in ("parameters.json", "calibration.json", "operating_points.csv", "subgroups.csv", "oof_scores.csv"):
        assert (tmp_path / name).read_bytes() == (experiment_dir / name).read_bytes()


def test_no_image_can_be_told_by_what_is_exported(experiment_dir, tmp_path):
    export_model(experiment_dir, tmp_path)
    written = "".join(path.read_text() for path in tmp_path.iterdir() if path.suffix != ".safetensors")
    names = read_folds(experiment_dir / "folds.csv")[["image_name", "patient_id"]].to_numpy().ravel()
    assert not [name for name in names if name in written]
    scores_df = load_assessor(tmp_path).scores_df
    assert list(scores_df) == ["target", "logit", "patient"] and scores_df["logit"].is_monotonic_increasing


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
    assert "is not about the folds [0, 1] as they are trained now: run 04_evaluate_oof" in capsys.readouterr().err
    write_json(copy / "metrics.json", metrics)
    shutil.copyfile(copy / "fold_0.safetensors", copy / "fold_1.safetensors")
    assert main([str(copy), str(tmp_path / "model")]) == 1 and not (tmp_path / "model").exists()
    assert "is not about the folds [0, 1] as they are trained now" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["folds.csv", "README.md"])
def test_nothing_but_a_model_is_written_over(experiment_dir, tmp_path, name):
    """Another experiment, or a repository whose README would become a model card."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="give another folder"):
        export_model(experiment_dir, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_an_export_that_was_stopped_is_no_model(experiment_dir, tmp_path, monkeypatch):
    export_model(experiment_dir, tmp_path)
    monkeypatch.setattr("melanoma_utils.export.save_checkpoint", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export_model(experiment_dir, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no metrics\.json"):
        load_assessor(tmp_path)


def test_a_damaged_checkpoint_leaves_the_model_that_was_there(experiment_dir, tmp_path):
    export_model(experiment_dir, tmp_path / "model")
    copy = shutil.copytree(experiment_dir, tmp_path / "copy")
    path = copy / "fold_1.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    metrics = read_json(copy / "metrics.json")
    write_json(copy / "metrics.json", metrics | {"checkpoints_sha256": hash_checkpoints(copy, [0, 1])})
    with pytest.raises(ValueError, match="is damaged"):
        export_model(copy, tmp_path / "model")
    load_assessor(tmp_path / "model")


def test_an_unfinished_experiment_is_not_exported(experiment_dir, tmp_path, capsys):
    copy = shutil.copytree(experiment_dir, tmp_path / "copy")
    (copy / "fold_1.safetensors").unlink()
    assert main([str(copy), str(tmp_path / "model")]) == 1
    assert "1 of 2 folds are trained, fold 1 not" in capsys.readouterr().err
    for name in ("model_card.md", "metrics.json"):
        (copy / name).unlink()
        assert main([str(copy), str(tmp_path / "model")]) == 1
        assert f"holds no {name}: run the pipeline's steps 02-04 first" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
