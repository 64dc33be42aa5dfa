"""How the melanoma score treats each diagnosis: not melanoma is not benign."""

import numpy as np
import pandas as pd

from melanoma_utils.bootstrap import bootstrap_sums, check_resamples, take_interval, widen_certain

MIN_GROUPS = 20  # patients or lesions; with fewer a diagnosis gets the words "too few" instead of a number
CLASSES = ("malignant", "premalignant", "benign", "unknown")  # in the order of the rows
COLUMNS = ("source", "diagnosis", "benign_malignant", "n", "n_groups", "share_suspicious", "share_low", "share_high",
           "median_logit", "note")


def compute_diagnoses(df: pd.DataFrame, threshold: float, *, n_resamples: int = 2000, level: float = 0.95,
                      seed: int = 0) -> pd.DataFrame:
    """Returns a row a diagnosis that is known: how many of its images are called suspicious, and their median score.

    Args:
        df: (N, …) columns source, diagnosis, benign_malignant, patient_id (of external images their lesion) and logit,
            out of fold. Rows whose diagnosis is missing or "unknown" are left out.
        threshold: logit at or above which a lesion is called suspicious, for everybody.
        n_resamples, level, seed: see `evaluation.compute_auc_interval`; each diagnosis' own patients or lesions are
            resampled (for shares of 0 and 1 see `bootstrap.widen_certain`).

    Returns:
        Columns `COLUMNS`: n counts images, n_groups patients or lesions; share_suspicious (0..1) has the interval
        share_low to share_high; note is "too few" where n_groups is below `MIN_GROUPS` (the shares and the median are
        NaN), else "". By source, then malignant before premalignant before benign ones, frequent before rare.

    Raises:
        KeyError: a column is missing.
        ValueError: a logit is not finite, a patient_id missing, or see `bootstrap.check_resamples`.
    """
    missing = [c for c in ("source", "diagnosis", "benign_malignant", "patient_id", "logit") if c not in df]
    if missing:
        raise KeyError(f"the table has no column {missing[0]!r}; met {list(df)}")
    for what, is_bad in (("finite logit", ~np.isfinite(df["logit"])), ("patient_id", df["patient_id"].isna())):
        if is_bad.any():
            raise ValueError(f"{int(is_bad.sum())} of {len(df)} images have no {what}")
    check_resamples(n_resamples)
    known_df = df[df["diagnosis"].notna() & (df["diagnosis"] != "unknown")]
    kind = known_df["benign_malignant"].where(known_df["benign_malignant"].isin(CLASSES), "unknown")
    rows = [dict(zip(COLUMNS[:3], names, strict=True)) | _measure(group_df, threshold, n_resamples, level, seed)
            for names, group_df in known_df.groupby([known_df["source"], known_df["diagnosis"], kind])]
    return pd.DataFrame(sorted(rows, key=lambda row: (row["source"], CLASSES.index(row["benign_malignant"]), -row["n"],
                                                      row["diagnosis"])), columns=list(COLUMNS))


def _measure(df: pd.DataFrame, threshold: float, n_resamples: int, level: float, seed: int) -> dict:
    groups, logits = pd.factorize(df["patient_id"])[0], df["logit"].to_numpy(np.float64)
    row = {"n": len(df), "n_groups": int(groups.max()) + 1}
    names = COLUMNS[5:9]
    if row["n_groups"] < MIN_GROUPS:
        return row | dict.fromkeys(names, np.nan) | {"note": "too few"}
    counts = np.stack([logits >= threshold, np.ones(len(df), bool)], axis=1)  # (n, 2)
    sums = bootstrap_sums(groups, counts, n_resamples, seed)  # (n_resamples, 2)
    share = counts[:, 0].mean()
    low, high = widen_certain(share, take_interval(sums[:, 0] / sums[:, 1], level), row["n_groups"], level)
    values = (share, low, high, np.median(logits))
    return row | {name: float(value) for name, value in zip(names, values, strict=True)} | {"note": ""}


def describe_missed(diagnoses_df: pd.DataFrame) -> list[str]:
    """Returns a line on each malignant or premalignant diagnosis other than melanoma: how often a low score would
    reassure wrongly; one line that there are none where that is so.

    Args:
        diagnoses_df: of `compute_diagnoses`.
    """
    is_missable = diagnoses_df["benign_malignant"].isin(CLASSES[:2]) & (diagnoses_df["diagnosis"] != "melanoma")
    if not is_missable.any():
        return ["no malignant or premalignant lesion but melanoma is named among these images: what a low score means "
                "for others, nobody can say from them"]
    lines = []
    for row in diagnoses_df[is_missable].itertuples():
        what = f"{row.diagnosis} ({row.benign_malignant}, {row.source}): "
        lines.append(what + (
            f"too few to say, {row.n:,} images of {row.n_groups:,} lesions or patients" if row.note else
            f"{1 - row.share_suspicious:.0%} ({1 - row.share_high:.0%} to {1 - row.share_low:.0%}) of {row.n:,} images "
            "are below the threshold: a low score must not reassure"))
    return lines
