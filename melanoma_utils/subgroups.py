"""How well the ranking holds within groups of images, and where there are too few to say."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_utils.bootstrap import bootstrap_sums, take_interval, widen_certain
from melanoma_utils.competition import find_images
from melanoma_utils.evaluation import compute_auc_interval
from melanoma_utils.images import read_image_size

MIN_POSITIVES = 20  # below, a group gets the words "too few" instead of a number; so it does of benign images
AGE_EDGES = (0, 30, 40, 50, 60, 70)  # years


def name_age_bands(ages: pd.Series) -> pd.Series:
    """Returns ages in years as ordered bands, "under 30", "30–39", … "70 and over"."""
    labels = [f"under {AGE_EDGES[1]}", *(f"{low}–{high - 1}" for low, high in pairwise(AGE_EDGES[1:])),
              f"{AGE_EDGES[-1]} and over"]
    return pd.cut(ages, [*AGE_EDGES, np.inf], right=False, labels=labels)


def find_image_sizes(data_dir: str | Path, image_names: pd.Series, image_format: str = "auto",
                     n_most: int = 5) -> pd.Series:
    """Returns the size of each training image's file in pixels, "6000×4000", the rarer sizes as "other".

    Where the images are not in the competition folder any more (the store is enough to evaluate) all are missing.

    Args:
        data_dir: the competition folder.
        image_names: (N,) names; the result has their index.
        image_format: see `competition.find_images`.
        n_most: number of sizes that are named; frequent ones come first.

    Raises:
        ValueError: a file is damaged.
    """
    try:
        files = find_images(data_dir, "train", image_names, image_format)
    except FileNotFoundError:
        return pd.Series(pd.Categorical([None] * len(image_names)), image_names.index)
    names = pd.Series(["×".join(map(str, read_image_size(file))) for file in files.values()], image_names.index)
    frequent = names.value_counts().index[:n_most].tolist()
    named = names.where(names.isin(frequent), "other")
    return named.astype(pd.CategoricalDtype([*frequent, "other"], ordered=True))


def compute_subgroups(df: pd.DataFrame, columns: dict[str, str], threshold: float, *, n_resamples: int = 2000,
                      level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Returns a row a group: its numbers, its AUC, its sensitivity and specificity at a threshold that all share.

    Groups are looked at one by one, so one of many may look better or worse by chance; a difference between two groups
    may also come from what else differs between them.

    Args:
        df: (N, …) columns target, logit, patient_id, and those to group by.
        columns: column -> what it is called. Categories keep their order, other values go from frequent to rare; empty
            values are the group "unknown".
        threshold: logit at or above which a lesion is called suspicious, for everybody.
        n_resamples, level, seed: see `evaluation.compute_auc_interval`; each group's own patients are resampled (for
            shares of 0 and 1 see `bootstrap.widen_certain`).

    Returns:
        Columns attribute, group, n_images, n_patients, n_melanomas, auc, sensitivity and specificity, each of these
        three with _low and _high, and note: "too few" where a group has fewer than `MIN_POSITIVES` melanomas or benign
        images (its numbers are NaN), else "".

    Raises:
        KeyError: a column is missing.
        ValueError: see `evaluation.compute_auc_interval`.
    """
    missing = [column for column in ("target", "logit", "patient_id", *columns) if column not in df]
    if missing:
        raise KeyError(f"the table has no column {missing[0]!r}; met {list(df)}")
    rows = []
    for column, attribute in columns.items():
        groups = df[column].astype(object).where(df[column].notna(), "unknown")
        order = df[column].cat.categories if isinstance(df[column].dtype, pd.CategoricalDtype) else \
            df[column].value_counts().index
        for group in dict.fromkeys([*order, "unknown"]):
            rows_df = df[groups == group]
            if len(rows_df):
                rows.append({"attribute": attribute, "group": str(group)}
                            | _measure_group(rows_df, threshold, n_resamples, level, seed))
    return pd.DataFrame(rows)


def _measure_group(df: pd.DataFrame, threshold: float, n_resamples: int, level: float, seed: int) -> dict:
    is_melanoma, is_called = (df["target"] == 1).to_numpy(), (df["logit"] >= threshold).to_numpy()
    n_melanomas = int(is_melanoma.sum())
    row = {"n_images": len(df), "n_patients": df["patient_id"].nunique(), "n_melanomas": n_melanomas}
    names = [f"{name}{end}" for name in ("auc", "sensitivity", "specificity") for end in ("", "_low", "_high")]
    if min(n_melanomas, len(df) - n_melanomas) < MIN_POSITIVES:
        return row | dict.fromkeys(names, np.nan) | {"note": "too few"}
    auc = compute_auc_interval(df["target"], df["logit"], df["patient_id"], n_resamples=n_resamples, level=level,
                               seed=seed)
    counts = np.stack([is_melanoma, ~is_melanoma, is_melanoma & is_called, ~is_melanoma & ~is_called], axis=1)
    sums = bootstrap_sums(pd.factorize(df["patient_id"])[0], counts, n_resamples, seed)  # (n_resamples, 4)
    values = [auc.auc, auc.low, auc.high]
    for column, is_in in ((0, is_melanoma), (1, ~is_melanoma)):  # sensitivity, specificity
        share = counts[:, 2 + column].sum() / counts[:, column].sum()
        with np.errstate(invalid="ignore"):  # a resample without one class
            ends = take_interval(sums[:, 2 + column] / sums[:, column], level)
        values += [share, *widen_certain(share, ends, df["patient_id"][is_in].nunique(), level)]
    return row | {name: float(value) for name, value in zip(names, values, strict=True)} | {"note": ""}
