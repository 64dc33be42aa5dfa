"""What a threshold means for people: operating points, and the net benefit of acting on them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from melanoma_utils.bootstrap import bootstrap_sums, check_scores, draw_patients, take_interval, widen_certain
from melanoma_utils.evaluation import check_prevalence


def find_threshold(targets: np.ndarray, scores: np.ndarray, sensitivity: float) -> float:
    """Returns the highest threshold at which at least the wanted share of melanomas has a score at or above it.

    Args:
        targets: (N,) 0 or 1.
        scores: (N,) finite.
        sensitivity: the share, above 0 and at most 1.

    Raises:
        ValueError: the sensitivity is out of range, or there is no melanoma.
    """
    melanoma_scores = np.sort(np.asarray(scores)[np.asarray(targets) == 1])[::-1]
    if not 0 < sensitivity <= 1:
        raise ValueError(f"a sensitivity of {sensitivity} is not in 0..1 (without 0): it is a share, such as 0.95")
    if not len(melanoma_scores):
        raise ValueError(f"none of {len(np.asarray(targets))} images is a melanoma: there is no sensitivity")
    n_needed = int(np.ceil(sensitivity * len(melanoma_scores) - 1e-9))  # 0.9 * 10 is a little more than 9
    return float(melanoma_scores[n_needed - 1])


def compute_operating_points(targets: np.ndarray, scores: np.ndarray, patient_ids: np.ndarray, prevalence: float,
                             sensitivities: Sequence[float] = (0.9, 0.95, 0.98), *, n_resamples: int = 2000,
                             level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Returns a row for each wanted sensitivity: its threshold, and what it does among people of a prevalence.

    Sensitivity and specificity do not depend on how many melanomas the data hold; what follows from them for people
    (Bayes' rule) does, and is given for the prevalence. A lesion is called suspicious at or above the threshold. The
    intervals of the rates hold the threshold where it is and resample the patients, as for somebody who will use just
    this number; the interval of the threshold comes from choosing it anew in each resample. The threshold was chosen on
    the images that it is judged on, which flatters a little.

    Args:
        targets, scores, patient_ids, n_resamples, level, seed: see `evaluation.compute_auc_interval`.
        prevalence: share of melanomas among the lesions that are looked at, between 0 and 1.
        sensitivities: shares of melanomas to be found.

    Returns:
        Columns wanted_sensitivity, threshold, sensitivity, specificity, ppv, npv (shares), missed_per_1000 (melanomas
        among 1,000 lesions), number_needed_to_biopsy (for each melanoma found), and of all but the first NAME_low and
        NAME_high. NaN where nothing can be said; a number needed to biopsy may be infinite.

    Raises:
        ValueError: see `evaluation.compute_auc_interval`, `evaluation.check_prevalence`, `find_threshold`.
    """
    check_prevalence(prevalence)
    targets, scores, patients = check_scores(targets, scores, patient_ids, n_resamples)
    thresholds = np.array([find_threshold(targets, scores, s) for s in sensitivities])
    counts = _count_called(targets, scores, thresholds)
    sensitivity, specificity = _to_shares(counts.sum(0)[None])
    exact = _compute_rates(sensitivity, specificity, prevalence)
    resampled = _compute_rates(*_to_shares(bootstrap_sums(patients, counts, n_resamples, seed)), prevalence)
    ends = _find_ends(exact, resampled, targets, patients, prevalence, level)
    chosen = _bootstrap_thresholds(targets, scores, patients, sensitivities, n_resamples, np.random.default_rng(seed))
    ends["threshold"], exact["threshold"] = take_interval(chosen, level), thresholds[None]
    df = pd.DataFrame({"wanted_sensitivity": list(sensitivities)})
    for name in ("threshold", *resampled):
        df = df.assign(**{name: exact[name][0], f"{name}_low": ends[name][0], f"{name}_high": ends[name][1]})
    return df.assign(number_needed_to_biopsy=1 / df["ppv"], number_needed_to_biopsy_low=1 / df["ppv_high"],
                     number_needed_to_biopsy_high=1 / df["ppv_low"])


def _find_ends(exact: dict[str, np.ndarray], resampled: dict[str, np.ndarray], targets: np.ndarray,
               patients: np.ndarray, prevalence: float, level: float) -> dict[str, np.ndarray | tuple]:
    """Returns the ends of each rate's interval, wide enough where a sensitivity or specificity is 0 or 1."""
    ends = {name: take_interval(values, level) for name, values in resampled.items()}
    for name, target in (("sensitivity", 1), ("specificity", 0)):
        n_patients = len(np.unique(patients[targets == target]))
        ends[name] = widen_certain(exact[name][0], ends[name], n_patients, level)
    worst = _compute_rates(*(np.where(exact[name] == 1, ends[name][0], exact[name])
                             for name in ("sensitivity", "specificity")), prevalence)
    for name, (low, high) in ends.items():
        ends[name] = np.fmin(low, worst[name][0]), np.fmax(high, worst[name][0])
    return ends


def move_prevalence(points_df: pd.DataFrame, prevalence: float) -> pd.DataFrame:
    """Returns operating points as they are among people of another prevalence.

    Thresholds, sensitivity and specificity stay with their intervals; what follows from them (Bayes' rule) moves, and
    comes without intervals.

    Args:
        points_df: of `compute_operating_points`.
        prevalence: share of melanomas among the lesions that are looked at, between 0 and 1.

    Raises:
        ValueError: see `evaluation.check_prevalence`.
    """
    check_prevalence(prevalence)
    rates = _compute_rates(points_df["sensitivity"].to_numpy(), points_df["specificity"].to_numpy(), prevalence)
    kept = [f"{name}{end}" for name in ("threshold", "sensitivity", "specificity") for end in ("", "_low", "_high")]
    moved = {name: values for name, values in rates.items() if name not in kept}
    moved_df = points_df[["wanted_sensitivity", *(name for name in kept if name in points_df)]].assign(**moved)
    return moved_df.assign(number_needed_to_biopsy=1 / moved_df["ppv"])


def compute_decision_curve(targets: np.ndarray, probs: np.ndarray, patient_ids: np.ndarray, prevalence: float,
                           thresholds: Sequence[float] | None = None, *, n_resamples: int = 2000, level: float = 0.95,
                           seed: int = 0) -> pd.DataFrame:
    """Returns the net benefit of biopsying whoever's probability is at or above a threshold, for many thresholds.

    Net benefit (Vickers & Elkin 2006, doi 10.1177/0272989X06295361): melanomas found a lesion looked at, less the
    benign lesions cut out, each of which costs t / (1 - t) of a melanoma found, since somebody who acts from a
    probability of t on weighs them so. Both shares are those among people of the prevalence, as for case-control data
    (Rousson & Zumbrunn 2011, doi 10.1186/1472-6947-11-45).

    Args:
        targets, patient_ids, n_resamples, level, seed: see `evaluation.compute_auc_interval`.
        probs: (N,) probabilities for people of the prevalence: calibrated, out of fold.
        prevalence: share of melanomas among the lesions that are looked at, between 0 and 1.
        thresholds: probabilities, between 0 and 1; None: 40 from a tenth to ten times the prevalence, at most 0.9.

    Returns:
        Columns threshold, net_benefit, net_benefit_low, net_benefit_high, biopsy_all (biopsy_none is 0 everywhere).

    Raises:
        ValueError: see `evaluation.compute_auc_interval`, or a prevalence, probability or threshold is out of range.
    """
    check_prevalence(prevalence)
    targets, probs, patients = check_scores(targets, probs, patient_ids, n_resamples)
    if thresholds is None:
        thresholds = np.geomspace(prevalence / 10, min(0.9, 10 * prevalence), 40)
    thresholds = np.asarray(thresholds, dtype=np.float64)  # (T,)
    if probs.min() < 0 or probs.max() > 1:
        raise ValueError(f"probabilities from {probs.min()} to {probs.max()} are not in 0..1: are they logits?")
    if thresholds.min() <= 0 or thresholds.max() >= 1:
        raise ValueError(f"thresholds from {thresholds.min()} to {thresholds.max()} are not between 0 and 1")
    counts = _count_called(targets, probs, thresholds)
    benefits = []
    for sums in (counts.sum(0)[None], bootstrap_sums(patients, counts, n_resamples, seed)):
        sensitivity, specificity = _to_shares(sums)
        benefits.append(_net_benefit(sensitivity, 1 - specificity, thresholds, prevalence))
    low, high = take_interval(benefits[1], level)
    return pd.DataFrame({"threshold": thresholds, "net_benefit": benefits[0][0], "net_benefit_low": low,
                         "net_benefit_high": high, "biopsy_all": _net_benefit(1, 1, thresholds, prevalence)})


def _net_benefit(sensitivity: np.ndarray, false_positive_rate: np.ndarray, thresholds: np.ndarray,
                 prevalence: float) -> np.ndarray:
    return prevalence * sensitivity - (1 - prevalence) * false_positive_rate * thresholds / (1 - thresholds)


def _count_called(targets: np.ndarray, scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns (N, 2 + 2T): whether each image is a melanoma, benign; a melanoma called so and a benign image not, at
    each threshold."""
    is_melanoma, is_called = (targets == 1)[:, None], scores[:, None] >= thresholds  # (N, 1), (N, T)
    return np.concatenate([is_melanoma, ~is_melanoma, is_melanoma & is_called, ~is_melanoma & ~is_called], axis=1)


def _to_shares(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns sensitivity and specificity, (n, T) each, of (n, 2 + 2T) sums; NaN where a class is not there."""
    found, spared = np.split(sums[:, 2:], 2, axis=1)
    n = np.where(sums[:, :2] > 0, sums[:, :2], np.nan)
    both = n.sum(1, keepdims=True) * 0  # NaN without both classes
    return found / n[:, :1] + both, spared / n[:, 1:] + both


def _compute_rates(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float) -> dict[str, np.ndarray]:
    """Returns the two shares and what follows from them at a prevalence, name -> (n, T)."""
    found, alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    missed, spared = prevalence * (1 - sensitivity), (1 - prevalence) * specificity
    return {"sensitivity": sensitivity, "specificity": specificity,
            "ppv": found / np.where(found + alarms > 0, found + alarms, np.nan),
            "npv": spared / np.where(spared + missed > 0, spared + missed, np.nan), "missed_per_1000": 1000 * missed}


def _bootstrap_thresholds(targets: np.ndarray, scores: np.ndarray, patients: np.ndarray, sensitivities: Sequence[float],
                          n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Returns (n_resamples, S): `find_threshold` in each resample, NaN without a melanoma."""
    n_patients = patients.max() + 1
    rows = np.flatnonzero(targets == 1)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    chosen = []
    for counts in draw_patients(n_patients, n_resamples, rng):
        found = np.cumsum(counts[:, patients[rows]], axis=1)  # (n, M) melanomas at or above each one's score
        needed = np.ceil(found[:, -1:] * np.asarray(sensitivities) - 1e-9)  # (n, S)
        first = (found[:, :, None] < needed[:, None]).sum(1)  # (n, S)
        values = scores[rows][np.minimum(first, len(rows) - 1)]
        chosen.append(np.where(found[:, -1:] > 0, values, np.nan))
    return np.concatenate(chosen)
