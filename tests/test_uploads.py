import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from melanoma_utils import uploads
from melanoma_utils.archives import MemoryFile
from melanoma_utils.dicom import write_dicom
from melanoma_utils.images import load_upright
from melanoma_utils.patient_table import read_headers
from melanoma_utils.uploads import check_header, check_upload

ROW = {"image_name": "ISIC_1", "sex": "male", "age_approx": 45.0, "anatom_site_general_challenge": "torso"}


def encode(pixels, kind="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def pixels():
    """Red above blue, 60 x 90 pixels."""
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:30, :, 0], pixels[30:, :, 2] = 200, 200
    return pixels


@pytest.fixture
def dicom(pixels, tmp_path):
    write_dicom(tmp_path / "x.dcm", encode(pixels), ROW)
    return (tmp_path / "x.dcm").read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "a", "a.dcm", "IM000001"])
def test_the_content_tells_the_kind_and_not_the_name(pixels, dicom, name):
    for content, suffix in ((encode(pixels), ".jpg"), (encode(pixels, "PNG"), ".png"), (dicom, ".dcm")):
        file = check_upload(name, content)
        assert file.suffix.lower() == suffix and file.content is content and name.removesuffix(".dcm") in file.name
        shown = load_upright(file, 90)
        assert shown.shape == (60, 90, 3) and shown[10, 45, 0] > 150 and shown[50, 45, 2] > 150


def test_a_picture_is_shown_upright_and_small(pixels):
    exif = Image.Exif()
    exif[274] = 6  # to be turned a quarter clockwise
    shown = load_upright(check_upload("a.jpg", encode(pixels, exif=exif, quality=95)), 30)
    assert shown.shape == (30, 20, 3) and shown.dtype == np.uint8
    assert shown[15, 2, 2] > 150 and shown[15, 17, 0] > 150  # what was above is on the right
    assert load_upright(check_upload("a.jpg", encode(pixels)), 500).shape == (60, 90, 3)


@pytest.mark.parametrize(("content", "sentence"), [
    (b"", "x.jpg is empty"),
    (b"GIF89a" + bytes(100), "x.jpg is no JPEG, PNG or DICOM file"),
    (b"%!PS-Adobe-3.0 EPSF-3.0", "x.jpg is no JPEG, PNG or DICOM file"),  # Pillow would start Ghostscript
    (b"<html>", "x.jpg is no JPEG, PNG or DICOM file"),
    (b"\xff\xd8\xff" + bytes(50), "x.jpg"),
    (b"\x89PNG\r\n\x1a\n" + bytes(50), "x.jpg"),
    (bytes(128) + b"DICM", "x.jpg.dcm holds no picture"),
    (bytes(128) + b"DICM" + bytes(range(200)), "x.jpg"),
])
def test_what_is_no_picture_is_refused_in_one_sentence(content, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        check_upload("x.jpg", content)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


def test_too_large_a_file_or_picture_is_refused(pixels, dicom, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_MEGAPIXELS", 0.005)
    for content in (encode(pixels), encode(pixels, "PNG"), dicom):
        with pytest.raises(ValueError, match="90 x 60 pixels, more than"):
            check_upload("x", content)
    monkeypatch.setattr(uploads, "MAX_MEGABYTES", 0.0001)
    with pytest.raises(ValueError, match="MB, more than"):
        check_upload("x.jpg", encode(pixels))


def test_a_png_that_would_unpack_to_gigabytes_is_refused():
    chunk = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + b"IHDR" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + chunk))
    with pytest.raises(ValueError, match=r"x\.png"):
        check_upload("x.png", b"\x89PNG\r\n\x1a\n" + header + bytes(100))


def test_a_dicom_file_that_would_unpack_to_gigabytes_is_refused(dicom):
    dataset = pydicom.dcmread(io.BytesIO(dicom))
    for change in ({"Rows": 60_000, "Columns": 60_000}, {}):
        for key, value in change.items():
            setattr(dataset, key, value)
        if not change:
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            dataset.PixelData = bytes(90 * 60 * 3)
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        for check in (check_upload, check_header):
            with pytest.raises(ValueError, match="60000 x 60000 pixels" if change else "compressed as a whole"):
                check("x.dcm", buffer.getvalue())
        assert read_headers({"x": MemoryFile("x.dcm", buffer.getvalue())}).isna().all(axis=None)


def test_a_header_is_read_whatever_the_file_is_called(dicom, pixels):
    files = {"export": MemoryFile("IM000001", dicom), "picture": MemoryFile("a.dcm", encode(pixels))}
    assert read_headers(files)["sex"].fillna("").tolist() == ["male", ""]


def test_a_cut_off_picture_passes_the_header_and_fails_in_one_sentence(pixels):
    content = encode(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    with pytest.raises(ValueError, match=r"x\.jpg can't be decoded"):
        load_upright(check_upload("x.jpg", content[:3000]), 100)
