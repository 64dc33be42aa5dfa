import base64
import io

import numpy as np
import pytest
from PIL import Image

from melanoma_utils.thumbnails import encode_thumbnail


def decode(uri):
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize(("shape", "size"), [((60, 120), (32, 16)), ((120, 60), (16, 32)), ((20, 10), (10, 20)),
                                             ((1, 300), (32, 1))])
def test_it_fits_into_the_square_and_is_never_enlarged(shape, size):
    assert decode(encode_thumbnail(np.zeros((*shape, 3), np.uint8), 32)).size == size


def test_it_shows_the_picture_and_holds_nothing_else():
    image = np.full((64, 64, 3), (200, 100, 50), np.uint8)
    image[:, 32:] = (20, 30, 200)
    small = decode(encode_thumbnail(image, 32))
    assert np.abs(np.asarray(small)[16, 4].astype(int) - (200, 100, 50)).max() < 12
    assert np.abs(np.asarray(small)[16, 28].astype(int) - (20, 30, 200)).max() < 12
    assert not small.getexif()
