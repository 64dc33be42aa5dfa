"""Files, folders and archives name their images, each one once."""

import shutil
import zipfile

import pytest
from PIL import Image

from melanoma_utils.image_files import list_images


def test_images_come_from_archives_and_must_be_told_apart(data_dir, tmp_path):
    path = next((data_dir / "jpeg" / "test").iterdir())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "one/x.jpg")
        archive.write(path, "two/x.jpg")
        archive.writestr("__MACOSX/one/._x.jpg", b"what Finder adds")
        archive.writestr("one/.hidden.jpg", b"")
    assert list(list_images([tmp_path / "a.zip"])) == ["one/x", "two/x"]
    with pytest.raises(ValueError, match=f"two images are named '{path.stem}'"):
        list_images([path, path.parent])
    shutil.copy(path, tmp_path / "a.jpg")
    shutil.copy(path, tmp_path / "a.JPEG")
    shutil.copy(path, tmp_path / "b.png")
    Image.open(path).save(tmp_path / "c.webp")
    (tmp_path / "a.zip").unlink()
    assert set(list_images([tmp_path])) == {"a.jpg", "a.JPEG", "b", "c"}
    (tmp_path / ".ipynb_checkpoints").mkdir()
    shutil.copy(path, tmp_path / ".ipynb_checkpoints" / "d.jpg")
    elsewhere = tmp_path.parent / f"{tmp_path.name}_elsewhere"
    elsewhere.mkdir()
    shutil.copy(path, elsewhere / "e.jpg")
    (tmp_path / "visit_2").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(tmp_path)  # round and round
    assert set(list_images([tmp_path])) == {"a.jpg", "a.JPEG", "b", "c", "visit_2/e"}
    (tmp_path / "z").mkdir()
    shutil.copy(path, tmp_path / "z" / "f.jpg")
    (tmp_path / "again").symlink_to(tmp_path / "z")  # what is there under its own name keeps it
    (tmp_path / "up").symlink_to(tmp_path.parent)
    assert set(list_images([tmp_path])) == {"a.jpg", "a.JPEG", "b", "c", "visit_2/e", "z/f"}
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        list_images([tmp_path / "nowhere"])
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="no images in"):
        list_images([tmp_path / "none"])


def test_a_link_to_nothing_is_there_to_be_told(data_dir, tmp_path):
    shutil.copy(next((data_dir / "jpeg" / "test").iterdir()), tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "visits").symlink_to(tmp_path / "gone")
    said = []
    assert list(list_images([tmp_path], log=said.append)) == ["a", "b"] and said == ["passed over: 1 no ending"]
