"""An ISIC 2018/2019-style folder as extra training rows in the competition's columns."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from melanoma_utils.archives import Source, list_zip_members
from melanoma_utils.competition import IMAGE_SUFFIXES, SEXES, SITES, TRAIN_COLUMNS, find_by_name

# Classes of the ISIC 2018 (task 3) and 2019 challenges -> diagnosis, benign_malignant. Only melanoma is target 1.
DIAGNOSES = {
    "MEL": ("melanoma", "malignant"), "NV": ("nevus", "benign"), "BCC": ("basal cell carcinoma", "malignant"),
    "AK": ("actinic keratosis", "premalignant"), "AKIEC": ("actinic keratosis", "premalignant"),
    "BKL": ("benign keratosis", "benign"), "DF": ("dermatofibroma", "benign"), "VASC": ("vascular lesion", "benign"),
    "SCC": ("squamous cell carcinoma", "malignant"), "UNK": ("unknown", "unknown"),
}
SITE_NAMES = {**{site: site for site in SITES}, "anterior torso": "torso", "posterior torso": "torso",
              "lateral torso": "torso"}


def read_external(external_dir: str | Path) -> pd.DataFrame:
    """Returns the rows of an ISIC 2018/2019-style folder with the columns `competition.TRAIN_COLUMNS`.

    The folder holds one CSV table with the columns image, MEL, NV, … of which one is 1 in each row (the challenges'
    GroundTruth), and one with image, lesion_id and, where they are known, age_approx, sex, anatom_site_general. Nobody
    knows the patients: patient_id is the lesion_id, or where that is missing the image's own name.

    Args:
        external_dir: the folder; tables lie in it, not below.

    Raises:
        FileNotFoundError: it is no folder, or one of the two tables is not there.
        ValueError: there are two such tables, an image is named twice or has not just one class, a class, site or sex
            is unknown, or an age no number; names file, value and count.
    """
    truth_path, metadata_path = _find_table(external_dir, "MEL"), _find_table(external_dir, "lesion_id")
    truth_df, metadata_df = _read_table(truth_path), _read_table(metadata_path)
    known_df = metadata_df[metadata_df["image"].isin(truth_df["image"])]
    known_df = known_df.reindex(columns=["image", "lesion_id", "age_approx", "sex", "anatom_site_general"])
    age, site = pd.to_numeric(known_df["age_approx"], errors="coerce"), known_df["anatom_site_general"].map(SITE_NAMES)
    for column, values, what in (("age_approx", age, "no number of years"),
                                 ("anatom_site_general", site, f"not in {tuple(SITE_NAMES)}")):
        _refuse(metadata_path, column, known_df[column][values.isna() & known_df[column].notna()], what)
    is_sex = known_df["sex"].isna() | known_df["sex"].isin((*SEXES, "unknown"))
    _refuse(metadata_path, "sex", known_df["sex"][~is_sex], f"not in {SEXES}")
    df = truth_df[["image"]].assign(code=_read_codes(truth_path, truth_df))
    df = df.merge(known_df.assign(age_approx=age, anatom_site_general=site), on="image", how="left")
    return pd.DataFrame({
        "image_name": df["image"], "patient_id": df["lesion_id"].fillna(df["image"]),
        "sex": df["sex"].where(df["sex"].isin(SEXES)), "age_approx": df["age_approx"],
        "anatom_site_general_challenge": df["anatom_site_general"],
        "diagnosis": df["code"].map(lambda code: DIAGNOSES[code][0]),
        "benign_malignant": df["code"].map(lambda code: DIAGNOSES[code][1]),
        "target": (df["code"] == "MEL").astype(int)})[list(TRAIN_COLUMNS)]


def find_external_images(external_dir: str | Path, image_names: Iterable[str]) -> dict[str, Source]:
    """Returns image_name -> JPEG or PNG file, in the order given: in the folder, in folders or zip archives in it.

    Raises:
        FileNotFoundError: names have no file there; tells the first one and how many.
        ValueError: an archive is damaged, or an image has two files (one in an archive and one unpacked are no matter).
    """
    folder = Path(external_dir)
    names, suffixes = list(image_names), IMAGE_SUFFIXES["jpeg"]
    members = (member for path in sorted(folder.glob("*.zip")) for member in list_zip_members(path))
    unpacked = [*sorted(folder.glob("*/*")), *sorted(folder.glob("*"))]
    files = {name: file for files in (members, unpacked)
             for name, file in find_by_name((f for f in files if f.suffix.lower() in suffixes), names).items()}
    missing = [name for name in names if name not in files]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(names)} images named by the tables in {folder} are neither "
                                f"there nor in a folder or zip archive in it, first {missing[0]}")
    return {name: files[name] for name in names}


def _find_table(external_dir: str | Path, column: str) -> Path:
    """Returns the one CSV file that has the columns image and the one named."""
    folder = Path(external_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"EXTERNAL_DIR {folder} is not a folder")
    paths = [p for p in sorted(folder.glob("*.csv")) if {"image", column} <= set(_read_table(p, nrows=0))]
    if len(paths) != 1:
        error = FileNotFoundError if not paths else ValueError
        raise error(f"EXTERNAL_DIR {folder} holds {len(paths)} CSV tables with the columns image and {column}, wanted "
                    "1: the ISIC challenge's ground truth has image and MEL, its metadata image and lesion_id")
    return paths[0]


def _read_table(path: Path, nrows: int | None = None) -> pd.DataFrame:
    try:
        df = pd.read_csv(path, encoding="utf-8-sig", dtype={"image": str, "lesion_id": str}, nrows=nrows)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read as CSV: {error}") from error
    if "image" in df:
        _refuse(path, "image", df["image"][df["image"].isna() | df["image"].duplicated()], "empty or repeated")
    return df


def _read_codes(path: Path, truth_df: pd.DataFrame) -> pd.Series:
    """Returns the class of each row of a one-hot table."""
    codes = [column for column in truth_df if column != "image"]
    unknown = sorted(set(codes) - set(DIAGNOSES))
    if unknown:
        raise ValueError(f"{path}: the class {unknown[0]!r} is not one of {tuple(DIAGNOSES)}")
    is_class = truth_df[codes].apply(pd.to_numeric, errors="coerce") == 1
    _refuse(path, "image", truth_df["image"][is_class.sum(axis=1) != 1], "not of just one class")
    return is_class.idxmax(axis=1)


def _refuse(path: Path, column: str, bad: pd.Series, what: str) -> None:
    if len(bad):
        raise ValueError(f"{path}: column {column!r} is {what} in {len(bad)} rows, first in row {bad.index[0] + 2} "
                         f"(the header is row 1), value {bad.iloc[0]!r}")
