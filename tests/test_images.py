import numpy as np
import pytest
from PIL import Image

from melanoma_utils.images import load_resized, read_image_size


@pytest.fixture
def photo(tmp_path):
    """A 400x300 JPEG: red left half, blue right half, a green stripe at the left edge."""
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[:, :200, 0], pixels[:, 200:, 2] = 255, 255
    pixels[:, :40] = (0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path / "photo.jpg"


def test_squash_keeps_the_whole_frame_and_crop_its_middle(photo):
    squashed, cropped = load_resized(photo, 50, "squash"), load_resized(photo, 50, "crop")
    assert squashed.shape == cropped.shape == (50, 50, 3) and squashed.dtype == np.uint8
    assert squashed[25, 1].argmax() == 1 and cropped[25, 1].argmax() == 0  # the green stripe is cut away


def test_pad_keeps_the_shape_on_black(photo):
    padded = load_resized(photo, 80, "pad")
    assert padded[:9].max() == padded[-9:].max() == 0 and padded[12:-12, 2].argmax(axis=1).tolist() == [1] * 56


def test_scaled_decode_gives_the_pixels_of_a_full_decode(tmp_path):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((1600, 1200), Image.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95)
    full = np.asarray(Image.open(tmp_path / "a.jpg").resize((64, 64), Image.BILINEAR)).astype(float)
    assert np.abs(load_resized(tmp_path / "a.jpg", 64) - full).mean() < 0.5


def test_exif_orientation_is_followed(photo, tmp_path):
    image, exif = Image.open(photo), Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert load_resized(tmp_path / "turned.jpg", 50)[25, 48].argmax() == 1


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    Image.new("RGB", (20, 20), (200, 200, 200)).convert(mode).save(path)
    image = load_resized(path, 10)
    assert image.shape == (10, 10, 3) and abs(int(image.mean()) - 200) < 4


def test_bad_files_are_named_with_the_reason(photo, tmp_path):
    empty, cut, html = tmp_path / "empty.jpg", tmp_path / "cut.jpg", tmp_path / "page.jpg"
    empty.touch()
    cut.write_bytes(photo.read_bytes()[:-500])
    html.write_text("<html></html>")
    for path, reason in ((empty, r"is empty \(0 bytes\)"), (cut, "can't be decoded"), (html, "is not an image")):
        with pytest.raises(ValueError, match=rf"{path.name} {reason}"):
            load_resized(path, 32)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg does not exist"):
        load_resized(tmp_path / "nowhere.jpg", 32)
    with pytest.raises(ValueError, match="RESIZE_MODE 'stretch'"):
        load_resized(photo, 32, "stretch")


def test_read_image_size(photo):
    assert read_image_size(photo) == (400, 300)


@pytest.mark.real
def test_real_originals_agree_with_a_full_decode(real_dir):
    paths = [path for path in sorted((real_dir / "originals").glob("*.jpg")) if read_image_size(path)[0] > 3000]
    for path in paths[:4]:
        full = np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.BILINEAR)).astype(float)
        assert np.abs(load_resized(path, 224) - full).mean() < 0.5
    assert len(paths) == 10
