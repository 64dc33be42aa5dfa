"""Experiments blended into one answer: out-of-fold scores and test scores averaged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from melanoma_utils.experiment import check_name, find_experiment, find_trained_folds
from melanoma_utils.fold_predictions import read_fold_predictions, read_test_predictions

METHODS = ("mean", "rank")


def blend_scores(scores: np.ndarray, method: str = "mean") -> np.ndarray:
    """Returns (N,) scores of several models as one: the mean logit, or the mean rank as a logit.

    Ranks do not ask that the models' logits have the same scale. A rank r of N becomes log(p / (1 - p)) with
    p = (r - 1/2) / N, which keeps the order and fits where logits are wanted.

    Args:
        scores: (N, n_models) logits.
        method: "mean" or "rank".

    Raises:
        ValueError: the method is unknown, or a score is not finite.
    """
    if method not in METHODS:
        raise ValueError(f"METHOD {method!r} is not one of {METHODS}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite")
    if method == "mean":
        return scores.mean(1)
    share = (rankdata(scores, axis=0).mean(1) - 0.5) / len(scores)  # (N,)
    return np.log(share / (1 - share))


def check_blend(output_dir: str | Path, experiment: str, experiments: Sequence[str]) -> None:
    """Checks what is to be blended into which new experiment.

    Raises:
        FileNotFoundError: one of the experiments is not there.
        ValueError: fewer than two experiments, one named twice, or see `experiment.check_name`.
    """
    if len(set(experiments)) < 2 or len(set(experiments)) < len(experiments):
        raise ValueError(f"EXPERIMENTS {list(experiments)} are not two or more different ones")
    check_name(output_dir, experiment, key="blend_of")
    for name in experiments:
        find_experiment(output_dir, name)


def blend_oof(output_dir: str | Path, experiments: Sequence[str], method: str = "mean") -> pd.DataFrame:
    """Returns image_name, patient_id, target, logit: the experiments' out-of-fold scores blended.

    Each experiment scored an image with a model that had not seen it (nor its patient, under folds by patient); so has
    the blend, also where their folds differ.

    Raises:
        FileNotFoundError: a fold of an experiment is not trained.
        ValueError: the experiments scored other images or disagree about a target; or see `blend_scores`.
    """
    tables = {name: _read_oof(Path(output_dir) / name) for name in experiments}
    first, columns = tables[experiments[0]], []
    for name, df in tables.items():
        other = df.reindex(first.index)
        if len(df) != len(first) or not (other["target"] == first["target"]).all():
            n_differing = len(first.index.symmetric_difference(df.index)) or (other["target"] != first["target"]).sum()
            raise ValueError(f"{name} and {experiments[0]} differ in {n_differing} images or targets: only experiments "
                             "on the same images can be blended")
        columns.append(other["logit"].to_numpy())
    blended = first[["patient_id", "target"]].assign(logit=blend_scores(np.stack(columns, 1), method))
    return blended.reset_index()


def _read_oof(folder: Path) -> pd.DataFrame:
    folds = find_trained_folds(folder, require_all=True)
    return read_fold_predictions(folder, folds).set_index("image_name").sort_index()


def blend_test(output_dir: str | Path, experiments: Sequence[str], method: str = "mean") -> pd.DataFrame:
    """Returns image_name, logit: the experiments' test scores (each the mean logit of its folds) blended.

    Raises:
        FileNotFoundError: an experiment has no test predictions: run its step 05.
        ValueError: the experiments predicted other images; or see `blend_scores`.
    """
    columns = {name: read_test_predictions(Path(output_dir) / name) for name in experiments}
    logits = pd.concat(columns, axis=1)
    if logits.isna().any(axis=None):
        raise ValueError(f"the experiments predict other images: {[len(c) for c in columns.values()]} of {len(logits)} "
                         "in all")
    blended = pd.Series(blend_scores(logits.to_numpy(np.float64), method), logits.index, name="logit")
    return blended.rename_axis("image_name").reset_index()
