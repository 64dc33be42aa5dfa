"""An ablation: scores of the same images, each compared with the first and with the one before, by patient."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from melanoma_utils.bootstrap import check_resamples
from melanoma_utils.evaluation import bootstrap_aucs


def compare_steps(targets: np.ndarray, scores: Mapping[str, np.ndarray], patient_ids: np.ndarray, *,
                  n_resamples: int = 2000, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Returns one row a step: its AUC, and by how much that is above the first one's and above that of the step before.

    The numbers are those of `evaluation.compute_auc_interval` and `compute_auc_difference` with the same seed; here the
    resamples of a step are scored once, not once a comparison.

    Args:
        targets: (N,) 0 or 1.
        scores: name of the step -> (N,) finite scores, in the order of the targets.
        patient_ids: (N,) labels of the patients.
        n_resamples, level, seed: see `evaluation.compute_auc_interval`.

    Returns:
        Index step; columns auc, low, high; gain, gain_low, gain_high (above the first step); added, added_low,
        added_high (above the step before); verdict of the latter: "better", "worse", "below noise". In the first row
        both differences are 0 and the verdict is "–".

    Raises:
        ValueError: lengths differ, a score is not finite, there is one class or no step only, or see
            `bootstrap.check_resamples`.
    """
    _check_steps(targets, scores, patient_ids, n_resamples)
    targets, patients = np.asarray(targets), pd.factorize(np.asarray(patient_ids))[0]
    ends = [(1 - level) / 2, (1 + level) / 2]
    aucs, resampled = {}, {}
    for name, values in scores.items():
        values = np.asarray(values, dtype=np.float64)
        aucs[name] = float(roc_auc_score(targets, values))
        resampled[name] = bootstrap_aucs(targets, values, patients, n_resamples, np.random.default_rng(seed))
    names, rows = list(scores), {}
    for before, name in zip([names[0], *names], names, strict=False):
        row = [aucs[name], *np.quantile(resampled[name], ends)]
        for other in (names[0], before):
            row += [aucs[name] - aucs[other], *np.quantile(resampled[name] - resampled[other], ends)]
        verdict = "better" if row[-2] > 0 else "worse" if row[-1] < 0 else "below noise"
        rows[name] = [*map(float, row), "–" if name == names[0] else verdict]
    columns = ["auc", "low", "high", "gain", "gain_low", "gain_high", "added", "added_low", "added_high", "verdict"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("step")


def _check_steps(targets: np.ndarray, scores: Mapping[str, np.ndarray], patient_ids: np.ndarray,
                 n_resamples: int) -> None:
    if not scores:
        raise ValueError("an ablation needs at least one step, met none")
    if len(np.unique(targets)) != 2:
        raise ValueError(f"an AUC needs both classes, met only target {np.unique(targets)}")
    check_resamples(n_resamples)
    for name, values in scores.items():
        if not len(values) == len(targets) == len(patient_ids):
            raise ValueError(f"{name}: {len(values)} scores, {len(targets)} targets and {len(patient_ids)} patient_ids "
                             "differ in number")
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: {int((~np.isfinite(values)).sum())} of {len(values)} scores are not finite")
