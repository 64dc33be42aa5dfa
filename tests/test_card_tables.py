import hashlib

import numpy as np
import pandas as pd
import pytest

from melanoma_utils.card_tables import (
    tabulate_areas,
    tabulate_calibration,
    tabulate_checksums,
    tabulate_context,
    tabulate_diagnoses,
    tabulate_folds,
    tabulate_points,
    tabulate_subgroups,
    tabulate_training,
    tell_interval,
    tell_number,
    to_table,
)
from melanoma_utils.operating_points import compute_operating_points


def read(table):
    """Returns the cells of a Markdown table's rows, without its header."""
    lines = table.splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1  # as many cells in each line
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def test_a_bar_in_a_cell_does_not_end_it():
    assert to_table(("a", "b"), [("x|y", 1)]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


@pytest.mark.parametrize(("value", "told"), [(0.12345, "0.123"), (-0.5, "−0.500"), (None, "–"), (np.nan, "–"),
                                            (1, "1.000")])
def test_numbers(value, told):
    assert tell_number(value) == told


def test_intervals():
    assert tell_interval({"auc": 0.9, "auc_low": 0.8, "auc_high": 1.0}, "auc", ".1f") == "0.9 (0.8–1.0)"
    assert tell_interval({"x": 0.0, "x_low": -0.25, "x_high": 0.5}, "x", "+.2f") == "+0.00 (−0.25 to +0.50)"
    assert tell_interval({"x": None, "x_low": None, "x_high": None}, "x") == "–"


def test_areas_that_were_not_measured_are_left_out():
    metrics = {"oof_auc": 0.8, "oof_auc_low": 0.7, "oof_auc_high": 0.9}
    assert [row[:2] for row in read(tabulate_areas(metrics))] == [["ROC AUC", "0.800 (0.700–0.900)"]]
    metrics |= {"external_auc": 0.6, "external_auc_low": 0.5, "external_auc_high": 0.7}
    assert read(tabulate_areas(metrics))[1][1] == "0.600 (0.500–0.700)"


def test_folds_have_their_own_sizes(folds_df):
    rows = read(tabulate_folds({"folds": [0, 2], "fold_auc": [0.75, np.nan]}, folds_df))
    assert [row[0] for row in rows] == ["0", "2"] and [row[-1] for row in rows] == ["0.750", "–"]
    assert [int(row[1]) for row in rows] == [(folds_df["fold"] == k).sum() for k in (0, 2)]
    assert [int(row[3]) for row in rows] == [folds_df["target"][folds_df["fold"] == k].sum() for k in (0, 2)]


def test_operating_points_as_they_are_measured_and_where_nobody_is_called_suspicious():
    targets, scores = np.array([1, 1, 0, 0, 0, 0]), np.array([3.0, -1.0, 2.0, 0.0, -2.0, -3.0])
    points_df = compute_operating_points(targets, scores, np.arange(6), 0.1, [0.5, 1.0], n_resamples=40)
    rows = read(tabulate_points(points_df.assign(threshold_prob=[0.5, 0.02]).to_dict("records")))
    assert rows[0][0] == "50 %" and rows[0][1].startswith("50.0% (") and rows[0][2].startswith("100.0% (")
    assert rows[1][0] == "100 %" and rows[1][2].startswith("50.0% (") and rows[1][-1] == "2.00%"
    assert rows[1][7].startswith("−1.000 (")
    unknown = {name: None for name in points_df} | {"wanted_sensitivity": 0.9, "sensitivity": 0.0}
    assert read(tabulate_points([unknown]))[0][1:4] == ["0.0% (–––)", "–", "–"]


def test_calibration_has_a_row_before_and_one_after():
    row = {"brier": 0.2, "brier_skill": -0.5, "ece": 0.1, "mean_prob": 0.3}
    rows = read(tabulate_calibration({"before": row, "platt": row | {"ece": 0.01}}))
    assert rows == [["before", "0.2000", "−0.5000", "0.1000", "0.3000"], ["platt", "0.2000", "−0.5000", "0.0100",
                                                                         "0.3000"]]


def test_too_few_stands_where_a_number_would():
    numbers = {f"{name}{end}": 0.5 for name in ("auc", "sensitivity", "specificity") for end in ("", "_low", "_high")}
    row = {"attribute": "sex", "group": "female", "n_images": 1200, "n_patients": 30, "n_melanomas": 25}
    table = tabulate_subgroups(pd.DataFrame([row | numbers | {"note": np.nan},  # as pandas reads an empty note
                                             row | dict.fromkeys(numbers, np.nan) | {"note": "too few"}]))
    assert read(table)[0][2:] == ["1,200", "30", "25", "0.500 (0.500–0.500)", *["50.0% (50.0%–50.0%)"] * 2]
    assert read(table)[1][5:] == ["too few", "–", "–"]


def test_context_is_compared_with_the_image_and_the_step_before():
    row = {"step": "+ context", "auc": 0.8, "low": 0.7, "high": 0.9, "gain": 0.05, "gain_low": -0.01, "gain_high": 0.1,
           "added": -0.02, "added_low": -0.03, "added_high": -0.01, "verdict": "worse"}
    assert read(tabulate_context(pd.DataFrame([row]))) == [
        ["+ context", "0.800 (0.700–0.900)", "+0.050 (−0.010 to +0.100)", "−0.020 (−0.030 to −0.010)", "worse"]]


def test_diagnoses_with_a_note_where_there_are_too_few():
    row = {"diagnosis": "basal cell carcinoma", "n": 514, "n_groups": 327, "share_suspicious": 0.75, "share_low": 0.7,
           "share_high": 0.8, "median_logit": -0.5, "note": "", "source": "external", "benign_malignant": "malignant"}
    few = row | dict.fromkeys(("share_suspicious", "share_low", "share_high", "median_logit")) | {"note": "too few"}
    short = {key: value for key, value in row.items() if key not in ("source", "benign_malignant")}
    told = ["514", "327", "75.0% (70.0%–80.0%)", "−0.50"]
    assert read(tabulate_diagnoses([row, few, short])) == [
        ["basal cell carcinoma", "malignant", "external", *told],
        ["basal cell carcinoma", "malignant", "external", "514", "327", "too few", "–"],
        ["basal cell carcinoma", "–", "–", *told]]


def test_training_images_are_counted_by_diagnosis_and_source():
    df = pd.DataFrame({"target": [1, 0, 0, 0, 0], "source": ["competition"] * 3 + ["external"] * 2,
                       "diagnosis": ["melanoma", "nevus", None, "nevus", "nevus"]})
    assert read(tabulate_training(df)) == [["nevus", "1", "2"], ["melanoma", "1", "0"], ["not recorded", "1", "0"]]
    assert read(tabulate_training(df.drop(columns="diagnosis"))) == [["not melanoma", "2", "2"], ["melanoma", "1", "0"]]


def test_checksums_are_those_of_the_files_and_of_all_stores(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"a,b\n")
    identity = {"source": "jpeg/train", "n_images": 1000, "names_sha256": "aa",
                "external": {"source": "ham/images", "n_images": 5, "names_sha256": "bb"}}
    rows = read(tabulate_checksums([tmp_path / "train.csv"], identity))
    assert rows[0] == ["`train.csv`", hashlib.sha256(b"a,b\n").hexdigest()]
    assert [row[1] for row in rows[1:]] == ["aa", "bb"] and "1,000" in rows[1][0] and "ham/images" in rows[2][0]
