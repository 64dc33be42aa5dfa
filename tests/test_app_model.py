"""The page "Model", used as somebody would, without a browser."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from streamlit.testing.v1 import AppTest

from melanoma_utils.subgroups import compute_subgroups

SHIPPED = ROOT / "Streamlit" / "model"
BARE = ("fold_0.safetensors", "metrics.json", "calibration.json", "operating_points.csv")


@pytest.fixture
def open_page(monkeypatch, tmp_path):
    """What opens the page with one experiment, made of the shipped model by a function of its folder, as the model."""
    def open_page(change=lambda folder: None):
        folder = tmp_path / "output" / "experiment"
        folder.mkdir(parents=True)
        for name in BARE:
            shutil.copy(SHIPPED / name, folder)
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics |= {"folds": [0], "checkpoints_sha256": metrics["checkpoints_sha256"][:1]}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        change(folder)
        monkeypatch.syspath_prepend(ROOT / "Streamlit")
        import common
        monkeypatch.setattr(common, "OUTPUT_DIR", tmp_path / "output")
        at = AppTest.from_file(str(ROOT / "Streamlit" / "app.py"), default_timeout=300)
        at.session_state["model"] = "experiment"
        return check(at.switch_page("views/model.py").run())
    return open_page


def check(at):
    """Returns the page; fails where something was raised."""
    assert not at.exception and "Something went wrong" not in " ".join(error.value for error in at.error)
    return at


def look_at(at, view):
    return check(at.segmented_control(key="model_view").set_value(view).run())


def write_scores(folder):
    """Writes scores of 300 lesions and the subgroups that they make into an experiment's folder."""
    rng = np.random.default_rng(0)
    target = (np.arange(300) % 2 == 0).astype(int)
    df = pd.DataFrame({"target": target, "logit": rng.normal(3 * target - 1, 2), "patient_id": np.arange(300),
                       "site": ["torso"] * 290 + [None] * 10})
    threshold = json.loads((folder / "metrics.json").read_text())["subgroup_threshold"]
    compute_subgroups(df, {"site": "site"}, threshold, n_resamples=40).to_csv(folder / "subgroups.csv", index=False)
    df[["target", "logit"]].to_csv(folder / "oof_scores.csv", index=False)


def test_every_view_of_an_experiment_that_has_all(open_page):
    def change(folder):
        write_scores(folder)
        (folder / "model_card.md").write_text("# Model card: mine\n\nNot a medical device.")
    at = open_page(change)
    metrics = json.loads((SHIPPED / "metrics.json").read_text())
    assert [metric.value for metric in at.metric] == [
        f"{metrics['oof_auc']:.3f}", f"{metrics['oof_auc_low']:.3f}–{metrics['oof_auc_high']:.3f}", "618"]
    assert any("Model card: mine" in markdown.value for markdown in at.markdown)
    assert len(look_at(at, "Ranking").image) == 2
    at = look_at(at, "Probabilities")
    assert len(at.image) == 1 and at.table[0].value.index.tolist() == ["before", "calibrated"]
    at = look_at(at, "Thresholds")
    assert len(at.image) == 1 and at.table[0].value.loc["melanomas found, %", "95 %"] == "95 (93 to 97)"
    at = look_at(at, "Subgroups")
    assert len(at.image) == 1 and at.table[0].value.loc["site: unknown", "AUC"] == "too few"


def test_what_follows_from_the_prevalence_moves_with_it(open_page):
    at = look_at(open_page(), "Thresholds")
    before = at.table[0].value
    at.number_input(key="prevalence").set_value(20.0)
    after = check(at.run()).table[0].value
    same = [row for row in before.index if (before.loc[row] == after.loc[row]).all()]
    assert same == ["melanomas found, %", "benign lesions spared, %"]
    assert float(after.loc["melanomas missed in 1,000 lesions", "95 %"]) == pytest.approx(9.75, abs=0.01)


def test_what_is_not_there_is_said(open_page):
    at = open_page()
    assert "has no card" in at.info[0].value
    for view, name in (("Ranking", "oof_scores.csv"), ("Probabilities", "oof_scores.csv"),
                       ("Subgroups", "subgroups.csv")):
        at = look_at(at, view)
        assert name in at.info[0].value and not at.image


def test_scores_of_one_class_are_said_and_subgroups_at_another_threshold_have_no_chart(open_page):
    def change(folder):
        write_scores(folder)
        (folder / "oof_scores.csv").write_text("target,logit\n" + "0,1.5\n" * 30)
        metrics = json.loads((folder / "metrics.json").read_text())
        other = {"subgroup_threshold": 0.123, "is_synthetic": True}
        (folder / "metrics.json").write_text(json.dumps(metrics | other))
    at = look_at(open_page(change), "Probabilities")
    assert "Nothing can be said" in at.info[0].value and "nothing about skin" in at.warning[0].value
    assert "both 0 and 1" in look_at(at, "Ranking").info[0].value
    at = look_at(at, "Subgroups")
    assert not at.image and len(at.table) == 1


def test_the_shipped_model_has_its_card(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "Streamlit")
    import common
    monkeypatch.setattr(common, "OUTPUT_DIR", ROOT / "no output")
    at = AppTest.from_file(str(ROOT / "Streamlit" / "app.py"), default_timeout=300)
    at = check(at.switch_page("views/model.py").run())
    assert any("Not a medical device" in markdown.value for markdown in at.markdown)
    assert look_at(at, "Thresholds").table


def test_an_experiment_with_the_least_that_an_app_needs(open_page):
    def change(folder):
        metrics = json.loads((folder / "metrics.json").read_text())
        least = {name: metrics[name] for name in ("prevalence", "folds", "checkpoints_sha256")}
        (folder / "metrics.json").write_text(json.dumps(least))
        df = pd.read_csv(folder / "operating_points.csv")
        df[["wanted_sensitivity", "threshold", "sensitivity", "specificity"]].to_csv(
            folder / "operating_points.csv", index=False)
        pd.DataFrame({"target": [0, 1] * 20, "logit": np.arange(40.0)}).to_csv(folder / "oof_scores.csv", index=False)
    at = open_page(change)
    assert "metrics.json of this model lacks oof_auc" in at.info[0].value and not at.metric
    for view, n_charts in (("Ranking", 2), ("Probabilities", 1), ("Thresholds", 1)):
        assert len(look_at(at, view).image) == n_charts


def test_folds_that_leak_patients_are_told(open_page):
    def change(folder):
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(metrics | {"patient_leak": 0.497}))
    at = open_page(change)
    assert any("had not seen it, but perhaps its patient" in caption.value for caption in at.caption)
    assert "50 % of the images have others of their patient among those trained on" in at.warning[0].value
