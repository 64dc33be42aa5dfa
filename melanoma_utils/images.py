"""Image files as RGB arrays: decoded at the scale that is needed, resized to a square."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from melanoma_utils.archives import Source, count_bytes, open_source
from melanoma_utils.cleaning import check_clean_steps, clean_image
from melanoma_utils.dicom import open_dicom

RESIZE_MODES = ("squash", "crop", "pad")
# Pillow refuses pictures of more than twice MAX_IMAGE_PIXELS and warns of those above it, which are read here. Said
# once for all: a filter for the time of a call is not safe among threads, which the app's visitors are.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def load_resized(path: Source, image_size: int, resize_mode: str = "squash",
                 clean_steps: Sequence[str] = ()) -> np.ndarray:
    """Returns an image file as an (image_size, image_size, 3) uint8 RGB array, upright; see `load_at_sizes`."""
    return load_at_sizes(path, [image_size], resize_mode, clean_steps)[0]


def load_at_sizes(path: Source, image_sizes: Sequence[int], resize_mode: str = "squash",
                  clean_steps: Sequence[str] = (), decode_size: int | None = None) -> list[np.ndarray]:
    """Returns an image file at several sizes from one decode: (S, S, 3) uint8 RGB arrays, upright.

    JPEG files are decoded at the smallest scale of at least twice the largest size (Pillow's draft mode), which is
    several times faster than a full decode; the rest of the way is an antialiased bilinear resize.

    Args:
        path: a JPEG, PNG or DICOM file, or another that Pillow reads, on disk or in an archive.
        image_sizes: sides of the results in pixels.
        resize_mode: what becomes of frames that are not square: "squash" resizes the whole frame to a square (the
            original's), "crop" keeps the largest centred square, "pad" keeps the whole frame on black.
        clean_steps: names out of `cleaning.CLEAN_STEPS`, applied before the resize.
        decode_size: the side in pixels for which to decode; None: the largest of image_sizes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, truncated or no image, or resize_mode or a clean step is unknown.
    """
    check_resize(resize_mode, clean_steps)
    with _open_image(path) as image:
        image.draft("RGB", _draft_size(image.size, decode_size or max(image_sizes)))
        image = _convert_to_rgb(ImageOps.exif_transpose(image))
        if clean_steps:
            image = Image.fromarray(clean_image(np.asarray(image), clean_steps))
        return [np.asarray(make_square(image, image_size, resize_mode)) for image_size in image_sizes]  # (H, W, 3) each


def load_upright(path: Source, max_side: int) -> np.ndarray:
    """Returns an image file as a person looks at it: (H, W, 3) uint8 RGB, upright, never enlarged.

    Args:
        path: a JPEG, PNG or DICOM file, or such a file in an archive or in memory.
        max_side: the longest side of the result in pixels; a larger picture is shrunk.

    Raises:
        FileNotFoundError, ValueError: see `load_at_sizes`.
    """
    with _open_image(path) as image:
        scale = min(1.0, max_side / max(image.size))
        image.draft("RGB", (round(image.size[0] * scale), round(image.size[1] * scale)))
        image = _convert_to_rgb(ImageOps.exif_transpose(image))
        image.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)
        return np.asarray(image)


def check_resize(resize_mode: str, clean_steps: Sequence[str] = ()) -> None:
    """Raises ValueError if a resize mode or a clean step is unknown."""
    if resize_mode not in RESIZE_MODES:
        raise ValueError(f"RESIZE_MODE {resize_mode!r} is not one of {RESIZE_MODES}")
    check_clean_steps(clean_steps)


def read_image_size(path: Source) -> tuple[int, int]:
    """Returns (width, height) of an image file in pixels, read from its header; raises like `load_resized`."""
    with _open_image(path) as image:
        return image.size


@contextmanager
def _open_image(path: Source) -> Iterator[Image.Image]:
    """Opens an image for reading; whatever fails while it is open is told with the file's name."""
    try:
        with open_dicom(path) if str(path).lower().endswith(".dcm") else Image.open(open_source(path)) as image:
            yield image
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file makes a decoder raise
        raise _explain(path, error) from error


def make_square(image: Image.Image, image_size: int, resize_mode: str) -> Image.Image:
    """Returns an image at image_size x image_size pixels, see `load_at_sizes`."""
    size = (image_size, image_size)
    if resize_mode == "squash":
        return image.resize(size, Image.Resampling.BILINEAR)
    if resize_mode == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return ImageOps.pad(image, size, Image.Resampling.BILINEAR)


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits; Pillow itself would cut off all above 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("a picture of floating-point numbers has no known range")
    return image.convert("RGB")


def _draft_size(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    scale = 2 * image_size / min(size)
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def _explain(path: Source, error: Exception) -> Exception:
    """Returns the error to raise for a file that Pillow could not read: which file, and why in plain words."""
    if isinstance(error, ValueError | FileNotFoundError) and len(error.args) == 1 and str(path) in str(error):
        return type(error)(str(error))  # named already by an archive's or a DICOM file's reader
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{path} does not exist")
    if isinstance(error, OSError) and error.errno:
        return ValueError(f"{path} can't be opened: {error.strerror}")
    if count_bytes(path) == 0:
        return ValueError(f"{path} is empty (0 bytes)")
    if isinstance(error, Image.UnidentifiedImageError):
        return ValueError(f"{path} is not an image that can be read")
    if isinstance(error, Image.DecompressionBombError):
        return ValueError(f"{path} has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels")
    why = "the file is incomplete, copy it again" if "truncated" in str(error).lower() else error
    return ValueError(f"{path} can't be decoded: {why}")
