"""Charts of an evaluation show the numbers they were given."""

import numpy as np
import pandas as pd
import pytest
from conftest import read_texts

from melanoma_utils import evaluation_plots
from melanoma_utils.plots import COLORS


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """200 targets, probabilities and folds; fold 4 holds benign images only."""
    rng = np.random.default_rng(0)
    folds = np.arange(200) % 5
    targets = ((rng.random(200) < 0.3) & (folds != 4)).astype(int)
    return targets, np.clip(0.3 * targets + 0.7 * rng.random(200), 0, 1), folds


def test_roc_runs_from_corner_to_corner_and_shows_the_auc(scored):
    targets, probs, folds = scored
    fig = evaluation_plots.plot_roc(targets, probs, 0.8765, 0.8, 0.9, folds)
    labels = [text.get_text() for text in fig.axes[0].get_legend().texts]
    assert labels == ["each of 4 folds", "all: AUC 0.876 (0.800 to 0.900)", "chance"]  # fold 4 holds one class
    for line in fig.axes[0].lines:
        xy = line.get_xydata()
        assert xy[0].tolist() == [0, 0]
        assert xy[-1].tolist() == [1, 1]
    assert len(fig.axes[0].lines) == 4 + 2
    assert f"200 images, {targets.sum()} melanomas" in fig.get_suptitle()


def test_perfect_scores_give_a_roc_through_the_upper_left_corner():
    fig = evaluation_plots.plot_roc(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), 1, 1, 1)
    assert [0, 1] in fig.axes[0].lines[0].get_xydata().tolist()


def test_one_class_is_refused():
    ones, scores = np.ones(5), np.linspace(0, 1, 5)
    with pytest.raises(ValueError, match=r"5 targets hold \[1\]"):
        evaluation_plots.plot_roc(ones, scores, 0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="both 0 and 1 are needed"):
        evaluation_plots.plot_score_histogram(ones, scores)


def test_score_histogram_sums_to_100_percent_of_each_class(scored):
    targets, probs, _ = scored
    fig = evaluation_plots.plot_score_histogram(targets, probs)
    for patch in fig.axes[0].patches:  # a step outline: height over each of the 40 bins
        xy = patch.get_xy()
        widths, heights = np.diff(xy[:, 0]), xy[:-1, 1]
        assert np.sum(widths * heights) / 0.025 == pytest.approx(100)


def test_folds_are_named_by_their_numbers():
    fig = evaluation_plots.plot_fold_aucs({1: 0.9, 3: 0.8}, 0.85, 0.8, 0.9)
    assert read_texts(fig) == ["0.900", "0.800"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["fold 1", "fold 3"]
    assert "0.850 (0.800 to 0.900)" in fig.legends[0].texts[0].get_text()


def test_reliability_has_a_curve_a_kind_of_probabilities_and_zeros_are_seen_on_logarithmic_axes():
    table = pd.DataFrame({"prob": [0.001, 0.02], "share": [0.0, 0.03], "share_low": [0.0, 0.01],
                          "share_high": [0.002, 0.05]})
    for log, lowest in ((False, 0), (True, 0.0005)):
        ax = evaluation_plots.plot_reliability({"before": table, "after": table}, "Title", log=log).axes[0]
        assert [text.get_text() for text in ax.get_legend().texts] == ["as said, so found", "before", "after"]
        points = ax.containers[0].lines[0].get_xydata()
        assert points.tolist() == [[0.001, lowest], [0.02, 0.03]]
        assert ax.get_xscale() == ("log" if log else "linear") and ax.get_xlim()[1] >= 0.05


def test_operating_points_are_drawn_as_people():
    df = pd.DataFrame({"wanted_sensitivity": [0.9, 0.95], "sensitivity": [0.9, 1.0], "specificity": [0.8, 0.5],
                       "missed_per_1000": [1.0, 0.0]})
    fig = evaluation_plots.plot_operating_points(df, 0.01)
    assert [bar.get_width() for bar in fig.axes[0].patches] == pytest.approx([9, 10, 198, 495])
    assert read_texts(fig) == ["9.0 melanomas found among 207; 1.0 missed",
                               "10.0 melanomas found among 505; 0.0 missed"]
    assert fig.get_suptitle() == "Of 1,000 lesions, 10 of them melanomas"


def test_the_decision_curve_has_three_strategies():
    df = pd.DataFrame({"threshold": [0.01, 0.02], "net_benefit": [0.01, 0.005], "net_benefit_low": [0.0, 0.0],
                       "net_benefit_high": [0.02, 0.01], "biopsy_all": [0.008, -0.02]})
    ax = evaluation_plots.plot_decision_curve(df, 0.0176).axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["biopsy all", "biopsy none", "biopsy by the model (95 %)"]
    assert lines["biopsy by the model (95 %)"].get_xydata().tolist() == [[1, 10], [2, 5]]
    assert list(lines["biopsy all"].get_ydata()) == [8, -20]


def test_subgroups_too_small_get_words():
    df = pd.DataFrame({"attribute": ["sex", "sex", "site"], "group": ["female", "male", "torso"],
                       "n_images": [100, 50, 3], "n_melanomas": [30, 25, 1], "note": ["", "", "too few"]})
    for name, value in (("auc", 0.8), ("sensitivity", 0.9)):
        df[name] = [value, value, np.nan]
        df[f"{name}_low"], df[f"{name}_high"] = df[name] - 0.1, df[name] + 0.05
    fig = evaluation_plots.plot_subgroups(df, "Subgroups", {"auc": 0.85, "sensitivity": 0.95})
    left, right = fig.axes
    assert sorted(label.get_text() for label in left.get_yticklabels()) == sorted(
        ["sex", "site", "female  (30 of 100)", "male  (25 of 50)", "torso  (1 of 3)"])
    assert [text.get_text() for text in left.texts] == ["0.80 (0.70 to 0.85)"] * 2 + ["too few"]
    assert list(right.containers[0].lines[0].get_xdata()) == [0.9, 0.9]
    evaluation_plots.plot_subgroups(df.assign(auc_low=np.nextafter(df["auc"], 1)), "Of one patient", {
        "auc": 0.85, "sensitivity": 0.95})  # all resamples are alike but for their rounding
    only_few = df[df["note"] != ""].reset_index(drop=True)
    fig = evaluation_plots.plot_subgroups(only_few, "Few", {"auc": 0.8, "sensitivity": 0.9})
    assert read_texts(fig) == ["too few", "too few"]


def test_stress_curves_have_a_panel_a_kind_one_scale_and_whole_bands():
    df = pd.DataFrame({"kind": ["blur", "blur", "hair", "hair"], "unit": ["%", "%", "hairs", "hairs"],
                       "strength": [2, 0, 0, 80], "auc": [0.7, 0.8, 0.8, 0.3]})
    df = df.assign(auc_low=df["auc"] - 0.1, auc_high=df["auc"] + 0.1, shift_melanoma=[1, 0, 0, 2],
                   shift_benign=[0.5, 0, 0, 1])
    fig = evaluation_plots.plot_stress_curves(df, {"auc": "AUC"}, "Stress", "AUC", 0.8)
    assert [(ax.get_title(), ax.get_xlabel()) for ax in fig.axes] == [("blur", "%"), ("hair", "hairs")]
    assert list(fig.axes[0].lines[0].get_xdata()) == [0, 2] and list(fig.axes[0].lines[0].get_ydata()) == [0.8, 0.7]
    low, high = fig.axes[0].get_ylim()
    assert (low, high) == fig.axes[1].get_ylim() and low <= 0.2 and high >= 0.9
    assert [len(ax.collections) for ax in fig.axes] == [1, 1]
    fig = evaluation_plots.plot_stress_curves(df, {"shift_melanoma": "melanoma", "shift_benign": "benign"}, "Stress",
                                              "logit")
    colors = [line.get_color() for line in fig.axes[1].lines]
    assert colors == [COLORS["melanoma"], COLORS["benign"]] and not fig.axes[1].collections
