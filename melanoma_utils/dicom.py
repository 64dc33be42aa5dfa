"""DICOM files: their picture as a Pillow image, what their header says about the patient, writing one."""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import JPEGBaseline8Bit, VLPhotographicImageStorage, generate_uid

from melanoma_utils.archives import Source, count_bytes, open_source
from melanoma_utils.files import write_bytes

HEADER_SEXES = {"F": "female", "M": "male"}
PLAIN_JPEG = ("YBR_FULL_422", "YBR_FULL", "MONOCHROME2")  # colours as Pillow understands a JPEG without being told


def open_dicom(path: Source) -> Image.Image:
    """Returns the picture of a DICOM file as an "RGB" or "L" Pillow image, as a viewer would show it.

    A baseline JPEG inside, the competition's format, is not decoded yet, so that Pillow can do so at the scale that is
    wanted. All else goes through pydicom: windows and lookup tables are applied, MONOCHROME1 is inverted, more than
    8 bits are scaled to 8 (DICOM PS3.3 C.7.6.3.1.2 and C.11.2).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no DICOM file, holds no picture or several, is damaged, or needs a codec that is not
            installed.
    """
    dataset = _read(path)
    if "PixelData" not in dataset:
        raise ValueError(f"{path} holds no picture (a DICOM file without pixel data)")
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    if n_frames != 1:
        raise ValueError(f"{path} holds {n_frames} pictures: give each in a file of its own")
    try:
        colours = dataset.PhotometricInterpretation
        if dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit and colours in PLAIN_JPEG:
            return Image.open(io.BytesIO(get_frame(dataset.PixelData, 0, number_of_frames=1)))
        pixels = pixel_array(dataset, index=0)  # (H, W) or (H, W, 3); YBR comes as RGB
        if colours == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
            return Image.fromarray(_scale(pixels, 0, np.iinfo(pixels.dtype).max))
        if pixels.ndim == 3:
            return Image.fromarray(_scale(pixels, 0, 2**dataset.BitsStored - 1))
        grey = _scale(apply_voi_lut(apply_modality_lut(pixels, dataset), dataset), *_find_grey_range(dataset))
        return Image.fromarray(255 - grey if colours == "MONOCHROME1" else grey)
    except Exception as error:  # whatever a damaged file makes a parser raise
        raise ValueError(f"{path} can't be decoded: {error}") from error


def read_dicom_metadata(path: Source) -> dict:
    """Returns sex, age_approx (years) and anatom_site_general_challenge as a header gives them, None where missing.

    Literal quote marks around a value, as some of the competition's files have, are dropped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no DICOM file, or is damaged.
    """
    dataset = _read(path, stop_before_pixels=True)
    sex, age, site = (str(dataset.get(key) or "").strip(' "') for key in ("PatientSex", "PatientAge",
                                                                          "BodyPartExamined"))
    years = float(age[:-1]) if age[:-1].isdigit() and age.endswith("Y") else None
    return {"sex": HEADER_SEXES.get(sex), "age_approx": years, "anatom_site_general_challenge": site.lower() or None}


def _read(path: Source, **options) -> pydicom.Dataset:
    try:
        with disable_value_validation(), warnings.catch_warnings(action="ignore"):  # of quoted values, of a cut end
            dataset = pydicom.dcmread(open_source(path), **options)
            dataset.decode()
        return dataset
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except Exception as error:  # whatever a damaged file makes a parser raise
        if count_bytes(path) == 0:
            raise ValueError(f"{path} is empty (0 bytes)") from error
        raise ValueError(f"{path} is not a DICOM file that can be read: {error}") from error


def _find_grey_range(dataset: pydicom.Dataset) -> tuple[float, float]:
    """Returns the values that a viewer shows as black and white, after the modality and VOI transformations."""
    tables = dataset.get("VOILUTSequence") or dataset.get("ModalityLUTSequence")
    if tables:
        return 0, 2 ** tables[0].LUTDescriptor[2] - 1
    bits, is_signed = dataset.BitsStored, dataset.PixelRepresentation == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


def _scale(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns pixels in low..high as uint8 in 0..255."""
    if pixels.dtype == np.uint8 and (low, high) == (0, 255):
        return pixels
    scaled = pixels.astype(np.float32)  # changed in place: a large picture has room once
    scaled -= low
    scaled *= 255 / (high - low)
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def write_dicom(path: str | Path, jpeg: bytes, row: Mapping) -> None:
    """Writes a DICOM file as the competition has them: a baseline JPEG as it is, the metadata in the header.

    Args:
        path: target file, written whole or not at all; equal input gives equal bytes.
        jpeg: a JPEG file's content, RGB.
        row: the image's row of the table, with image_name, sex, age_approx and anatom_site_general_challenge.
    """
    with Image.open(io.BytesIO(jpeg)) as image:
        width, height = image.size
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = VLPhotographicImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[row["image_name"]])
    dataset.PatientName, dataset.PatientID = row["image_name"].replace("_", "^"), row["image_name"]
    dataset.PatientSex = next((code for code, sex in HEADER_SEXES.items() if sex == row["sex"]), "")
    dataset.PatientAge = "" if _is_missing(row["age_approx"]) else f"{row['age_approx']:03.0f}Y"
    site = row["anatom_site_general_challenge"]
    with disable_value_validation():  # HEAD/NECK has a sign that DICOM does not allow there
        dataset.BodyPartExamined = "" if _is_missing(site) else site.upper()
    dataset.Columns, dataset.Rows = width, height
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PixelRepresentation = 3, 0, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PixelData = encapsulate([jpeg])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    write_bytes(path, buffer.getvalue())


def find_metadata_differences(found: Mapping[str, dict],
                              rows: Mapping[str, Mapping]) -> list[tuple[str, str, object, object]]:
    """Returns (image_name, column, value in the file, value in the table) wherever the two differ.

    Args:
        found: image_name -> what a file says, as of `read_dicom_metadata`.
        rows: image_name -> the table's row; NaN and None are the same.
    """
    return [(name, column, value, rows[name][column]) for name, values in found.items()
            for column, value in values.items()
            if value != rows[name][column] and not (_is_missing(value) and _is_missing(rows[name][column]))]


def _is_missing(value: object) -> bool:
    return value is None or value != value  # NaN is not itself
