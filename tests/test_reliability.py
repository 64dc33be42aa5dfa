import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from melanoma_utils.calibration import shift_prior
from melanoma_utils.evaluation_plots import plot_reliability
from melanoma_utils.reliability import compute_ece, compute_reliability, score_probabilities, weigh_classes


@pytest.fixture
def honest():
    """4,000 targets drawn from their probabilities."""
    rng = np.random.default_rng(0)
    probs = rng.beta(1, 3, 4000)
    return (rng.random(4000) < probs).astype(int), probs


def test_bins_are_those_of_scikit_learn(honest):
    targets, probs = honest
    df = compute_reliability(targets, probs)
    share, prob = calibration_curve(targets, probs, n_bins=10, strategy="quantile")
    assert df["share"].to_numpy() == pytest.approx(share) and df["prob"].to_numpy() == pytest.approx(prob)
    assert (df["n_images"] == 400).all() and df["n_melanomas"].sum() == targets.sum()
    assert ((df["share_low"] < df["share"]) & (df["share"] < df["share_high"])).all()


@pytest.mark.parametrize("prevalence", [None, 0.0176, 0.9])
def test_bins_without_one_class_have_an_interval_and_can_be_drawn(prevalence):
    for n in range(11, 60):
        targets, probs = np.repeat([0, 1], [n, n]), np.linspace(0.01, 0.99, 2 * n)
        df = compute_reliability(targets, probs, prevalence)
        assert ((df["share_low"] <= df["share"]) & (df["share"] <= df["share_high"])).all()
        assert (df["share"].iloc[0], df["share"].iloc[-1]) == (0, 1) and df["share_high"].iloc[0] > 0
    plot_reliability({"x": df}, "Title")
    plot_reliability({"x": df}, "Title", log=True)


def test_weights_give_melanomas_the_prevalence(honest):
    targets, probs = honest
    weights = weigh_classes(targets, 0.0176)
    assert weights.mean() == pytest.approx(1) and (weights * targets).mean() == pytest.approx(0.0176)
    df = compute_reliability(targets, shift_prior(probs, targets.mean(), 0.0176), 0.0176)
    assert df["weight"].sum() == pytest.approx(1)
    assert (df["weight"] * df["share"]).sum() == pytest.approx(0.0176)
    assert ((df["share_low"] < df["share"]) & (df["share"] < df["share_high"])).all()


def test_honest_probabilities_have_a_small_error_at_every_prevalence(honest):
    targets, probs = honest
    assert compute_ece(targets, probs) < 0.02
    assert compute_ece(targets, shift_prior(probs, targets.mean(), 0.0176), 0.0176) < 0.002
    assert compute_ece(targets, probs, 0.0176) > 0.1  # not shifted: told for other people


@pytest.mark.parametrize(("probs", "ece", "brier"), [
    ([0, 0, 1, 1], 0, 0), ([1, 1, 0, 0], 1, 1), ([0.5] * 4, 0, 0.25), ([0.9] * 4, 0.4, (0.81 + 0.01) / 2)])
def test_perfect_inverted_and_tied_probabilities(probs, ece, brier):
    targets = np.array([0, 0, 1, 1])
    assert compute_ece(targets, np.array(probs)) == pytest.approx(ece)
    row = score_probabilities(targets, {"x": np.array(probs)}).loc["x"]
    assert (row["brier"], row["ece"], row["brier_skill"]) == pytest.approx((brier, ece, 1 - 4 * brier))


def test_a_worked_calibration_error():
    """Two bins: 4 images told 0.1 of which 1 is a melanoma, 4 told 0.7 of which 3 are: (0.15 + 0.05) / 2."""
    targets = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    probs = np.repeat([0.1, 0.7], 4)
    assert compute_ece(targets, probs, n_bins=2) == pytest.approx(0.1)
    assert compute_reliability(targets, probs)["n_images"].tolist() == [4, 4]  # equal probabilities stay together


def test_scores_are_weighted_like_scikit_learns(honest):
    targets, probs = honest
    df = score_probabilities(targets, {"told": probs, "shifted": shift_prior(probs, targets.mean(), 0.02)}, 0.02)
    weights = weigh_classes(targets, 0.02)
    assert df.loc["told", "brier"] == pytest.approx(brier_score_loss(targets, probs, sample_weight=weights))
    assert df.loc["shifted", "brier_skill"] > 0 > df.loc["told", "brier_skill"]
    assert df.loc["shifted", "mean_prob"] == pytest.approx(0.02, abs=0.002)
    nothing = score_probabilities(targets, {"prevalence": np.full(4000, 0.02)}, 0.02).loc["prevalence"]
    assert (nothing["brier_skill"], nothing["ece"]) == pytest.approx((0, 0))


@pytest.mark.parametrize(("targets", "probs", "prevalence", "message"), [
    ([0, 1], [0.1, -3], 0.1, "are they logits"), ([0, 1], [0.1, np.nan], 0.1, "not finite"),
    ([1, 1], [0.1, 0.2], 0.1, "both classes"), ([0, 1], [0.1, 0.2], 0, "PREVALENCE 0 is not between")])
def test_bad_input_is_refused(targets, probs, prevalence, message):
    for measure in (compute_reliability, compute_ece):
        with pytest.raises(ValueError, match=message):
            measure(targets, probs, prevalence)
    with pytest.raises(ValueError, match=message):
        score_probabilities(targets, {"x": probs}, prevalence)
