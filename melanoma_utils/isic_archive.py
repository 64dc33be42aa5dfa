"""A collection of the ISIC Archive as a competition folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from melanoma_utils.clients import AGAIN, check_reachable, report_errors, run_client
from melanoma_utils.competition import TEST_COLUMNS, TRAIN_COLUMNS, find_images, read_test, read_train
from melanoma_utils.external import SITE_NAMES
from melanoma_utils.files import write_csv

COLLECTION = 70  # "Challenge 2020: Training": the competition's training set
API_URL = f"https://api.isic-archive.com/api/v2/collections/{COLLECTION}/"
TEST_METADATA = "ISIC_2020_Test_Metadata.csv"
TEST_HINT = ("the competition's test images are in no collection, and the pipeline wants them: of the page\n"
             "https://challenge.isic-archive.com/data/#2020 " + TEST_METADATA + " goes into {0}, the images of its\n"
             "ISIC_2020_Test_JPEG.zip go into {0}/jpeg/test; then run the same command again")
DIAGNOSES = tuple(f"diagnosis_{level}" for level in range(1, 6))  # Malignant, … (Melanoma), Melanoma, NOS
RENAMED = {"isic_id": "image_name", "image": "image_name", "patient": "patient_id",
           "anatom_site_general": "anatom_site_general_challenge"}
ISIC_ADVICE = (
    (r"Insufficient disk space", f"the disk has no room for the whole collection: make room, then {AGAIN}\n"
     "(isic counts images that are there already; where they are many, run it by hand and answer y)"),
    (r"new major version of isic-cli", f"the archive wants a newer client: pip install --upgrade isic-cli; {AGAIN}"),
)


def download_collection(data_dir: str | Path) -> None:
    """Writes the competition's training images to jpeg/train and train.csv, from the ISIC Archive.

    The isic client skips images that are there with their full size, so that it continues an interrupted download.
    A train.csv that is there already is kept.

    The archive documents no collection with the competition's test images. The challenge's own page has them: where
    its `ISIC_2020_Test_Metadata.csv` lies in the folder, test.csv and sample_submission.csv are made of it.

    Args:
        data_dir: the competition folder.

    Raises:
        FileNotFoundError: there is no isic client, or some images could not be fetched.
        ConnectionError: the archive can't be reached.
        ChildProcessError: the client failed; tells what to do.
        ValueError: the metadata lack a column or a value; tells which and how many.
    """
    data_dir = Path(data_dir).expanduser()
    images_dir, train_path = data_dir / "jpeg" / "train", data_dir / "train.csv"
    try:
        n_images = _count_train_images(data_dir)
    except FileNotFoundError:
        check_reachable(API_URL)
        run_client(["isic", "image", "download", "--collections", str(COLLECTION), str(images_dir)], ISIC_ADVICE)
        if not train_path.exists():
            write_csv(train_path, make_train(pd.read_csv(images_dir / "metadata.csv", dtype=str)))
        try:
            n_images = _count_train_images(data_dir)
        except FileNotFoundError as error:  # the client says nothing of images that it could not fetch
            raise FileNotFoundError(f"{error}\nthey could not be fetched: {AGAIN}") from error
    print(f"{data_dir} holds {n_images:,} training images and train.csv")
    if (data_dir / TEST_METADATA).is_file() and not (data_dir / "test.csv").exists():
        test_df = make_test(pd.read_csv(data_dir / TEST_METADATA, dtype=str))
        write_csv(data_dir / "sample_submission.csv", test_df[["image_name"]].assign(target=0))
        write_csv(data_dir / "test.csv", test_df)
    try:
        n_images = len(find_images(data_dir, "test", read_test(data_dir)["image_name"]))
        print(f"{data_dir} holds {n_images:,} test images and test.csv")
    except FileNotFoundError as error:
        print(error if (data_dir / "test.csv").exists() else TEST_HINT.format(data_dir))


def _count_train_images(data_dir: Path) -> int:
    return len(find_images(data_dir, "train", read_train(data_dir)["image_name"]))


def make_train(metadata_df: pd.DataFrame) -> pd.DataFrame:
    """Returns train.csv, columns `TRAIN_COLUMNS`, of the metadata.csv that the isic client writes.

    The target is 1, and the diagnosis "melanoma", where a level of the diagnosis names one. Else the diagnosis is the
    deepest level there is, in small letters, or "unknown" where only the first is given ("Benign").

    Args:
        metadata_df: (N, …) strings; isic_id, patient_id, sex, age_approx (years), anatom_site_general, and
            diagnosis_1 (Benign, Indeterminate, Malignant) to diagnosis_5.

    Raises:
        ValueError: a column is missing; isic_id, patient_id or diagnosis_1 is empty; a site is not known.
    """
    _check_columns(metadata_df, ("isic_id", "patient_id", "sex", "age_approx", "anatom_site_general", "diagnosis_1"),
                   ("isic_id", "patient_id", "diagnosis_1"))
    levels = metadata_df[[c for c in DIAGNOSES if c in metadata_df]]
    is_melanoma = levels.apply(lambda level: level.str.contains("melanoma", case=False, na=False)).any(axis=1)
    deepest = levels.ffill(axis=1).iloc[:, -1].str.lower()
    df = _rename(metadata_df).assign(
        diagnosis=deepest.where(levels.iloc[:, 1:].notna().any(axis=1), "unknown").mask(is_melanoma, "melanoma"),
        benign_malignant=metadata_df["diagnosis_1"].str.lower(), target=is_melanoma.astype(int))
    return df[list(TRAIN_COLUMNS)].sort_values("image_name", ignore_index=True)


def make_test(metadata_df: pd.DataFrame) -> pd.DataFrame:
    """Returns test.csv, columns `TEST_COLUMNS`, of the challenge's ISIC_2020_Test_Metadata.csv.

    Args:
        metadata_df: (N, …) strings; image, patient, sex, age_approx (years), anatom_site_general.

    Raises:
        ValueError: a column is missing; image or patient is empty; a site is not known.
    """
    _check_columns(metadata_df, ("image", "patient", "sex", "age_approx", "anatom_site_general"), ("image", "patient"))
    return _rename(metadata_df)[list(TEST_COLUMNS)]


def _check_columns(df: pd.DataFrame, columns: Sequence[str], filled: Sequence[str]) -> None:
    missing = [c for c in columns if c not in df]
    if missing:
        raise ValueError(f"the archive's metadata lack {len(missing)} of {len(columns)} columns: {missing}; "
                         f"met {list(df.columns)}")
    for column in filled:
        empty = df[column].isna()
        if empty.any():
            raise ValueError(f"the archive's metadata: column {column!r} is empty in {empty.sum()} of {len(df)} rows, "
                             f"first for {df[columns[0]][empty].iloc[0]}")
    sites = df["anatom_site_general"].dropna()
    unknown = sites[~sites.isin(SITE_NAMES)]
    if len(unknown):
        raise ValueError(f"the archive's metadata: column 'anatom_site_general' holds {unknown.iloc[0]!r} in one of "
                         f"{len(unknown)} rows that are none of {tuple(SITE_NAMES)}")


def _rename(df: pd.DataFrame) -> pd.DataFrame:
    return df.assign(anatom_site_general=df["anatom_site_general"].map(SITE_NAMES)).rename(columns=RENAMED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m melanoma_utils.isic_archive", description=__doc__)
    parser.add_argument("data_dir", metavar="DIR")
    a = parser.parse_args(arguments)
    return report_errors(lambda: download_collection(a.data_dir))


if __name__ == "__main__":
    sys.exit(main())
