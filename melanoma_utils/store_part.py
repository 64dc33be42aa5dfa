"""The rows of an image store while it is built: images.npy.part, a NumPy file whose length says how far it came."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

HEADER_BYTES = 128  # of images.npy: one NumPy header, padded to a fixed length


@dataclass(frozen=True)
class StorePart:
    """images.npy.part, open for reading and writing, with its header."""

    file: BinaryIO
    row_bytes: int

    def count_rows(self) -> int:
        """Returns how many whole rows there are."""
        return (self.file.seek(0, os.SEEK_END) - HEADER_BYTES) // self.row_bytes

    def truncate(self, n_rows: int) -> None:
        """Keeps the first n_rows rows."""
        self.file.truncate(HEADER_BYTES + n_rows * self.row_bytes)

    def write(self, rows: Sequence[int], images: np.ndarray) -> None:
        """Writes (n, H, W, 3) images to their rows."""
        for row, image in zip(rows, images, strict=True):
            self.file.seek(HEADER_BYTES + row * self.row_bytes)
            self.file.write(image.tobytes())
        self.file.flush()


def count_row_bytes(image_size: int) -> int:
    """Returns the size of one square RGB image."""
    return image_size**2 * 3


def open_part(store_dir: Path, n_images: int, image_size: int) -> BinaryIO:
    """Returns a store's images.npy.part opened for reading and writing, with the header of the whole."""
    path = store_dir / "images.npy.part"
    if (store_dir / "images.npy").exists():  # stopped between renaming this and writing store.json
        os.replace(store_dir / "images.npy", path)
    file = open(path, "r+b" if path.exists() else "w+b")  # the caller closes it
    if file.seek(0, os.SEEK_END) < HEADER_BYTES:
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False,
                                                    "shape": (n_images, image_size, image_size, 3)})
    return file
