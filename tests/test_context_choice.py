"""The image model is the drawn lesions' hidden atypia with noise, which needs no picture."""

import numpy as np
import pandas as pd
import pytest

from melanoma_utils.context_choice import choose_context, explain_no_context, read_choice, write_choice
from melanoma_utils.files import read_json
from melanoma_utils.folds import create_folds
from melanoma_utils.image_context import ablate_context, add_context
from melanoma_utils.patient_context import CONTEXT_FEATURES
from melanoma_utils.synthetic import SyntheticConfig, make_latents, make_tables


@pytest.fixture(scope="module")
def drawn():
    """train.csv of 100 patients whose lesions are much alike, and out-of-fold logits in three folds."""
    return simulate(0.85)


def simulate(patient_strength):
    config = SyntheticConfig(n_train_patients=100, n_test_patients=1, duplicate_share=0,
                             patient_strength=patient_strength)
    train_df, atypia = make_tables(config)[0], make_latents(config).set_index("image_name")["atypia"]
    noise = np.random.default_rng(0).normal(0, 0.8, len(train_df))
    return train_df, create_folds(train_df, 3).assign(logit=atypia.loc[train_df["image_name"]].to_numpy() + noise)


def test_auto_takes_context_where_it_surely_gains():
    for strength, expected in ((0.85, "lesion"), (0.0, "none")):
        train_df, oof_df = simulate(strength)
        used, why = choose_context("auto", oof_df, ablate_context(oof_df, train_df, n_resamples=200))
        assert used == expected and ("it gains" in why) == (expected == "lesion") and "over the image alone" in why


@pytest.mark.parametrize(("gain_low", "added_low", "expected"), [
    (0.001, 0.001, "lesion"), (0.0, 0.001, "none"), (-0.01, 0.001, "none"), (0.001, 0.0, "none")])
def test_an_interval_that_holds_0_is_no_gain(gain_low, added_low, expected):
    oof_df = pd.DataFrame({"patient_id": ["a", "b"], "target": [0, 1], "fold": [0, 1]})
    row = {"gain": 0.02, "gain_low": gain_low, "gain_high": 0.03, "added": 0.01, "added_low": added_low,
           "added_high": 0.02}
    assert choose_context("auto", oof_df, pd.DataFrame([row], index=["+ context"]))[0] == expected


def test_what_is_asked_for_is_taken_but_for_folds_that_do_not_allow_it(drawn):
    _, oof_df = drawn
    for context in ("none", "lesion", "collection"):
        assert choose_context(context, oof_df, pd.DataFrame())[0] == context
    leaking_df = oof_df.assign(fold=np.arange(len(oof_df)) % 3)
    for bad_df, words in ((oof_df[oof_df["fold"] == 2], "only fold 2 is there"), (leaking_df, "have their patient in")):
        assert words in explain_no_context(bad_df)
        for context in ("auto", "lesion", "collection"):
            used, why = choose_context(context, bad_df, pd.DataFrame())
            assert used == "none" and words in why
    assert explain_no_context(oof_df) == ""
    with pytest.raises(ValueError, match="CONTEXT 'both' is not one of"):
        choose_context("both", oof_df, pd.DataFrame())


@pytest.mark.parametrize(("used", "kinds"), [("lesion", ("lesion",)), ("collection", ("lesion", "collection"))])
def test_what_is_read_is_what_was_fitted(drawn, tmp_path, used, kinds):
    train_df, oof_df = drawn
    write_choice(tmp_path, "auto", used, oof_df, train_df)
    again, stages = read_choice(tmp_path, "auto", oof_df.sample(frac=1, random_state=0))  # any order of the rows
    assert again == used and stages == add_context(oof_df, train_df, kinds=kinds)[1] and len(stages) == 3
    first = (tmp_path / "second_stage.json").read_bytes()
    write_choice(tmp_path, "auto", used, oof_df, train_df)
    assert (tmp_path / "second_stage.json").read_bytes() == first


def test_none_leaves_no_stage_and_wants_no_file(drawn, tmp_path):
    train_df, oof_df = drawn
    assert read_choice(tmp_path, "none", oof_df) == ("none", [])
    write_choice(tmp_path, "auto", "none", oof_df, train_df)
    assert read_choice(tmp_path, "auto", oof_df) == ("none", [])
    assert read_json(tmp_path / "second_stage.json")["made_from"]["folds"] == [0, 1, 2]


def test_a_choice_made_on_other_scores_or_features_is_refused(drawn, tmp_path, monkeypatch):
    train_df, oof_df = drawn
    with pytest.raises(FileNotFoundError, match=r"second_stage\.json does not exist: run 04_evaluate_oof first"):
        read_choice(tmp_path, "auto", oof_df)
    write_choice(tmp_path, "auto", "lesion", oof_df, train_df)
    retrained_df = oof_df.assign(logit=oof_df["logit"].where(oof_df.index != 5, 0.0))
    other_folds_df = oof_df.assign(fold=(oof_df["fold"] + 1) % 3)
    for df in (retrained_df, other_folds_df):
        with pytest.raises(ValueError, match=r"oof_sha256 is '.*: run 04_evaluate_oof again"):
            read_choice(tmp_path, "auto", df)
    with pytest.raises(ValueError, match=r"folds is \[0, 1, 2\], wanted \[0, 1\]"):
        read_choice(tmp_path, "auto", oof_df[oof_df["fold"] < 2])
    with pytest.raises(ValueError, match="context is 'auto', wanted 'lesion'"):
        read_choice(tmp_path, "lesion", oof_df)
    monkeypatch.setitem(CONTEXT_FEATURES, "n_images", ("table", "lesion", "a feature of another kind than before", 0.0))
    with pytest.raises(ValueError, match="features_sha256 is"):
        read_choice(tmp_path, "auto", oof_df)
    with pytest.raises(ValueError, match="CONTEXT 'all' is not one of"):
        read_choice(tmp_path, "all", oof_df)
