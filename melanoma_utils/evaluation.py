"""How well scores rank melanomas above benign lesions, with the intervals that patients, not images, allow."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score, roc_auc_score

from melanoma_utils.bootstrap import check_scores, count_by_patient, draw_patients, take_interval

MIN_TPR = 0.8  # of the partial AUC: the ISIC 2024 challenge's


@dataclass(frozen=True)
class AucInterval:
    """An AUC with its bootstrap percentile interval."""

    auc: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.auc:.4f} ({self.low:.4f}–{self.high:.4f})"


@dataclass(frozen=True)
class RankedCounts:
    """How many images each patient has at which rank; G is the number of different scores that melanomas have.

    Attributes:
        melanomas: (n_patients, G) melanomas with the g-th of these scores, in ascending order.
        tied: (n_patients, G) benign images with just this score.
        between: (n_patients, G + 1) benign images below it and above the one before; the last ones are above all.
    """

    melanomas: csr_array
    tied: csr_array
    between: csr_array


def compute_auc_interval(targets: np.ndarray, scores: np.ndarray, patient_ids: np.ndarray, *, n_resamples: int = 2000,
                         level: float = 0.95, seed: int = 0) -> AucInterval:
    """Returns the ROC AUC with a patient-clustered bootstrap interval (see `bootstrap.draw_patients`).

    A resample without both classes is left out.

    Args:
        targets: (N,) 0 or 1.
        scores: (N,) logits, probabilities or anything that ranks.
        patient_ids: (N,) labels of the patients.
        n_resamples: number of bootstrap resamples.
        level: coverage of the interval, in 0..1.
        seed: of the resamples.

    Raises:
        ValueError: the lengths differ, there is one class only, a target is not 0 or 1, a score is not finite, a
            patient_id is missing, or see `bootstrap.check_resamples`.
    """
    targets, scores, patients = check_scores(targets, scores, patient_ids, n_resamples)
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
    targets, scores, patients = check_scores(targets, scores, patient_ids, n_resamples)
    _, other_scores, _ = check_scores(targets, other_scores, patient_ids, n_resamples)
    aucs, other_aucs = (bootstrap_aucs(targets, s, patients, n_resamples, np.random.default_rng(seed))
                        for s in (scores, other_scores))
    low, high = np.quantile(aucs - other_aucs, [(1 - level) / 2, (1 + level) / 2])
    difference = roc_auc_score(targets, scores) - roc_auc_score(targets, other_scores)
    return AucInterval(float(difference), float(low), float(high))


def compute_discrimination(targets: np.ndarray, scores: np.ndarray, patient_ids: np.ndarray, prevalence: float, *,
                           n_resamples: int = 2000, level: float = 0.95, seed: int = 0) -> dict[str, AucInterval]:
    """Returns several areas under curves, each with its interval over the same resamples of the patients.

    - roc_auc: as `compute_auc_interval`.
    - pr_auc: average precision, the area under the precision-recall curve in steps (scikit-learn's); a ranking by
      chance has the share of melanomas, so it is no number to compare between data sets.
    - pr_auc_at_prevalence: the same with the benign images weighted as if melanomas had the prevalence given; with few
      benign images too high, see `are_enough_benign`.
    - partial_auc: the area between the ROC curve and the line of sensitivity `MIN_TPR`, 0 to 0.2, by chance 0.02: the
      metric of ISIC 2024 (github.com/ISIC-Research/Challenge-2024-Metrics, whose text says 88 % for the competition's
      80 %; the idea: Jiang et al. 1996, doi 10.1148/radiology.201.3.8939225).

    Args:
        targets, scores, patient_ids, n_resamples, level, seed: see `compute_auc_interval`.
        prevalence: share of melanomas, between 0 and 1.

    Raises:
        ValueError: as `compute_auc_interval`, or the prevalence is not between 0 and 1.
    """
    check_prevalence(prevalence)
    targets, scores, patients = check_scores(targets, scores, patient_ids, n_resamples)
    ranked = rank_images(targets, scores, patients)
    chunks = draw_patients(patients.max() + 1, n_resamples, np.random.default_rng(seed))
    values = np.concatenate([_measure(ranked, counts, prevalence) for counts in chunks])  # (n_resamples, 4)
    everybody = _measure(ranked, np.ones((1, patients.max() + 1)), prevalence)[0]
    low, high = take_interval(values, level)
    exact = [roc_auc_score(targets, scores), average_precision_score(targets, scores), *everybody[2:]]
    names = ("roc_auc", "pr_auc", "pr_auc_at_prevalence", "partial_auc")
    return {name: AucInterval(float(exact[i]), float(low[i]), float(high[i])) for i, name in enumerate(names)}


def are_enough_benign(n_benign: int, prevalence: float) -> bool:
    """Returns whether so many benign images are enough for the area under the precision-recall curve at a prevalence:
    whether one weighs at most a hundredth of all melanomas.

    With 437 at a prevalence of 0.0176 one weighs 13 hundredths. Of 200 drawn data sets of 472 melanomas and so many
    benign images the 95 % interval held the truth (0.28) in 68 of 100, and the mean estimate was 0.32; with 32,000
    benign images it did in 29 of 30, at 0.28.
    """
    return (1 - prevalence) / n_benign <= 0.01 * prevalence


def check_prevalence(prevalence: float) -> None:
    """Raises ValueError where a prevalence is not between 0 and 1."""
    if not 0 < prevalence < 1:
        raise ValueError(f"PREVALENCE {prevalence} is not between 0 and 1: it is a share, such as 0.0176 for 1.76 %")


def bootstrap_aucs(targets: np.ndarray, scores: np.ndarray, patients: np.ndarray, n_resamples: int,
                   rng: np.random.Generator) -> np.ndarray:
    """Returns the AUCs of resamples of the patients, those without both classes left out.

    A resample is a weight for each patient (how often drawn), so an AUC is the weighted Mann-Whitney statistic over
    images ranked once: the share of (melanoma, benign) pairs in the right order, ties counting half.

    Args:
        targets: (N,) 0 or 1.
        scores: (N,) finite.
        patients: (N,) codes 0..n_patients-1.
        n_resamples: number of resamples.
        rng: random generator.
    """
    ranked = rank_images(targets, scores, patients)
    aucs = np.concatenate([_roc_auc(*_weigh(ranked, counts))
                           for counts in draw_patients(patients.max() + 1, n_resamples, rng)])
    return aucs[np.isfinite(aucs)]


def rank_images(targets: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> RankedCounts:
    """Returns the images counted by patient and rank, all that a curve of any resample needs.

    Args:
        targets, scores, patients: see `bootstrap_aucs`.
    """
    is_melanoma = targets == 1
    levels, melanoma_columns = np.unique(scores[is_melanoma], return_inverse=True)  # (G,)
    benign_scores, benign_patients = scores[~is_melanoma], patients[~is_melanoma]
    columns = np.searchsorted(levels, benign_scores)
    is_tied = levels[np.minimum(columns, len(levels) - 1)] == benign_scores
    shape = (patients.max() + 1, len(levels))
    return RankedCounts(count_by_patient(patients[is_melanoma], melanoma_columns, shape),
                        count_by_patient(benign_patients[is_tied], columns[is_tied], shape),
                        count_by_patient(benign_patients[~is_tied], columns[~is_tied], (shape[0], shape[1] + 1)))


def _weigh(ranked: RankedCounts, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns of each resample the melanomas of each score, benign images tied with them and below them, all (n, G),
    and all benign images, (n, 1)."""
    melanomas, tied, between = (counts @ table for table in (ranked.melanomas, ranked.tied, ranked.between))
    below = np.cumsum(between[:, :-1], axis=1) + np.cumsum(tied, axis=1) - tied
    return melanomas, tied, below, between.sum(1, keepdims=True) + tied.sum(1, keepdims=True)


def _measure(ranked: RankedCounts, counts: np.ndarray, prevalence: float) -> np.ndarray:
    """Returns (n, 4): the areas of `compute_discrimination` in each resample, NaN without both classes."""
    melanomas, tied, below, n_benign = _weigh(ranked, counts)
    odds = melanomas.sum(1, keepdims=True) / np.where(n_benign > 0, n_benign, np.nan)
    return np.stack([_roc_auc(melanomas, tied, below, n_benign),
                     _average_precision(melanomas, below, n_benign, np.ones_like(odds)),
                     _average_precision(melanomas, below, n_benign, odds * (1 - prevalence) / prevalence),
                     _partial_auc(melanomas, tied, below, n_benign)], axis=1)


def _roc_auc(melanomas: np.ndarray, tied: np.ndarray, below: np.ndarray, n_benign: np.ndarray) -> np.ndarray:
    n_pairs = melanomas.sum(1) * n_benign[:, 0]
    return (melanomas * (below + tied / 2)).sum(1) / np.where(n_pairs > 0, n_pairs, np.nan)


def _average_precision(melanomas: np.ndarray, below: np.ndarray, n_benign: np.ndarray,
                       benign_weight: np.ndarray) -> np.ndarray:
    found = np.cumsum(melanomas[:, ::-1], axis=1)[:, ::-1]  # (n, G) melanomas at or above each score
    called = found + benign_weight * (n_benign - below)
    precision = found / np.where(called > 0, called, 1)
    n_pairs = melanomas.sum(1) * n_benign[:, 0]
    return (melanomas * precision).sum(1) / np.where(n_pairs > 0, melanomas.sum(1), np.nan)


def _partial_auc(melanomas: np.ndarray, tied: np.ndarray, below: np.ndarray, n_benign: np.ndarray) -> np.ndarray:
    """Each score adds a strip of the ROC curve: its sensitivity grows by the melanomas there, its specificity falls, in
    a straight line, by the benign images tied with them."""
    found = np.cumsum(melanomas[:, ::-1], axis=1)[:, ::-1]
    n_melanomas, n_benign = (np.where(n > 0, n, np.nan) for n in (melanomas.sum(1, keepdims=True), n_benign))
    start, end = (found - melanomas) / n_melanomas, found / n_melanomas  # sensitivity before and after this score
    clipped = np.clip(start, MIN_TPR, None)
    share = (end - clipped) / np.where(melanomas > 0, end - start, 1)  # of the strip that is above MIN_TPR
    mean_specificity = (below + tied * share / 2) / n_benign
    return (np.clip(end - clipped, 0, None) * mean_specificity).sum(1)


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
