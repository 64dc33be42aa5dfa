import pytest

from melanoma_utils import data_folder
from melanoma_utils.data_folder import find_data_dir, is_synthetic, name_source


def test_the_folder_given_wins_and_must_exist(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(data_folder, "KAGGLE_DIRS", (tmp_path,))
    assert find_data_dir(data_dir, tmp_path) == data_dir
    with pytest.raises(FileNotFoundError, match="DATA_DIR nowhere does not exist"):
        find_data_dir("nowhere", tmp_path)


def test_the_competition_attached_on_kaggle_is_found(tmp_path, monkeypatch):
    attached = tmp_path / "kaggle" / "competitions"
    monkeypatch.setattr(data_folder, "KAGGLE_DIRS", (tmp_path / "kaggle" / "other", attached))
    attached.mkdir(parents=True)
    assert find_data_dir("", tmp_path / "input") == attached
    assert not (tmp_path / "input").exists() and not is_synthetic(attached)


def test_without_any_a_competition_is_drawn_and_named_so(tmp_path, monkeypatch):
    monkeypatch.setattr(data_folder, "KAGGLE_DIRS", (tmp_path / "no",))
    monkeypatch.setattr(data_folder, "draw_competition", lambda folder: folder)
    assert find_data_dir("", tmp_path) == tmp_path / "synthetic"


def test_figures_say_where_images_come_from(data_dir, tmp_path):
    assert name_source(data_dir) == "synthetic competition" and name_source(tmp_path / "siim") == "siim"
