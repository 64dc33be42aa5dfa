import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from melanoma_utils import near_duplicates
from melanoma_utils.competition import find_images, read_train
from melanoma_utils.image_store import ImageStore
from melanoma_utils.images import load_resized
from melanoma_utils.near_duplicates import (
    COPY_DISTANCE,
    HASH_SIZE,
    MAX_DISTANCE,
    find_copies,
    find_near_duplicates,
    find_pairs,
    hash_images,
)
from melanoma_utils.store_building import build_store


@pytest.fixture(scope="module")
def images(data_dir):
    """Forty drawn images at 64 px, no two the same."""
    names = read_train(data_dir)["image_name"][:40]
    return np.stack([load_resized(path, 64) for path in find_images(data_dir, "train", names).values()])


def recompress(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("change", [
    recompress, lambda image: np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(1.1)),
    lambda image: np.asarray(Image.fromarray(image).resize((96, 96)).resize((64, 64))),
])
def test_near_copies_are_found_and_others_are_not(images, change):
    copies = np.stack([change(image) for image in images[:10]])
    pairs = find_near_duplicates(hash_images(copies), hash_images(images))
    assert set(zip(range(10), range(10), strict=True)) <= set(zip(pairs["row"], pairs["other_row"], strict=True))
    assert len(pairs) <= 12 and (pairs["distance"] <= MAX_DISTANCE).all()


def test_distances_are_counted_in_bits_over_chunks():
    rng = np.random.default_rng(0)
    hashes = rng.random((2500, HASH_SIZE**2)) < 0.5
    other = hashes[[2, 1500, 2400]].copy()
    other[1, :7] ^= True
    other[2, :17] ^= True
    pairs = find_near_duplicates(hashes, other, max_distance=16)
    assert pairs.to_dict("list") == {"row": [2, 1500], "other_row": [0, 1], "distance": [0, 7]}
    assert find_near_duplicates(hashes, other, max_distance=17)["distance"].tolist() == [0, 7, 17]


def test_all_pairs_within_a_set_are_found_once_whichever_bits_differ():
    """Against the plain count, on hashes near each other so that many pairs are at the threshold."""
    rng = np.random.default_rng(1)
    hashes = (rng.random(HASH_SIZE**2) < 0.5) ^ (rng.random((300, HASH_SIZE**2)) < 0.035)
    distance = (hashes[:, None] ^ hashes[None]).sum(2)
    rows, other_rows = np.nonzero(np.triu(distance <= MAX_DISTANCE, 1))
    assert 1000 < len(rows) < 44000
    pairs = find_near_duplicates(hashes)
    assert pairs.to_dict("list") == {"row": rows.tolist(), "other_row": other_rows.tolist(),
                                     "distance": distance[rows, other_rows].tolist()}
    both_ways = find_near_duplicates(hashes, hashes)
    assert len(both_ways) == 2 * len(rows) + 300


def test_a_store_of_black_images_does_not_fill_the_memory():
    hashes = hash_images(np.zeros((4, 64, 64, 3), np.uint8))[[0] * 1500]
    with pytest.raises(ValueError, match=r"more than 1,000,000 pairs of images look the same, among 1,500"):
        find_near_duplicates(hashes)


def test_no_images_have_no_duplicates():
    assert find_near_duplicates(hash_images(np.empty((0, 8, 8, 3), np.uint8)), np.ones((2, 256), bool)).empty


def test_copies_are_found_by_look_or_by_name(data_dir, tmp_path):
    paths = find_images(data_dir, "train", read_train(data_dir)["image_name"][:12])
    names = list(paths)
    known = build_store({name: paths[name] for name in names[:6]}, tmp_path / "known", 64, n_jobs=1)
    sources = {"copy": paths[names[2]], names[4]: paths[names[9]], "new": paths[names[11]]}
    mine = build_store(sources, tmp_path / "mine", 64, n_jobs=1)
    wanted_df = pd.DataFrame({"image_name": [names[4], "copy"], "known_name": [names[4], names[2]], "distance": [0, 0]})
    stores = {"train": known, "external": mine}
    pd.testing.assert_frame_equal(find_copies(find_pairs(stores), stores), wanted_df, check_dtype=False)


def test_a_pair_worth_a_look_is_no_reason_to_drop_an_image(monkeypatch):
    hashes = np.random.default_rng(0).random((2, HASH_SIZE**2)) < 0.5
    shown = {n: hashes[0] ^ (np.arange(HASH_SIZE**2) < n) for n in (8, 9, 16, 17, 20, 21)}
    stores = {"train": ImageStore(hashes[:1], {"known": 0}, {"image_size": 64}),
              "external": ImageStore(np.stack(list(shown.values())), {str(n): i for i, n in enumerate(shown)},
                                     {"image_size": 64})}
    monkeypatch.setattr(near_duplicates, "hash_images", lambda images: images)
    pairs_df = find_pairs(stores)
    pairs_df = pairs_df[pairs_df["other_split"] == "train"].set_index("image_name")
    assert pairs_df["kind"].to_dict() == {"8": "copy", "9": "alike", "16": "alike", "17": "alike", "20": "alike"}
    assert find_copies(pairs_df.reset_index(), stores)["image_name"].tolist() == ["16", "8", "9"]


@pytest.mark.real
def test_the_official_duplicates_are_found_among_real_test_images(real_dir, tmp_path):
    duplicates_df = pd.read_csv(real_dir / "metadata" / "2020_Challenge_duplicates.csv")
    duplicates_df = duplicates_df[duplicates_df["partition"] == "test"]
    names = sorted({*duplicates_df["ISIC_id"], *duplicates_df["ISIC_id_paired"]})
    paths = find_images(real_dir / "siim-isic-subset", "test", names)
    images = np.stack([load_resized(path, 128) for path in paths.values()])
    pairs = find_near_duplicates(hash_images(images))
    found = {frozenset((names[a], names[b])) for a, b in zip(pairs["row"], pairs["other_row"], strict=True)}
    wanted = set(map(frozenset, zip(duplicates_df["ISIC_id"], duplicates_df["ISIC_id_paired"], strict=True)))
    assert len(wanted) == 107 and wanted <= found and len(found) <= 110 and pairs["distance"].max() <= COPY_DISTANCE
