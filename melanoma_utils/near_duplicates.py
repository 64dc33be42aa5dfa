"""Pairs of images that look the same, found by a perceptual hash."""

from collections.abc import Mapping

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from melanoma_utils.image_store import ImageStore

HASH_SIZE = 16  # 256 bits
# All 107 official duplicate pairs of SIIM-ISIC 2020's test set differ in at most 8 bits, at 64, 128, 192 and 224 px. Of
# 190 million pairs of an image of it and another one of it, of 909 training images or of 10,008 of HAM10000, two of
# different patients are within 24 bits: at 16 to 18 bits one photograph in two colours, at 18 bits two small moles.
COPY_DISTANCE = 8  # up to here it is a copy
MAX_DISTANCE = 16  # up to here an external image is dropped
ALIKE_DISTANCE = 20  # up to here a pair is worth a look
SURE_SIZE = 64  # pixels: the hash looks at 64 x 64 of them
MAX_PAIRS = 1_000_000  # more are no finding
CHUNK = 64  # rows compared with all others at a time
SPLITS = ("train", "test", "external")
PAIR_COLUMNS = ("image_name", "split", "other_name", "other_split", "distance", "kind")
SEARCHED = (("train", "train"), ("train", "test"), ("external", "train"), ("external", "test"),
            ("external", "external"))


def hash_images(images: np.ndarray) -> np.ndarray:
    """Returns (N, 256) bool perceptual hashes (pHash: signs of the lowest frequencies of the grey image).

    Near copies (recompressed, rescaled, a little brighter or cropped) differ in few bits; flipped or turned ones in
    many. Zauner 2010, "Implementation and benchmarking of perceptual image hash functions".

    Args:
        images: (N, H, W, 3) uint8 RGB, at least `SURE_SIZE` px wide for the thresholds to mean what they say.
    """
    hashes = [imagehash.phash(Image.fromarray(image), HASH_SIZE).hash.ravel() for image in images]
    return np.array(hashes, dtype=bool).reshape(len(images), HASH_SIZE**2)


def find_near_duplicates(hashes: np.ndarray, other_hashes: np.ndarray | None = None,
                         max_distance: int = MAX_DISTANCE) -> pd.DataFrame:
    """Returns the pairs of two sets of images, or of one, that differ in at most max_distance bits.

    Args:
        hashes: (N, B) bool.
        other_hashes: (M, B) bool; None: pairs within the first set, each once.
        max_distance: bits.

    Returns:
        Columns row (0..N-1), other_row (0..M-1; above row within one set), distance (bits), sorted by row, then
        other_row.

    Raises:
        ValueError: more than `MAX_PAIRS` are so near, as of a store of black images.
    """
    words = _pack(hashes)  # (N, B / 64)
    others = words if other_hashes is None else _pack(other_hashes)  # (M, B / 64)
    first_words = np.ascontiguousarray(others[:, 0])
    parts, n_pairs = [np.empty((0, 3), int)], 0
    for start in range(0, len(words), CHUNK):
        block, first = words[start:start + CHUNK], start if other_hashes is None else 0
        # Whoever differs in few of all bits differs in few of the first 64, and hardly anybody else does.
        near = np.bitwise_count(block[:, :1] ^ first_words[first:]) <= max_distance  # (CHUNK, M - first)
        rows, other_rows = np.nonzero(near)
        distance = np.bitwise_count(block[rows] ^ others[other_rows + first]).sum(1, dtype=int)
        is_pair = (distance <= max_distance) & ((rows < other_rows) | (other_hashes is not None))
        parts.append(np.stack([rows + start, other_rows + first, distance], axis=1)[is_pair])
        n_pairs += int(is_pair.sum())
        if n_pairs > MAX_PAIRS:
            raise ValueError(f"more than {MAX_PAIRS:,} pairs of images look the same, among {len(words):,} and "
                             f"{len(others):,}: are many of them black or blank?")
    return pd.DataFrame(np.concatenate(parts), columns=["row", "other_row", "distance"])


def _pack(hashes: np.ndarray) -> np.ndarray:
    """Returns (N, ceil(B / 64)) uint64 of (N, B) bool."""
    padded = np.pad(hashes, ((0, 0), (0, -hashes.shape[1] % 64)))
    return np.packbits(padded, axis=1).view(np.uint64)


def find_pairs(stores: Mapping[str, ImageStore], duplicates_df: pd.DataFrame | None = None) -> pd.DataFrame:
    """Returns the pairs of images that are the same picture or look so, but for those within the test set.

    Args:
        stores: by split, one of `SPLITS`; of the same size and resize mode.
        duplicates_df: the official list, see `competition.read_duplicates`; pairs of absent images are no matter.

    Returns:
        Columns `PAIR_COLUMNS`. kind is "listed" (in duplicates_df), "copy" (at most `COPY_DISTANCE` bits apart, in
        images of at least `SURE_SIZE` px) or "alike" (another pair that is at most `ALIKE_DISTANCE` bits apart);
        distance is missing where listed ones are further apart.
    """
    hashed = {split: _hash_store(store) for split, store in stores.items()}
    parts = [_list_listed(stores, duplicates_df)] if duplicates_df is not None else []
    for split, other_split in SEARCHED:
        if split in stores and other_split in stores:
            (names, hashes), (other_names, other_hashes) = hashed[split], hashed[other_split]
            pairs = find_near_duplicates(hashes, None if split == other_split else other_hashes, ALIKE_DISTANCE)
            is_copy = (pairs["distance"] <= COPY_DISTANCE) & (stores[split].identity["image_size"] >= SURE_SIZE)
            parts.append(pd.DataFrame({
                "image_name": names[pairs["row"]], "split": split, "other_name": other_names[pairs["other_row"]],
                "other_split": other_split, "distance": pairs["distance"], "kind": np.where(is_copy, "copy", "alike")}))
    return _merge_pairs(pd.concat(parts, ignore_index=True))


def _hash_store(store: ImageStore) -> tuple[np.ndarray, np.ndarray]:
    """Returns the names (n,) and hashes (n, 256) of a store's images; a skipped image has a row and no name."""
    names = np.array(list(store.rows), dtype=object)
    return names, hash_images(store.images)[store.find_rows(names)]


def _list_listed(stores: Mapping[str, ImageStore], duplicates_df: pd.DataFrame) -> pd.DataFrame:
    """Returns the listed pairs of a training image and another one of the competition, some in both orders."""
    split_of = {name: split for split in ("test", "train") if split in stores for name in stores[split].rows}
    one, other = duplicates_df["ISIC_id"], duplicates_df["ISIC_id_paired"]
    df = pd.DataFrame({"image_name": pd.concat([one, other]), "other_name": pd.concat([other, one])})
    df = df.assign(split=df["image_name"].map(split_of), other_split=df["other_name"].map(split_of))
    return df[(df["split"] == "train") & df["other_split"].notna()].assign(distance=np.nan, kind="listed")


def _merge_pairs(pairs_df: pd.DataFrame) -> pd.DataFrame:
    """Returns each pair once, whatever the order of its names: a listed one with the distance that was found."""
    low_high = np.sort(pairs_df[["image_name", "other_name"]].to_numpy(str), axis=1)
    key = ["split", "other_split", "low", "high"]
    df = pairs_df.assign(low=low_high[:, 0], high=low_high[:, 1])
    df["distance"] = df.groupby(key)["distance"].transform("min").astype("Int64")
    df = df.drop_duplicates(key).sort_values(["split", "other_split", "image_name", "other_name"], ignore_index=True)
    return df[list(PAIR_COLUMNS)]


def find_copies(pairs_df: pd.DataFrame, stores: Mapping[str, ImageStore]) -> pd.DataFrame:
    """Returns the external images that the competition holds too, under the same name or within `MAX_DISTANCE` bits.

    Args:
        pairs_df: of `find_pairs`.
        stores: the same stores.

    Returns:
        Columns image_name, known_name, distance (bits); sorted by image_name.
    """
    is_across = (pairs_df["split"] == "external") & (pairs_df["other_split"] != "external")
    near_df = pairs_df[is_across & (pairs_df["distance"] <= MAX_DISTANCE)].rename(columns={"other_name": "known_name"})
    near_df = near_df[["image_name", "known_name", "distance"]]
    known = {name for split in ("train", "test") if split in stores for name in stores[split].rows}
    shared = sorted(stores["external"].rows.keys() & known - set(near_df["image_name"]))
    shared_df = pd.DataFrame({"image_name": shared, "known_name": shared, "distance": 0})
    copies_df = pd.concat([near_df, shared_df], ignore_index=True).astype({"distance": int})
    return copies_df.sort_values(["image_name", "distance", "known_name"], ignore_index=True)
