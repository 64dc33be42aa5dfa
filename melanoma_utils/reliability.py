"""How far probabilities are from what happens: reliability curve, calibration error, Brier score."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss

from melanoma_utils.bootstrap import check_scores
from melanoma_utils.calibration import shift_prior
from melanoma_utils.evaluation import check_prevalence


def weigh_classes(targets: np.ndarray, prevalence: float) -> np.ndarray:
    """Returns (N,) weights of mean 1 under which melanomas have the prevalence.

    Args:
        targets: (N,) 0 or 1, both of them met.
        prevalence: share of melanomas, between 0 and 1.

    Raises:
        ValueError: the prevalence is not between 0 and 1.
    """
    check_prevalence(prevalence)
    targets = np.asarray(targets)
    share = targets.mean()
    return np.where(targets == 1, prevalence / share, (1 - prevalence) / (1 - share))


def compute_reliability(targets: np.ndarray, probs: np.ndarray, prevalence: float | None = None,
                        n_bins: int = 10) -> pd.DataFrame:
    """Returns what was said beside what was found, a row a bin of images in the order of their probability.

    The bins hold equally many images (equal probabilities stay together): at 1.76 % bins of equal width would put
    nearly all images into the first (Nixon et al. 2019, arXiv 1904.01685).

    Args:
        targets: (N,) 0 or 1.
        probs: (N,) probabilities for people of the prevalence, 0..1.
        prevalence: to which the images are weighted; None: the data's own share, no weights.
        n_bins: number of bins, fewer where few probabilities differ.

    Returns:
        Columns prob (the bin's mean), share (of melanomas found), share_low, share_high (Wilson's 95 % interval, for
        which images count as independent), weight (of the bin, summing to 1), n_images, n_melanomas.

    Raises:
        ValueError: as `bootstrap.check_scores`, a probability is not in 0..1, or see `weigh_classes`.
    """
    targets, probs = _check_probs(targets, probs)
    own = targets.mean()
    weights = weigh_classes(targets, own if prevalence is None else prevalence)
    edges = np.unique(np.quantile(probs, np.arange(1, n_bins) / n_bins))
    df = pd.DataFrame({"bin": np.searchsorted(edges, probs, side="left"), "weight": weights / len(probs),
                       "prob": weights * probs, "found": weights * targets, "target": targets, "w": weights})
    sums = df.groupby("bin").agg(weight=("weight", "sum"), prob=("prob", "sum"), share=("found", "sum"), w=("w", "sum"),
                                 n_images=("target", "size"), n_melanomas=("target", "sum"))
    intervals = np.array([binomtest(int(k), int(n)).proportion_ci(method="wilson")
                          for n, k in zip(sums["n_images"], sums["n_melanomas"], strict=True)])  # (B, 2)
    if prevalence is not None:
        intervals = shift_prior(intervals, own, prevalence)
    share = sums["share"] / sums["w"]
    table = {"prob": sums["prob"] / sums["w"], "share": share, "share_low": np.minimum(intervals[:, 0], share),
             "share_high": np.maximum(intervals[:, 1], share),  # rounding puts an end at 1e-18 beyond a share of 0
             "weight": sums["weight"], "n_images": sums["n_images"], "n_melanomas": sums["n_melanomas"]}
    return pd.DataFrame(table).reset_index(drop=True)


def compute_ece(targets: np.ndarray, probs: np.ndarray, prevalence: float | None = None, n_bins: int = 10) -> float:
    """Returns the expected calibration error: by how much share and probability differ, the mean over all images.

    Naeini et al. 2015 (doi 10.1609/aaai.v29i1.9602), with the bins of `compute_reliability`; see there for arguments
    and what is raised.
    """
    df = compute_reliability(targets, probs, prevalence, n_bins)
    return float((df["weight"] * (df["prob"] - df["share"]).abs()).sum())


def score_probabilities(targets: np.ndarray, probs: Mapping[str, np.ndarray],
                        prevalence: float | None = None) -> pd.DataFrame:
    """Returns Brier score and calibration error of several probabilities of the same images.

    Args:
        targets: (N,) 0 or 1.
        probs: name -> (N,) probabilities for people of the prevalence.
        prevalence: to which the images are weighted; None: the data's own share.

    Returns:
        Index the names; columns brier, brier_skill (1: perfect, 0: no better than to tell everybody the prevalence,
        below: worse than that), ece, mean_prob (where it is right: the prevalence).

    Raises:
        ValueError: see `compute_reliability`.
    """
    rows = {}
    for name, values in probs.items():
        checked, values = _check_probs(targets, values)
        share = checked.mean() if prevalence is None else prevalence
        weights = weigh_classes(checked, share)
        brier = brier_score_loss(checked, values, sample_weight=weights)
        rows[name] = {"brier": brier, "brier_skill": 1 - brier / (share * (1 - share)),
                      "ece": compute_ece(checked, values, prevalence), "mean_prob": np.average(values, weights=weights)}
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def _check_probs(targets: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    targets, probs, _ = check_scores(targets, probs, np.arange(len(targets)))
    if probs.min() < 0 or probs.max() > 1:
        raise ValueError(f"probabilities from {probs.min()} to {probs.max()} are not in 0..1: are they logits?")
    return targets, probs
