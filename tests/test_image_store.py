import os

import numpy as np
import pytest

from melanoma_utils.competition import find_images, read_train
from melanoma_utils.image_store import join_stores, name_store, open_store
from melanoma_utils.images import load_resized
from melanoma_utils.store_building import build_store, build_stores


@pytest.fixture(scope="module")
def paths(data_dir):
    return find_images(data_dir, "train", read_train(data_dir)["image_name"])


def test_each_row_is_the_image_of_its_name(store, data_dir):
    names = list(reversed(store.rows))[:5]
    rows = store.find_rows(names)
    for name, row in zip(names, rows, strict=True):
        assert np.array_equal(store.images[row], load_resized(data_dir / "jpeg" / "train" / f"{name}.jpg", 32))


def test_unknown_name_is_an_error(store):
    with pytest.raises(KeyError, match="1 of 2 images are not in the image store, first nobody"):
        store.find_rows([next(iter(store.rows)), "nobody"])


def test_an_unfinished_store_is_not_opened(tmp_path):
    (tmp_path / "images.npy.part").touch()
    with pytest.raises(FileNotFoundError, match="run 01_resize_images first"):
        open_store(tmp_path)


def test_a_store_of_another_size_or_a_damaged_one_is_not_opened(paths, tmp_path):
    build_store(paths, tmp_path / "store", 32, n_jobs=1)
    with pytest.raises(ValueError, match="are 32 px wide, wanted 64"):
        open_store(tmp_path / "store", 64)
    np.save(tmp_path / "store" / "images.npy", np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"holds \(3, 32, 32, 3\) uint8, wanted"):
        open_store(tmp_path / "store")


@pytest.mark.parametrize(("name", "n_kept"), [("images.npy", 5000), ("images.npy", 0), ("index.csv", 0),
                                              ("index.csv", 5), ("store.json", 9)])
def test_a_store_whose_copy_broke_off_says_what_to_do(paths, tmp_path, name, n_kept):
    build_store(paths, tmp_path / "store", 32, n_jobs=1)
    os.truncate(tmp_path / "store" / name, n_kept)
    with pytest.raises(ValueError, match=r"store is damaged \(.*\): delete the folder and run 01_resize_images again"):
        open_store(tmp_path / "store")


def test_joined_stores_read_like_one(store, paths, tmp_path):
    names = list(paths)
    other = build_store({f"other_{name}": paths[name] for name in names[:7]} | {names[0]: paths[names[1]]},
                        tmp_path / "other", 32, n_jobs=1)
    joined = join_stores(store, other)
    wanted = [names[3], f"other_{names[5]}", names[0], f"other_{names[0]}"]
    images = joined.images[joined.find_rows(wanted)]
    assert np.array_equal(images, [load_resized(paths[names[i]], 32) for i in (3, 5, 0, 0)])
    assert joined.images.shape == (len(paths) + 8, 32, 32, 3)
    assert joined.identity["external"] == other.identity and "external" not in store.identity


def test_stores_made_differently_are_not_joined(store, paths, tmp_path):
    other = build_store(paths, tmp_path / "other", 16, n_jobs=1)
    with pytest.raises(ValueError, match="differ in image_size: 32 and 16"):
        join_stores(store, other)
    other = build_store(paths, tmp_path / "grey", 32, clean_steps=["shades_of_gray"], n_jobs=1)
    with pytest.raises(ValueError, match="differ in clean_steps"):
        join_stores(store, other)


def test_stores_decoded_for_different_sizes_are_not_joined(store, paths, tmp_path):
    other, _ = build_stores(paths, {32: tmp_path / "32", 64: tmp_path / "64"}, n_jobs=1)
    with pytest.raises(ValueError, match="differ in decode_size: 32 and 64"):
        join_stores(store, other)


def test_a_store_is_named_after_what_it_is_made_from(tmp_path):
    assert name_store(tmp_path / "siim", 64, "crop") == "siim_64_crop"
    assert name_store(tmp_path / "siim", 64, "crop", ["remove_hairs"]) == "siim_64_crop_remove_hairs"
