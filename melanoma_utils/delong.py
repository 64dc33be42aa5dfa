"""DeLong's variance of ROC AUCs, and the test of two models on the same images."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from melanoma_utils.bootstrap import check_scores


@dataclass(frozen=True)
class DelongTest:
    """Two AUCs compared.

    Attributes:
        difference: AUC of the first minus that of the second.
        standard_error: of the difference.
        low, high: its normal interval.
        p_value: two-sided, of no difference; 1 where the two rank alike.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float


def compare_aucs(targets: np.ndarray, scores: np.ndarray, other_scores: np.ndarray, patient_ids: np.ndarray, *,
                 level: float = 0.95) -> DelongTest:
    """Returns DeLong's test of two models' AUCs on the same images, images of one patient not taken as independent.

    Args:
        targets: (N,) 0 or 1.
        scores, other_scores: (N,) of the two models, in the order of the targets.
        patient_ids: (N,) labels of the patients; a label of its own for each image gives DeLong's original test.
        level: coverage of the interval, in 0..1.

    Raises:
        ValueError: see `compute_auc_covariance`.
    """
    aucs, covariance = compute_auc_covariance(targets, [scores, other_scores], patient_ids)
    difference = float(aucs[0] - aucs[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = float(np.sqrt(max(variance, 0)))
    half_width = NormalDist().inv_cdf((1 + level) / 2) * error
    p_value = 2 * NormalDist().cdf(-abs(difference) / error) if error > 1e-12 else float(abs(difference) < 1e-12)
    return DelongTest(difference, error, difference - half_width, difference + half_width, p_value)


def compute_auc_covariance(targets: np.ndarray, scores: list[np.ndarray],
                           patient_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the AUCs of K models, (K,), and their covariance, (K, K).

    DeLong, DeLong & Clarke-Pearson 1988 (doi 10.2307/2531595), as extended to clusters by Obuchowski 1997 (doi
    10.2307/2533958), which is DeLong's where each image is a cluster of its own; by midranks as in Sun & Xu 2014 (doi
    10.1109/LSP.2014.2337313). With few patients, or an AUC near 1, the bootstrap's interval is the better one.

    Args:
        targets: (N,) 0 or 1.
        scores: K arrays (N,) of finite scores.
        patient_ids: (N,) labels of the patients.

    Raises:
        ValueError: as `bootstrap.check_scores`, or all melanomas, or all benign images, are of one patient.
    """
    checked = [check_scores(targets, s, patient_ids) for s in scores]
    targets, patients = checked[0][0], checked[0][2]
    is_melanoma = targets == 1
    for what, is_in in (("melanomas", is_melanoma), ("benign images", ~is_melanoma)):
        if len(np.unique(patients[is_in])) < 2:
            raise ValueError(f"all {is_in.sum()} {what} are of one patient: an AUC's variance wants two at least")
    placements = np.stack([_place(is_melanoma, s) for _, s, _ in checked], axis=1)  # (N, K)
    aucs = placements[is_melanoma].mean(0)
    sums = {target: pd.DataFrame((placements - aucs) * (targets == target)[:, None]).groupby(patients).sum().to_numpy()
            for target in (1, 0)}  # (n_patients, K) each
    n = {target: (targets == target).sum() for target in (1, 0)}
    n_clusters = {target: len(np.unique(patients[targets == target])) for target in (1, 0)}
    own = sum(n_clusters[t] / (n_clusters[t] - 1) * sums[t].T @ sums[t] / n[t] ** 2 for t in (1, 0))
    cross = len(sums[1]) / (len(sums[1]) - 1) * sums[1].T @ sums[0] / (n[1] * n[0])
    return aucs, own + cross + cross.T


def _place(is_melanoma: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns (N,): of a melanoma the share of benign images below it, of a benign image that of melanomas above it,
    ties counting half."""
    ranks, placements = rankdata(scores), np.empty(len(scores))
    n_melanomas, n_benign = is_melanoma.sum(), (~is_melanoma).sum()
    placements[is_melanoma] = (ranks[is_melanoma] - rankdata(scores[is_melanoma])) / n_benign
    placements[~is_melanoma] = 1 - (ranks[~is_melanoma] - rankdata(scores[~is_melanoma])) / n_melanomas
    return placements
