import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import place, run_pipeline
from scipy.special import logit

from melanoma_utils.competition import read_test
from melanoma_utils.folds import read_folds
from melanoma_utils.pseudo_labels import read_pseudo_labels


@pytest.fixture
def output_dir(finished, tmp_path):
    """The finished experiment as two teachers, the second's logits larger by 1 and in another order."""
    for name in ("first", "second"):
        shutil.copytree(finished[0] / "output" / "tiny", tmp_path / name)
    for path in tmp_path.glob("second/test_fold_?.csv"):
        df = pd.read_csv(path)
        df.assign(logit=df["logit"] + 1).iloc[::-1].to_csv(path, index=False)
    return tmp_path


def test_the_label_is_the_probability_of_the_mean_logit_of_that_folds_models(output_dir, data_dir):
    folds_df, test_df = read_folds(output_dir / "first" / "folds.csv"), read_test(data_dir)
    pseudo_df = read_pseudo_labels([output_dir / "first", output_dir / "second"], folds_df, 1, test_df)
    logits = pd.read_csv(output_dir / "first" / "test_fold_1.csv").set_index("image_name")["logit"]
    np.testing.assert_allclose(logit(pseudo_df["target"]), logits[test_df["image_name"]] + 0.5, atol=1e-6)
    assert set(pseudo_df["source"]) == {"test"} and (pseudo_df["fold"] == -1).all()


def test_a_teacher_that_saw_the_fold_is_refused(output_dir, data_dir):
    folds_df = read_folds(output_dir / "first" / "folds.csv")
    shifted_df = folds_df.assign(fold=(folds_df["fold"] + 1) % (folds_df["fold"].max() + 1))
    with pytest.raises(ValueError, match=r"first has other folds: .* trained on \d+ images of our fold 0"):
        read_pseudo_labels([output_dir / "first"], shifted_df, 0, read_test(data_dir))


def test_a_teacher_without_test_predictions_is_named(output_dir, data_dir):
    (output_dir / "second" / "test_fold_0.csv").unlink()
    folds_df = read_folds(output_dir / "first" / "folds.csv")
    with pytest.raises(FileNotFoundError, match=r"second/test_fold_0.csv does not exist: run 05_predict_test"):
        read_pseudo_labels([output_dir / "second"], folds_df, 0, read_test(data_dir))
    with pytest.raises(ValueError, match="has predicted other images"):
        read_pseudo_labels([output_dir / "first"], folds_df, 0, read_test(data_dir).head(3))


@pytest.mark.slow
def test_a_student_learns_from_its_teachers_test_images(finished, data_dir, tmp_path):
    """Through the pipeline: the test images count among those trained on."""
    folder = tmp_path / "work"
    shutil.copytree(finished[0], folder)
    student = ["-p", "EXPERIMENT", "student", "-y", "{TEACHERS: [tiny], N_PSEUDO: 8}", "-p", "FOLD", "0"]
    done = run_pipeline(*place(folder, data_dir), *student, "--steps", "02-03")
    assert "test images labelled by tiny" in done.stdout
    history_df = pd.read_csv(folder / "output" / "student" / "history_fold_0.csv")
    teacher_df = pd.read_csv(folder / "output" / "tiny" / "history_fold_0.csv")
    assert (history_df["n_images"] == teacher_df["n_images"] + 8).all()
    done = run_pipeline(*place(folder, data_dir), *student, "--steps", "03")
    assert "03_train_fold_0: nothing to do" in done.stdout
