"""What a table that somebody gives says of the pictures beside it: sex, age and site of each."""

from collections import Counter
from collections.abc import Collection, Sequence
from posixpath import basename, splitext

import pandas as pd

from melanoma_utils.archives import MemoryFile, ZipMember
from melanoma_utils.competition import METADATA_COLUMNS, SEXES, SITES, read_table
from melanoma_utils.image_files import SUFFIXES

TABLE_COLUMNS = ["image_name", "patient_id", *METADATA_COLUMNS]
MAX_AGE = 120  # years


def read_patient_table(source: MemoryFile | ZipMember) -> pd.DataFrame:
    """Returns a CSV file with the columns of test.csv; all of them but image_name may be missing.

    Args:
        source: the file, in memory or in an archive.

    Returns:
        (N, 5) columns image_name, patient_id, sex, age_approx (years) and anatom_site_general_challenge; None or NaN
        where nothing is said.

    Raises:
        ValueError: it is no table, or one without image_name, with an empty or repeated one, or an age that is no
            number.
    """
    file = MemoryFile(str(source), source.read_bytes())
    return read_table(file, ("image_name",)).reindex(columns=TABLE_COLUMNS).astype({"age_approx": float})


def describe_pictures(names: Sequence[str], table_df: pd.DataFrame | None, sex: str | None = None,
                      age: float | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Returns what is known of each picture, and a sentence on each thing that is passed over.

    Args:
        names: of the pictures; where one has folders, the table may name it without them, unless that would mean two;
            the table may name the files, with their endings.
        table_df: of `read_patient_table`; None: there is none.
        sex, age: of the person (years), which go before what the table says; None: as in the table.

    Returns:
        (N, 4) table by image_name with the columns patient_id and `METADATA_COLUMNS`, missing where unknown; sentences.

    Raises:
        ValueError: the table has two rows for one picture.
    """
    index, problems = pd.Index(names, name="image_name"), []
    table_df = pd.DataFrame(columns=TABLE_COLUMNS) if table_df is None else table_df
    by_name = table_df.set_index(_drop_endings(table_df["image_name"], set(names))).drop(columns="image_name")
    n_alike = Counter(basename(name) for name in names)
    keys = [name if name in by_name.index or n_alike[basename(name)] > 1 else basename(name)
            for name in names]
    is_second = by_name.index.duplicated()
    if len(doubled := by_name.index[is_second].intersection(keys)):
        raise ValueError(f"the table has two rows for the picture {doubled[0]!r}: leave one out")
    unmatched = sorted(by_name.index[~by_name.index.isin(keys)])
    if unmatched:
        problems.append(f"{len(unmatched)} of {len(by_name)} rows of the table name a picture that is not here, first "
                        f"{unmatched[0]}.")
    df = by_name[~is_second].reindex(keys).set_axis(index)
    for column, known in (("sex", SEXES), ("anatom_site_general_challenge", SITES)):
        problems += _drop_unknown(df, column, df[column].isin(known), f"is not one of {', '.join(known)}")
    problems += _drop_unknown(df, "age_approx", df["age_approx"].between(0, MAX_AGE), f"is not in 0 to {MAX_AGE} years")
    df["sex"], df["age_approx"] = (df["sex"] if sex is None else sex), (df["age_approx"] if age is None else float(age))
    return df.astype({"age_approx": float}), problems


def _drop_endings(rows: pd.Series, names: Collection[str]) -> pd.Index:
    """Returns the names of a table's rows without the endings of image files, but for pictures that keep theirs."""
    return pd.Index([splitext(row)[0] if row not in names and row.lower().endswith(tuple(SUFFIXES)) else row
                     for row in rows], dtype=object)


def _drop_unknown(df: pd.DataFrame, column: str, is_known: pd.Series, what: str) -> list[str]:
    """Empties the cells of a column that mean nothing to a model; returns a sentence if there are any."""
    is_bad = df[column].notna() & ~is_known
    values = df[column].copy()
    df[column] = values.where(~is_bad)
    if not is_bad.any():
        return []
    return [f"The table's {column} '{values[is_bad].iloc[0]}' of {values.index[is_bad][0]} {what}: it counts as "
            f"unknown ({int(is_bad.sum())} such)."]
