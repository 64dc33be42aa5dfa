import numpy as np
import pandas as pd
import pytest

from melanoma_utils.diagnoses import COLUMNS, compute_diagnoses, describe_missed


def draw(diagnosis, kind, n, n_groups, mean, source="external", seed=0):
    """Returns n images of n_groups lesions, those of a lesion much alike."""
    rng, lesion = np.random.default_rng(seed), np.arange(n) % n_groups
    logit = mean + rng.normal(size=n_groups)[lesion] + rng.normal(0, 0.1, n)
    return pd.DataFrame({"source": source, "diagnosis": diagnosis, "benign_malignant": kind,
                         "patient_id": [f"{diagnosis}_{i}" for i in lesion], "logit": logit})


@pytest.fixture
def df():
    return pd.concat([
        draw("nevus", "benign", 300, 150, -2), draw("melanoma", "malignant", 80, 40, 2, seed=1),
        draw("basal cell carcinoma", "malignant", 120, 60, 0, seed=2),
        draw("actinic keratosis", "premalignant", 40, 25, -1, seed=3),
        draw("dermatofibroma", "benign", 100, 19, -1, seed=4), draw("unknown", "benign", 50, 50, 0),
        draw("nevus", "benign", 60, 30, -1, "competition", seed=5)], ignore_index=True)


def test_each_diagnosis_is_counted_by_itself(df):
    table = compute_diagnoses(df, 0.0, n_resamples=300)
    assert list(table) == list(COLUMNS)
    assert table[["source", "diagnosis"]].agg(" ".join, axis=1).tolist() == [
        "competition nevus", "external basal cell carcinoma", "external melanoma", "external actinic keratosis",
        "external nevus", "external dermatofibroma"]
    row = table[table["diagnosis"] == "basal cell carcinoma"].iloc[0]
    logits = df["logit"][df["diagnosis"] == "basal cell carcinoma"]
    assert (row["n"], row["n_groups"], row["note"]) == (120, 60, "")
    assert row["share_suspicious"] == pytest.approx((logits >= 0).mean())
    assert row["median_logit"] == pytest.approx(logits.median())
    assert row["share_low"] < row["share_suspicious"] < row["share_high"]


def test_lesions_are_resampled_not_images(df):
    """Each lesion's images ten times over tell no more about lesions."""
    some_df = df[df["diagnosis"] == "basal cell carcinoma"]
    many_df = pd.concat([some_df] * 10, ignore_index=True)
    once, tenfold = (compute_diagnoses(d, 0.0, n_resamples=500).iloc[0] for d in (some_df, many_df))
    assert tenfold["n"] == 10 * once["n"]
    assert tenfold[["share_low", "share_high"]].tolist() == once[["share_low", "share_high"]].tolist()
    independent_df = many_df.assign(patient_id=np.arange(len(many_df)))
    narrow = compute_diagnoses(independent_df, 0.0, n_resamples=500).iloc[0]
    assert narrow["share_high"] - narrow["share_low"] < 0.5 * (once["share_high"] - once["share_low"])


def test_few_lesions_get_words_and_no_number(df):
    row = compute_diagnoses(df, 0.0, n_resamples=40).set_index("diagnosis").loc["dermatofibroma"]
    assert (row["n"], row["n_groups"], row["note"]) == (100, 19, "too few")
    assert row[["share_suspicious", "share_low", "share_high", "median_logit"]].isna().all()
    assert compute_diagnoses(draw("x", "benign", 20, 20, 0), 0.0, n_resamples=40)["note"].tolist() == [""]


def test_where_all_or_none_are_called_the_interval_has_a_width(df):
    some_df = df[df["diagnosis"] == "melanoma"]
    for threshold, share in ((-100.0, 1), (100.0, 0)):
        row = compute_diagnoses(some_df, threshold, n_resamples=50).iloc[0]
        assert row["share_suspicious"] == share and row["share_high"] - row["share_low"] == pytest.approx(
            1 - 0.025 ** (1 / 40))
    at = compute_diagnoses(some_df, some_df["logit"].max(), n_resamples=50).iloc[0]
    assert at["share_suspicious"] == pytest.approx(1 / 80)  # at the threshold counts as suspicious


def test_what_a_low_score_must_not_hide_is_said(df):
    lines = describe_missed(compute_diagnoses(df, 0.0, n_resamples=100))
    assert len(lines) == 2 and lines[0].startswith("basal cell carcinoma (malignant, external): ")
    share = (df["logit"][df["diagnosis"] == "actinic keratosis"] < 0).mean()
    assert f"{share:.0%} (" in lines[1] and "of 40 images are below the threshold: a low score must not" in lines[1]
    few_df = draw("actinic keratosis", "premalignant", 9, 4, 0)
    assert describe_missed(compute_diagnoses(few_df, 0.0, n_resamples=40)) == [
        "actinic keratosis (premalignant, external): too few to say, 9 images of 4 lesions or patients"]
    for diagnoses in (["nevus", "melanoma"], []):
        table = compute_diagnoses(df[df["diagnosis"].isin(diagnoses)], 0.0, n_resamples=40)
        assert "no malignant or premalignant lesion but melanoma" in describe_missed(table)[0]


def test_without_any_known_diagnosis_the_table_is_empty(df):
    table = compute_diagnoses(df.assign(diagnosis=None), 0.0, n_resamples=40)
    assert list(table) == list(COLUMNS) and table.empty


@pytest.mark.parametrize(("change", "error", "message"), [
    (lambda df: df.drop(columns="diagnosis"), KeyError, "the table has no column 'diagnosis'"),
    (lambda df: df.assign(logit=df["logit"].where(df.index > 2)), ValueError, "3 of 750 images have no finite logit"),
    (lambda df: df.assign(patient_id=df["patient_id"].where(df.index > 0)), ValueError,
     "1 of 750 images have no patient_id"),
])
def test_bad_tables_are_refused(df, change, error, message):
    with pytest.raises(error, match=message):
        compute_diagnoses(change(df), 0.0, n_resamples=40)
    with pytest.raises(ValueError, match="N_RESAMPLES 39 is too small"):
        compute_diagnoses(df, 0.0, n_resamples=39)
