import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_utils import predict
from melanoma_utils.calibration import apply_calibration, read_calibration
from melanoma_utils.competition import read_test
from melanoma_utils.export import export_model
from melanoma_utils.image_files import list_images
from melanoma_utils.models import ModelConfig, build_model, save_checkpoint
from melanoma_utils.predict import load_ensemble, main, predict_images


@pytest.fixture
def experiment_dir(finished):
    return finished[0] / "output" / "tiny"


def test_it_says_what_the_submission_says(finished, experiment_dir, data_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "CHUNK", 10)  # more than one chunk, the last one ragged
    out = tmp_path / "predictions.csv"
    arguments = [str(data_dir / "jpeg" / "test"), "--model", str(experiment_dir), "-o", str(out), "--tta-views", "2"]
    assert main(arguments) == 0
    df = pd.read_csv(out).set_index("image_name")
    submission_df = pd.read_csv(finished[0] / "submissions" / "tiny.csv").set_index("image_name")
    assert list(df) == ["probability", "lowest", "highest"] and set(df.index) == set(submission_df.index)
    wanted = submission_df["target"].loc[df.index]
    pd.testing.assert_series_equal(df["probability"], wanted, check_names=False, rtol=1e-5)
    assert (df["lowest"] <= df["probability"]).all() and (df["probability"] <= df["highest"]).all()
    said = capsys.readouterr()
    assert "24 of 24 images" in said.out and "24 images by 2 models; not calibrated" in said.out and said.err == ""


def test_probabilities_for_people_of_a_prevalence(experiment_dir, data_dir, tmp_path, capsys):
    out, image = tmp_path / "predictions.csv", str(data_dir / "jpeg" / "test")
    tables = []
    for flags in ([], ["--prevalence", "0.01"]):
        assert main([image, "--model", str(experiment_dir), "-o", str(out), "--tta-views", "1", *flags]) == 0
        tables.append(pd.read_csv(out).set_index("image_name"))
    assert "calibrated for a share of melanomas of 0.01" in capsys.readouterr().out
    calibration = read_calibration(experiment_dir / "calibration.json")
    for column in tables[0]:
        raw = tables[0][column].to_numpy()
        wanted = apply_calibration(calibration, np.log(raw / (1 - raw)), 0.01)
        np.testing.assert_allclose(tables[1][column], wanted, rtol=1e-6)
    assert tables[1]["probability"].mean() < tables[0]["probability"].mean()


def test_it_says_how_many_files_are_small(experiment_dir, data_dir, tmp_path, capsys):
    path = next((data_dir / "jpeg" / "test").glob("*.jpg"))
    size = load_ensemble(experiment_dir).models[0].config.image_size
    for name, side in (("small", size), ("large", size + 1)):
        Image.open(path).resize((side, 2 * side)).save(tmp_path / f"{name}.png")
    assert main([str(tmp_path), "--model", str(experiment_dir), "-o", str(tmp_path / "p.csv")]) == 0
    assert f"1 of these have no more than the {size} × {size} pixels" in capsys.readouterr().out
    assert main([str(tmp_path / "large.png"), "--model", str(experiment_dir), "-o", str(tmp_path / "p.csv")]) == 0
    assert "pixels" not in capsys.readouterr().out


def test_a_prevalence_wants_a_share_and_a_calibration(experiment_dir, data_dir, tmp_path, capsys):
    copy, image = tmp_path / "copy", str(data_dir / "jpeg" / "test")
    shutil.copytree(experiment_dir, copy)
    assert main([image, "--model", str(copy), "-o", str(tmp_path / "p.csv"), "--prevalence", "1.76"]) == 1
    assert "PREVALENCE 1.76 is not between 0 and 1" in capsys.readouterr().err
    checkpoint = (copy / "fold_1.safetensors").read_bytes()
    shutil.copyfile(copy / "fold_0.safetensors", copy / "fold_1.safetensors")  # as trained again since
    assert main([image, "--model", str(copy), "-o", str(tmp_path / "p.csv"), "--prevalence", "0.0176"]) == 1
    assert "are those of other checkpoints than the ones there: run 04_evaluate_oof" in capsys.readouterr().err
    (copy / "fold_1.safetensors").write_bytes(checkpoint)
    (copy / "calibration.json").unlink()
    assert main([image, "--model", str(copy), "-o", str(tmp_path / "p.csv"), "--prevalence", "0.0176"]) == 1
    assert "calibration.json does not exist: run 04_evaluate_oof" in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


def test_a_device_or_a_pipe_is_not_replaced_by_a_table(experiment_dir, data_dir, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    image = str(data_dir / "jpeg" / "test")
    assert main([image, "--model", str(experiment_dir), "-o", str(tmp_path / "pipe")]) == 1
    assert "is no file but a device or a pipe" in capsys.readouterr().err and (tmp_path / "pipe").is_fifo()


@pytest.fixture(scope="module")
def exported_dir(finished, tmp_path_factory):
    """The finished experiment as `export` writes it, its weights in half precision."""
    folder = tmp_path_factory.mktemp("exported")
    export_model(finished[0] / "output" / "tiny", folder)
    return folder


def read_logits(path, column):
    """Returns the logits of a table of probabilities, by image_name."""
    probs = pd.read_csv(path).set_index("image_name")[column]
    return np.log(probs / (1 - probs))


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
@pytest.mark.parametrize("is_exported", [False, True])
def test_a_file_has_one_logit_whoever_asks(finished, experiment_dir, exported_dir, data_dir, tmp_path, runtime,
                                           is_exported):
    """Notebook 05 asked with PyTorch for all files, the command line asks for a folder, an app for one picture."""
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO, an optional extra, is not installed")
    folder, model_dir = data_dir / "jpeg" / "test", exported_dir if is_exported else experiment_dir
    flags = ["--tta-views", "2", "--runtime", runtime, "-o", str(tmp_path / "all.csv")]
    assert main([str(folder), "--model", str(model_dir), *flags]) == 0
    asked_together = read_logits(tmp_path / "all.csv", "probability")
    ensemble = load_ensemble(model_dir)
    ensemble = ensemble.compile() if runtime == "openvino" else ensemble
    dfs = [predict_images(ensemble, {name: source}, tta_views=2, n_jobs=1)[0]
           for name, source in list_images([folder]).items()]
    pd.concat(dfs).to_csv(tmp_path / "single.csv", index=False)
    asked_alone = read_logits(tmp_path / "single.csv", "probability")
    pd.testing.assert_series_equal(asked_alone, asked_together[asked_alone.index], rtol=0, atol=1e-4)
    submitted = read_logits(finished[0] / "submissions" / "tiny.csv", "target")[asked_alone.index]
    difference = (asked_together[submitted.index] - submitted).abs().max()
    assert difference < 1e-4 if not is_exported else 0 < difference < 0.005  # what half precision costs
    assert len(submitted) == 24 and submitted.std() > 0.01


def test_one_checkpoint_predicts_too(experiment_dir, data_dir):
    images = list_images([data_dir / "jpeg" / "test"])
    models = load_ensemble(experiment_dir / "fold_0.safetensors")
    df, bad = predict_images(models, dict(list(images.items())[:3]), n_jobs=1)
    assert len(models.models) == 1 and not bad and (df["lowest"] == df["highest"]).all()


def test_bad_files_are_reported_and_the_rest_is_done(experiment_dir, data_dir, tmp_path, capsys):
    source = next((data_dir / "jpeg" / "test").iterdir())
    (tmp_path / "images" / "visit 2").mkdir(parents=True)
    shutil.copy(source, tmp_path / "images" / "visit 2" / "Läsion 1.jpg")
    (tmp_path / "images" / "empty.png").write_bytes(b"")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    out = tmp_path / "out.csv"
    assert main([str(tmp_path / "images"), "--model", str(experiment_dir), "-o", str(out)]) == 1
    assert pd.read_csv(out)["image_name"].tolist() == ["visit 2/Läsion 1"]
    said = capsys.readouterr()
    assert "not predicted" in said.err and "empty.png is empty (0 bytes)" in said.err and "notes" not in said.err
    assert "passed over: 1 .txt\n" in said.out


def test_what_is_no_table_of_predictions_is_not_replaced(experiment_dir, data_dir, tmp_path, capsys):
    image, table, out = tmp_path / "a.jpg", tmp_path / "table.csv", tmp_path / "out.csv"
    shutil.copy(next((data_dir / "jpeg" / "test").iterdir()), image)
    table.write_text("image_name,sex,age_approx,anatom_site_general_challenge\na,male,forty,\n")
    before = image.read_bytes(), table.read_bytes()
    flags = ["--model", str(experiment_dir), "--metadata", str(table), "-o"]
    for path in (image, table):
        assert main([str(image), *flags, str(path)]) == 1
        assert f"error: {path} exists and holds no predictions: name another file" in capsys.readouterr().err
    assert (image.read_bytes(), table.read_bytes()) == before
    out.touch()
    for _ in range(2):  # an empty file, then the table of the run before
        assert main([str(image), *flags, str(out)]) == 0 and len(pd.read_csv(out)) == 1
    image.write_bytes(b"")
    assert main([str(image), *flags, str(out)]) == 1 and len(pd.read_csv(out)) == 1
    assert capsys.readouterr().err.endswith(f"error: no image could be read, so {out} is not written\n")


def test_when_nothing_can_be_read_the_table_is_empty(experiment_dir, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    df, bad = predict_images(load_ensemble(experiment_dir), list_images([tmp_path]), n_jobs=1)
    assert df.empty and list(df) == ["image_name", "probability", "lowest", "highest"] and set(bad) == {"a"}


def test_metadata_are_used_by_name_and_unknown_ones_are_said(data_dir, tmp_path, capsys):
    config = ModelConfig("timm/test_resnet", image_size=32, use_metadata=True)
    model = build_model(config)
    model.metadata.weight.data.uniform_(0.5, 2)
    save_checkpoint(tmp_path / "fold_0.safetensors", model, {})
    test_df = read_test(data_dir)
    rows_df = test_df.iloc[::-1].iloc[:-1]  # another order, one image missing
    rows_df.assign(image_name=rows_df["image_name"] + ".jpg").to_csv(tmp_path / "metadata.csv", index=False)
    arguments = [str(data_dir / "jpeg" / "test"), "--model", str(tmp_path), "--tta-views", "1", "-o"]
    assert main([*arguments, str(tmp_path / "without.csv")]) == 0
    assert "unknown for 24 of 24 images (no --metadata)" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "with.csv"), "--metadata", str(tmp_path / "metadata.csv")]) == 0
    assert "unknown for 1 of 24 images\n" in capsys.readouterr().out
    probs = [pd.read_csv(tmp_path / f"{name}.csv").set_index("image_name")["probability"]
             for name in ("with", "without")]
    same = (probs[0] - probs[1]).abs() < 1e-9
    assert same[test_df["image_name"][0]] and same.sum() <= 3
    test_df.assign(sex="man").to_csv(tmp_path / "other_words.csv", index=False)
    assert main([*arguments, str(tmp_path / "with.csv"), "--metadata", str(tmp_path / "other_words.csv")]) == 0
    assert "sex 'man' of " in (out := capsys.readouterr().out) and "it is passed over (24 such)." in out


@pytest.mark.parametrize(("arguments", "message"), [
    (["--model", "nowhere"], "there is no checkpoint nowhere"),
    (["--model", "{empty}"], "holds no fold_"),
    (["--model", "{model}", "--metadata", "nowhere.csv"], "nowhere.csv does not exist"),
    (["--model", "{model}", "--device", "cuda:9"], "torch sees no GPU"),
    (["--model", "{model}", "-o", "{empty}"], "is a folder: name a file, such as"),
    (["--model", "{model}", "-o", "{model}/metrics.json/p.csv"], "metrics.json"),
])
def test_what_is_wrong_is_one_line(experiment_dir, data_dir, tmp_path, capsys, arguments, message):
    if "cuda:9" in arguments and predict.pick_device() == "cuda":
        pytest.skip("this machine has a GPU")
    filled = [a.format(empty=tmp_path, model=experiment_dir) for a in arguments]
    assert main([str(data_dir / "jpeg" / "test"), "-o", str(tmp_path / "out.csv"), *filled]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def test_images_are_decoded_as_those_that_the_model_was_trained_on(data_dir, tmp_path, monkeypatch):
    model = build_model(ModelConfig("timm/test_resnet", image_size=16))
    save_checkpoint(tmp_path / "fold_0.safetensors", model, {"store": {"decode_size": 48}})
    seen, load = [], predict.load_at_sizes
    monkeypatch.setattr(predict, "load_at_sizes", lambda *how: seen.append(how[1:]) or load(*how))
    images = dict(list(list_images([data_dir / "jpeg" / "test"]).items())[:2])
    predict_images(load_ensemble(tmp_path), images, n_jobs=1)
    assert seen == [([16], "squash", [], 48)] * 2


def test_models_that_want_different_images_are_refused(tmp_path):
    for fold, size in enumerate((32, 64)):
        save_checkpoint(tmp_path / f"fold_{fold}.safetensors", build_model(ModelConfig("timm/test_resnet",
                                                                                     image_size=size)), {})
    with pytest.raises(ValueError, match="want different images"):
        load_ensemble(tmp_path)
