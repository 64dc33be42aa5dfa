"""Pairs of images that look the same, found by a perceptual hash."""

from collections.abc import Sequence

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from melanoma_utils.image_store import ImageStore

HASH_SIZE = 16  # 256 bits
# At 128 px all 107 official duplicate pairs of SIIM-ISIC 2020's test set differ in at most 8 bits. Within 16 bits there
# are 2 pairs more in that set (of 60 million), and none between 10,008 images of HAM10000 and 11,891 of SIIM-ISIC.
MAX_DISTANCE = 16
CHUNK = 1024  # rows compared with all others at a time


def hash_images(images: np.ndarray) -> np.ndarray:
    """Returns (N, 256) bool perceptual hashes (pHash: signs of the lowest frequencies of the grey image).

    Near copies (recompressed, rescaled, a little brighter or cropped) differ in few bits; flipped or turned ones in
    many. Zauner 2010, "Implementation and benchmarking of perceptual image hash functions".

    Args:
        images: (N, H, W, 3) uint8 RGB, at least 64 px wide for the threshold `MAX_DISTANCE` to mean what it says.
    """
    hashes = [imagehash.phash(Image.fromarray(image), HASH_SIZE).hash.ravel() for image in images]
    return np.array(hashes, dtype=bool).reshape(len(images), HASH_SIZE**2)


def find_near_duplicates(hashes: np.ndarray, other_hashes: np.ndarray,
                         max_distance: int = MAX_DISTANCE) -> pd.DataFrame:
    """Returns the pairs of two sets of images that differ in at most max_distance bits.

    Args:
        hashes: (N, B) bool.
        other_hashes: (M, B) bool.
        max_distance: bits.

    Returns:
        Columns row (0..N-1), other_row (0..M-1), distance (bits), sorted by row, then other_row.
    """
    signs, other_signs = (1 - 2 * h.astype(np.float32) for h in (hashes, other_hashes))
    parts = []
    for start in range(0, len(signs), CHUNK):
        distance = (hashes.shape[1] - signs[start:start + CHUNK] @ other_signs.T) / 2  # (CHUNK, M)
        rows, other_rows = np.nonzero(distance <= max_distance)
        parts.append(np.stack([rows + start, other_rows, distance[rows, other_rows]], axis=1).astype(int))
    pairs = np.concatenate(parts) if parts else np.empty((0, 3), int)
    return pd.DataFrame(pairs, columns=["row", "other_row", "distance"])


def find_copies(store: ImageStore, known_stores: Sequence[ImageStore]) -> pd.DataFrame:
    """Returns the images of a store that are in others too, under the same name or as near-duplicates.

    Args:
        store: images that may be copies.
        known_stores: stores of the same size and resize mode.

    Returns:
        Columns image_name, known_name, distance (bits); sorted by image_name.
    """
    hashes, parts = hash_images(store.images), []
    for known in known_stores:
        pairs = find_near_duplicates(hashes, hash_images(known.images))
        names, known_names = ({row: name for name, row in s.rows.items()} for s in (store, known))
        near_df = pd.DataFrame({
            "image_name": pairs["row"].map(names), "known_name": pairs["other_row"].map(known_names),
            "distance": pairs["distance"]}).dropna()  # a skipped image has a row and no name
        shared = sorted(store.rows.keys() & known.rows.keys() - set(near_df["image_name"]))
        parts += [near_df, pd.DataFrame({"image_name": shared, "known_name": shared, "distance": 0})]
    copies_df = pd.concat(parts, ignore_index=True).astype({"distance": int})
    return copies_df.sort_values(["image_name", "distance", "known_name"], ignore_index=True)
