import io

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from melanoma_utils.competition import find_images, read_train
from melanoma_utils.dicom import find_metadata_differences, open_dicom, read_dicom_metadata, write_dicom
from melanoma_utils.images import load_resized, read_image_size

ROW = {"image_name": "SYN_1", "sex": "female", "age_approx": 45.0, "anatom_site_general_challenge": "torso"}


@pytest.fixture
def jpeg():
    """A smooth colourful 640x480 JPEG file's bytes."""
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_raw(path, pixels, colours, **elements):
    """Writes uncompressed pixels, (H, W) or (H, W, 3), uint8, uint16 or int16, as a DICOM file."""
    dataset = pydicom.Dataset()
    dataset.preamble = bytes(128)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PhotometricInterpretation = colours
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    return path


def show(path):
    return np.asarray(open_dicom(path))


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
def test_a_jpeg_inside_gives_the_pixels_of_the_jpeg_file(tmp_path, jpeg, mode):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    write_dicom(tmp_path / "a.dcm", jpeg, ROW)
    assert np.array_equal(load_resized(tmp_path / "a.dcm", 64, mode), load_resized(tmp_path / "a.jpg", 64, mode))
    assert read_image_size(tmp_path / "a.dcm") == (640, 480)


def test_rgb_that_is_not_compressed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    assert np.array_equal(show(write_raw(tmp_path / "a.dcm", pixels, "RGB")), pixels)


def test_deeper_rgb_is_scaled_to_eight_bits(tmp_path):
    pixels = np.array([[[0, 257, 65535]]], np.uint16)
    assert show(write_raw(tmp_path / "a.dcm", pixels, "RGB")).tolist() == [[[0, 1, 255]]]


def test_several_pictures_in_one_file_are_refused(tmp_path):
    path = write_raw(tmp_path / "a.dcm", np.zeros((2, 3, 3), np.uint8), "RGB", NumberOfFrames=5)
    with pytest.raises(ValueError, match=r"a\.dcm holds 5 pictures: give each in a file of its own"):
        open_dicom(path)


def test_monochrome1_is_the_negative_of_monochrome2(tmp_path):
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    assert np.array_equal(show(write_raw(tmp_path / "a.dcm", pixels, "MONOCHROME2")), pixels)
    assert np.array_equal(show(write_raw(tmp_path / "b.dcm", pixels, "MONOCHROME1")), 255 - pixels)
    assert load_resized(tmp_path / "b.dcm", 8).shape == (8, 8, 3)


def test_a_window_of_sixteen_bits(tmp_path):
    pixels = np.array([[0, 1000, 2000, 3000, 65535]], np.uint16)
    path = write_raw(tmp_path / "a.dcm", pixels, "MONOCHROME2", WindowCenter=2000, WindowWidth=2001)
    low, at_low, middle, at_high, high = show(path)[0].tolist()
    assert (low, at_low, at_high, high) == (0, 0, 255, 255) and abs(middle - 127) <= 1


def test_a_window_of_rescaled_signed_values(tmp_path):
    pixels = np.array([[-1024, 0, 1024]], np.int16)
    path = write_raw(tmp_path / "a.dcm", pixels, "MONOCHROME2", RescaleSlope=1, RescaleIntercept=-1024,
                     WindowCenter=-1024, WindowWidth=2049)
    low, middle, high = show(path)[0].tolist()
    assert (low, high) == (0, 255) and abs(middle - 127) <= 1


def test_a_modality_table_with_a_window_over_its_values(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [3, 0, 16], "US"
    table.LUTData = np.array([0, 100 * 257, 65535], "<u2").tobytes()
    pixels = np.array([[0, 1, 2]], np.uint16)
    path = write_raw(tmp_path / "a.dcm", pixels, "MONOCHROME2", ModalityLUTSequence=[table], WindowCenter=32768,
                     WindowWidth=65536, BitsStored=12, HighBit=11)
    assert np.abs(show(path)[0].astype(int) - [0, 100, 255]).max() <= 1


def test_palette_colour(tmp_path):
    red, green, blue = ([0, 255, 10], [0, 128, 20], [0, 0, 30])
    tables = {f"{name}PaletteColorLookupTableDescriptor": [3, 0, 16] for name in ("Red", "Green", "Blue")}
    for name, values in zip(("Red", "Green", "Blue"), (red, green, blue), strict=True):
        tables[f"{name}PaletteColorLookupTableData"] = (np.array(values, "<u2") * 257).tobytes()
    path = write_raw(tmp_path / "a.dcm", np.array([[0, 1], [2, 1]], np.uint8), "PALETTE COLOR", **tables)
    assert show(path).tolist() == [[[0, 0, 0], [255, 128, 0]], [[10, 20, 30], [255, 128, 0]]]


def test_headers_are_compared_with_the_table(tmp_path, jpeg):
    write_dicom(tmp_path / "a.dcm", jpeg, ROW)
    unknown = {"image_name": "SYN_2", "sex": np.nan, "age_approx": np.nan, "anatom_site_general_challenge": None}
    write_dicom(tmp_path / "b.dcm", jpeg, unknown)
    found = {"SYN_1": read_dicom_metadata(tmp_path / "a.dcm"), "SYN_2": read_dicom_metadata(tmp_path / "b.dcm")}
    assert find_metadata_differences(found, {"SYN_1": ROW, "SYN_2": unknown}) == []
    rows = {"SYN_1": ROW | {"age_approx": 50.0}, "SYN_2": unknown | {"sex": "male"}}
    differences = [("SYN_1", "age_approx", 45.0, 50.0), ("SYN_2", "sex", None, "male")]
    assert find_metadata_differences(found, rows) == differences


def test_quoted_header_values_are_read_without_noise(tmp_path, jpeg, recwarn):
    write_dicom(tmp_path / "a.dcm", jpeg, ROW)
    content = (tmp_path / "a.dcm").read_bytes()
    assert content.count(b"TORSO ") == 1
    (tmp_path / "a.dcm").write_bytes(content.replace(b"TORSO ", b'"TOR" '))
    assert read_dicom_metadata(tmp_path / "a.dcm")["anatom_site_general_challenge"] == "tor"
    assert len(recwarn) == 0


def test_bad_files_are_named_with_the_reason(tmp_path, jpeg):
    write_dicom(tmp_path / "whole.dcm", jpeg, ROW)
    content = (tmp_path / "whole.dcm").read_bytes()
    dataset = pydicom.dcmread(tmp_path / "whole.dcm")
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.save_as(tmp_path / "codec.dcm")
    del dataset.PixelData
    dataset.save_as(tmp_path / "blind.dcm")
    for name, data in {"empty": b"", "cut_1": content[:len(content) // 100], "cut_50": content[:len(content) // 2],
                       "cut_99": content[:len(content) * 99 // 100], "page": b"<html></html>"}.items():
        (tmp_path / f"{name}.dcm").write_bytes(data)
    for name, reason in {"empty": r"is empty \(0 bytes\)", "cut_1": "", "cut_50": "",
                         "cut_99": "", "page": "is not a DICOM file", "blind": "holds no picture",
                         "codec": "can't be decoded.*JPEG Lossless"}.items():
        with pytest.raises(ValueError, match=rf"(?s){name}\.dcm {reason}"):
            load_resized(tmp_path / f"{name}.dcm", 32)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.dcm does not exist"):
        load_resized(tmp_path / "nowhere.dcm", 32)


@pytest.mark.real
def test_real_dicom_and_jpeg_agree(real_dir):
    """Whole frame squashed to 224 px: a difference below 1 grey level for each of the five pairs."""
    paths = sorted((real_dir / "dicom" / "train").glob("*.dcm"))
    jpegs = find_images(real_dir / "siim-isic-subset", "train", [path.stem for path in paths])
    for path in paths:
        difference = load_resized(path, 224).astype(float) - load_resized(jpegs[path.stem], 224)
        assert np.abs(difference).mean() < 1
    assert len(paths) == 5


@pytest.mark.real
def test_real_headers_differ_from_the_table_only_in_age(real_dir, recwarn):
    paths = sorted((real_dir / "dicom" / "train").glob("*.dcm"))
    found = {path.stem: read_dicom_metadata(path) for path in paths}
    train_df = read_train(real_dir / "metadata")
    rows = {row["image_name"]: row for row in train_df[train_df["image_name"].isin(found)].to_dict("records")}
    assert {column for _, column, _, _ in find_metadata_differences(found, rows)} == {"age_approx"}
    assert len(recwarn) == 0 and not pd.isna(rows[paths[0].stem]["age_approx"])
