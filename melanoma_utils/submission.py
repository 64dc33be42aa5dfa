"""The submission: make, check, write."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_utils.competition import SUBMISSION_COLUMNS
from melanoma_utils.files import write_csv


def average_logits(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns image_name, target: the probability of the mean logit over the tables, one a fold.

    Args:
        tables: each with the columns image_name, logit and the same image_names in any order.

    Raises:
        ValueError: there is no table, or the tables hold other images.
    """
    if not tables:
        raise ValueError("there are no predictions to average: run 03_train_fold first")
    logits = pd.concat([df.set_index("image_name")["logit"] for df in tables], axis=1)
    if logits.isna().any(axis=None) or any(len(df) != len(logits) for df in tables):
        raise ValueError(f"the folds predict other images: {[len(df) for df in tables]} rows, {len(logits)} in all")
    probs = 1 / (1 + np.exp(-logits.mean(axis=1).astype(np.float64)))  # (N,)
    return probs.rename("target").rename_axis("image_name").reset_index()


def check_submission(submission_df: pd.DataFrame, sample_df: pd.DataFrame) -> pd.DataFrame:
    """Returns the submission with the columns, rows and order of sample_submission.csv.

    Args:
        submission_df: columns image_name, target (probabilities in 0..1), in any order.
        sample_df: sample_submission.csv.

    Raises:
        ValueError: a column or prediction is missing, one is extra, repeated, not a number, outside 0..1, or all
            are the same.
    """
    missing_columns = [c for c in SUBMISSION_COLUMNS if c not in submission_df]
    if missing_columns:
        raise ValueError(f"the submission lacks the column {missing_columns[0]!r}; met {list(submission_df.columns)}")
    names, wanted = submission_df["image_name"], sample_df["image_name"]
    _refuse(names[names.duplicated()], "images are predicted twice")
    _refuse(wanted[~wanted.isin(names)], f"of {len(wanted)} images have no prediction")
    _refuse(names[~names.isin(wanted)], "predicted images are not in sample_submission.csv")
    probs = pd.to_numeric(submission_df["target"], errors="coerce")
    _refuse(names[~np.isfinite(probs)], "predictions are not finite numbers")
    _refuse(names[(probs < 0) | (probs > 1)], "predictions are outside 0..1")
    if len(probs) > 1 and probs.min() == probs.max():
        raise ValueError(f"all {len(probs)} predictions are {probs.iloc[0]}: a constant ranks nothing")
    return wanted.to_frame().merge(submission_df[list(SUBMISSION_COLUMNS)], on="image_name", how="left")


def _refuse(names: pd.Series, what: str) -> None:
    if len(names):
        raise ValueError(f"{len(names)} {what}, first {names.iloc[0]!r}")


def write_submission(path: str | Path, submission_df: pd.DataFrame, sample_df: pd.DataFrame) -> pd.DataFrame:
    """Writes a checked submission (see `check_submission`, also for what it raises) and returns it."""
    checked_df = check_submission(submission_df, sample_df)
    write_csv(path, checked_df)
    return checked_df
