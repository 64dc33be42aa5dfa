"""The image store: resized images in one memory-mapped file, built in parallel and resumably.

A store is a folder with
    images.npy       (N, H, W, 3) uint8, a plain NumPy file
    index.csv        image_name, row: where each image lies; a skipped image is not listed
    bad_images.csv   image_name, reason: what could not be read
    store.json       what the store was made from; written last, so a store without it is not whole
While it is built, rows are appended in order to images.npy.part, whose length says how far it came.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from melanoma_utils.archives import Source, count_bytes
from melanoma_utils.files import find_differences, lock_folder, read_json, write_csv, write_json
from melanoma_utils.images import load_resized

CHUNK = 32  # images that a process decodes at a time
HEADER_BYTES = 128  # of images.npy: one NumPy header, padded to a fixed length


@dataclass(frozen=True)
class ImageStore:
    """A whole store, open for reading.

    Attributes:
        images: (N, H, W, 3) uint8, memory-mapped.
        rows: image_name -> row of `images`.
        identity: what the store was made from (source, image_size, resize_mode, n_images, names_sha256).
    """

    images: np.ndarray
    rows: dict[str, int]
    identity: dict

    def find_rows(self, image_names: Iterable[str]) -> np.ndarray:
        """Returns the rows of the named images as (n,) int64.

        Raises:
            KeyError: a name is not in the store; tells the first one and how many.
        """
        names = list(image_names)
        missing = [name for name in names if name not in self.rows]
        if missing:
            raise KeyError(f"{len(missing)} of {len(names)} images are not in the image store, first {missing[0]}: "
                           "were they skipped as bad, or does the store belong to another competition?")
        return np.array([self.rows[name] for name in names], dtype=np.int64)


def build_store(paths: Mapping[str, Source], store_dir: str | Path, image_size: int, resize_mode: str = "squash",
                on_bad_image: str = "stop", n_jobs: int = -1,
                log: Callable[[str], None] = lambda line: None) -> ImageStore:
    """Writes an image store, continues one that a stopped run left, or opens the one that is there.

    Args:
        paths: image_name -> image file; the order is that of the rows.
        store_dir: folder of the store.
        image_size: side of the stored images in pixels.
        resize_mode: "squash", "crop" or "pad", see `images.load_resized`.
        on_bad_image: what to do, when all images have been tried, about those that can't be read: "stop" raises
            (the next call tries just these again), "skip" leaves them out of the store.
        n_jobs: number of processes; -1 is one a core.
        log: called with a line at about every tenth of the way.

    Raises:
        ValueError: images can't be read and on_bad_image is "stop", or the folder holds a store made from other
            images, of another size or mode.
        OSError: there is not enough space, or no permission to write.
        TimeoutError: another process is building the same store.
    """
    if on_bad_image not in ("stop", "skip"):
        raise ValueError(f"ON_BAD_IMAGE {on_bad_image!r} is not 'stop' or 'skip'")
    store_dir = Path(store_dir)
    identity = _identify(paths, image_size, resize_mode)
    with lock_folder(store_dir):
        if (store_dir / "store.json").is_file():
            _check_identity(store_dir / "store.json", {**identity, "n_bytes": _count_bytes(paths, store_dir)})
        else:
            _check_identity(store_dir / "building.json", identity)
            bad = _decode_all(paths, store_dir, identity, n_jobs, log)
            if bad and on_bad_image == "stop":
                raise ValueError(_explain_bad(bad, len(paths)))
            _finish(paths, store_dir, identity)
        (store_dir / "building.json").unlink(missing_ok=True)
    bad = _read_bad(store_dir)
    if bad and on_bad_image == "stop":
        raise ValueError(f"{_explain_bad(bad, len(paths))}\n(this store was built without them: delete {store_dir} "
                         "when they are mended)")
    return open_store(store_dir)


def open_store(store_dir: str | Path, image_size: int | None = None) -> ImageStore:
    """Returns a whole store, memory-mapped for reading.

    Args:
        store_dir: folder of the store.
        image_size: side in pixels that the images must have; None takes any.

    Raises:
        FileNotFoundError: there is no store, or it is not whole.
        ValueError: its images are of another size, or the file is damaged.
    """
    store_dir = Path(store_dir)
    if not (store_dir / "store.json").is_file():
        raise FileNotFoundError(f"there is no whole image store in {store_dir}: run 01_resize_images first, with the "
                                "same DATA_DIR, IMAGE_SIZE and RESIZE_MODE")
    identity = read_json(store_dir / "store.json")
    if image_size not in (None, identity["image_size"]):
        raise ValueError(f"the images in {store_dir} are {identity['image_size']} px wide, wanted {image_size}")
    shape = (identity["n_images"], identity["image_size"], identity["image_size"], 3)
    images = np.load(store_dir / "images.npy", mmap_mode="r")
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(f"{store_dir / 'images.npy'} holds {images.shape} {images.dtype}, wanted {shape} uint8: "
                         "delete the folder and run 01_resize_images again")
    index = pd.read_csv(store_dir / "index.csv", dtype={"image_name": str})
    return ImageStore(images, dict(zip(index["image_name"], index["row"], strict=True)), identity)


def name_store(data_dir: str | Path, image_size: int, resize_mode: str) -> str:
    """Returns the folder name under which the stores of a competition folder lie, e.g. "synthetic_64_squash"."""
    return f"{Path(data_dir).absolute().name}_{image_size}_{resize_mode}"


def _identify(paths: Mapping[str, Source], image_size: int, resize_mode: str) -> dict:
    if not paths:
        raise ValueError("an image store needs at least 1 image, met 0")
    if image_size < 8:
        raise ValueError(f"IMAGE_SIZE {image_size} is too small: wanted at least 8 pixels")
    folder = Path(os.path.abspath(str(next(iter(paths.values()))))).parent
    names = hashlib.sha256("\n".join(paths).encode()).hexdigest()
    return {"source": "/".join(folder.parts[-2:]), "image_size": image_size, "resize_mode": resize_mode,
            "n_images": len(paths), "names_sha256": names}


def _check_identity(path: Path, identity: dict) -> None:
    """Writes the identity where there is none yet, else compares it with the one there."""
    if not path.is_file():
        write_json(path, identity)
        return
    differences = find_differences(read_json(path), identity)
    if differences:
        raise ValueError(f"the image store in {path.parent} was made from something else ({differences}): delete the "
                         "folder, or give another STORE_DIR")


def _count_bytes(paths: Mapping[str, Source], store_dir: Path) -> int:
    """Returns the bytes of all source files but those that could not be read: a change means a stale store."""
    bad = _read_bad(store_dir)
    return sum(count_bytes(path) for name, path in paths.items() if name not in bad)


def _read_bad(store_dir: Path) -> dict[str, str]:
    path = store_dir / "bad_images.csv"
    if not path.is_file():
        return {}
    df = pd.read_csv(path, dtype=str)
    return dict(zip(df["image_name"], df["reason"], strict=True))


def _write_bad(store_dir: Path, bad: dict[str, str]) -> dict[str, str]:
    """Writes image_name -> reason where it differs from what is there, and returns it."""
    if bad != _read_bad(store_dir) or not (store_dir / "bad_images.csv").is_file():
        write_csv(store_dir / "bad_images.csv", pd.DataFrame(bad.items(), columns=["image_name", "reason"]))
    return bad


def _decode_all(paths: Mapping[str, Source], store_dir: Path, identity: dict, n_jobs: int,
                log: Callable[[str], None]) -> dict[str, str]:
    """Appends the missing rows to images.npy.part, tries the bad ones again; returns image_name -> reason."""
    names = list(paths)
    with _open_part(store_dir, identity) as file:
        n_done = (file.seek(0, os.SEEK_END) - HEADER_BYTES) // _count_row_bytes(identity)
        there = {name: row for row, name in enumerate(names[:n_done])}
        bad = _write_bad(store_dir, {name: why for name, why in _read_bad(store_dir).items() if name in there})
        rows = [there[name] for name in bad] + list(range(n_done, len(names)))
        _check_space(store_dir, (len(names) - n_done) * _count_row_bytes(identity))
        if n_done:
            log(f"{n_done} of {len(names)} images were there already")
        chunks = [rows[i:i + CHUNK] for i in range(0, len(rows), CHUNK)]
        how = identity["image_size"], identity["resize_mode"]
        decoded = Parallel(n_jobs, return_as="generator")(
            delayed(_decode_chunk)([paths[names[row]] for row in chunk], *how) for chunk in chunks)
        for n_chunks, (chunk, (images, reasons)) in enumerate(zip(chunks, decoded, strict=True), 1):
            new = dict(zip([names[row] for row in chunk], reasons, strict=True))
            bad = _write_bad(store_dir, bad | {name: reason for name, reason in new.items() if reason})  # before ...
            for row, image in zip(chunk, images, strict=True):
                file.seek(HEADER_BYTES + row * _count_row_bytes(identity))
                file.write(image.tobytes())
            file.flush()
            # ... and after the rows: a row without its pixels is always listed, whenever this is stopped
            bad = _write_bad(store_dir, {name: reason for name, reason in bad.items() if new.get(name, reason)})
            if n_chunks * 10 // len(chunks) > (n_chunks - 1) * 10 // len(chunks):
                log(f"{len(names) - len(rows) + min(n_chunks * CHUNK, len(rows))} of {len(names)} images")
        os.fsync(file.fileno())
    return bad


def _count_row_bytes(identity: dict) -> int:
    return identity["image_size"] ** 2 * 3


def _open_part(store_dir: Path, identity: dict) -> BinaryIO:
    """Returns images.npy.part opened for reading and writing, with its header and whole rows only."""
    path = store_dir / "images.npy.part"
    if (store_dir / "images.npy").exists():  # stopped between renaming this and writing store.json
        os.replace(store_dir / "images.npy", path)
    file = open(path, "r+b" if path.exists() else "w+b")  # the caller closes it
    n_bytes = file.seek(0, os.SEEK_END)
    if n_bytes < HEADER_BYTES:
        file.seek(0)
        shape = (identity["n_images"], identity["image_size"], identity["image_size"], 3)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        n_bytes = file.tell()
    file.truncate(n_bytes - (n_bytes - HEADER_BYTES) % _count_row_bytes(identity))
    return file


def _check_space(store_dir: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(store_dir).free
    if free < n_bytes:
        raise OSError(errno.ENOSPC, f"the image store needs {n_bytes / 2**20:,.0f} MiB more and {free / 2**20:,.0f} "
                                    "MiB are free", str(store_dir))


def _decode_chunk(paths: Sequence[Source], image_size: int, resize_mode: str) -> tuple[np.ndarray, list[str]]:
    """Returns (n, H, W, 3) uint8 images and (n) reasons, "" where the image could be read."""
    images = np.zeros((len(paths), image_size, image_size, 3), np.uint8)
    reasons = [""] * len(paths)
    for i, path in enumerate(paths):
        try:
            images[i] = load_resized(path, image_size, resize_mode)
        except (ValueError, FileNotFoundError) as error:
            reasons[i] = str(error)
    return images, reasons


def _explain_bad(bad: Mapping[str, str], n_images: int) -> str:
    lines = [f"  {reason}" for reason in list(bad.values())[:20]] + ["  …"] * (len(bad) > 20)
    return (f"{len(bad)} of {n_images} images can't be read; mend them and run again, or leave them out with "
            "ON_BAD_IMAGE='skip' (training images only):\n" + "\n".join(lines))


def _finish(paths: Mapping[str, Source], store_dir: Path, identity: dict) -> None:
    """Makes a whole store of the finished rows; every step can be repeated after a kill."""
    bad = _read_bad(store_dir)
    rows = [(name, row) for row, name in enumerate(paths) if name not in bad]
    write_csv(store_dir / "index.csv", pd.DataFrame(rows, columns=["image_name", "row"]))
    os.replace(store_dir / "images.npy.part", store_dir / "images.npy")
    write_json(store_dir / "store.json", {**identity, "n_bytes": _count_bytes(paths, store_dir)})
