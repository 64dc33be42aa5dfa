"""The image models are cheap stand-ins: a regression on colour statistics of the drawn pictures, or the hidden atypia
with noise, which needs no picture."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_utils.ablation import compare_steps
from melanoma_utils.competition import find_images, read_train
from melanoma_utils.evaluation import compute_auc_difference
from melanoma_utils.folds import create_folds
from melanoma_utils.image_context import ablate_context, add_context, predict_with_context
from melanoma_utils.second_stage import predict_out_of_fold
from melanoma_utils.synthetic import SyntheticConfig, draw_competition, make_latents, make_tables

N_RESAMPLES = 300


def measure_colours(path):
    """Returns means, spreads and quantiles of a picture's middle and rim, and how unlike its halves are."""
    image = np.asarray(Image.open(path).convert("RGB").resize((32, 32)), dtype=float) / 255
    middle, rim = image[8:24, 8:24].reshape(-1, 3), np.concatenate([image[:4], image[-4:]]).reshape(-1, 3)
    statistics = [middle.mean(0), middle.std(0), rim.mean(0), rim.std(0), *np.quantile(middle, [0.05, 0.25, 0.75], 0)]
    return np.concatenate([*statistics, [np.abs(image - image[::-1]).mean(), np.abs(image - image[:, ::-1]).mean()]])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """train.csv of 60 drawn patients with about 12 pictures each, and the colour statistics of these by image_name."""
    config = SyntheticConfig(n_test_patients=1, duplicate_share=0, image_size=64)
    train_df = read_train(draw_competition(tmp_path_factory.mktemp("full") / "drawn", config, n_jobs=1))
    paths = find_images(tmp_path_factory.getbasetemp() / "full0" / "drawn", "train", train_df["image_name"])
    colours_df = pd.DataFrame({name: measure_colours(path) for name, path in paths.items()}).T.add_prefix("colour_")
    return train_df, (colours_df - colours_df.mean()) / colours_df.std()


def score_pictures(train_df, colours_df):
    """Returns the out-of-fold logits of a regression on the colours."""
    folds_df = create_folds(train_df, 5)
    logits, _ = predict_out_of_fold(colours_df.loc[train_df["image_name"]], folds_df, c=0.1)
    return folds_df.assign(logit=logits.to_numpy())


def simulate(patient_strength, seed, n_patients=100):
    """Returns train.csv of drawn patients, and the logits of a model that sees the atypia with noise, in five folds."""
    config = SyntheticConfig(n_train_patients=n_patients, n_test_patients=1, duplicate_share=0, seed=seed,
                             patient_strength=patient_strength)
    atypia = make_latents(config).set_index("image_name")["atypia"]
    train_df = make_tables(config)[0]
    noise = np.random.default_rng(seed).normal(0, 0.8, len(train_df))
    return train_df, create_folds(train_df, 5).assign(logit=atypia.loc[train_df["image_name"]].to_numpy() + noise)


def test_context_adds_to_a_model_of_drawn_pictures(pictures):
    train_df, colours_df = pictures
    df = ablate_context(score_pictures(train_df, colours_df), train_df, colours_df, n_resamples=N_RESAMPLES)
    assert list(df.index) == ["image", "+ metadata", "+ context", "+ collection"] and df.loc["image", "auc"] > 0.8
    assert df.loc["+ context", "gain"] >= 0.02 and df.loc["+ context", "gain_low"] > 0
    assert df.loc["+ context", "added"] >= 0.02 and df.loc["+ context", "verdict"] == "better"
    assert df.loc["+ collection", "added_low"] <= 0 <= df.loc["+ collection", "added_high"]  # drawn without any


def test_with_patients_mixed_up_context_adds_nothing(pictures):
    """Folds, image model and second stage all believe the wrong patients; only sex and age stay with the image."""
    train_df, colours_df = pictures
    mixed_df = train_df.assign(patient_id=np.random.default_rng(0).permutation(train_df["patient_id"]))
    df = ablate_context(score_pictures(mixed_df, colours_df), mixed_df, colours_df, n_resamples=N_RESAMPLES)
    assert df.loc["+ context", "added_low"] <= 0 <= df.loc["+ context", "added_high"]
    assert abs(df.loc["+ context", "added"]) < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_context_is_worth_what_lesions_share(seed):
    gains = {}
    for strength in (0.85, 0.0):
        train_df, oof_df = simulate(strength, seed)
        gains[strength] = ablate_context(oof_df, train_df, n_resamples=N_RESAMPLES).loc["+ context"]
    assert gains[0.85]["gain"] >= 0.02 and gains[0.85]["added"] >= 0.01 and gains[0.85]["added_low"] > 0
    assert gains[0.0]["added_low"] <= 0 <= gains[0.0]["added_high"] and abs(gains[0.0]["added"]) < 0.005


def test_the_blend_is_the_ablations_and_keeps_the_rows():
    train_df, oof_df = simulate(0.85, 0, n_patients=30)
    scored_df, stages = add_context(oof_df, train_df)
    pd.testing.assert_frame_equal(scored_df[["image_name", "fold"]], oof_df[["image_name", "fold"]])
    pd.testing.assert_series_equal(scored_df["image_logit"], oof_df["logit"], check_names=False)
    df = ablate_context(oof_df, train_df, n_resamples=50)
    gain = compute_auc_difference(oof_df["target"], scored_df["logit"], oof_df["logit"], oof_df["patient_id"],
                                  n_resamples=50)
    assert df.loc["+ context", ["gain", "gain_low", "gain_high"]].tolist() == [gain.auc, gain.low, gain.high]
    assert len(stages) == 5 and "n_images" not in stages[0].features
    assert "n_images" in add_context(oof_df, train_df, kinds=("lesion", "collection"))[1][0].features
    shuffled_df, _ = add_context(oof_df.sample(frac=1, random_state=0), train_df.iloc[::-1])
    joined = scored_df.merge(shuffled_df, on="image_name")
    np.testing.assert_allclose(joined["logit_x"], joined["logit_y"])


def test_new_patients_are_scored_beside_their_own_images():
    train_df, oof_df = simulate(0.85, 0)
    _, stages = add_context(oof_df, train_df)
    new_df, new_oof_df = simulate(0.85, 7)
    tables = [new_oof_df[["image_name", "logit"]].assign(logit=new_oof_df["logit"] + shift) for shift in range(5)]
    unlabelled_df = new_df.drop(columns=["target", "diagnosis", "benign_malignant"])
    scored_df = predict_with_context(stages, [tables[0], *(t.sample(frac=1, random_state=0) for t in tables[1:])],
                                     unlabelled_df).set_index("image_name").loc[new_oof_df["image_name"]]
    np.testing.assert_allclose(scored_df["image_logit"], new_oof_df["logit"] + 2)
    scores = {"image": scored_df["image_logit"], "context": scored_df["logit"]}
    df = compare_steps(new_oof_df["target"], scores, new_oof_df["patient_id"], n_resamples=N_RESAMPLES)
    assert df.loc["context", "added"] >= 0.02 and df.loc["context", "added_low"] > 0
    with pytest.raises(ValueError, match="5 second stages, 4 tables of logits"):
        predict_with_context(stages, tables[:4], unlabelled_df)


def test_patients_with_one_image_each_are_scored_all_the_same():
    train_df, oof_df = simulate(0.85, 0)
    alone_df = oof_df.drop_duplicates("patient_id")
    scored_df, _ = add_context(alone_df, train_df)
    assert np.isfinite(scored_df["logit"]).all() and len(scored_df) == 100
    df = ablate_context(alone_df, train_df, n_resamples=100)
    assert df.loc["+ collection", "added"] == pytest.approx(0, abs=1e-12)  # nothing to compare with


def test_an_image_without_a_row_in_the_table_is_named():
    train_df, oof_df = simulate(0.85, 0, n_patients=20)
    with pytest.raises(ValueError, match=f"1 of {len(oof_df)} images have no row in the metadata, first SYN_"):
        add_context(oof_df, train_df.iloc[1:])
