import numpy as np
import pandas as pd
import pytest

from melanoma_utils import table_summaries as summaries


@pytest.fixture
def df():
    """Six images of three patients; two melanomas, both of p."""
    rows = [("p", "female", 9.0, "torso", 1), ("p", "female", 10.0, "torso", 1), ("p", None, 45.0, "torso", 0),
            ("q", "male", np.nan, None, 0), ("q", "male", 90.0, "head/neck", 0), ("r", "male", 45.0, "torso", 0)]
    return pd.DataFrame(rows, columns=["patient_id", "sex", "age_approx", "anatom_site_general_challenge", "target"])


def test_classes_are_counted_by_image_and_by_patient(df):
    assert summaries.count_classes(df) == {"images": {"benign": 4, "melanoma": 2},
                                           "patients": {"only benign": 2, "melanoma": 1}}
    assert summaries.count_classes(df[df["target"] == 0])["patients"] == {"only benign": 3, "melanoma": 0}


def test_missing_cells_are_shared_out_by_table(df):
    missing = summaries.share_missing({"train": df, "test": df.iloc[:2]})
    assert missing["train"].tolist() == pytest.approx([1 / 6] * 3) and missing["test"].tolist() == [0, 0, 0]
    assert missing.index[1] == "age_approx\n(train 1, test 0)"


def test_decades_begin_at_their_first_year(df):
    assert summaries.name_decades(df["age_approx"]).astype(object).tolist()[:3] == ["0 to 9", "10 to 19", "40 to 49"]
    assert summaries.name_decades(df["age_approx"]).isna().sum() == 1


def test_nobody_is_too_old_for_a_group():
    named = summaries.name_decades(pd.Series([89.0, 90.0, 99.0, 100.0, 115.0]))
    assert named.astype(object).tolist() == ["80 to 89"] + ["90 or more"] * 4


def test_groups_are_shares_of_what_is_known(df):
    groups = summaries.share_groups({"train": df, "test": df.iloc[3:]})
    assert groups["sex"].loc["male"].tolist() == pytest.approx([3 / 5, 1])
    assert groups["site"].loc["torso"].tolist() == pytest.approx([4 / 5, 1 / 2])
    assert groups["age, years"].index[0] == "0 to 9" and len(groups["age, years"]) == 10
    assert all(table.sum().tolist() == pytest.approx([1, 1]) for table in groups.values())


def test_each_image_is_told_how_many_its_patient_has(df):
    many = pd.DataFrame({"patient_id": ["s"] * 64})
    named = summaries.name_image_counts(pd.concat([df, many]))
    assert named.astype(object).tolist() == ["1 to 3"] * 6 + ["64 or more"] * 64


def test_rows_are_selected_by_sex_site_and_age(df):
    everything = (["female", "male", summaries.UNKNOWN], ["torso", "head/neck", summaries.UNKNOWN])
    assert len(summaries.select_rows(df, *everything, (0, 90), True)) == 6
    assert summaries.select_rows(df, *everything, (10, 45), False)["age_approx"].tolist() == [10, 45, 45]
    assert summaries.select_rows(df, *everything, (10, 45), True)["age_approx"].isna().sum() == 1
    assert len(summaries.select_rows(df, ["male"], ["torso"], (0, 90), True)) == 1
    assert len(summaries.select_rows(df, [summaries.UNKNOWN], everything[1], (0, 90), True)) == 1
    assert summaries.select_rows(df, [], everything[1], (0, 90), True).empty
