import shutil

import numpy as np
import pandas as pd
import pytest

from melanoma_utils.competition import read_test
from melanoma_utils.experiment import checkpoint_path
from melanoma_utils.files import hash_file, write_json
from melanoma_utils.prediction_audit import check_experiment, check_oof, check_test_predictions


@pytest.fixture
def folder(folds_df, tmp_path):
    """Predictions of two of three folds, of the competition's images and of as many external ones; folds.csv's rows."""
    external_df = folds_df.assign(image_name="external_" + folds_df["image_name"], source="external")
    for name, df in (("oof", folds_df), ("external_oof", external_df)):
        for fold in (0, 2):
            rows_df = df[df["fold"] == fold][["image_name", "patient_id", "target", "fold"]]
            rows_df.assign(logit=np.arange(len(rows_df))).to_csv(tmp_path / f"{name}_fold_{fold}.csv", index=False)
    return tmp_path, pd.concat([folds_df, external_df], ignore_index=True)


def spoil(path, change):
    change(pd.read_csv(path)).to_csv(path, index=False)


def test_predictions_of_the_folds_images_pass_in_any_order(folder):
    spoil(folder[0] / "oof_fold_0.csv", lambda df: df.iloc[::-1])
    check_oof(*folder, [0, 2])
    check_oof(*folder, [2])


@pytest.mark.parametrize("name", ["oof_fold_2", "external_oof_fold_2"])
@pytest.mark.parametrize(("change", "message"), [
    (lambda df: df.assign(patient_id=["somebody_else", *df["patient_id"][1:]]),
     r"another patient_id than folds\.csv for 1 images, first (external_)?SYN_"),
    (lambda df: df.assign(target=1 - df["target"]), r"another target than folds\.csv for \d\d images"),
    (lambda df: df.iloc[3:], r"do not match folds\.csv for 3 images, first (external_)?SYN_"),
    (lambda df: df.assign(logit=[None, *df["logit"][1:]]), r"_fold_2\.csv: 1 logits are not finite, first .*SYN_"),
])
def test_predictions_of_something_else_are_named(folder, name, change, message):
    spoil(folder[0] / f"{name}.csv", change)
    check_oof(*folder, [0])
    with pytest.raises(ValueError, match=message):
        check_oof(*folder, [0, 2])


def test_a_fold_that_both_sources_share_is_not_mixed_up(folder):
    shutil.copy(folder[0] / "external_oof_fold_0.csv", folder[0] / "oof_fold_0.csv")
    with pytest.raises(ValueError, match=r"do not match folds\.csv"):
        check_oof(*folder, [0])


@pytest.mark.parametrize(("change", "message"), [
    (lambda df: df.iloc[1:], r"test_fold_2\.csv in .* and test\.csv differ in 1 images, first SYN_"),
    (lambda df: df.assign(image_name=["x", *df["image_name"][1:]]), "differ in 2 images"),
    (lambda df: pd.concat([df, df.iloc[:2]]), r"test_fold_2\.csv: 2 images are predicted twice, first SYN_"),
    (lambda df: df.assign(logit=np.inf), r"test_fold_2\.csv: 24 logits are not finite, first SYN_"),
])
def test_test_predictions_are_of_the_images_of_test_csv(data_dir, tmp_path, change, message):
    test_df = read_test(data_dir)
    for fold in (0, 2):
        test_df[["image_name"]].assign(logit=0.5).to_csv(tmp_path / f"test_fold_{fold}.csv", index=False)
        checkpoint_path(tmp_path, fold).write_bytes(b"a model")
        write_json(tmp_path / f"test_fold_{fold}.json",
                   {"checkpoint_sha256": hash_file(checkpoint_path(tmp_path, fold))})
    check_test_predictions(tmp_path, [0, 2], test_df)
    spoil(tmp_path / "test_fold_2.csv", change)
    with pytest.raises(ValueError, match=message):
        check_test_predictions(tmp_path, [0, 2], test_df)


def test_test_predictions_of_a_model_that_is_gone_are_refused(finished, data_dir, tmp_path):
    experiment_dir = shutil.copytree(finished[0] / "output" / "tiny", tmp_path / "tiny")
    check_test_predictions(experiment_dir, [0, 1], read_test(data_dir))
    shutil.copy(experiment_dir / "fold_0.safetensors", experiment_dir / "fold_1.safetensors")
    with pytest.raises(ValueError, match=r"test_fold_1\.csv is not of the model that is there now: run 05"):
        check_test_predictions(experiment_dir, [0, 1], read_test(data_dir))


def test_a_finished_experiment_passes_and_a_spoilt_one_does_not(finished, data_dir, tmp_path):
    experiment_dir = shutil.copytree(finished[0] / "output" / "tiny", tmp_path / "tiny")
    test_df = read_test(data_dir)
    assert check_experiment(experiment_dir, data_dir, test_df)[0].startswith("leak audit: no patient")
    patient = pd.read_csv(experiment_dir / "folds.csv")["patient_id"][0]
    spoilt_dir = shutil.copytree(data_dir, tmp_path / "data")
    spoil(spoilt_dir / "test.csv", lambda df: df.assign(patient_id=patient))
    with pytest.raises(ValueError, match=rf"1 patients are in the test set too \({patient}\)"):
        check_experiment(experiment_dir, spoilt_dir, test_df)
    spoil(experiment_dir / "test_fold_1.csv", lambda df: df.iloc[1:])
    with pytest.raises(ValueError, match="differ in 1 images"):
        check_experiment(experiment_dir, data_dir, test_df)
