import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from melanoma_utils.operating_points import (
    compute_decision_curve,
    compute_operating_points,
    find_threshold,
    move_prevalence,
)


@pytest.fixture
def scored():
    """400 images of 60 patients, a fifth of them melanomas."""
    rng = np.random.default_rng(0)
    targets, patients = (rng.random(400) < 0.2).astype(int), rng.integers(0, 60, 400)
    return targets, (1.5 * targets + rng.normal(size=400)).round(2), patients


@pytest.mark.parametrize("sensitivity", [0.5, 0.9, 0.95, 1])
def test_the_threshold_is_the_highest_that_finds_enough(scored, sensitivity):
    targets, scores, _ = scored
    _, true_positive_rate, thresholds = roc_curve(targets, scores, drop_intermediate=False)
    wanted = thresholds[np.argmax(true_positive_rate >= sensitivity - 1e-12)]
    assert find_threshold(targets, scores, sensitivity) == wanted


def test_nine_of_ten_melanomas_are_90_percent():
    assert find_threshold([1] * 10 + [0], [*range(10), 3], 0.9) == 1  # 0.9 * 10 is a little more than 9 to a computer


@pytest.mark.parametrize(("targets", "sensitivity", "message"), [
    ([0, 1], 95, "a sensitivity of 95 is not in"), ([0, 1], 0, "a sensitivity of 0 is not in"),
    ([0, 0], 0.9, "none of 2 images is a melanoma")])
def test_thresholds_that_there_are_not(targets, sensitivity, message):
    with pytest.raises(ValueError, match=message):
        find_threshold(targets, [1, 2], sensitivity)


def test_a_worked_example():
    """20 melanomas of which 18 are called so, 1,000 benign images of which 200 are; by Bayes' rule among 100,000
    lesions with 1,000 melanomas: 900 found, 100 missed, 19,800 false alarms, 79,200 spared."""
    targets = np.repeat([1, 1, 0, 0], [18, 2, 200, 800])
    df = compute_operating_points(targets, np.repeat([1.0, 0.0, 1.0, 0.0], [18, 2, 200, 800]), np.arange(1020), 0.01,
                                  [0.9, 0.95], n_resamples=200)
    row, other = df.iloc[0], df.iloc[1]
    assert (row["threshold"], row["sensitivity"], row["specificity"]) == (1, 0.9, 0.8)
    assert row["ppv"] == pytest.approx(900 / 20700) and row["npv"] == pytest.approx(79200 / 79300)
    assert row["number_needed_to_biopsy"] == pytest.approx(23) and row["missed_per_1000"] == pytest.approx(1)
    assert (other["threshold"], other["sensitivity"], other["specificity"]) == (0, 1, 0)  # all are called suspicious
    assert (other["missed_per_1000"], other["ppv"]) == pytest.approx((0, 0.01)) and np.isnan(other["npv"])


def test_intervals_equal_the_plain_loop(scored):
    targets, scores, patients = scored
    df = compute_operating_points(targets, scores, patients, 0.0176, [0.9], n_resamples=50, seed=3)
    row, slow = df.iloc[0], []
    order = list(dict.fromkeys(patients))  # patients are numbered as they appear
    codes = np.array([order.index(p) for p in patients])
    for counts in np.random.default_rng(3).multinomial(60, np.full(60, 1 / 60), size=50):
        rows = np.concatenate([np.tile(np.flatnonzero(codes == p), n) for p, n in enumerate(counts)]).astype(int)
        t, is_called = targets[rows], scores[rows] >= row["threshold"]
        found, spared = is_called[t == 1].mean(), 1 - is_called[t == 0].mean()
        ppv = 0.0176 * found / (0.0176 * found + 0.9824 * (1 - spared))
        slow.append([found, spared, ppv, 17.6 * (1 - found), find_threshold(t, scores[rows], 0.9)])
    ends = np.quantile(slow, [0.025, 0.975], axis=0).T
    for name, (low, high) in zip(["sensitivity", "specificity", "ppv", "missed_per_1000", "threshold"], ends,
                                 strict=True):
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((low, high)), name
        assert low <= row[name] <= high
    assert row["number_needed_to_biopsy_high"] == pytest.approx(1 / ends[2][0])


def test_prevalence_moves_what_depends_on_people_alone(scored):
    rare, common = (compute_operating_points(*scored, p, n_resamples=40) for p in (0.0176, 0.5))
    same = ["threshold", "sensitivity", "specificity", "specificity_low"]
    assert rare[same].equals(common[same])
    assert (rare["ppv"] < common["ppv"]).all() and (rare["npv"] > common["npv"]).all()
    own = compute_operating_points(*scored, scored[0].mean(), [0.9], n_resamples=40).iloc[0]
    is_called = scored[1] >= own["threshold"]
    assert own["ppv"] == pytest.approx(scored[0][is_called].mean())  # as counted


@pytest.mark.parametrize(("scores", "specificity"), [([0, 0, 1, 1], 1), ([1, 1, 0, 0], 0), ([5, 5, 5, 5], 0)])
def test_perfect_inverted_and_tied_scores(scores, specificity):
    row = compute_operating_points([0, 0, 1, 1], scores, list("abcd"), 0.1, [0.9], n_resamples=50).iloc[0]
    assert (row["sensitivity"], row["specificity"]) == (1, specificity)
    assert row["number_needed_to_biopsy"] == pytest.approx(1 if specificity else 10)


def test_none_missed_of_few_is_not_none_missed():
    """All 20 melanomas of 20 patients are above all benign images: 0.832 to 1 by Clopper and Pearson."""
    targets = np.repeat([1, 0], [20, 80])
    row = compute_operating_points(targets, 5.0 * targets, np.arange(100), 0.1, [0.9], n_resamples=50).iloc[0]
    assert (row["sensitivity_low"], row["sensitivity_high"]) == pytest.approx((0.8316, 1), abs=1e-4)
    assert row["missed_per_1000_high"] == pytest.approx(100 * (1 - row["sensitivity_low"]))
    assert row["specificity_low"] == pytest.approx(0.025 ** (1 / 80)) and row["ppv_low"] < row["ppv"] == 1
    assert row["npv_low"] < row["npv"] == 1 and row["number_needed_to_biopsy_high"] > 1


def test_an_interval_may_have_no_end():
    """Where a resample's only melanoma is missed nothing is found, so no number of biopsies is enough."""
    df = compute_operating_points([1, 1, 0, 0, 0], [3, 0, 4, 2, 1], list("abcde"), 0.1, [0.5], n_resamples=200)
    assert df["sensitivity"][0] == 0.5 and df["number_needed_to_biopsy_high"][0] == np.inf


def test_net_benefit_by_hand():
    """At a threshold of 0.2 a benign lesion cut out costs a quarter of a melanoma found."""
    targets, probs = np.repeat([1, 1, 0, 0], [8, 2, 30, 60]), np.repeat([0.5, 0.1, 0.5, 0.1], [8, 2, 30, 60])
    df = compute_decision_curve(targets, probs, np.arange(100), 0.1, [0.05, 0.2, 0.6], n_resamples=100)
    assert df["net_benefit"].tolist() == pytest.approx([0.1 - 0.9 * 0.05 / 0.95, 0.08 - 0.3 * 0.25, 0])
    assert df["biopsy_all"].tolist() == pytest.approx([0.1 - 0.9 * 0.05 / 0.95, 0.1 - 0.9 * 0.25, 0.1 - 0.9 * 1.5])
    assert (df["net_benefit_low"] <= df["net_benefit"]).all() and (df["net_benefit"] <= df["net_benefit_high"]).all()
    rarer = compute_decision_curve(targets, probs, np.arange(100), 0.01, [0.2], n_resamples=40)
    assert rarer["net_benefit"][0] == pytest.approx(0.01 * 0.8 - 0.99 / 3 * 0.25)


def test_a_perfect_model_is_worth_the_prevalence(scored):
    df = compute_decision_curve(scored[0], 0.001 + 0.99 * scored[0], scored[2], 0.0176, n_resamples=40)
    assert df["net_benefit"].to_numpy() == pytest.approx(0.0176) and df["threshold"].is_monotonic_increasing
    assert (df["threshold"].iloc[0], df["threshold"].iloc[-1]) == pytest.approx((0.00176, 0.176))


@pytest.mark.parametrize(("probs", "thresholds", "prevalence", "message"), [
    ([0.1, 2.0], [0.5], 0.1, "are they logits"), ([0.1, 0.2], [0.5, 1.0], 0.1, "thresholds from 0.5 to 1.0"),
    ([0.1, 0.2], [0.5], 1.76, "PREVALENCE 1.76"), ([0.1, np.nan], [0.5], 0.1, "not finite")])
def test_what_is_no_decision_curve(probs, thresholds, prevalence, message):
    with pytest.raises(ValueError, match=message):
        compute_decision_curve([0, 1], probs, ["a", "b"], prevalence, thresholds)


def test_points_moved_to_a_prevalence_are_those_computed_there():
    rng = np.random.default_rng(0)
    targets = (np.arange(100) % 3 == 0).astype(int)
    arguments = (targets, rng.normal(targets, 1), np.arange(100))
    here, there = (compute_operating_points(*arguments, prevalence, n_resamples=40) for prevalence in (0.02, 0.3))
    moved = move_prevalence(here, 0.3)
    assert set(moved) < set(there) and "ppv_low" not in moved and "sensitivity_low" in moved
    pd.testing.assert_frame_equal(moved, there[list(moved)])
    with pytest.raises(ValueError, match="PREVALENCE 0 is not between 0 and 1"):
        move_prevalence(here, 0)
