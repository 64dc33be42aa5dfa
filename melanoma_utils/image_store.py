"""The image store: resized images in one memory-mapped file.

A store is a folder with
    images.npy       (N, H, W, 3) uint8, a plain NumPy file
    index.csv        image_name, row: where each image lies; a skipped image is not listed
    bad_images.csv   image_name, reason: what could not be read
    store.json       what the store was made from; written last, so a store without it is not whole
`store_building` writes it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_utils.files import read_json


@dataclass(frozen=True)
class ImageStore:
    """A whole store, open for reading.

    Attributes:
        images: (N, H, W, 3) uint8, memory-mapped: a NumPy array, or `JoinedImages`.
        rows: image_name -> row of `images`.
        identity: what the store was made from (source, image_size, resize_mode, clean_steps where there are any,
            n_images, names_sha256, decode_size, n_bytes), and of joined stores the other one's as "external" or "test".
    """

    images: "np.ndarray | JoinedImages"
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
                           "were they skipped as bad, does the store belong to another competition, or is EXTERNAL_DIR "
                           "missing?")
        return np.array([self.rows[name] for name in names], dtype=np.int64)


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
                                "same DATA_DIR, EXTERNAL_DIR, IMAGE_SIZE, RESIZE_MODE and CLEAN_STEPS")
    try:
        identity = read_json(store_dir / "store.json")
        shape = (identity["n_images"], identity["image_size"], identity["image_size"], 3)
        images = np.load(store_dir / "images.npy", mmap_mode="r")
        if images.shape != shape or images.dtype != np.uint8:
            raise ValueError(f"images.npy holds {images.shape} {images.dtype}, wanted {shape} uint8")
        index = pd.read_csv(store_dir / "index.csv", dtype={"image_name": str})
        rows = dict(zip(index["image_name"], index["row"], strict=True))
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise ValueError(f"the image store in {store_dir} is damaged ({error}): delete the folder and run "
                         "01_resize_images again") from error
    if image_size not in (None, identity["image_size"]):
        raise ValueError(f"the images in {store_dir} are {identity['image_size']} px wide, wanted {image_size}")
    return ImageStore(images, rows, identity)


def open_training_store(stores_dir: str | Path, data_dir: str | Path, external_dir: str | Path | None, image_size: int,
                        resize_mode: str, clean_steps: Sequence[str] = (), *, with_test: bool = False) -> ImageStore:
    """Returns the store of the training images, joined with the external images where external_dir names any, and with
    the test images where these are wanted; raises like `open_store` and `join_stores`.

    Args:
        stores_dir: folder of all stores.
        data_dir, external_dir: the folders that they were made from; "" or None: no external images.
        image_size, resize_mode, clean_steps: how the images were made.
        with_test: whether the test images come along.
    """
    def open_split(folder: str | Path, split: str) -> ImageStore:
        """Returns the store of a part of a data folder."""
        name = name_store(folder, image_size, resize_mode, clean_steps)
        return open_store(Path(stores_dir) / name / split, image_size)

    store = open_split(data_dir, "train")
    if external_dir:
        store = join_stores(store, open_split(external_dir, "external"))
    return join_stores(store, open_split(data_dir, "test"), "test") if with_test else store


def name_store(data_dir: str | Path, image_size: int, resize_mode: str, clean_steps: Sequence[str] = ()) -> str:
    """Returns the folder name under which the stores of a data folder lie, e.g. "synthetic_64_squash"."""
    return "_".join([Path(data_dir).absolute().name, str(image_size), resize_mode, *clean_steps])


class JoinedImages:
    """The images of several stores behind one another, read like one (N, H, W, 3) uint8 array by an array of rows.

    Attributes:
        parts: (n, H, W, 3) uint8 arrays of equal H and W.
        shape: of them all together.
    """

    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts = list(parts)
        self.starts = np.cumsum([0, *(part.shape[0] for part in parts)])
        self.shape = (int(self.starts[-1]), *parts[0].shape[1:])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for part, start in zip(self.parts, self.starts[:-1], strict=True):
            is_here = (rows >= start) & (rows < start + part.shape[0])
            images[is_here] = part[rows[is_here] - start]
        return images


def check_made_alike(identity: Mapping, other: Mapping) -> None:
    """Raises ValueError where two stores differ in the size of their images, or in how these were made.

    A model could tell such images apart without looking at the lesion.

    Args:
        identity, other: of `ImageStore.identity`.
    """
    ours, theirs = ({"resize_mode": "squash", "clean_steps": [], "decode_size": i["image_size"], **i}
                    for i in (identity, other))
    for key in ("image_size", "resize_mode", "clean_steps", "decode_size"):
        if ours[key] != theirs[key]:
            raise ValueError(f"two image stores that belong together differ in {key}: {ours[key]} and {theirs[key]} "
                             f"({ours['source']} and {theirs['source']}); delete one and run 01_resize_images with the "
                             "same IMAGE_SIZE, MORE_IMAGE_SIZES, RESIZE_MODE and CLEAN_STEPS")


def join_stores(store: ImageStore, other: ImageStore, name: str = "external") -> ImageStore:
    """Returns a store with the images of both, not copied; an image_name in both is that of the first.

    Args:
        store, other: the stores.
        name: under which the first one's identity holds the other's.

    Raises:
        ValueError: the stores are made differently, see `check_made_alike`.
    """
    check_made_alike(store.identity, other.identity)
    rows = {image_name: row + store.images.shape[0] for image_name, row in other.rows.items()} | store.rows
    return ImageStore(JoinedImages([store.images, other.images]), rows, store.identity | {name: other.identity})
