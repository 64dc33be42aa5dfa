import contextlib
import hashlib
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from melanoma_utils import store_building
from melanoma_utils.competition import find_images, read_train
from melanoma_utils.images import load_at_sizes, load_resized
from melanoma_utils.store_building import build_store, build_stores


@pytest.fixture
def paths(data_dir, tmp_path):
    """Copies of the training images, to be spoilt."""
    shutil.copytree(data_dir / "jpeg" / "train", tmp_path / "images")
    return find_images(tmp_path, "images", read_train(data_dir)["image_name"])


def digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


class Killed(BaseException):
    pass


def die_at(nth, function):
    """Returns a function that does the same, but raises Killed instead of its nth call (from 0)."""
    calls = []

    def deadly(*arguments):
        if len(calls) == nth:
            raise Killed
        calls.append(1)
        return function(*arguments)

    return deadly


def test_several_sizes_come_from_one_decode(paths, tmp_path, monkeypatch):
    decoded = []
    count = store_building.load_at_sizes
    monkeypatch.setattr(store_building, "load_at_sizes", lambda path, *rest: decoded.append(path) or count(path, *rest))
    small, large = build_stores(paths, {16: tmp_path / "small", 48: tmp_path / "large"}, n_jobs=1)
    assert decoded == list(paths.values())
    alone = build_store(paths, tmp_path / "alone", 48, n_jobs=1)
    assert np.array_equal(large.images, alone.images) and large.identity == alone.identity
    for row, path in enumerate(list(paths.values())[:5]):
        assert np.array_equal(small.images[row], load_at_sizes(path, [16], decode_size=48)[0])
        assert np.abs(small.images[row] - load_resized(path, 16).astype(float)).mean() < 1
    assert small.identity["decode_size"] == 48


@pytest.mark.parametrize("then", [[16], [16, 48], [16, 32, 48]])
@pytest.mark.parametrize("n_chunks", [1, 2])
def test_several_sizes_are_made_alike_whatever_is_stopped(paths, tmp_path, monkeypatch, n_chunks, then):
    """Stopped while 16 and 32 px are built, then others are asked for: every row is decoded for one size."""
    with monkeypatch.context() as patch:
        patch.setattr(store_building, "_decode_chunk", die_at(n_chunks, store_building._decode_chunk))
        with pytest.raises(Killed):
            build_stores(paths, {16: tmp_path / "16", 32: tmp_path / "32"}, n_jobs=1)
    stores = build_stores(paths, {size: tmp_path / str(size) for size in then}, n_jobs=1)
    for store in stores:
        size, decode_size = store.identity["image_size"], store.identity["decode_size"]
        assert decode_size == (32 if then == [16] else 48)
        wanted = [load_at_sizes(path, [size], decode_size=decode_size)[0] for path in paths.values()]
        assert np.array_equal(store.images, wanted)


@pytest.mark.parametrize("n_chunks", [0, 1, 2])
@pytest.mark.parametrize("torn", [0, 700])
def test_a_killed_build_continues_and_ends_with_the_same_bytes(paths, tmp_path, monkeypatch, n_chunks, torn):
    build_store(paths, tmp_path / "whole", 32, n_jobs=1)
    with monkeypatch.context() as patch:
        patch.setattr(store_building, "_decode_chunk", die_at(n_chunks, store_building._decode_chunk))
        with pytest.raises(Killed):
            build_store(paths, tmp_path / "killed", 32, n_jobs=1)
    with open(tmp_path / "killed" / "images.npy.part", "ab") as file:
        file.write(b"x" * torn)  # a row that was written in part
    lines = []
    build_store(paths, tmp_path / "killed", 32, n_jobs=1, log=lines.append)
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")
    assert any("there already" in line for line in lines) == (n_chunks > 0)


@pytest.mark.parametrize("nth", range(6))
def test_killed_between_writing_and_renaming_a_file(paths, tmp_path, monkeypatch, nth):
    build_store(paths, tmp_path / "whole", 32, n_jobs=1)
    with monkeypatch.context() as patch:
        patch.setattr(store_building.os, "replace", die_at(nth, store_building.os.replace))
        with pytest.raises(Killed):
            build_store(paths, tmp_path / "killed", 32, n_jobs=1)
    lines = []
    build_store(paths, tmp_path / "killed", 32, n_jobs=1, log=lines.append)
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")
    assert (f"{len(paths)} of {len(paths)} images were there already" in lines) == (nth > 1)


def test_the_last_renaming_makes_a_store_whole(paths, tmp_path, monkeypatch):
    """Whoever is killed after it leaves nothing behind that an undisturbed run would not."""
    replace, seen = os.replace, []

    def replace_and_look(source, target):
        replace(source, target)
        seen.append(digest(tmp_path / "store"))

    monkeypatch.setattr(store_building.os, "replace", replace_and_look)
    build_store(paths, tmp_path / "store", 32, n_jobs=1)
    assert len(seen) == 6 and seen[-1] == digest(tmp_path / "store")


def test_bad_images_are_named_together_and_mended_ones_are_tried_again(paths, tmp_path):
    names = list(paths)
    good = {name: paths[name].read_bytes() for name in (names[1], names[40])}
    paths[names[1]].write_bytes(b"")
    paths[names[40]].write_bytes(good[names[40]][:200])
    with pytest.raises(ValueError, match=rf"(?s)2 of {len(names)} images can't be read.*{names[1]}.*{names[40]}"):
        build_store(paths, tmp_path / "store", 32, n_jobs=1)
    for name, content in good.items():
        paths[name].write_bytes(content)
    build_store(paths, tmp_path / "store", 32, n_jobs=1)
    build_store(paths, tmp_path / "undisturbed", 32, n_jobs=1)
    assert digest(tmp_path / "store") == digest(tmp_path / "undisturbed")


@pytest.mark.parametrize("nth", range(6))
def test_killed_while_mended_images_are_tried_again(paths, tmp_path, monkeypatch, nth):
    """A kill at each renaming of the second call: no image may stay black, none may stay listed as bad."""
    build_store(paths, tmp_path / "whole", 32, n_jobs=1)
    victim = list(paths.values())[1]
    good = victim.read_bytes()
    victim.write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of \d+ images can't be read"):
        build_store(paths, tmp_path / "killed", 32, n_jobs=1)
    victim.write_bytes(good)
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(store_building.os, "replace", die_at(nth, store_building.os.replace))
        build_store(paths, tmp_path / "killed", 32, n_jobs=1)
    build_store(paths, tmp_path / "killed", 32, n_jobs=1)
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")


def test_files_that_others_took_the_place_of_are_read_again(paths, tmp_path, monkeypatch):
    """Stopped for a bad image, then all images are fetched anew, larger: no row of the old ones stays."""
    (bad, path), *_ = paths.items()
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 of"):
        build_store(paths, tmp_path / "store", 16, n_jobs=1)
    for name, image_path in paths.items():
        Image.new("RGB", (64, 64), (0, 90, 0)).save(image_path, quality=100 - (name == bad))
    lines = []
    store = build_store(paths, tmp_path / "store", 16, n_jobs=1, log=lines.append)
    assert np.ptp(store.images.reshape(-1, 3), axis=0).max() < 5 and "it starts over" in lines[0]
    assert store.identity.get("bytes_by_image") is None


def test_skip_leaves_bad_images_out(paths, tmp_path):
    names = list(paths)
    paths[names[0]].write_bytes(b"no image")
    store = build_store(paths, tmp_path / "store", 32, on_bad_image="skip", n_jobs=1)
    assert set(names) - set(store.rows) == {names[0]}
    assert np.array_equal(store.images[store.find_rows(names[-1:])[0]], load_resized(paths[names[-1]], 32))
    with pytest.raises(ValueError, match=r"1 of \d+ images can't be read"):
        build_store(paths, tmp_path / "store", 32, on_bad_image="stop", n_jobs=1)


@pytest.mark.parametrize("change", ["size", "mode", "cleaning", "names", "content"])
def test_a_store_made_from_something_else_is_refused(paths, tmp_path, change):
    build_store(paths, tmp_path / "store", 32, n_jobs=1)
    if change == "names":
        paths.pop(next(iter(paths)))
    if change == "content":
        next(iter(paths.values())).write_bytes(list(paths.values())[1].read_bytes() + b" ")
    with pytest.raises(ValueError, match="was made from something else"):
        build_store(paths, tmp_path / "store", 16 if change == "size" else 32,
                    resize_mode="crop" if change == "mode" else "squash",
                    clean_steps=["shades_of_gray"] if change == "cleaning" else [], n_jobs=1)


def test_a_cleaned_store_is_not_taken_for_an_uncleaned_one(paths, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store_building, "_decode_chunk", die_at(1, store_building._decode_chunk))
        with pytest.raises(Killed):
            build_store(paths, tmp_path / "store", 32, clean_steps=["shades_of_gray"], n_jobs=1)
    for _ in range(2):  # half built, then whole
        with pytest.raises(ValueError, match=r"clean_steps is \['shades_of_gray'\], wanted \[\]"):
            build_store(paths, tmp_path / "store", 32, n_jobs=1)
        build_store(paths, tmp_path / "store", 32, clean_steps=["shades_of_gray"], n_jobs=1)


def test_too_little_space_is_noticed_before_the_work(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(store_building.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OSError, match="the image store needs"):
        build_store(paths, tmp_path / "store", 32, n_jobs=1)


def test_number_of_processes_does_not_change_the_bytes(paths, tmp_path):
    build_store(paths, tmp_path / "one", 32, n_jobs=1)
    build_store(paths, tmp_path / "two", 32, n_jobs=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_a_whole_store_is_opened_without_a_lock_as_in_a_folder_that_cannot_be_written_to(paths, tmp_path):
    build_store(paths, tmp_path / "store", 32)
    for path in (tmp_path / "store").glob(".*"):
        path.unlink()
    before = digest(tmp_path / "store")
    assert build_store(paths, tmp_path / "store", 32).images.shape == (len(paths), 32, 32, 3)
    assert digest(tmp_path / "store") == before
