import os
import shutil
import zipfile

import numpy as np
import pytest

from melanoma_utils.archives import list_zip_members
from melanoma_utils.competition import find_images, read_train
from melanoma_utils.images import load_resized, read_image_size
from melanoma_utils.store_building import build_store
from melanoma_utils.synthetic_formats import write_dicoms


@pytest.fixture
def zipped_dir(data_dir, tmp_path):
    """The competition with its JPEG files in jpeg.zip alone, as Kaggle ships them."""
    folder = tmp_path / "zipped"
    folder.mkdir()
    for path in data_dir.glob("*.csv"):
        shutil.copy(path, folder)
    with zipfile.ZipFile(folder / "jpeg.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((data_dir / "jpeg").rglob("*.jpg")):
            archive.write(path, path.relative_to(data_dir))
    return folder


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_zip_gives_the_store_of_the_unpacked_files(zipped_dir, data_dir, store, tmp_path, n_jobs):
    names = read_train(zipped_dir)["image_name"]
    sources = find_images(zipped_dir, "train", names)
    zipped = build_store(sources, tmp_path / "store", 32, n_jobs=n_jobs)
    assert list(zipped.rows) == list(store.rows) and np.array_equal(zipped.images, store.images)
    assert zipped.identity == store.identity
    files = find_images(data_dir, "train", names)
    assert all(read_image_size(sources[name]) == read_image_size(files[name]) for name in names[:3])


def test_dicom_in_a_zip(data_dir, tmp_path):
    folder = shutil.copytree(data_dir, tmp_path / "competition")
    write_dicoms(folder)
    names = read_train(folder)["image_name"][:3]
    wanted = [load_resized(path, 32) for path in find_images(folder, "train", names, "jpeg").values()]
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in sorted((folder / "train").glob("*.dcm")):
            archive.write(path, f"train/{path.name}")
    shutil.rmtree(folder / "train")
    found = find_images(folder, "train", names, "dicom")
    assert str(found[names[0]]).endswith(f"all.zip/train/{names[0]}.dcm")
    assert np.array_equal([load_resized(source, 32) for source in found.values()], wanted)


def test_a_flipped_byte_in_a_member_is_noticed(zipped_dir):
    names = read_train(zipped_dir)["image_name"]
    content = bytearray((zipped_dir / "jpeg.zip").read_bytes())
    with zipfile.ZipFile(zipped_dir / "jpeg.zip") as archive:
        info = archive.getinfo(f"jpeg/train/{names[0]}.jpg")
    content[info.header_offset + info.compress_size // 2] ^= 1
    (zipped_dir / "jpeg.zip").write_bytes(content)
    sources = find_images(zipped_dir, "train", names)
    with pytest.raises(ValueError, match=rf"jpeg.zip/jpeg/train/{names[0]}.jpg can't be unpacked"):
        load_resized(sources[names[0]], 32)
    assert load_resized(sources[names[1]], 32).shape == (32, 32, 3)


def test_a_new_archive_of_the_same_name_is_noticed(zipped_dir, data_dir):
    names = read_train(zipped_dir)["image_name"]
    first = find_images(zipped_dir, "train", names[:1])[names[0]]
    before = first.read_bytes()
    with zipfile.ZipFile(zipped_dir / "jpeg.zip", "w") as archive:
        archive.write(data_dir / "jpeg" / "train" / f"{names[1]}.jpg", first.name)
    os.utime(zipped_dir / "jpeg.zip", ns=(0, 0))  # whatever the clock's resolution
    assert first.read_bytes() == (data_dir / "jpeg" / "train" / f"{names[1]}.jpg").read_bytes() != before


def test_a_download_that_broke_off_is_named(zipped_dir):
    content = (zipped_dir / "jpeg.zip").read_bytes()
    (zipped_dir / "jpeg.zip").write_bytes(content[:-1000])
    with pytest.raises(ValueError, match=r"jpeg\.zip is not a whole zip archive .*fetch it again"):
        find_images(zipped_dir, "train", read_train(zipped_dir)["image_name"])


def test_a_member_that_is_not_there(zipped_dir):
    with pytest.raises(FileNotFoundError, match=r"without a file in .*jpeg\.zip; first in row 2"):
        find_images(zipped_dir, "train", ["nobody"])
    member = list_zip_members(zipped_dir / "jpeg.zip")[0]
    (zipped_dir / "jpeg.zip").unlink()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        type(member)(zipped_dir / "gone.zip", member.name, 1).read_bytes()
