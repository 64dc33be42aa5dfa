import shutil
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from PIL import Image

from melanoma_utils.competition import read_train
from melanoma_utils.dicom import write_dicom
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


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path):
    pixels = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(pixels.repeat(32, 0).repeat(32, 1)).save(tmp_path / "a.png")
    image = load_resized(tmp_path / "a.png", 64)
    assert [image[8, 8, 0], image[8, 56, 1], image[56, 8, 2], image[56, 56, 0]] == [0, 100, 200, 255]


def test_odd_files_that_are_pictures_are_read(photo, tmp_path):
    image = Image.open(photo)
    image.save(tmp_path / "moving.jpg", "GIF", save_all=True, append_images=[image, image.rotate(90)])
    image.quantize(16).save(tmp_path / "palette.png", transparency=0)
    image.resize((1, 1)).save(tmp_path / "dot.jpg")
    shutil.copy(photo, tmp_path / "näme with späces.jpg")
    for name in ("moving.jpg", "palette.png", "dot.jpg", "näme with späces.jpg"):
        assert load_resized(tmp_path / name, 16).shape == (16, 16, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_of_96_million_pixels_are_opened_without_a_warning(data_dir, tmp_path):
    Image.new("L", (12000, 8000)).save(tmp_path / "large.jpg")
    write_dicom(tmp_path / "large.dcm", (tmp_path / "large.jpg").read_bytes(), read_train(data_dir).iloc[0])
    code = "import sys; from melanoma_utils.images import read_image_size; print(*map(read_image_size, sys.argv[1:]))"
    command = [sys.executable, "-c", code, tmp_path / "large.jpg", tmp_path / "large.dcm"]  # pytest has its own filters
    process = subprocess.run(command, capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("(12000, 8000) (12000, 8000)\n", "")


def test_files_that_can_not_be_opened_are_named_with_the_reason(tmp_path):
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "folder.jpg").mkdir()
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(bytes(99))}
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()))
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tiff")
    for name, reason in {"loop.jpg": "can't be opened: Too many levels", "folder.jpg": "can't be opened: Is a direc",
                         "bomb.png": "has more than 178,956,970 pixels", "float.tiff": "no known range"}.items():
        with pytest.raises(ValueError, match=rf"{name}.*{reason}"):
            load_resized(tmp_path / name, 32)


@pytest.fixture(scope="module")
def whole_files(data_dir, tmp_path_factory):
    """Small whole files of several formats, for spoiling."""
    folder, row = tmp_path_factory.mktemp("whole"), read_train(data_dir).iloc[0]
    picture = load_resized(data_dir / "jpeg" / "train" / f"{row['image_name']}.jpg", 48)
    for suffix in ("jpg", "png", "gif", "tif", "webp"):
        Image.fromarray(picture).save(folder / f"a.{suffix}")
    write_dicom(folder / "a.dcm", (folder / "a.jpg").read_bytes(), row)
    return sorted(folder.iterdir())


@settings(max_examples=300, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_a_spoilt_file_is_read_or_refused_by_name(whole_files, tmp_path, data):
    """Bytes changed anywhere, or cut off: an image of the right shape or a ValueError, never anything else."""
    whole = data.draw(strategies.sampled_from(whole_files))
    path, content = tmp_path / f"spoilt{whole.suffix}", bytearray(whole.read_bytes())
    places = strategies.one_of(strategies.integers(0, 200), strategies.integers(0, len(content) - 1))
    for place in data.draw(strategies.lists(places, max_size=8)):
        content[min(place, len(content) - 1)] = data.draw(strategies.integers(0, 255))
    path.write_bytes(content[:data.draw(strategies.integers(0, len(content)))])
    with warnings.catch_warnings(action="ignore"):
        try:
            assert load_resized(path, 16).shape == (16, 16, 3)
        except ValueError as error:
            assert str(path) in str(error)


def test_read_image_size(photo):
    assert read_image_size(photo) == (400, 300)


@pytest.mark.real
def test_real_originals_agree_with_a_full_decode(real_dir):
    paths = [path for path in sorted((real_dir / "originals").glob("*.jpg")) if read_image_size(path)[0] > 3000]
    for path in paths[:4]:
        full = np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.BILINEAR)).astype(float)
        assert np.abs(load_resized(path, 224) - full).mean() < 0.5
    assert len(paths) == 10
