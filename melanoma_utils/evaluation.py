"""ROC AUC with the interval that patients, not images, allow."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

CHUNK = 100  # resamples computed at a time


@dataclass(frozen=True)
class AucInterval:
    """An AUC with its bootstrap percentile interval."""

    auc: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.auc:.4f} ({self.low:.4f}–{self.high:.4f})"


def compute_auc_interval(targets: np.ndarray, scores: np.ndarray, patient_ids: np.ndarray, *, n_resamples: int = 2000,
                         level: float = 0.95, seed: int = 0) -> AucInterval:
    """Returns the ROC AUC with a patient-clustered bootstrap interval.

    Patients are drawn with replacement, each with all images (the cluster bootstrap, Field & Welsh 2007,
    doi 10.1111/j.1467-9868.2007.00593.x), because images of one patient are not independent. A resample without
    both classes is left out.

    Args:
        targets: (N,) 0 or 1.
        scores: (N,) logits, probabilities or anything that ranks.
        patient_ids: (N,) labels of the patients.
        n_resamples: number of bootstrap resamples.
        level: coverage of the interval, in 0..1.
        seed: of the resamples.

    Raises:
        ValueError: the lengths differ, there is one class only, a score is not finite, or n_resamples is
            below 1.
    """
    targets, scores, patients = _check_scores(targets, scores, patient_ids, n_resamples)
    aucs = bootstrap_aucs(targets, scores, patients, n_resamples, np.random.default_rng(seed))
    low, high = np.quantile(aucs, [(1 - level) / 2, (1 + level) / 2])
    return AucInterval(float(roc_auc_score(targets, scores)), float(low), float(high))


def compute_auc_difference(targets: np.ndarray, scores: np.ndarray, other_scores: np.ndarray, patient_ids: np.ndarray,
                           *, n_resamples: int = 2000, level: float = 0.95, seed: int = 0) -> AucInterval:
    """Returns by how much the AUC of the scores is above that of other scores of the same images, with its interval.

    Both are computed on the same resamples of the patients (paired cluster bootstrap), so that what makes a resample
    easy or hard for both falls out. Where the interval holds 0 the difference is below noise.

    Args:
        targets, patient_ids, n_resamples, level, seed: see `compute_auc_interval`.
        scores, other_scores: (N,) of the two models, in the order of the targets.

    Raises:
        ValueError: as `compute_auc_interval`, of either scores.
    """
    targets, scores, patients = _check_scores(targets, scores, patient_ids, n_resamples)
    _, other_scores, _ = _check_scores(targets, other_scores, patient_ids, n_resamples)
    aucs, other_aucs = (bootstrap_aucs(targets, s, patients, n_resamples, np.random.default_rng(seed))
                        for s in (scores, other_scores))
    low, high = np.quantile(aucs - other_aucs, [(1 - level) / 2, (1 + level) / 2])
    difference = roc_auc_score(targets, scores) - roc_auc_score(targets, other_scores)
    return AucInterval(float(difference), float(low), float(high))


def _check_scores(targets: np.ndarray, scores: np.ndarray, patient_ids: np.ndarray,
                  n_resamples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns targets, float64 scores and the patients' codes, all (N,), or raises ValueError."""
    targets, scores = np.asarray(targets), np.asarray(scores, dtype=np.float64)
    if not len(targets) == len(scores) == len(patient_ids):
        raise ValueError(f"{len(targets)} targets, {len(scores)} scores and {len(patient_ids)} patient_ids differ in "
                         "number")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    if len(np.unique(targets)) != 2:
        raise ValueError(f"an AUC needs both classes, met only target {np.unique(targets)}")
    if n_resamples < 1:
        raise ValueError(f"N_RESAMPLES {n_resamples} is too small: wanted at least 1")
    return targets, scores, pd.factorize(np.asarray(patient_ids))[0]


def bootstrap_aucs(targets: np.ndarray, scores: np.ndarray, patients: np.ndarray, n_resamples: int,
                   rng: np.random.Generator) -> np.ndarray:
    """Returns the AUCs of resamples of the patients, those without both classes left out.

    A resample is a weight for each patient (how often drawn), so an AUC is the weighted Mann-Whitney statistic over
    images sorted once: the share of (melanoma, benign) pairs in the right order, ties counting half.

    Args:
        targets: (N,) 0 or 1.
        scores: (N,) finite.
        patients: (N,) codes 0..n_patients-1.
        n_resamples: number of resamples.
        rng: random generator.
    """
    order = np.argsort(scores, kind="stable")
    patients, is_melanoma = patients[order], targets[order] == 1
    first_of_tie = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # (G,) groups of equal scores
    n_patients = patients.max() + 1
    aucs = []
    for start in range(0, n_resamples, CHUNK):
        n = min(CHUNK, n_resamples - start)
        counts = rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n)  # (n, n_patients)
        weights = counts[:, patients].astype(np.float64)  # (n, N)
        melanoma = np.add.reduceat(weights * is_melanoma, first_of_tie, axis=1)  # (n, G)
        benign = np.add.reduceat(weights * ~is_melanoma, first_of_tie, axis=1)  # (n, G)
        below = np.cumsum(benign, axis=1) - benign / 2  # benign weight ranked lower, half of a tie
        n_pairs = melanoma.sum(1) * benign.sum(1)
        aucs.append((melanoma * below).sum(1) / np.where(n_pairs > 0, n_pairs, np.nan))
    aucs = np.concatenate(aucs)
    return aucs[np.isfinite(aucs)]


def compute_fold_aucs(oof_df: pd.DataFrame) -> list[float]:
    """Returns the AUC of each fold of an out-of-fold table (columns fold, target, logit), in the folds' order.

    Raises:
        ValueError: a fold holds one class only.
    """
    aucs = []
    for fold, df in oof_df.groupby("fold"):
        if df["target"].nunique() < 2:
            raise ValueError(f"fold {fold} holds one class only ({len(df)} images): its AUC does not exist")
        aucs.append(float(roc_auc_score(df["target"], df["logit"])))
    return aucs
