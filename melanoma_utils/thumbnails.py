"""Small pictures as data URIs, which tables and pages show without any file."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image


def encode_thumbnail(image: np.ndarray, side: int = 320) -> str:
    """Returns an image as the data URI of a JPEG file; nothing but its pixels is in it.

    Args:
        image: (H, W, 3) uint8 RGB.
        side: of the square in pixels into which it is made to fit, its proportions kept; it is never enlarged.
    """
    small, buffer = Image.fromarray(image), BytesIO()
    small.thumbnail((side, side))
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
