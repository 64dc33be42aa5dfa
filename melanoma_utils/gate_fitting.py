"""Fitting the input gate to statistics of pictures of many kinds, measured on others.

Tables here have a row a picture: kind ("dermoscopy", "blurred", "other" or any more that is only measured), source,
part ("fit", "threshold" or "test") and the statistics of `picture_statistics.measure_statistics`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from scipy.stats import binomtest
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from melanoma_utils.input_gate import CLIP, Gate, Score, compute_scores, judge_statistics
from melanoma_utils.picture_statistics import SHARPNESS, SIZE, measure_statistics, shrink_picture

PARTS = ("fit", "threshold", "test")


def split_groups(groups: Sequence[str], shares: Sequence[float] = (0.5, 0.25, 0.25), seed: int = 0) -> np.ndarray:
    """Returns (N,) the part of `PARTS` that each row belongs to; rows of one group stay together.

    Args:
        groups: (N,) such as patients, lesions or folders.
        shares: of the rows that go to each part, about; 0 leaves a part out.
        seed: of the shuffle.
    """
    names, n_rows = np.unique(np.asarray(groups, str), return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    middles = (np.cumsum(n_rows[order]) - n_rows[order] / 2) / n_rows.sum()
    parts = np.searchsorted(np.cumsum(shares)[:-1], middles, side="right")
    part_of = dict(zip(names[order], np.array(PARTS)[parts], strict=True))
    return np.array([part_of[str(group)] for group in groups])


def measure_pictures(pictures: Iterable[np.ndarray]) -> pd.DataFrame:
    """Returns a row of statistics a picture, each (H, W, 3) uint8 RGB of any size."""
    return pd.DataFrame([measure_statistics(shrink_picture(picture)) for picture in pictures])


def blur_picture(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Returns a picture (SIZE, SIZE, 3) uint8, shrunken and blurred; sigma of the Gaussian in per cent of the side."""
    small = Image.fromarray(shrink_picture(picture))
    return np.asarray(small.filter(ImageFilter.GaussianBlur(sigma / 100 * SIZE)))


def fit_gate(pictures_df: pd.DataFrame, min_side: int, dermoscopy_refused: float = 0.01, blur_found: float = 0.95,
             contrast_refused: float = 0.002) -> Gate:
    """Returns the gate fitted on the part "fit", its thresholds set on the part "threshold".

    Two logistic regressions on statistics and their squares: dermoscopy, blurred too, against other pictures, and
    dermoscopy against blurred. Each threshold is the lowest that any source of dermoscopy asks for.

    Args:
        pictures_df: see the module's text.
        min_side: shortest side in pixels that the gate lets pass.
        dermoscopy_refused: share of each source's dermoscopy that may be taken for something else.
        blur_found: share of the blurred pictures that shall be found.
        contrast_refused: share of each source's dermoscopy that may be taken for bare skin.

    Raises:
        ValueError: a part lacks pictures of a kind.
    """
    parts = {part: {kind: rows for kind, rows in df.groupby("kind")} for part, df in pictures_df.groupby("part")}
    for part, kinds in (("fit", ("dermoscopy", "blurred", "other")), ("threshold", ("dermoscopy", "blurred"))):
        missing = [kind for kind in kinds if kind not in parts.get(part, {})]
        if missing:
            raise ValueError(f"there is no picture of {' and '.join(missing)} in the part {part!r}: give more pictures")
    fit, held = parts["fit"], parts["threshold"]
    names = [name for name in pictures_df.select_dtypes("number") if name != "contrast"]
    dermoscopy = _fit_score(pd.concat([fit["dermoscopy"], fit["blurred"]]), fit["other"], names)
    sharpness = _fit_score(fit["dermoscopy"], fit["blurred"], SHARPNESS)
    blurred = compute_scores(sharpness, held["blurred"][list(SHARPNESS)])
    lowest = min(np.quantile(compute_scores(dermoscopy, df[names]), dermoscopy_refused)
                 for _, df in held["dermoscopy"].groupby("source"))
    contrast = held["dermoscopy"].groupby("source")["contrast"].quantile(contrast_refused).min()
    return Gate(min_side, replace(dermoscopy, threshold=_round_down(lowest)),
                replace(sharpness, threshold=_round(np.quantile(blurred, blur_found))), _round_down(contrast))


def _fit_score(good_df: pd.DataFrame, bad_df: pd.DataFrame, names: Sequence[str]) -> Score:
    """Returns a logistic regression, both classes weighing the same; its intercept is left to the threshold."""
    names = list(names)
    means, sds = good_df[names].mean().to_numpy(), good_df[names].std().clip(lower=1e-6).to_numpy()
    z = np.clip((pd.concat([good_df, bad_df])[names].to_numpy() - means) / sds, -CLIP, CLIP)
    is_good = np.arange(len(z)) < len(good_df)
    model = LogisticRegression(C=0.03, class_weight="balanced", max_iter=1000).fit(np.hstack([z, z**2]), is_good)
    weights = model.coef_[0].reshape(2, -1)
    numbers = [tuple(_round(value) for value in values) for values in (means, sds, *weights)]
    return Score(tuple(names), *numbers, threshold=0.0)


def compare_methods(pictures_df: pd.DataFrame, refused: float = 0.01) -> pd.DataFrame:
    """Returns the share of other pictures in the part "test" that each method takes for dermoscopy, by source.

    "distance" knows dermoscopy alone: the squared Mahalanobis distance from its mean. Each method's threshold refuses
    the share given of each source's dermoscopy in the part "threshold".

    Args:
        pictures_df, refused: see `fit_gate`.
    """
    names = [name for name in pictures_df.select_dtypes("number") if name != "contrast"]
    fit, held, test = (pictures_df[pictures_df["part"] == part] for part in PARTS)
    good, bad = (fit[fit["kind"] == kind][names] for kind in ("dermoscopy", "other"))
    scaler = StandardScaler().fit(good)
    covariance = LedoitWolf().fit(scaler.transform(good))
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, class_weight="balanced", max_iter=1000))
    linear.fit(pd.concat([good, bad]), np.arange(len(good) + len(bad)) < len(good))
    squares = _fit_score(good, bad, names)
    methods = {"distance": lambda df: -covariance.mahalanobis(scaler.transform(df)),
               "logistic": linear.decision_function,
               "logistic with squares": lambda df: compute_scores(squares, df.to_numpy())}
    shares = {}
    for name, measure in methods.items():
        lowest = min(np.quantile(measure(df[names]), refused)
                     for _, df in held[held["kind"] == "dermoscopy"].groupby("source"))
        others = test[test["kind"] == "other"]
        shares[name] = pd.Series(measure(others[names]) >= lowest, others["source"]).groupby(level=0).mean()
    return pd.DataFrame(shares).T


def _round(value: float) -> float:
    return float(f"{value:.5g}")  # keeps the file small; the thresholds are set on the rounded weights


def _round_down(value: float) -> float:
    return math.floor(1e4 * value) / 1e4  # refuses no more than the unrounded threshold


def judge_pictures(pictures_df: pd.DataFrame, gate: Gate) -> list[str]:
    """Returns the objections to each row's picture, joined by "; " ("" for none)."""
    return ["; ".join(judge_statistics(row, gate)) for row in pictures_df.to_dict("records")]


def measure_rates(pictures_df: pd.DataFrame, objections: Sequence[str]) -> pd.DataFrame:
    """Returns how many pictures of each kind and source are refused: n, refused, share, low, high (Wilson, 95 %).

    Args:
        pictures_df: with the columns kind and source.
        objections: of `judge_pictures`.
    """
    is_refused = pd.Series(np.asarray(objections) != "", index=pictures_df.index)
    df = is_refused.groupby([pictures_df["kind"], pictures_df["source"]]).agg(n="size", refused="sum").reset_index()
    ends = [binomtest(int(k), int(n)).proportion_ci(method="wilson") for k, n in df[["refused", "n"]].to_numpy()]
    return df.assign(share=df["refused"] / df["n"], low=[end.low for end in ends], high=[end.high for end in ends])
