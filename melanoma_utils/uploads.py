"""Uploaded pictures: checked before anything decodes them, since nobody knows who sends them."""

import io
import warnings

import pydicom
from pydicom.config import disable_value_validation
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from melanoma_utils.archives import MemoryFile
from melanoma_utils.images import read_image_size

MAX_MEGABYTES = 50  # of a file
MAX_MEGAPIXELS = 50  # of its picture; the competition's largest have 24
STARTS = {".jpg": (0, b"\xff\xd8\xff"), ".png": (0, b"\x89PNG\r\n\x1a\n"), ".dcm": (128, b"DICM")}


def check_upload(name: str, content: bytes) -> MemoryFile:
    """Returns an uploaded picture as a source for `images` and `dicom`, under the ending that its content has.

    Only its header is read, where its format allows that. What it is called has no influence on how it is read.

    Args:
        name: of the file, as its sender calls it.
        content: its bytes.

    Raises:
        ValueError: one sentence for the sender: it is empty, no JPEG, PNG or DICOM file, damaged, without a picture,
            or larger than `MAX_MEGABYTES` or `MAX_MEGAPIXELS`.
    """
    file = check_header(name, content)
    _check_pixels(name, *read_image_size(file))
    return file


def check_header(name: str, content: bytes) -> MemoryFile:
    """Does what `check_upload` does without a look at the picture itself, so that a header can be asked first."""
    if not content:
        raise ValueError(f"{name} is empty (0 bytes)")
    if len(content) > MAX_MEGABYTES * 2**20:
        raise ValueError(f"{name} has {len(content) / 2**20:,.0f} MB, more than the {MAX_MEGABYTES} that are read")
    suffix = next((end for end, (at, start) in STARTS.items() if content[at:at + len(start)] == start), None)
    if suffix is None:
        raise ValueError(f"{name} is no JPEG, PNG or DICOM file, whatever it is called")
    if suffix == ".dcm":
        _check_pixels(name, *_read_dicom_size(name, content))
    return MemoryFile(name if name.lower().endswith(suffix) else name + suffix, content)


def _check_pixels(name: str, width: int, height: int) -> None:
    if width * height > MAX_MEGAPIXELS * 1e6:
        raise ValueError(f"{name} has {width} x {height} pixels, more than the {MAX_MEGAPIXELS} million that are read")


def _read_dicom_size(name: str, content: bytes) -> tuple[int, int]:
    """Returns (width, height) as a DICOM header says, before anything is unpacked; 0 where it does not say."""
    buffer = io.BytesIO(content)
    buffer.seek(STARTS[".dcm"][0] + 4)
    try:
        with disable_value_validation(), warnings.catch_warnings(action="ignore"):  # they would quote the header
            meta = read_dataset(buffer, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:  # few bytes may unpack to gigabytes
                raise ValueError("it is compressed as a whole (deflated)")
            header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, specific_tags=["Columns", "Rows"])
            return int(header.get("Columns") or 0), int(header.get("Rows") or 0)
    except Exception as error:  # whatever a damaged header makes the parser raise
        raise ValueError(f"{name} is not a DICOM file that can be read: {error}") from error
