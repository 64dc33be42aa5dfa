"""A drawn competition in the other formats that the real data come in: DICOM, TFRecord, an ISIC 2019-style folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from melanoma_utils.competition import find_images, read_test, read_train
from melanoma_utils.dicom import write_dicom
from melanoma_utils.files import write_bytes, write_csv
from melanoma_utils.tfrecords import write_tfrecords

ISIC_2019_CLASSES = {"MEL": "melanoma", "NV": "nevus", "BKL": "seborrheic keratosis", "UNK": None}


def write_dicoms(data_dir: str | Path) -> None:
    """Writes a DICOM version of every image of a drawn competition, train/*.dcm and test/*.dcm as on Kaggle.

    Args:
        data_dir: folder of `draw_competition`; its JPEG bytes go into the DICOM files as they are.

    Raises:
        FileNotFoundError: the folder holds no whole competition.
    """
    for split, df, paths in _read_splits(data_dir):
        for row in df.to_dict("records"):
            path = Path(data_dir, split, f"{row['image_name']}.dcm")
            write_dicom(path, paths[row["image_name"]].read_bytes(), row)


def write_shards(data_dir: str | Path) -> None:
    """Writes TFRecord versions of a drawn competition, tfrecords/train*.tfrec and test*.tfrec as on Kaggle.

    Args:
        data_dir: folder of `draw_competition`; its JPEG bytes go into the records as they are.

    Raises:
        FileNotFoundError: the folder holds no whole competition.
    """
    for split, df, paths in _read_splits(data_dir):
        write_tfrecords(Path(data_dir, "tfrecords"), split, df, paths)


def write_external(data_dir: str | Path, external_dir: str | Path) -> None:
    """Writes the training images of a drawn competition as an ISIC 2019-style folder: one-hot ground truth, metadata
    with lesion_id (here the patient's), images.

    Args:
        data_dir: folder of `draw_competition`; its JPEG bytes are copied as they are.
        external_dir: folder to write to.

    Raises:
        FileNotFoundError: data_dir holds no whole competition.
    """
    train_df, external_dir = read_train(data_dir), Path(external_dir)
    codes = train_df["diagnosis"].map({name: code for code, name in ISIC_2019_CLASSES.items()}).fillna("UNK")
    one_hot = {code: (codes == code).astype(float) for code in ISIC_2019_CLASSES}
    write_csv(external_dir / "ISIC_2019_Training_GroundTruth.csv",
              train_df[["image_name"]].set_axis(["image"], axis=1).assign(**one_hot))
    columns = {"image_name": "image", "age_approx": "age_approx", "anatom_site_general_challenge":
               "anatom_site_general", "patient_id": "lesion_id", "sex": "sex"}
    metadata_df = train_df[list(columns)].rename(columns=columns)
    metadata_df["anatom_site_general"] = metadata_df["anatom_site_general"].replace("torso", "anterior torso")
    write_csv(external_dir / "ISIC_2019_Training_Metadata.csv", metadata_df)
    for name, path in find_images(data_dir, "train", train_df["image_name"], "jpeg").items():
        write_bytes(external_dir / "ISIC_2019_Training_Input" / f"{name}.jpg", Path(path).read_bytes())


def _read_splits(data_dir: str | Path) -> Iterator[tuple[str, pd.DataFrame, Mapping]]:
    """Yields (split, its table, image_name -> JPEG file)."""
    for split, df in (("train", read_train(data_dir)), ("test", read_test(data_dir))):
        yield split, df, find_images(data_dir, split, df["image_name"], "jpeg")
