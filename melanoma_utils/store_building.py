"""Building an image store: in parallel, resumably, one decode for several sizes.

While a store is built, rows are appended in order to images.npy.part, whose length says how far it came.
building.json says what is built, so that a later call continues just that. It becomes store.json when all is there.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from melanoma_utils.archives import Source, count_bytes
from melanoma_utils.files import find_differences, lock_folder, read_json, write_csv, write_json
from melanoma_utils.image_store import ImageStore, open_store
from melanoma_utils.images import check_resize, load_at_sizes
from melanoma_utils.store_part import StorePart, count_row_bytes, open_part

CHUNK = 32  # images that a process decodes at a time
ON_BAD_IMAGE = ("stop", "skip")
MIN_SIZE = 8  # pixels


def build_store(paths: Mapping[str, Source], store_dir: str | Path, image_size: int, **options) -> ImageStore:
    """Writes an image store of one size; options, raises and returns as `build_stores`."""
    return build_stores(paths, {image_size: store_dir}, **options)[0]


def build_stores(paths: Mapping[str, Source], store_dirs: Mapping[int, str | Path], resize_mode: str = "squash",
                 clean_steps: Sequence[str] = (), on_bad_image: str = "stop", n_jobs: int = -1,
                 log: Callable[[str], None] = lambda line: None) -> list[ImageStore]:
    """Writes image stores of several sizes from one decode of each image; continues those that a stopped run left,
    opens those that are there.

    Args:
        paths: image_name -> image file; the order is that of the rows.
        store_dirs: side of the stored images in pixels -> folder of the store.
        resize_mode: "squash", "crop" or "pad", see `images.load_at_sizes`.
        clean_steps: see `images.load_at_sizes`.
        on_bad_image: what to do, when all images have been tried, about those that can't be read: "stop" raises
            (the next call tries just these again), "skip" leaves them out of the stores.
        n_jobs: number of processes; -1 is one a core.
        log: called with a line at about every tenth of the way.

    Returns:
        The stores, in the order of store_dirs.

    Raises:
        ValueError: images can't be read and on_bad_image is "stop", a folder holds a store made from other images, of
            another size, mode or cleaning, or a parameter is unknown or out of range.
        OSError: there is not enough space, or no permission to write.
        TimeoutError: another process is building the same store.
    """
    check_resize(resize_mode, clean_steps)
    if on_bad_image not in ON_BAD_IMAGE:
        raise ValueError(f"ON_BAD_IMAGE {on_bad_image!r} is not one of {ON_BAD_IMAGE}")
    store_dirs = {image_size: Path(store_dir) for image_size, store_dir in store_dirs.items()}
    identities = {store_dirs[size]: _identify(paths, size, resize_mode, clean_steps) for size in store_dirs}
    _build_absent(paths, identities, on_bad_image, n_jobs, log)
    for store_dir in identities:
        bad = _read_bad(store_dir)
        if bad and on_bad_image == "stop":
            raise ValueError(f"{_explain_bad(bad, len(paths))}\n(this store was built without them: delete {store_dir} "
                             "when they are mended)")
    return [open_store(store_dir) for store_dir in identities]


def _build_absent(paths: Mapping[str, Source], identities: Mapping[Path, dict], on_bad_image: str, n_jobs: int,
                  log: Callable[[str], None]) -> None:
    """Builds the stores that are not whole, which alone are locked; checks the others."""
    absent = [store_dir for store_dir in identities if not (store_dir / "store.json").is_file()]
    with ExitStack() as locks:
        for store_dir in sorted(absent):  # the same order in every process: no two wait for each other
            locks.enter_context(lock_folder(store_dir))
        _check_whole(paths, {d: i for d, i in identities.items() if (d / "store.json").is_file()})
        todo = {d: i for d, i in identities.items() if not (d / "store.json").is_file()}
        if todo:
            todo = _begin(paths, todo, log)
            bad = _decode_all(paths, todo, n_jobs, log)
            if bad and on_bad_image == "stop":
                raise ValueError(_explain_bad(bad, len(paths)))
            for store_dir, identity in todo.items():
                _finish(paths, store_dir, identity)


def _identify(paths: Mapping[str, Source], image_size: int, resize_mode: str, clean_steps: Sequence[str]) -> dict:
    if not paths:
        raise ValueError("an image store needs at least 1 image, met 0")
    if image_size < MIN_SIZE:
        raise ValueError(f"IMAGE_SIZE {image_size} is too small: wanted at least {MIN_SIZE} pixels")
    folder = Path(os.path.abspath(str(next(iter(paths.values()))))).parent
    names = hashlib.sha256("\n".join(paths).encode()).hexdigest()
    cleaning = {"clean_steps": list(clean_steps)} if clean_steps else {}
    return {"source": "/".join(folder.parts[-2:]), "image_size": image_size, "resize_mode": resize_mode, **cleaning,
            "n_images": len(paths), "names_sha256": names}


def _check_whole(paths: Mapping[str, Source], identities: Mapping[Path, dict]) -> None:
    """Checks that whole stores were made from these images as they are now."""
    for store_dir, identity in identities.items():
        _check_identity(store_dir / "store.json", {**identity, "n_bytes": _count_bytes(paths, store_dir)})


def _begin(paths: Mapping[str, Source], identities: Mapping[Path, dict],
           log: Callable[[str], None]) -> dict[Path, dict]:
    """Writes building.json of each store, or compares with the one that a stopped run left; returns the identities.

    They say for which size the images are decoded: the largest of those built together. What a stopped run had
    decoded for another size, or of files that are others by now, starts over, so that all rows of a store are made
    alike and of the images as they are.
    """
    begun, n_bytes = {}, [count_bytes(path) for path in paths.values()]
    for store_dir, identity in identities.items():
        _check_identity(store_dir / "building.json", identity)
        if (store_dir / "building.json").is_file():
            building, bad = read_json(store_dir / "building.json"), _read_bad(store_dir)
            if "n_bytes" in building:  # stopped in `_finish`
                changed = building["n_bytes"] != _count_bytes(paths, store_dir)
            else:
                before = building.get("bytes_by_image", [None] * len(paths))
                changed = any(then != now and name not in bad
                              for name, then, now in zip(paths, before, n_bytes, strict=True))
            if changed:
                log(f"{store_dir.name}: the images are other files than when the run that was stopped began; it starts "
                    "over")
            begun[store_dir] = 0 if changed else building.get("decode_size", identity["image_size"])
    decode_size = max([*begun.values(), *(identity["image_size"] for identity in identities.values())])
    for store_dir, identity in identities.items():
        if begun.get(store_dir) != decode_size:
            for name in ("images.npy.part", "images.npy", "bad_images.csv"):
                (store_dir / name).unlink(missing_ok=True)
        write_json(store_dir / "building.json", identity | {"decode_size": decode_size, "bytes_by_image": n_bytes})
    return {store_dir: identity | {"decode_size": decode_size} for store_dir, identity in identities.items()}


def _check_identity(path: Path, identity: dict) -> None:
    """Compares the identity with the one there, where there is one."""
    uncleaned = {"clean_steps": []}  # which is not written down
    differences = find_differences(uncleaned | read_json(path), uncleaned | identity) if path.is_file() else ""
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


def _write_bad(store_dirs: Iterable[Path], bad: dict[str, str]) -> dict[str, str]:
    """Writes image_name -> reason to each store where it differs from what is there, and returns it."""
    for store_dir in store_dirs:
        if bad != _read_bad(store_dir) or not (store_dir / "bad_images.csv").is_file():
            write_csv(store_dir / "bad_images.csv", pd.DataFrame(bad.items(), columns=["image_name", "reason"]))
    return bad


def _decode_all(paths: Mapping[str, Source], identities: Mapping[Path, dict], n_jobs: int,
                log: Callable[[str], None]) -> dict[str, str]:
    """Appends the missing rows to each images.npy.part, tries the bad ones again; returns image_name -> reason."""
    names = list(paths)
    with ExitStack() as files:
        parts = [StorePart(files.enter_context(open_part(d, len(names), i["image_size"])),
                           count_row_bytes(i["image_size"])) for d, i in identities.items()]
        n_done = min(part.count_rows() for part in parts)
        there = {name: row for row, name in enumerate(names[:n_done])}
        bad = {name: why for store_dir in identities for name, why in _read_bad(store_dir).items() if name in there}
        bad = _write_bad(identities, bad)
        for part in parts:
            part.truncate(n_done)
        rows = [there[name] for name in bad] + list(range(n_done, len(names)))
        _check_space({d: (len(names) - n_done) * count_row_bytes(i["image_size"]) for d, i in identities.items()})
        if n_done:
            log(f"{n_done} of {len(names)} images were there already")
        chunks = [rows[i:i + CHUNK] for i in range(0, len(rows), CHUNK)]
        decoded = Parallel(n_jobs, return_as="generator")(
            delayed(_decode_chunk)([paths[names[row]] for row in chunk], list(identities.values())) for chunk in chunks)
        for n_chunks, (chunk, (images, reasons)) in enumerate(zip(chunks, decoded, strict=True), 1):
            new = dict(zip([names[row] for row in chunk], reasons, strict=True))
            bad = _write_bad(identities, bad | {name: why for name, why in new.items() if why})  # before ...
            for part, of_size in zip(parts, images, strict=True):
                part.write(chunk, of_size)
            # ... and after the rows: a row without its pixels is always listed, whenever this is stopped
            bad = _write_bad(identities, {name: why for name, why in bad.items() if new.get(name, why)})
            if n_chunks * 10 // len(chunks) > (n_chunks - 1) * 10 // len(chunks):
                log(f"{len(names) - len(rows) + min(n_chunks * CHUNK, len(rows))} of {len(names)} images")
        for part in parts:
            os.fsync(part.file.fileno())
    return bad


def _check_space(n_bytes: Mapping[Path, int]) -> None:
    """Raises OSError where the disk holds less than the stores will take together."""
    total, store_dir = sum(n_bytes.values()), next(iter(n_bytes))
    free = shutil.disk_usage(store_dir).free
    if free < total:
        raise OSError(errno.ENOSPC, f"the image store needs {total / 2**20:,.0f} MiB more and {free / 2**20:,.0f} "
                                    "MiB are free", str(store_dir))


def _decode_chunk(paths: Sequence[Source], identities: Sequence[dict]) -> tuple[list[np.ndarray], list[str]]:
    """Returns for each store (n, S, S, 3) uint8 images, and (n) reasons, "" where the image could be read."""
    sizes, how = [identity["image_size"] for identity in identities], identities[0]
    images = [np.zeros((len(paths), size, size, 3), np.uint8) for size in sizes]
    reasons = [""] * len(paths)
    for i, path in enumerate(paths):
        try:
            loaded = load_at_sizes(path, sizes, how["resize_mode"], how.get("clean_steps", ()), how["decode_size"])
        except (ValueError, FileNotFoundError) as error:
            reasons[i] = str(error)
            continue
        for of_size, image in zip(images, loaded, strict=True):
            of_size[i] = image
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
    write_json(store_dir / "building.json", {**identity, "n_bytes": _count_bytes(paths, store_dir)})
    os.replace(store_dir / "building.json", store_dir / "store.json")
