import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from melanoma_utils.second_stage import (
    describe_coefficients,
    fit_second_stage,
    predict_out_of_fold,
    predict_second_stage,
    read_second_stages,
    write_second_stages,
)


@pytest.fixture
def rows():
    """Features and folds of 300 images of 60 patients; one feature ranks, one is noise, one is constant."""
    rng = np.random.default_rng(0)
    names, patient = [f"i{i}" for i in range(300)], np.arange(300) % 60
    target = (rng.random(300) < 0.4).astype(int)
    features_df = pd.DataFrame({"good": 5 + 30 * (target + rng.normal(0, 1, 300)), "noise": rng.normal(size=300),
                                "constant": 3.0}, index=pd.Index(names, name="image_name"))
    oof_df = pd.DataFrame({"image_name": names, "patient_id": patient, "target": target, "fold": patient % 3})
    return features_df, oof_df


def test_it_is_scikit_learns_regression(rows):
    features_df, oof_df = rows
    stage = fit_second_stage(features_df, oof_df["target"])
    x = (features_df - features_df.mean()) / features_df.std(ddof=0).replace(0, 1)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(x.to_numpy(), oof_df["target"])
    np.testing.assert_allclose(predict_second_stage([stage], features_df), model.decision_function(x.to_numpy()))
    assert stage.coef[2] == 0 and stage.scale[2] == 1


def test_json_keeps_every_digit_and_nothing_is_pickled(rows, tmp_path):
    features_df, oof_df = rows
    _, stages = predict_out_of_fold(features_df, oof_df)
    write_second_stages(tmp_path / "stage.json", stages)
    assert read_second_stages(tmp_path / "stage.json") == stages and len(stages) == 3
    assert json.loads((tmp_path / "stage.json").read_text())["stages"][0]["features"] == list(features_df)
    mixed = features_df.iloc[::-1, ::-1].assign(more=1)  # read by name, whatever the order
    expected = np.mean([predict_second_stage([stage], features_df) for stage in stages], axis=0)
    np.testing.assert_array_equal(predict_second_stage(stages, mixed)[::-1], expected)
    for text in ("{}", '{"stages": [{"mean": [1]}]}', "no"):
        (tmp_path / "stage.json").write_text(text)
        with pytest.raises(ValueError, match=r"stage\.json"):
            read_second_stages(tmp_path / "stage.json")


def test_no_label_of_a_fold_enters_its_scores(rows):
    features_df, oof_df = rows
    logits, _ = predict_out_of_fold(features_df, oof_df)
    assert roc_auc_score(oof_df["target"], logits) > 0.7
    is_first = oof_df["fold"] == 0
    turned_df = oof_df.assign(target=oof_df["target"].where(~is_first, 1 - oof_df["target"]))
    turned, _ = predict_out_of_fold(features_df, turned_df)
    pd.testing.assert_series_equal(turned[is_first.to_numpy()], logits[is_first.to_numpy()])
    assert (turned - logits)[~is_first.to_numpy()].abs().min() > 0
    shuffled, _ = predict_out_of_fold(features_df, oof_df.sample(frac=1, random_state=0))
    pd.testing.assert_series_equal(shuffled, logits)  # joined by name


def test_coefficients_are_described_largest_first(rows):
    features_df, oof_df = rows
    df = describe_coefficients(predict_out_of_fold(features_df, oof_df)[1])
    assert list(df.index) == ["good", "noise", "constant"] and (df["low"] <= df["high"]).all()
    assert df.loc["good", "low"] > 0.5


@pytest.mark.parametrize(("change", "message"), [
    (lambda x, oof: (x.iloc[1:], oof), "of 299 images and the folds of 300 are not of the same ones"),
    (lambda x, oof: (x, oof.assign(patient_id="p")), "1 patients are in more than one fold, first p"),
    (lambda x, oof: (x, oof.assign(fold=2)), "only fold 2 is there"),
    (lambda x, oof: (x, oof.assign(target=0)), "needs both classes, met only target"),
    (lambda x, oof: (x.assign(noise=np.inf), oof), "'noise' is not finite in 200 of 200 rows"),
])
def test_bad_input_is_refused(rows, change, message):
    with pytest.raises(ValueError, match=message):
        predict_out_of_fold(*change(*rows))


def test_a_missing_feature_is_named(rows):
    stage = fit_second_stage(rows[0], rows[1]["target"])
    with pytest.raises(ValueError, match=r"the feature 'noise' is missing \(1 of 3 are\)"):
        predict_second_stage([stage], rows[0].drop(columns="noise"))
    with pytest.raises(ValueError, match="there is no second stage"):
        predict_second_stage([], rows[0])
