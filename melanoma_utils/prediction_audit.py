"""The leak audit of prediction files: they are of the images and folds that the tables name."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from melanoma_utils.experiment import find_trained_folds
from melanoma_utils.fold_predictions import read_fold_predictions, read_oof, read_test_fold
from melanoma_utils.folds import SOURCES, read_folds
from melanoma_utils.leak_audit import check_folds


def check_oof(experiment_dir: str | Path, folds_df: pd.DataFrame, folds: Sequence[int]) -> None:
    """Checks the out-of-fold predictions of the competition's images and of the external ones against folds.csv.

    Args:
        experiment_dir: the experiment's folder.
        folds_df: its folds.csv.
        folds: the finished folds.

    Raises:
        FileNotFoundError: the predictions of a fold are not there.
        ValueError: a fold's are not those of its images, or an image has another patient_id or target there; or see
            `fold_predictions.read_fold_predictions`.
    """
    for source in SOURCES:
        expected_df = read_oof(experiment_dir, folds_df, list(folds), source)
        if expected_df.empty:
            continue
        both_df = expected_df.merge(read_fold_predictions(experiment_dir, list(folds), source), on="image_name",
                                    suffixes=("", "_predicted"))
        for column in ("patient_id", "target"):
            changed = both_df["image_name"][both_df[column] != both_df[f"{column}_predicted"]]
            if len(changed):
                raise ValueError(f"the predictions in {experiment_dir} have another {column} than folds.csv for "
                                 f"{len(changed)} images, first {changed.iloc[0]}: train again with another EXPERIMENT")


def check_test_predictions(experiment_dir: str | Path, folds: Sequence[int], test_df: pd.DataFrame) -> None:
    """Checks that the folds' models have predicted just the images of test.csv.

    Args:
        experiment_dir: the experiment's folder.
        folds: the finished folds.
        test_df: test.csv.

    Raises:
        FileNotFoundError: a fold has not predicted them.
        ValueError: an image is missing or strange; or see `fold_predictions.read_test_fold`.
    """
    wanted = set(test_df["image_name"])
    for fold in folds:
        bad = sorted(wanted ^ set(read_test_fold(experiment_dir, fold)["image_name"]))
        if bad:
            raise ValueError(f"test_fold_{fold}.csv in {experiment_dir} and test.csv differ in {len(bad)} images, "
                             f"first {bad[0]}: delete that file, and run 05_predict_test again")


def check_experiment(experiment_dir: str | Path, data_dir: str | Path, test_df: pd.DataFrame,
                     strategy: str = "patient") -> list[str]:
    """Returns the lines of `leak_audit.check_folds` for an experiment whose predictions are all there and right.

    Args:
        experiment_dir: the experiment's folder.
        data_dir: the competition folder.
        test_df: its test.csv.
        strategy: FOLD_STRATEGY.

    Raises:
        FileNotFoundError, ValueError: see `leak_audit.check_folds`, `check_oof`, `check_test_predictions`.
    """
    folds_df = read_folds(Path(experiment_dir) / "folds.csv")
    lines = check_folds(experiment_dir, folds_df, data_dir, strategy)
    folds = find_trained_folds(experiment_dir, require_all=True)
    check_oof(experiment_dir, folds_df, folds)
    check_test_predictions(experiment_dir, folds, test_df)
    return lines
