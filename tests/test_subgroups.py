import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_utils.evaluation import compute_auc_interval
from melanoma_utils.subgroups import compute_subgroups, find_image_sizes, name_age_bands


@pytest.fixture
def df():
    """600 images of 90 patients: the ranking is good among women, by chance among men; few have no sex."""
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"target": (rng.random(600) < 0.3).astype(int), "patient_id": rng.integers(0, 90, 600)})
    df["sex"] = np.where(np.arange(600) < 20, None, np.where(df["patient_id"] % 2, "female", "male"))
    df["logit"] = rng.normal(size=600) + 3 * df["target"] * (df["sex"] == "female")
    df["age"] = name_age_bands(pd.Series(rng.choice([25, 45, 85], 600)))
    return df


def test_groups_are_measured_by_themselves(df):
    table = compute_subgroups(df, {"sex": "sex"}, 1.0, n_resamples=200).set_index("group")
    for sex in ("female", "male"):
        row, of_sex = table.loc[sex], df[df["sex"] == sex]
        auc = compute_auc_interval(of_sex["target"], of_sex["logit"], of_sex["patient_id"], n_resamples=200)
        assert (row["auc"], row["auc_low"], row["auc_high"]) == (auc.auc, auc.low, auc.high)
        is_called = of_sex["logit"] >= 1.0
        assert row["sensitivity"] == pytest.approx(is_called[of_sex["target"] == 1].mean())
        assert row["specificity"] == pytest.approx(1 - is_called[of_sex["target"] == 0].mean())
        assert row["sensitivity_low"] < row["sensitivity"] < row["sensitivity_high"]
        assert (row["n_images"], row["n_melanomas"], row["n_patients"]) == (
            len(of_sex), of_sex["target"].sum(), of_sex["patient_id"].nunique())
    assert table.loc["male", "auc_high"] < table.loc["female", "auc_low"]


def test_few_positives_get_words_and_no_number(df):
    table = compute_subgroups(df, {"sex": "sex"}, 1.0, n_resamples=40).set_index("group")
    unknown = table.loc["unknown"]
    assert unknown["n_images"] == 20 and unknown["note"] == "too few"
    assert unknown[["auc", "auc_low", "sensitivity", "specificity_high"]].isna().all()
    assert (table.loc[["female", "male"], "note"] == "").all()
    for n_melanomas, note in ((19, "too few"), (20, "")):
        some_df = pd.concat([df[df["target"] == 1].head(n_melanomas), df[df["target"] == 0]]).assign(all="all")
        assert compute_subgroups(some_df, {"all": "all"}, 1.0, n_resamples=40)["note"].tolist() == [note]
    benign_df = pd.concat([df[df["target"] == 0].head(19), df[df["target"] == 1]]).assign(all="all")
    assert compute_subgroups(benign_df, {"all": "all"}, 1.0, n_resamples=40)["note"].tolist() == ["too few"]


def test_groups_keep_their_order_and_nobody_is_lost(df):
    table = compute_subgroups(df.assign(age=df["age"].where(df.index > 30)), {"age": "age band", "sex": "sex"}, 0.0,
                              n_resamples=40)
    of_age = table[table["attribute"] == "age band"]
    assert of_age["group"].tolist() == ["under 30", "40–49", "70 and over", "unknown"]
    assert table.groupby("attribute")["n_images"].sum().tolist() == [600, 600]
    called_df = df.assign(sex=df["sex"].replace("male", "unknown"))  # as some tables call it, beside empty values
    assert compute_subgroups(called_df, {"sex": "sex"}, 0.0, n_resamples=40)["n_images"].sum() == 600


def test_ages_are_named_in_bands():
    ages = name_age_bands(pd.Series([0, 29, 30, 69.5, 70, 90, np.nan]))
    assert ages.tolist()[:6] == ["under 30", "under 30", "30–39", "60–69", "70 and over", "70 and over"]
    assert ages.isna().tolist() == [False] * 6 + [True]


def test_sizes_are_read_from_the_files_and_missing_where_these_are_gone(tmp_path):
    (tmp_path / "train").mkdir()
    sizes = {"a": (60, 40), "b": (60, 40), "c": (20, 20), "d": (20, 20), "e": (60, 40), "f": (8, 9), "g": (9, 8)}
    for name, size in sizes.items():
        Image.new("RGB", size).save(tmp_path / "train" / f"{name}.jpg")
    names = pd.Series(["g", "a", "c", "b", "d", "e", "f"], index=range(10, 17))
    found = find_image_sizes(tmp_path, names, n_most=2)
    assert found.to_dict() == {10: "other", 11: "60×40", 12: "20×20", 13: "60×40", 14: "20×20", 15: "60×40",
                               16: "other"}
    assert list(found.cat.categories) == ["60×40", "20×20", "other"]
    assert find_image_sizes(tmp_path / "nowhere", names).isna().all()
    assert find_image_sizes(tmp_path, names, "dicom").isna().all()  # there are none


def test_a_missing_column_or_score_is_told(df):
    with pytest.raises(KeyError, match="no column 'site'"):
        compute_subgroups(df, {"site": "site"}, 0.0)
    with pytest.raises(ValueError, match=r"1 of .* scores are not finite"):
        compute_subgroups(df.assign(logit=df["logit"].where(df.index != 100)), {"sex": "sex"}, 0.0, n_resamples=40)
    with pytest.raises(ValueError, match=r"1 of .* images have no patient_id"):
        compute_subgroups(df.assign(patient_id=df["patient_id"].where(df.index != 100)), {"sex": "sex"}, 0.0)
