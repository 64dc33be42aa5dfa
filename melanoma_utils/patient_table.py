"""What is known of somebody's pictures, sex, age and site of each: from a table beside them, and from DICOM headers."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from posixpath import basename, splitext

import pandas as pd

from melanoma_utils.archives import MemoryFile, ZipMember
from melanoma_utils.competition import MAX_AGE, METADATA_COLUMNS, SEXES, SITES, read_table
from melanoma_utils.dicom import read_dicom_metadata
from melanoma_utils.external import SITE_NAMES
from melanoma_utils.image_files import SUFFIXES
from melanoma_utils.uploads import check_header

# What clinics and DICOM headers (BodyPartExamined) also say. A hand or a foot may be two of the sites: neither is here.
SEX_WORDS = {sex[0]: sex for sex in SEXES}
SITE_WORDS = SITE_NAMES | {word: site for site, words in {
    "head/neck": ("head", "neck", "face", "scalp", "ear", "nose"),
    "torso": ("trunk", "back", "chest", "abdomen"),
    "upper extremity": ("arm", "forearm", "upper arm"),
    "lower extremity": ("leg", "thigh", "lower leg"),
    "palms/soles": ("palm", "sole", "palms", "soles"),
    "oral/genital": ("oral", "genital")}.items() for word in words}
TABLE_COLUMNS = ["image_name", "patient_id", *METADATA_COLUMNS]
MAX_TABLE_MEGABYTES = 5  # tens of thousands of rows


def read_patient_table(source: MemoryFile | ZipMember) -> pd.DataFrame:
    """Returns a CSV file with the columns of test.csv; all of them but image_name may be missing, and the columns may
    be told apart by semicolons, with commas in numbers, as some countries' spreadsheets write them.

    Args:
        source: the file, in memory or in an archive.

    Returns:
        (N, 5) columns image_name, patient_id, sex, age_approx (years) and anatom_site_general_challenge, as it stands
        there; None or NaN where nothing is said.

    Raises:
        ValueError: it is larger than `MAX_TABLE_MEGABYTES`, no table, or one without image_name, or with an empty or
            repeated one.
    """
    if source.n_bytes > MAX_TABLE_MEGABYTES * 2**20:
        raise ValueError(f"{source} has {source.n_bytes / 2**20:,.0f} MB, more than the {MAX_TABLE_MEGABYTES} that a "
                         "table may have: it is left out")
    content = source.read_bytes()
    head = content.partition(b"\n")[0]
    if b";" in head and b"," not in head:
        content = content.replace(b",", b".").replace(b";", b",")
    file = MemoryFile(str(source), content)
    return read_table(file, ("image_name",), check_age=False).reindex(columns=TABLE_COLUMNS)


def read_headers(pictures: Mapping[str, MemoryFile | ZipMember]) -> pd.DataFrame:
    """Returns what the headers of the DICOM files among pictures say, as it stands there.

    Args:
        pictures: name -> file.

    Returns:
        (N, 3) table by image_name with the columns `METADATA_COLUMNS`; missing where nothing is said, where the file
        can't be read, and for all other kinds of files.
    """
    rows = {}
    for name, source in pictures.items():
        with suppress(ValueError):  # whoever decodes the picture tells what is wrong
            file = check_header(str(source), source.read_bytes())
            if file.suffix.lower() == ".dcm":
                rows[name] = read_dicom_metadata(file)
    df = pd.DataFrame.from_dict(rows, "index", dtype=object, columns=list(METADATA_COLUMNS))
    return df.reindex(pd.Index(pictures, name="image_name"))


def describe_pictures(names: Sequence[str], table_df: pd.DataFrame | None, sex: str | None = None,
                      age: float | None = None,
                      headers_df: pd.DataFrame | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Returns what is known of each picture, and a sentence on each thing that is passed over.

    Args:
        names: of the pictures; where one has folders, the table may name it without them, unless that would mean two;
            the table may name the files, with their endings.
        table_df: of `read_patient_table`; None: there is none. Sex and site may be written in capital letters, or with
            `SEX_WORDS` and `SITE_WORDS`.
        sex, age: of the person (years), which go before what the table says; None: as in the table.
        headers_df: of `read_headers` for these names, for what neither says; None: there are none.

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
    df, strange = _use_known_words(df, "table")
    problems += strange
    if headers_df is not None:
        headers_df, strange = _use_known_words(headers_df, "DICOM header")
        df, problems = df.fillna(headers_df), problems + strange
    df["sex"], df["age_approx"] = (df["sex"] if sex is None else sex), (df["age_approx"] if age is None else float(age))
    return df, problems


def spread_sex(df: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Returns the table of one person's pictures with the sex that any of them tells, and a sentence where they tell
    two; then each keeps what is told of it.

    Args:
        df: (N, …) table of `describe_pictures`.
    """
    told = df["sex"].dropna().unique()
    if len(told) == 1:
        return df.assign(sex=told[0]), []
    return df, ["Table or headers tell two sexes of one person: look at each picture's below."] if len(told) else []


def _drop_endings(rows: pd.Series, names: Collection[str]) -> pd.Index:
    """Returns the names of a table's rows without the endings of image files, but for pictures that keep theirs."""
    return pd.Index([splitext(row)[0] if row not in names and row.lower().endswith(tuple(SUFFIXES)) else row
                     for row in rows], dtype=object)


def _use_known_words(df: pd.DataFrame, source: str) -> tuple[pd.DataFrame, list[str]]:
    """Returns the table in the words that a model knows, without what means nothing to it, and a sentence a column that
    has some of that."""
    age = pd.to_numeric(df["age_approx"], errors="coerce").astype(float)
    known_df = df.assign(sex=_spell(df["sex"], SEXES, SEX_WORDS), age_approx=age.where(age.between(0, MAX_AGE)),
                         anatom_site_general_challenge=_spell(df["anatom_site_general_challenge"], SITES, SITE_WORDS))
    problems = []
    for column, name, what in (("sex", "sex", f"is not one of {', '.join(SEXES)}"),
                               ("anatom_site_general_challenge", "site", f"is not one of {', '.join(SITES)}"),
                               ("age_approx", "age", f"is not in 0 to {MAX_AGE} years")):
        bad = df[column][df[column].notna() & known_df[column].isna()]
        if len(bad):
            problems.append(f"The {source}'s {name} '{bad.iloc[0]}' of {bad.index[0]} {what}: it is passed over "
                            f"({len(bad)} such).")
    return known_df, problems


def _spell(values: pd.Series, known: Sequence[str], words: Mapping[str, str]) -> pd.Series:
    plain = values.map(lambda value: str(value).strip().lower(), na_action="ignore").replace(words)
    return plain.where(plain.isin(known))
