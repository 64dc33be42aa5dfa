from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import trapezoid
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from melanoma_utils.evaluation import (
    are_enough_benign,
    bootstrap_aucs,
    compute_auc_difference,
    compute_auc_interval,
    compute_discrimination,
    compute_fold_aucs,
)


def simulate(n_patients, rng, images_per_patient=5, effect=1.0, patient_sd=0.0):
    patients = np.repeat(np.arange(n_patients), images_per_patient)
    targets = (rng.random(len(patients)) < 0.3).astype(int)
    scores = effect * targets + rng.normal(size=len(patients)) + patient_sd * rng.normal(size=n_patients)[patients]
    return targets, scores, patients


@pytest.mark.parametrize("decimals", [8, 1])  # without and with ties
def test_resamples_equal_the_plain_loop(decimals):
    targets, scores, patients = simulate(40, np.random.default_rng(0))
    scores = scores.round(decimals)
    fast = bootstrap_aucs(targets, scores, patients, 30, np.random.default_rng(7))
    rng, slow = np.random.default_rng(7), []
    for counts in rng.multinomial(40, np.full(40, 1 / 40), size=30):
        rows = np.concatenate([np.tile(np.flatnonzero(patients == p), n) for p, n in enumerate(counts)]).astype(int)
        slow.append(roc_auc_score(targets[rows], scores[rows]))
    assert fast == pytest.approx(np.array(slow), abs=1e-12)


@pytest.mark.parametrize(("scores", "auc"), [([0, 0, 1, 1], 1.0), ([1, 1, 0, 0], 0.0), ([5, 5, 5, 5], 0.5)])
def test_perfect_inverted_and_tied_scores(scores, auc):
    interval = compute_auc_interval([0, 0, 1, 1], scores, list("abcd"), n_resamples=200)
    assert (interval.auc, interval.low, interval.high) == (auc, auc, auc)


def test_correlated_images_of_a_patient_widen_the_interval():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 20)
    targets = np.repeat((np.arange(40) % 2), 20)  # all images of a patient alike
    scores = targets + 2 * rng.normal(size=40)[patients] + 0.1 * rng.normal(size=800)
    by_patient = compute_auc_interval(targets, scores, patients)
    by_image = compute_auc_interval(targets, scores, np.arange(800))
    assert by_patient.high - by_patient.low > 3 * (by_image.high - by_image.low)


def test_the_order_of_rows_and_the_names_of_patients_do_not_matter():
    targets, scores, patients = simulate(30, np.random.default_rng(1))
    first = compute_auc_interval(targets, scores, patients, n_resamples=500)
    assert first == compute_auc_interval(targets, 3 * scores + 1, [f"IP_{p}" for p in patients], n_resamples=500)
    assert first.low < first.auc < first.high


@pytest.mark.parametrize(("targets", "scores", "message"), [
    ([1, 1], [0.1, 0.2], "an AUC needs both classes"),
    ([0, 1], [0.1, np.nan], "1 of 2 scores are not finite"),
    ([0, 1, 1], [0.1, 0.2], "differ in number"),
])
def test_bad_input_is_refused(targets, scores, message):
    with pytest.raises(ValueError, match=message):
        compute_auc_interval(targets, scores, range(len(scores)))


def test_fold_aucs_come_in_the_folds_order_and_one_class_is_refused():
    df = pd.DataFrame({"fold": [1, 1, 1, 0, 0, 0, 0], "target": [0, 1, 1, 0, 0, 1, 1],
                       "logit": [0.5, 0.1, 0.9, 1.0, 2.0, 2.0, 3.0]})
    assert compute_fold_aucs(df) == [0.875, 0.5]  # 3.5 of 4 pairs in order, 1 of 2
    with pytest.raises(ValueError, match="fold 1 holds one class only"):
        compute_fold_aucs(df[(df["fold"] == 0) | (df["target"] == 1)])


@pytest.mark.slow
def test_the_interval_covers_the_true_auc():
    rng, n_covered = np.random.default_rng(0), 0
    truth = NormalDist().cdf(1 / np.sqrt(2 * (1 + 1)))  # two scores of two patients differ by N(1, 2 * (1 + 1))
    for i in range(500):
        interval = compute_auc_interval(*simulate(150, rng, effect=1.0, patient_sd=1.0), n_resamples=400, seed=i)
        n_covered += interval.low <= truth <= interval.high
    assert 0.925 <= n_covered / 500 <= 0.975


@pytest.fixture
def two_models():
    """300 images of 60 patients, scored by two models that see much the same."""
    rng = np.random.default_rng(3)
    targets, patients = rng.integers(0, 2, 300), rng.integers(0, 60, 300)
    common = targets + rng.normal(0, 1.2, 300)
    return targets, common + rng.normal(0, 0.1, 300), common + rng.normal(0, 0.1, 300), patients


def test_a_paired_difference_is_that_of_the_aucs_and_narrower_than_each_interval(two_models):
    targets, first, second, patients = two_models
    gain = compute_auc_difference(targets, first, second, patients, n_resamples=500)
    alone = compute_auc_interval(targets, first, patients, n_resamples=500)
    assert gain.auc == pytest.approx(roc_auc_score(targets, first) - roc_auc_score(targets, second))
    assert gain.low < 0 < gain.high and gain.high - gain.low < (alone.high - alone.low) / 3
    better = compute_auc_difference(targets, first + targets, second, patients, n_resamples=500)
    assert better.low > 0


def test_a_model_differs_from_itself_by_nothing(two_models):
    targets, first, _, patients = two_models
    gain = compute_auc_difference(targets, first, 2 * first + 1, patients, n_resamples=50)
    assert (gain.auc, gain.low, gain.high) == (0, 0, 0)


def test_paired_differences_match_the_plain_loop(two_models):
    targets, first, second, patients = two_models
    gain = compute_auc_difference(targets, first, second, patients, n_resamples=300, seed=1)
    codes = pd.factorize(patients)[0]
    n = codes.max() + 1
    counts = np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), size=300)
    differences = []
    for drawn in counts:
        weights = drawn[codes]
        differences.append(roc_auc_score(targets, first, sample_weight=weights)
                           - roc_auc_score(targets, second, sample_weight=weights))
    assert (gain.low, gain.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])), abs=1e-9)


@pytest.mark.parametrize("decimals", [8, 1, 0])  # without, with some, with many ties
def test_areas_are_those_of_scikit_learn(decimals):
    targets, scores, patients = simulate(40, np.random.default_rng(0))
    scores = scores.round(decimals)
    areas = compute_discrimination(targets, scores, patients, 0.0176, n_resamples=40)
    weights = np.where(targets == 1, 0.0176 / targets.mean(), (1 - 0.0176) / (1 - targets.mean()))
    assert areas["roc_auc"] == compute_auc_interval(targets, scores, patients, n_resamples=40)
    assert areas["pr_auc"].auc == pytest.approx(average_precision_score(targets, scores))
    assert areas["pr_auc_at_prevalence"].auc == pytest.approx(
        average_precision_score(targets, scores, sample_weight=weights))
    assert areas["partial_auc"].auc == pytest.approx(score_as_isic_2024(targets, scores))


def score_as_isic_2024(targets, scores, weights=None):
    """Returns the partial AUC from the ROC curve of the benign class, as the challenge computes it."""
    curve = roc_curve(1 - targets, -scores, sample_weight=weights, drop_intermediate=False)
    share, benign = curve[0], curve[1]
    grid = np.append(share[share < 0.2], 0.2)
    heights = np.append(benign[share < 0.2], np.interp(0.2, share, benign))  # one height at 0.2, the curve being a line
    return trapezoid(heights, grid)


@pytest.mark.parametrize("decimals", [8, 1])
def test_resampled_areas_equal_the_plain_loop(decimals):
    targets, scores, patients = simulate(40, np.random.default_rng(2))
    scores = scores.round(decimals)
    fast = compute_discrimination(targets, scores, patients, 0.02, n_resamples=40, seed=7)
    slow = []
    for counts in np.random.default_rng(7).multinomial(40, np.full(40, 1 / 40), size=40):
        rows = np.concatenate([np.tile(np.flatnonzero(patients == p), n) for p, n in enumerate(counts)]).astype(int)
        t, s = targets[rows], scores[rows]
        weights = np.where(t == 1, 0.02 / t.mean(), 0.98 / (1 - t.mean()))
        slow.append([roc_auc_score(t, s), average_precision_score(t, s),
                     average_precision_score(t, s, sample_weight=weights), score_as_isic_2024(t, s)])
    low, high = np.quantile(slow, [0.025, 0.975], axis=0)
    assert [area.low for area in fast.values()] == pytest.approx(low)
    assert [area.high for area in fast.values()] == pytest.approx(high)


@pytest.mark.parametrize(("scores", "wanted"), [
    ([0, 0, 0, 1, 1], (1, 1, 0.2)),
    ([1, 1, 1, 0, 0], (0, 0.4, 0)),  # both melanomas are found only with all five images
    ([5, 5, 5, 5, 5], (0.5, 0.4, 0.02)),
    ([0, 1, 2, 1.5, 3], (5 / 6, (1 + 2 / 3) / 2, 0.2 * 2 / 3)),  # 3 first, then 2 of 3; above 80 % 2 of 3 are spared
])
def test_areas_at_their_limits(scores, wanted):
    areas = compute_discrimination([0, 0, 0, 1, 1], scores, list("abcde"), 0.4, n_resamples=50)
    assert tuple(areas[name].auc for name in ("roc_auc", "pr_auc", "partial_auc")) == pytest.approx(wanted)
    assert areas["pr_auc_at_prevalence"].auc == pytest.approx(wanted[1])  # it is the data's own


def test_one_melanoma_has_areas_and_the_resamples_without_it_are_left_out():
    areas = compute_discrimination([0, 0, 0, 1], [1, 2, 3, 2.5], list("abcd"), 0.0176, n_resamples=100)
    assert areas["pr_auc"].auc == 0.5 and areas["partial_auc"].auc == pytest.approx(0.2 * 2 / 3)
    assert all(0 <= area.low <= area.auc <= area.high <= 1 for area in areas.values())


def test_a_higher_prevalence_raises_precision_and_nothing_else():
    targets, scores, patients = simulate(40, np.random.default_rng(0))
    rare, common = (compute_discrimination(targets, scores, patients, p, n_resamples=40) for p in (0.01, 0.5))
    assert rare["pr_auc_at_prevalence"].auc < rare["pr_auc"].auc < common["pr_auc_at_prevalence"].auc
    assert rare["roc_auc"] == common["roc_auc"] and rare["partial_auc"] == common["partial_auc"]
    for prevalence in (0, 1, 1.76, np.nan):
        with pytest.raises(ValueError, match=f"PREVALENCE {prevalence} is not between 0 and 1"):
            compute_discrimination(targets, scores, patients, prevalence)


def test_few_benign_images_are_too_few_for_precision_among_people():
    assert not are_enough_benign(437, 0.0176) and not are_enough_benign(5500, 0.0176)
    assert are_enough_benign(5600, 0.0176) and are_enough_benign(437, 0.3)
