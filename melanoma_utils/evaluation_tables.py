"""Figures in words, and tables of them a few columns wide, for people to read."""

from collections.abc import Mapping

import pandas as pd

POINT_ROWS = {"sensitivity": ("melanomas found, %", 100), "specificity": ("benign lesions spared, %", 100),
              "ppv": ("melanomas among those called suspicious, %", 100),
              "number_needed_to_biopsy": ("called suspicious for each melanoma found", 1),
              "missed_per_1000": ("melanomas missed in 1,000 lesions", 1)}


def format_prob(prob: float) -> str:
    """Returns a probability in per cent with as many digits as it needs, never as 0 or 100 %."""
    percent = 100 * prob
    if percent < 0.01:
        return "below 0.01 %"
    if percent > 99.9:
        return "above 99.9 %"
    return f"{percent:.0f} %" if 10 <= percent <= 90 else f"{percent:.1f} %" if percent >= 1 else f"{percent:.2f} %"


def tell_points(points_df: pd.DataFrame) -> pd.DataFrame:
    """Returns operating points as a table of words: a column a wanted sensitivity, a row a rate, with its interval
    where there is one.

    Args:
        points_df: of `operating_points.compute_operating_points` or `operating_points.move_prevalence`.
    """
    columns = {f"{100 * point['wanted_sensitivity']:.3g} %": [_tell(point, name, factor)
                                                              for name, (_, factor) in POINT_ROWS.items()]
               for point in points_df.to_dict("records")}
    return pd.DataFrame(columns, [words for words, _ in POINT_ROWS.values()])


def tell_subgroups(subgroups_df: pd.DataFrame) -> pd.DataFrame:
    """Returns subgroups as a table of words: a row a group, "too few" where it has no number.

    Args:
        subgroups_df: of `subgroups.compute_subgroups`.
    """
    rows = {}
    for group in subgroups_df.fillna({"note": ""}).to_dict("records"):
        auc, found = (group["note"], "–") if group["note"] else \
            (_tell(group, "auc", 1), _tell(group, "sensitivity", 100))
        rows[f"{group['attribute']}: {group['group']}"] = {
            "melanomas of images": f"{group['n_melanomas']:,} of {group['n_images']:,}", "AUC": auc, "found, %": found}
    return pd.DataFrame.from_dict(rows, orient="index")


def tell_missed(sensitivity: float) -> str:
    """Returns how many of 100 melanomas lie below a threshold, as the beginning of a sentence that goes on with "lie".

    Args:
        sensitivity: share of the melanomas that it finds where it was measured, 0..1.
    """
    missed = 100 * (1 - sensitivity)
    if missed <= 0:
        return "perhaps some melanomas, though none of those measured,"
    return f"{missed:.2g} of 100 melanomas" if missed >= 0.5 else "fewer than 1 of 100 melanomas"


def _tell(values: Mapping[str, float], name: str, factor: float) -> str:
    """Returns "value" or "value (low to high)", times a factor."""
    digits = 2 if factor == 1 and values[name] < 10 else 0 if values[name] * factor > 20 else 1
    ends = [values.get(f"{name}{end}") for end in ("", "_low", "_high")]
    words = [f"{factor * end:.{digits}f}" for end in ends if end is not None and not pd.isna(end)]
    return "–" if not words else words[0] if len(words) < 3 else f"{words[0]} ({words[1]} to {words[2]})"
