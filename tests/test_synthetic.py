"""The synthetic competition: the same bytes always, the competition's layout, and the statistics it promises."""

import dataclasses
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from melanoma_utils.competition import find_images, read_test, read_train
from melanoma_utils.dicom import find_metadata_differences, read_dicom_metadata
from melanoma_utils.drawing import draw_image
from melanoma_utils.images import load_resized
from melanoma_utils.synthetic import SyntheticConfig, draw_competition, make_latents, make_tables
from melanoma_utils.synthetic_formats import write_dicoms

TINY = SyntheticConfig(
    n_train_patients=6, n_test_patients=3, mean_images_per_patient=4, duplicate_share=0.1, image_size=48, seed=3
)
MANY = SyntheticConfig(n_train_patients=150, n_test_patients=20, mean_images_per_patient=16)


def read_bytes(folder):
    """Returns the content by relative path of every file but the hidden lock."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def drawn_dir(tmp_path_factory):
    return draw_competition(tmp_path_factory.mktemp("drawn") / "competition", TINY, n_jobs=1)


@pytest.fixture(scope="module")
def drawn_bytes(drawn_dir):
    return read_bytes(drawn_dir)


def test_folder_holds_the_competitions_files_and_no_other(drawn_dir, drawn_bytes):
    train_df, test_df = pd.read_csv(drawn_dir / "train.csv"), pd.read_csv(drawn_dir / "test.csv")
    tables = {"train.csv", "test.csv", "sample_submission.csv", "2020_Challenge_duplicates.csv", "synthetic.json"}
    images = {f"jpeg/train/{name}.jpg" for name in train_df.image_name}
    images |= {f"jpeg/test/{name}.jpg" for name in test_df.image_name}
    assert set(drawn_bytes) == tables | images


def test_columns_are_the_competitions(drawn_dir):
    metadata = ["image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge"]
    columns = {
        "train.csv": [*metadata, "diagnosis", "benign_malignant", "target"],
        "test.csv": metadata,
        "sample_submission.csv": ["image_name", "target"],
        "2020_Challenge_duplicates.csv": ["ISIC_id", "ISIC_id_paired", "partition"],
    }
    assert {name: list(pd.read_csv(drawn_dir / name).columns) for name in columns} == columns


def test_sample_submission_lists_the_test_images_with_target_0(drawn_dir):
    sample_df, test_df = pd.read_csv(drawn_dir / "sample_submission.csv"), pd.read_csv(drawn_dir / "test.csv")
    assert sample_df.image_name.tolist() == test_df.image_name.tolist()
    assert sample_df.target.eq(0).all()


def test_images_have_the_wanted_longest_side(drawn_dir):
    test_df = pd.read_csv(drawn_dir / "test.csv")
    originals = set(test_df.image_name) - set(pd.read_csv(drawn_dir / "2020_Challenge_duplicates.csv").ISIC_id_paired)
    sizes = [Image.open(drawn_dir / "jpeg" / "test" / f"{name}.jpg").size for name in originals]
    assert {max(size) for size in sizes} == {48}


def test_same_config_gives_the_same_bytes_in_any_number_of_processes(drawn_bytes, tmp_path):
    assert read_bytes(draw_competition(tmp_path, TINY, n_jobs=2)) == drawn_bytes


def test_another_seed_gives_other_images(drawn_bytes, tmp_path):
    other = read_bytes(draw_competition(tmp_path, dataclasses.replace(TINY, seed=4), n_jobs=1))
    assert not set(other.values()) & {content for name, content in drawn_bytes.items() if name.endswith(".jpg")}


def test_a_finished_competition_is_left_alone(tmp_path):
    draw_competition(tmp_path, TINY, n_jobs=1)
    (tmp_path / "train.csv").unlink()
    draw_competition(tmp_path, TINY, n_jobs=1)
    assert not (tmp_path / "train.csv").exists()


def kill_halfway(folder):
    """Leaves the folder as a kill would: some images missing, some half written, the marker not yet in its place."""
    jpeg_paths = sorted(folder.glob("jpeg/train/*.jpg"))
    for path in jpeg_paths[:2]:
        path.with_name(path.name + ".tmp").write_bytes(path.read_bytes()[:100])
    for path in jpeg_paths[::2]:
        path.unlink()
    return jpeg_paths[1]


@pytest.mark.parametrize("marker_remains", [True, False])
def test_a_killed_draw_resumes_to_the_same_bytes(drawn_bytes, tmp_path, marker_remains):
    draw_competition(tmp_path, TINY, n_jobs=1)
    kill_halfway(tmp_path)
    if marker_remains:
        os.replace(tmp_path / "synthetic.json", tmp_path / "synthetic.json.partial")
    else:
        (tmp_path / "synthetic.json").unlink()
    assert read_bytes(draw_competition(tmp_path, TINY, n_jobs=1)) == drawn_bytes


def test_resuming_keeps_the_images_already_there(tmp_path):
    draw_competition(tmp_path, TINY, n_jobs=1)
    kept_path = kill_halfway(tmp_path)
    os.replace(tmp_path / "synthetic.json", tmp_path / "synthetic.json.partial")
    written_at = kept_path.stat().st_mtime_ns
    draw_competition(tmp_path, TINY, n_jobs=1)
    assert kept_path.stat().st_mtime_ns == written_at


@pytest.mark.parametrize("marker", ["synthetic.json", "synthetic.json.partial"])
def test_another_config_is_refused_by_name_and_changes_nothing(tmp_path, marker):
    draw_competition(tmp_path, TINY, n_jobs=1)
    os.replace(tmp_path / "synthetic.json", tmp_path / marker)
    before = read_bytes(tmp_path)
    with pytest.raises(FileExistsError, match=r"prevalence is 0\.2, wanted 0\.3") as refusal:
        draw_competition(tmp_path, dataclasses.replace(TINY, prevalence=0.3), n_jobs=1)
    assert str(tmp_path) in str(refusal.value) and "seed" not in str(refusal.value)
    assert read_bytes(tmp_path) == before


def test_a_foreign_table_is_never_overwritten(tmp_path):
    (tmp_path / "train.csv").write_text("image_name,target\nISIC_1,0\n")
    with pytest.raises(FileExistsError, match=r"train\.csv"):
        draw_competition(tmp_path, TINY, n_jobs=1)
    assert read_bytes(tmp_path) == {"train.csv": b"image_name,target\nISIC_1,0\n"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_train_patients", 0), ("mean_images_per_patient", 1.5), ("prevalence", 0.0), ("patient_strength", 1.1),
     ("duplicate_share", -0.1), ("image_size", 8), ("seed", -1), ("prevalence", float("nan"))],
)  # fmt: skip
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}, wanted"):
        SyntheticConfig(**{name: value})


def test_tables_are_sorted_by_unique_image_names():
    train_df, test_df, _ = make_tables(MANY)
    names = pd.concat([train_df.image_name, test_df.image_name])
    assert names.is_unique
    assert train_df.image_name.is_monotonic_increasing and test_df.image_name.is_monotonic_increasing


def test_no_patient_is_in_train_and_test():
    train_df, test_df, _ = make_tables(MANY)
    assert (train_df.patient_id.nunique(), test_df.patient_id.nunique()) == (150, 20)
    assert not set(train_df.patient_id) & set(test_df.patient_id)


def test_every_patient_has_at_least_two_images_and_the_mean_is_as_wanted():
    n_images = make_tables(dataclasses.replace(MANY, duplicate_share=0))[0].groupby("patient_id").size()
    assert n_images.min() == 2
    assert n_images.mean() == pytest.approx(16, rel=0.05)
    assert n_images.max() > 3 * n_images.median()


def test_duplicates_are_one_lesion_of_one_patient_in_one_split():
    latents = make_latents(MANY).set_index("image_name")
    duplicates_df = make_tables(MANY)[2]
    first, second = latents.loc[duplicates_df.ISIC_id], latents.loc[duplicates_df.ISIC_id_paired]
    assert set(duplicates_df.partition) == {"train", "test"}
    for name in ("patient_id", "target", "split", "atypia"):
        assert (first[name].to_numpy() == second[name].to_numpy()).all()
    assert first.split.tolist() == duplicates_df.partition.tolist()
    assert not set(duplicates_df.ISIC_id) & set(duplicates_df.ISIC_id_paired)


def test_a_duplicate_shows_the_same_lesion_in_a_narrower_crop():
    latents = make_latents(TINY).set_index("image_name")
    copy = latents[latents.copy_of != ""].iloc[0]
    image, _ = draw_image(latents.loc[copy.copy_of], 64)
    copied, _ = draw_image(copy, 64)
    assert copied.shape < image.shape
    top, left = (np.array(image.shape) - copied.shape)[:2] // 2
    np.testing.assert_array_equal(copied, image[top:-top, left:-left])


@pytest.mark.parametrize("config", [SyntheticConfig(), TINY])
def test_values_are_missing_where_the_real_tables_miss_them(config):
    train_df, test_df, _ = make_tables(config)
    n_missing = train_df.isna().sum()
    assert 1 <= n_missing.anatom_site_general_challenge <= max(1, 0.05 * len(train_df))
    assert n_missing.age_approx > n_missing.sex >= 1
    assert train_df[train_df.sex.isna()].age_approx.isna().all()
    assert n_missing[["image_name", "patient_id", "diagnosis", "benign_malignant", "target"]].sum() == 0
    assert test_df.isna().sum()[lambda n: n > 0].index.tolist() == ["anatom_site_general_challenge"]


def test_labels_agree_with_each_other():
    train_df = make_tables(MANY)[0]
    assert ((train_df.diagnosis == "melanoma") == (train_df.target == 1)).all()
    assert ((train_df.benign_malignant == "malignant") == (train_df.target == 1)).all()
    assert train_df[train_df.target == 0].diagnosis.value_counts().index[:2].tolist() == ["unknown", "nevus"]


@pytest.mark.parametrize("prevalence", [0.05, 0.2, 0.6])
def test_prevalence_is_as_wanted_in_both_splits(prevalence):
    latents = make_latents(dataclasses.replace(MANY, prevalence=prevalence))
    assert latents.groupby("split").target.mean().tolist() == pytest.approx([prevalence] * 2, abs=0.02)


def test_age_raises_the_risk_and_the_number_of_images_does_not():
    train_df = pd.concat([make_tables(dataclasses.replace(MANY, seed=seed))[0] for seed in range(4)])
    n_images = train_df.groupby("patient_id").target.transform("size")
    assert roc_auc_score(train_df.target, n_images) == pytest.approx(0.5, abs=0.05)
    aged_df = train_df.dropna(subset="age_approx")
    assert 0.6 < roc_auc_score(aged_df.target, aged_df.age_approx) < 0.75
    assert set(aged_df.age_approx % 5) == {0}


def latent_aucs(strength):
    """Returns the AUC of the atypia, and of the atypia minus its patient's mean, averaged over seeds."""
    aucs = []
    for seed in range(4):
        latents = make_latents(dataclasses.replace(MANY, patient_strength=strength, seed=seed))
        centred = latents.atypia - latents.groupby("patient_id").atypia.transform("mean")
        aucs.append([roc_auc_score(latents.target, score) for score in (latents.atypia, centred)])
    return np.mean(aucs, axis=0)


def test_subtracting_the_patients_mean_helps_as_far_as_lesions_are_alike():
    alone_at_0, centred_at_0 = latent_aucs(0.0)
    alone_at_09, centred_at_09 = latent_aucs(0.9)
    assert centred_at_0 < alone_at_0
    assert centred_at_09 > alone_at_09 + 0.03


@pytest.mark.parametrize("strength", [0.0, 0.7, 1.0])
def test_one_image_alone_is_equally_hard_at_every_strength(strength):
    assert 0.92 < latent_aucs(strength)[0] < 0.96


def test_mask_covers_a_lesion_that_is_darker_than_the_rest():
    latents = make_latents(TINY)
    is_darker = []
    for row in latents[latents.copy_of == ""].to_dict("records"):
        image, mask = draw_image(row, 96)
        assert image.dtype == np.uint8 and mask.dtype == bool
        assert image.shape == (*mask.shape, 3) and max(mask.shape) == 96
        assert 0.005 < mask.mean() < 0.7
        centre = image[image.shape[0] // 8 : -image.shape[0] // 8, image.shape[1] // 8 : -image.shape[1] // 8]
        is_darker.append(image[mask].mean() < np.median(centre.mean(2)))
    assert np.mean(is_darker) > 0.9


def test_atypia_darkens_the_lesion_and_nothing_else():
    lesions, skins = [], []
    for row in make_latents(TINY).head(12).to_dict("records"):
        mild, mild_mask = draw_image({**row, "atypia": -1.0, "copy_of": ""}, 96)
        wild, wild_mask = draw_image({**row, "atypia": 4.0, "copy_of": ""}, 96)
        lesions.append(mild[mild_mask].mean() - wild[wild_mask].mean())
        skins.append(np.abs(mild.astype(int) - wild)[[0, 0, -1, -1], [0, -1, 0, -1]].mean())
    assert np.mean(lesions) > 20
    assert np.median(skins) < 4


def test_drawing_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw_image(make_latents(TINY).iloc[0], 48)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_dicom_versions_hold_the_same_pictures_and_metadata(data_dir, tmp_path):
    folder = shutil.copytree(data_dir, tmp_path / "competition")
    write_dicoms(folder)
    train_df = read_train(folder)
    jpegs, dicoms = (find_images(folder, "train", train_df["image_name"], kind) for kind in ("jpeg", "dicom"))
    for name in train_df["image_name"][:5]:
        assert np.array_equal(load_resized(jpegs[name], 32), load_resized(dicoms[name], 32))
    headers = {name: read_dicom_metadata(path) for name, path in dicoms.items()}
    assert find_metadata_differences(headers, {row["image_name"]: row for row in train_df.to_dict("records")}) == []
    assert len(list((folder / "test").glob("*.dcm"))) == len(read_test(folder))
    before = read_bytes(folder)
    write_dicoms(folder)
    assert read_bytes(folder) == before
