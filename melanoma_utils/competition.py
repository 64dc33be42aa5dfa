"""The competition's tables and folder layouts: reading, checking, duplicates, where an image lies."""

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from melanoma_utils.archives import MemoryFile, Source, list_zip_members, open_source
from melanoma_utils.tfrecords import list_tfrecord_members

SEXES = ("female", "male")
SITES = ("head/neck", "lower extremity", "oral/genital", "palms/soles", "torso", "upper extremity")
TEST_COLUMNS = ("image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge")
TRAIN_COLUMNS = (*TEST_COLUMNS, "diagnosis", "benign_malignant", "target")
MAX_AGE = 120  # years
SUBMISSION_COLUMNS = ("image_name", "target")
DUPLICATE_COLUMNS = ("ISIC_id", "ISIC_id_paired", "partition")
METADATA_COLUMNS = ("sex", "age_approx", "anatom_site_general_challenge")
METADATA_FEATURES = (*(f"sex={s}" for s in (*SEXES, "unknown")), *(f"site={s}" for s in (*SITES, "unknown")),
                     "age", "age=unknown")
IMAGE_SUFFIXES = {"jpeg": (".jpg", ".jpeg", ".png"), "dicom": (".dcm",), "tfrecord": (".jpg",)}
IMAGE_FORMATS = ("auto", *IMAGE_SUFFIXES)


def read_train(data_dir: str | Path) -> pd.DataFrame:
    """Returns train.csv, checked, with the columns `TRAIN_COLUMNS` (others are kept behind them).

    Args:
        data_dir: the competition folder.

    Raises:
        FileNotFoundError: there is no train.csv in the folder.
        ValueError: a column is missing, an image_name repeated, an image_name or patient_id empty,
            an age no number of years up to `MAX_AGE`, a sex or site not one of `SEXES` and `SITES`, "unknown" or empty,
            or a target outside {0, 1}; names file, column, row and count.
    """
    path = Path(data_dir) / "train.csv"
    df = _read_patients(path, TRAIN_COLUMNS)
    target = pd.to_numeric(df["target"], errors="coerce")
    _check_rows(path, df, "target", ~target.isin((0, 1)), "is not 0 or 1")
    return df.assign(target=target.astype(int))


def read_test(data_dir: str | Path) -> pd.DataFrame:
    """Returns test.csv, checked, with the columns `TEST_COLUMNS`; raises like `read_train`."""
    return _read_patients(Path(data_dir) / "test.csv", TEST_COLUMNS)


def _read_patients(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    df = read_table(path, columns)
    _check_rows(path, df, "patient_id", df["patient_id"].isna(), "is empty")
    is_age = df["age_approx"].fillna(0).between(0, MAX_AGE)
    _check_rows(path, df, "age_approx", ~is_age, f"is not in 0 to {MAX_AGE} years")
    for column, known in (("sex", SEXES), ("anatom_site_general_challenge", SITES)):
        is_known = df[column].isna() | df[column].isin((*known, "unknown"))
        _check_rows(path, df, column, ~is_known, f"is not one of {', '.join(known)}")
    return df


def read_sample_submission(data_dir: str | Path) -> pd.DataFrame:
    """Returns sample_submission.csv, checked, with the columns `SUBMISSION_COLUMNS`; raises like `read_train`."""
    return read_table(Path(data_dir) / "sample_submission.csv", SUBMISSION_COLUMNS)


def check_test_names(test_df: pd.DataFrame, sample_df: pd.DataFrame) -> None:
    """Checks that test.csv and sample_submission.csv name the same images, before hours go into predicting them.

    Raises:
        ValueError: an image is in one of them only; tells the first one and how many.
    """
    names, wanted = set(test_df["image_name"]), set(sample_df["image_name"])
    if names != wanted:
        raise ValueError(f"test.csv and sample_submission.csv differ in {len(names ^ wanted)} images, first "
                         f"{min(names ^ wanted)}: column 'image_name' must name the same ones in both")


def read_table(path: Path | MemoryFile, columns: Iterable[str], *, check_age: bool = True) -> pd.DataFrame:
    """Returns a CSV table of images, checked, with the columns named first; raises like `read_train`, but without
    check_age not for ages that are no numbers, and leaves these as they are."""
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: a competition folder holds train.csv, test.csv, "
                                "sample_submission.csv and its images")
    try:
        df = pd.read_csv(open_source(path), encoding="utf-8-sig", dtype={"image_name": str, "patient_id": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read as CSV: {error}") from error
    missing = [c for c in columns if c not in df]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing ({len(missing)} of {len(tuple(columns))} expected "
                         f"columns are); met {list(df.columns)}")
    if df.empty:
        raise ValueError(f"{path}: column 'image_name' has 0 rows")
    _check_rows(path, df, "image_name", df["image_name"].isna(), "is empty")
    _check_rows(path, df, "image_name", df["image_name"].duplicated(), "is repeated")
    if "age_approx" in df and check_age:
        age = pd.to_numeric(df["age_approx"], errors="coerce")
        _check_rows(path, df, "age_approx", age.isna() & df["age_approx"].notna(), "is not a number of years")
        df["age_approx"] = age.astype(float)
    return df[[*columns, *(c for c in df if c not in columns)]]


def _check_rows(path: Path | MemoryFile, df: pd.DataFrame, column: str, is_bad: pd.Series, what: str) -> None:
    if is_bad.any():
        row = int(np.flatnonzero(is_bad)[0])
        raise ValueError(f"{path}: column {column!r} {what} in {int(is_bad.sum())} of {len(df)} rows; "
                         f"first in row {row + 2} (the header is row 1), value {df[column].iloc[row]!r}")


def find_images(data_dir: str | Path, split: str, image_names: Iterable[str],
                image_format: str = "auto") -> dict[str, Source]:
    """Returns image_name -> file, in the order given, from `jpeg/<split>/` or `<split>/`, unpacked or in a zip.

    These are Kaggle's own layout (JPEG files in the first, DICOM files in the second) and that of its widely used
    resized mirrors (JPEG files in the second). Where neither folder holds any, they are looked for in the zip archives
    beside the tables, such as Kaggle's jpeg.zip, at last in `tfrecords/<split>*.tfrec`.

    Args:
        data_dir: the competition folder.
        split: "train" or "test".
        image_names: the names to find, as in <split>.csv.
        image_format: "jpeg" (PNG files count too), "dicom", "tfrecord", or "auto": in the first place that holds any,
            the first of these.

    Raises:
        FileNotFoundError: no folder or archive holds such images, or some names have no file there
            (names the table, column, row and count).
        ValueError: image_format is unknown, an archive is damaged, or an image has two files.
    """
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"IMAGE_FORMAT {image_format!r} is not one of {IMAGE_FORMATS}")
    suffixes = IMAGE_SUFFIXES.values() if image_format == "auto" else [IMAGE_SUFFIXES[image_format]]
    found = ((place, [c for c in candidates if c.suffix.lower() in wanted])
             for place, candidates in _list_candidates(Path(data_dir), split, image_format) for wanted in suffixes)
    place, there = next(((place, there) for place, there in found if there), (None, []))
    if not there:
        kind = "" if image_format == "auto" else f"{image_format.upper()} "
        raise FileNotFoundError(f"no {kind}images in {Path(data_dir, 'jpeg', split)}, {Path(data_dir, split)}, zip "
                                f"archives in {data_dir} or {Path(data_dir, 'tfrecords')}")
    names = list(image_names)
    files = find_by_name(there, names)
    missing = [row for row, name in enumerate(names) if name not in files]
    if missing:
        raise FileNotFoundError(
            f"{Path(data_dir) / (split + '.csv')}: column 'image_name' names {len(missing)} of {len(names)} images "
            f"without a file in {place}; first in row {missing[0] + 2} (the header is row 1): {names[missing[0]]}")
    return {name: files[name] for name in names}


def find_by_name(files: Iterable[Source], names: Iterable[str]) -> dict[str, Source]:
    """Returns name -> file of those names that are a file's without its ending; raises ValueError where two are."""
    found, wanted = {}, set(names)
    for file in files:
        if file.stem in wanted:
            if str(found.get(file.stem, file)) != str(file):  # an archive may list one twice: the last counts
                raise ValueError(f"the image {file.stem} has two files, {found[file.stem]} and {file}: leave one of "
                                 "them")
            found[file.stem] = file
    return found


def _list_candidates(data_dir: Path, split: str, image_format: str) -> Iterator[tuple[Path, list[Source]]]:
    """Yields (place, files there) of the folders and archives in which a split's images may lie."""
    if image_format != "tfrecord":
        for folder in (data_dir / "jpeg" / split, data_dir / split):
            yield folder, sorted(folder.glob("*"))
        for path in sorted(data_dir.glob("*.zip")):
            yield path, [m for m in list_zip_members(path) if PurePosixPath(m.name).parent.name == split]
    if image_format in ("auto", "tfrecord"):
        folder = data_dir / "tfrecords"
        yield folder, list_tfrecord_members(sorted(folder.glob(f"{split}*.tfrec")))


def find_duplicates_csv(data_dir: str | Path) -> Path | None:
    """Returns the official list of duplicates in a competition folder, or None where it holds none."""
    paths = sorted(p for p in Path(data_dir).glob("*.csv") if "duplicates" in p.name.lower())
    return paths[0] if paths else None


def read_duplicates(path: str | Path) -> pd.DataFrame:
    """Returns the official list of duplicate pairs (columns `DUPLICATE_COLUMNS`).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no CSV or a column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the list of duplicates {path} does not exist")
    try:
        df = pd.read_csv(path, encoding="utf-8-sig", dtype=str)
    except ValueError as error:  # pandas' errors of empty, broken or binary files are such
        raise ValueError(f"{path} can't be read as CSV: {error}") from error
    missing = [c for c in DUPLICATE_COLUMNS if c not in df]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing; met {list(df.columns)}")
    return df


def drop_duplicates(train_df: pd.DataFrame, duplicates_df: pd.DataFrame) -> pd.DataFrame:
    """Returns the training rows without the second image of every listed pair whose first is there too.

    Where pairs run in a circle, such as one that is listed in both orders, the first image of train_df stays.

    Args:
        train_df: (N, …) training table.
        duplicates_df: pairs as of `read_duplicates`; pairs of other partitions or absent images are no matter.
    """
    names = pd.Index(train_df["image_name"])
    pairs = np.stack([names.get_indexer(duplicates_df[column]) for column in ("ISIC_id", "ISIC_id_paired")])
    firsts, seconds = pairs[:, (pairs >= 0).all(axis=0)]
    csgraph = importlib.import_module("scipy.sparse.csgraph")  # a tenth of a second that the command line need not wait
    graph = importlib.import_module("scipy.sparse").coo_array((np.ones(len(firsts)), (firsts, seconds)),
                                                              shape=(len(names),) * 2)
    groups = csgraph.connected_components(graph, directed=False)[1]  # (N,) equal where pairs connect images
    is_second = pd.Series(np.isin(np.arange(len(names)), seconds))
    is_circle = is_second.groupby(groups).transform("all")
    is_first = ~pd.Series(groups).duplicated()
    return train_df[~(is_second & ~(is_circle & is_first)).to_numpy()].reset_index(drop=True)


def encode_metadata(df: pd.DataFrame) -> np.ndarray:
    """Returns the metadata as (N, 12) float32, columns as in `METADATA_FEATURES`.

    Sex and site are one-hot, a missing or unheard-of value being the category "unknown"; age is in centuries
    (0.45 = 45 years), 0 with its own "unknown" flag where it is missing.

    Args:
        df: (N, …) table with the columns sex, age_approx (years) and anatom_site_general_challenge.
    """
    sex = df["sex"].where(df["sex"].isin(SEXES), "unknown")
    site = df["anatom_site_general_challenge"]
    site = site.where(site.isin(SITES), "unknown")
    columns = [sex == s for s in (*SEXES, "unknown")] + [site == s for s in (*SITES, "unknown")]
    columns += [df["age_approx"].fillna(0) / 100, df["age_approx"].isna()]
    return np.stack([np.asarray(c, dtype=np.float32) for c in columns], axis=1)  # (N, 12)
