"""What a change costs: the right model, the right rows, and figures that can be reckoned by hand."""

import json
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import place, run_pipeline
from sklearn.metrics import roc_auc_score

from melanoma_utils.experiment import checkpoint_path, describe_training, save_fold
from melanoma_utils.fold_predictions import read_oof
from melanoma_utils.folds import read_folds
from melanoma_utils.image_store import ImageStore, open_store
from melanoma_utils.models import ModelConfig, build_model
from melanoma_utils.robustness import predict_variants, sample_by_class, summarize_stress
from melanoma_utils.stress import StressedImages
from melanoma_utils.train_config import TrainConfig


@pytest.fixture
def experiment_dir(finished):
    return finished[0] / "output" / "tiny"


@pytest.fixture
def trained(experiment_dir):
    """The finished run's training images and out-of-fold table."""
    store = open_store(next((experiment_dir.parent / "stores").glob("*/train")))
    return store, read_oof(experiment_dir, read_folds(experiment_dir / "folds.csv"), [0, 1])


def test_unchanged_images_get_the_logits_of_the_training_whatever_the_order(experiment_dir, trained):
    store, oof_df = trained
    logits_df = predict_variants(experiment_dir, store, oof_df.iloc[::-1], {0: store.images})
    assert logits_df.index.tolist() == oof_df["image_name"].tolist()[::-1]
    wanted = oof_df.set_index("image_name")["logit"].loc[logits_df.index]
    np.testing.assert_allclose(logits_df[0], wanted, atol=1e-5)


def test_every_variant_has_its_column_and_changes_the_logits(experiment_dir, trained):
    store, oof_df = trained
    variants = {s: StressedImages(store.images, "brightness", s) for s in (0, 0.01, 0.5)}
    logits_df = predict_variants(experiment_dir, store, oof_df, variants)
    changes = [np.abs(logits_df[s] - logits_df[0]).max() for s in variants]
    assert list(logits_df) == [0, 0.01, 0.5] and changes[0] == 0 < changes[1] < changes[2]


def test_half_precision_moves_the_logits_a_little(experiment_dir, trained):
    store, oof_df = trained
    whole, half = (predict_variants(experiment_dir, store, oof_df, {0: store.images}, half_weights=half)[0]
                   for half in (False, True))
    assert 0 < np.abs(whole - half).max() < 0.005


def test_metadata_are_those_of_the_rows(data_dir, store, folds_df, tmp_path):
    folds_df.to_csv(tmp_path / "folds.csv", index=False)
    config = TrainConfig(ModelConfig("timm/test_resnet", image_size=32, use_metadata=True))
    model = build_model(config.model)
    model.head.weight.data.zero_()
    model.metadata.weight.data.zero_()
    model.metadata.weight.data[0, 0] = 1.0  # a woman
    model.metadata.bias.data.zero_()
    description = describe_training(config, 0, tmp_path / "folds.csv", store, 1)
    save_fold(tmp_path, description, model, pd.DataFrame(), folds_df.head(0), folds_df.head(0))
    df = folds_df[folds_df["fold"] == 0].sample(frac=1, random_state=0)
    logits = predict_variants(tmp_path, store, df, {0: store.images})[0] - model.head.bias.item()
    assert logits.round(5).tolist() == (df["sex"] == "female").astype(float).tolist() and logits.nunique() == 2


def test_a_store_made_otherwise_and_a_fold_that_is_missing_are_refused(experiment_dir, trained, tmp_path):
    store, oof_df = trained
    other = ImageStore(store.images, store.rows, store.identity | {"resize_mode": "pad"})
    with pytest.raises(ValueError, match="differ in resize_mode"):
        predict_variants(experiment_dir, other, oof_df, {0: store.images})
    shutil.copy(checkpoint_path(experiment_dir, 0), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"fold_1\.safetensors"):
        predict_variants(tmp_path, store, oof_df, {0: store.images})


def test_the_summary_can_be_reckoned_by_hand():
    targets = np.array([1] * 10 + [0] * 10)
    oof_df = pd.DataFrame({"image_name": [f"i{i}" for i in range(20)], "patient_id": range(20), "target": targets})
    clean = np.concatenate([np.arange(10) + 4.5, np.arange(10)])  # melanomas 4.5..13.5, benign 0..9
    moved = np.where(targets == 1, clean - 3, clean)
    logits_df = pd.DataFrame({0: clean, -0.5: moved, 0.5: clean + 1}, index=oof_df["image_name"]).iloc[::-1]
    df = summarize_stress(oof_df, logits_df, "brightness", 0.9, n_resamples=200).set_index("strength")
    assert df.index.tolist() == [-0.5, 0, 0.5] and df["kind"].eq("brightness").all()
    assert df["auc"].tolist() == pytest.approx([roc_auc_score(targets, moved), *[roc_auc_score(targets, clean)] * 2])
    assert df["verdict"].tolist() == ["worse", "unchanged", "below noise"]
    assert (df["difference"] == df["auc"] - df["auc"][0]).all() and df["difference_high"][-0.5] < 0
    assert df["shift_melanoma"].tolist() == [-3, 0, 1] and df["shift_benign"].tolist() == [0, 0, 1]
    assert df["sensitivity"].tolist() == pytest.approx([0.6, 0.9, 1.0])  # threshold 5.5
    assert df["specificity"].tolist() == pytest.approx([0.6, 0.6, 0.5])


@pytest.mark.parametrize(("n_melanomas", "max_images", "wanted"), [
    (30, 0, 30), (30, 500, 30), (30, 40, 20), (10, 40, 10), (95, 40, 35), (30, 2, 1)])
def test_a_sample_holds_half_of_either_class_where_it_can(n_melanomas, max_images, wanted):
    df = pd.DataFrame({"image_name": range(100), "target": [1] * n_melanomas + [0] * (100 - n_melanomas)})
    drawn_df = sample_by_class(df, max_images)
    assert len(drawn_df) == min(100, max_images or 100) and drawn_df["target"].sum() == wanted
    assert drawn_df["image_name"].is_monotonic_increasing and drawn_df["image_name"].is_unique
    pd.testing.assert_frame_equal(drawn_df, sample_by_class(df, max_images))


def test_too_small_a_sample_is_refused():
    with pytest.raises(ValueError, match="MAX_IMAGES 1 is too small"):
        sample_by_class(pd.DataFrame({"target": [0, 1]}), 1)


def test_the_notebook_runs_alone(finished, data_dir, tmp_path):
    shutil.copytree(finished[0] / "output", tmp_path / "output")
    flags = ["--notebook", "14_stress_test", *place(tmp_path, data_dir)[:-3]]  # without SUBMISSIONS_DIR
    small = ["-p", "EXPERIMENT", "tiny", "-p", "BRIGHTNESS_CHANGES", "[-0.5, 0.5]", "-p", "BLUR_SIGMAS", "[]", "-p",
             "JPEG_LOSSES", "[]", "-p", "ROTATIONS", "[]", "-p", "FRAME_REACHES", "[30]", "-p", "HAIR_COUNTS", "[40]",
             "-p", "N_RESAMPLES", "50"]
    process = run_pipeline(*flags, *small, parameters=None)
    assert process.stderr == "" and process.stdout.count("brightness: AUC from") == 1
    df = pd.read_csv(tmp_path / "output" / "tiny" / "stress_test.csv")
    assert df["kind"].tolist() == ["brightness"] * 3 + ["frame"] * 2 + ["hair"] * 2
    assert df["strength"].tolist() == [-0.5, 0, 0.5, 0, 30, 0, 40]
    metrics = json.loads((tmp_path / "output" / "tiny" / "metrics.json").read_text())
    assert df["auc"][df["strength"] == 0].tolist() == pytest.approx([metrics["oof_auc"]] * 3)
    cells = nbformat.read(tmp_path / "runs" / "tiny" / "14_stress_test.ipynb", as_version=4).cells
    pictures = [o for cell in cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3 + 4
    for name, value, why in (("SENSITIVITY", "95.0", "is not in 0..1"), ("N_RESAMPLES", "5", "is too small")):
        done = run_pipeline(*flags, *small, "-p", name, value, parameters=None, check=False)
        assert done.returncode == 1 and done.stdout == "" and f"error: ValueError: {name} {value} {why}" in done.stderr
