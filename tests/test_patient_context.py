import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import run_pipeline

from melanoma_utils.competition import METADATA_FEATURES, read_train
from melanoma_utils.files import read_json
from melanoma_utils.patient_context import (
    CONTEXT_FEATURES,
    compute_embedding_context,
    compute_logit_context,
    compute_table_context,
    describe_features,
    make_features,
    select_features,
)
from melanoma_utils.second_stage import predict_second_stage, read_second_stages

ROWS = [  # four images at two ages; two, one without age and site; an only one, of which nothing is known
    ("a", "p", "male", 40, "torso", 0.0),
    ("b", "p", "male", 40, "torso", 1.0),
    ("c", "p", "male", 40, "head/neck", 5.0),
    ("d", "p", "male", 50, "torso", 2.0),
    ("e", "q", "female", 60, "torso", -1.0),
    ("f", "q", "female", None, None, -3.0),
    ("g", "r", None, None, None, 7.0),
]


@pytest.fixture
def df():
    """Seven images of three patients."""
    columns = ["image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge", "logit"]
    return pd.DataFrame(ROWS, columns=columns).astype({"age_approx": float})


def test_features_of_the_table_by_hand(df):
    features_df = compute_table_context(df)
    assert features_df.loc["a"].to_dict() == pytest.approx({
        "share_same_site": 2 / 3, "n_images": np.log(4), "n_visits": np.log(2), "n_same_visit": np.log(3),
        "share_same_visit": 2 / 3, "n_sites": np.log(2), "n_same_site": np.log(3), "visit_rank": 1.5 / 4,
        "years_since_first": 0, "years_until_last": 10, "age_difference": 0})
    d, f = features_df.loc["d"], features_df.loc["f"]
    assert (d["years_since_first"], d["age_difference"], d["visit_rank"], d["share_same_visit"]) == (10, 10, 3.5 / 4, 0)
    assert f["n_visits"] == 0 and f["age_difference"] == 0  # its age is missing: the patient's median
    unsited = compute_table_context(df.assign(anatom_site_general_challenge=[None, "?", *["torso"] * 2, *[None] * 3]))
    assert not unsited.loc[["a", "b", "e", "f", "g"], ["share_same_site", "n_same_site"]].any(axis=None)
    assert unsited.loc[["c", "d"], "share_same_site"].tolist() == pytest.approx([1 / 3, 1 / 3])  # others still
    assert unsited.loc["a", "n_sites"] == 0 and not unsited.loc[["e", "f"], "n_sites"].any()  # of one site, of none


def test_features_of_the_logits_by_hand(df):
    features_df = compute_logit_context(df)
    assert features_df.loc["c"].to_dict() == pytest.approx(
        {"logit_rank": 3.5 / 4, "logit_z": 3 / np.sqrt(3.5), "logit_difference": 3.5})
    shifted = df.assign(logit=df["logit"] + df["patient_id"].map({"p": 10, "q": -5, "r": 3}))
    pd.testing.assert_frame_equal(features_df, compute_logit_context(shifted))  # what a patient shares drops out


def test_the_ugly_duckling_stands_out(df):
    embeddings = np.array([[0, 0], [0, 1], [6, 8], [1, 0], [5, 5], [9, 9], [0, 0]], float)
    embeddings_df = pd.DataFrame(embeddings, df["image_name"])
    features_df = compute_embedding_context(df, embeddings_df.iloc[::-1])
    assert features_df["duckling_z"].idxmax() == "c" and features_df["duckling_difference"].idxmax() == "c"
    d_a, d_b = (1 + 10 + 1) / 3, (1 + np.hypot(6, 7) + np.sqrt(2)) / 3
    d_d = (1 + np.sqrt(2) + np.hypot(5, 8)) / 3
    assert features_df.loc["a", "duckling_difference"] == pytest.approx(d_a - np.median([d_a, d_b, d_d, 20]))
    assert not features_df.loc[["e", "f", "g"]].any(axis=None)  # two images are equally far from each other


def test_the_only_image_of_a_patient_has_the_values_of_the_table(df):
    embeddings_df = pd.DataFrame(np.random.default_rng(0).normal(size=(7, 3)), df["image_name"])
    alone = make_features(df, embeddings_df).loc["g", list(CONTEXT_FEATURES)]
    pd.testing.assert_series_equal(alone, describe_features()["alone"], check_names=False)


def test_alike_values_within_a_patient_are_no_division_by_zero(df):
    features_df = compute_logit_context(df.assign(logit=0.1))
    assert not features_df[["logit_z", "logit_difference"]].any(axis=None) and set(features_df["logit_rank"]) == {0.5}


def test_neither_row_order_nor_other_patients_nor_labels_matter(data_dir):
    train_df = read_train(data_dir)
    features_df = make_features(train_df)
    pd.testing.assert_frame_equal(make_features(train_df.iloc[::-1]).loc[features_df.index], features_df)
    is_half = train_df["patient_id"].isin(train_df["patient_id"].unique()[::2])
    half_df = make_features(train_df[is_half].drop(columns=["target", "diagnosis", "benign_malignant"]))
    pd.testing.assert_frame_equal(half_df, features_df[is_half.to_numpy()])
    assert np.isfinite(features_df).all(axis=None)


def test_a_kind_is_selected(df):
    features_df = make_features(df)
    assert list(select_features(features_df)) == [
        *METADATA_FEATURES, "logit", "logit_rank", "logit_z", "logit_difference"]
    assert "n_images" in select_features(features_df, ("collection",)) and not set(METADATA_FEATURES) & set(
        select_features(features_df, ("collection",)))
    assert set(select_features(features_df, ("lesion", "collection"))) == set(features_df)
    with pytest.raises(ValueError, match="the kind 'table' is not one of"):
        select_features(features_df, ("table",))


def test_what_describes_the_lesion_does_not_change_with_more_of_the_same_pictures(df):
    """Every picture taken twice: the collection's features change, the lesion's do not."""
    twice = pd.concat([df, df.assign(image_name=df["image_name"] + "2")])
    before, after = (make_features(rows).loc[df["image_name"]] for rows in (df, twice))
    pd.testing.assert_frame_equal(select_features(before), select_features(after))
    assert (after["n_images"] - before["n_images"]).to_numpy() == pytest.approx(np.log(2))


@pytest.mark.parametrize(("change", "message"), [
    ({"image_name": "a"}, "6 image_names are repeated, first a"),
    ({"patient_id": None}, "7 of 7 images have no patient_id, first a"),
    ({"logit": np.nan}, "7 of 7 logits are not finite"),
])
def test_bad_rows_are_refused(df, change, message):
    with pytest.raises(ValueError, match=message):
        make_features(df.assign(**change))


def test_an_image_without_embedding_is_refused(df):
    with pytest.raises(ValueError, match="5 of 7 images have no finite embedding, first c"):
        make_features(df, pd.DataFrame(np.zeros((2, 3)), ["a", "b"]))


# ---- the notebook


def run_notebook(data_dir, folder, *more, check=True):
    return run_pipeline("--notebook", "13_metadata_baseline", "-r", "DATA_DIR", data_dir, "-r", "OUTPUT_DIR",
                        folder / "output", "--runs-dir", folder / "runs", *more, parameters=None,
                        check=check)


def test_the_notebook_needs_no_more_than_train_csv(data_dir, tmp_path):
    table_dir, folder = tmp_path / "table", tmp_path / "output" / "metadata_baseline"
    table_dir.mkdir()
    shutil.copy(data_dir / "train.csv", table_dir)
    small = ("-p", "N_FOLDS", 3, "-y", "{FOLD_SEEDS: [3, 4]}", "-p", "N_RESAMPLES", 100)
    process = run_notebook(table_dir, tmp_path, *small)
    metrics, ablation_df = read_json(folder / "metrics.json"), pd.read_csv(folder / "ablation.csv", index_col="step")
    assert len(metrics["seed_auc"]) == 2 and metrics["oof_auc"] == pytest.approx(np.mean(metrics["seed_auc"]))
    assert ablation_df.loc["+ context", "mean_of_seeds"] == pytest.approx(metrics["oof_auc"])
    assert f"OOF AUC {metrics['oof_auc']:.4f}, mean of 2 shuffles" in process.stdout and process.stderr == ""
    assert "(there is no list of them)" in process.stdout and metrics["n_images"] == len(read_train(data_dir))
    stages = read_second_stages(folder / "second_stage_lesion.json")
    assert len(stages) == 3 and not set(stages[0].features) & set(metrics["collection_features"])
    assert set(metrics["collection_features"]) < set(read_second_stages(folder / "second_stage.json")[0].features)
    assert np.isfinite(predict_second_stage(stages, make_features(read_train(data_dir)))).all()
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    run_notebook(table_dir, tmp_path, *small)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    (folder / "folds.csv").touch()
    refused = run_notebook(table_dir, tmp_path, *small, check=False)
    assert "'metadata_baseline' is another one's folder" in refused.stderr and refused.returncode == 1
    assert (folder / "metrics.json").read_bytes() == first["metrics.json"]


def test_the_notebook_drops_duplicates_where_their_list_is(data_dir, tmp_path):
    run_notebook(data_dir, tmp_path, "-p", "N_FOLDS", 3, "-y", "{FOLD_SEEDS: [0]}", "-p", "N_RESAMPLES", 40)
    metrics = read_json(tmp_path / "output" / "metadata_baseline" / "metrics.json")
    assert 0 < len(read_train(data_dir)) - metrics["n_images"] <= 5 and metrics["is_synthetic"]


@pytest.mark.real
def test_the_real_table_reaches_what_it_must(real_dir, tmp_path):
    """The reference is 0.78 to 0.79; intervals by few resamples, they are not what is tested."""
    run_notebook(real_dir / "metadata", tmp_path, "-p", "N_RESAMPLES", 40)
    metrics = read_json(tmp_path / "output" / "metadata_baseline" / "metrics.json")
    assert metrics["oof_auc"] >= 0.785 and len(metrics["seed_auc"]) == 5 and min(metrics["seed_auc"]) > 0.78
    assert (metrics["n_images"], metrics["n_melanomas"], metrics["n_patients"]) == (32701, 581, 2056)
    ablation = {row["step"]: row["mean_of_seeds"] for row in metrics["ablation"]}
    assert ablation["age, sex, site"] < 0.7 < ablation["+ images a patient"] < 0.76 < ablation["+ context"] < 0.82
    assert abs(ablation["+ same site"] - ablation["age, sex, site"]) < 0.01
