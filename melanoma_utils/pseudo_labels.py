"""Test images as training images: other experiments' predictions are their labels."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy.special import expit

from melanoma_utils.fold_predictions import read_test_fold
from melanoma_utils.folds import read_folds


def read_pseudo_labels(teacher_dirs: Sequence[str | Path], folds_df: pd.DataFrame, fold: int,
                       test_df: pd.DataFrame) -> pd.DataFrame:
    """Returns test_df with the columns target (0..1, soft), diagnosis (missing), fold (-1) and source ("test").

    The target is the probability of the mean logit of the teachers' models of one fold. Those must not have seen that
    fold either: else its labels would come back through the test images.

    Args:
        teacher_dirs: folders of experiments that have predicted the test images (05_predict_test).
        folds_df: folds.csv of the training that the labels are for.
        fold: the fold that it leaves out.
        test_df: test.csv.

    Raises:
        FileNotFoundError: a teacher has no folds.csv, or has not predicted the test images with this fold's model.
        ValueError: a teacher was trained on images of the fold, or has predicted other images.
    """
    left_out, logits = folds_df["image_name"][folds_df["fold"] == fold], []
    for teacher_dir in map(Path, teacher_dirs):
        teacher_df = read_folds(teacher_dir / "folds.csv")
        seen = left_out[left_out.isin(teacher_df["image_name"][teacher_df["fold"] != fold])]
        if len(seen):
            raise ValueError(f"the teacher {teacher_dir.name} has other folds: its model of fold {fold} was trained on "
                             f"{len(seen)} images of our fold {fold}, first {seen.iloc[0]}, whose labels would leak")
        logits.append(read_test_fold(teacher_dir, fold).set_index("image_name")["logit"])
        if set(logits[-1].index) != set(test_df["image_name"]):
            raise ValueError(f"the teacher {teacher_dir.name} has predicted other images than test.csv names: run "
                             "05_predict_test for it again")
    mean = pd.concat(logits, axis=1).mean(axis=1)
    return test_df.assign(target=expit(test_df["image_name"].map(mean)), diagnosis=None, fold=-1, source="test")
