import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from melanoma_utils.calibration import (
    METHODS,
    apply_calibration,
    cross_fit,
    explain_no_cross_fit,
    fit_calibration,
    read_calibration,
    shift_prior,
    write_calibration,
)


@pytest.fixture
def overconfident():
    """1,500 images of 300 patients; the true logit is a third of the one given, and 0.5 above it."""
    rng = np.random.default_rng(0)
    truth = rng.normal(-1, 1.5, 1500)
    return (rng.random(1500) < expit(truth)).astype(int), 3 * (truth - 0.5), rng.integers(0, 300, 1500)


def test_platt_is_a_logistic_regression_on_smoothed_targets(overconfident):
    targets, logits, _ = overconfident
    n, k = len(targets), targets.sum()
    smoothed = np.where(targets == 1, (k + 1) / (k + 2), 1 / (n - k + 2))
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10000).fit(
        np.tile(logits, 2)[:, None], np.repeat([1, 0], n), np.concatenate([smoothed, 1 - smoothed]))
    fitted = fit_calibration(targets, logits, "platt")
    assert (fitted.scale, fitted.shift) == pytest.approx((reference.coef_[0, 0], reference.intercept_[0]), rel=1e-4)
    assert (fitted.scale, fitted.shift) == pytest.approx((1 / 3, 0.5), abs=0.15)
    assert (fitted.share, fitted.n_images) == (targets.mean(), 1500)


def test_isotonic_is_scikit_learns_but_for_0_and_1(overconfident):
    targets, logits, _ = overconfident
    reference = IsotonicRegression(out_of_bounds="clip").fit(logits, targets)
    new = np.linspace(-20, 20, 101)
    wanted = np.clip(reference.predict(new), 1 / 1502, 1 - 1 / 1502)
    assert apply_calibration(fit_calibration(targets, logits, "isotonic"), new) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_ranking_is_never_turned_round(method, overconfident):
    targets, logits, _ = overconfident
    new = np.linspace(-30, 30, 301)
    for sign in (1, -1):
        probs = apply_calibration(fit_calibration(targets, sign * logits, method), new, 0.0176)
        assert (np.diff(probs) >= -1e-15).all() and (0 < probs).all() and (probs < 1).all()
    assert probs == pytest.approx(0.0176, rel=1e-4)  # an inverted ranking says nothing more than the prevalence


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("logits", [[-9, -8, 8, 9], [0, 0, 0, 0], [5, 5, 5, 6]])
def test_separated_and_tied_logits_give_probabilities_inside_0_and_1(method, logits):
    probs = apply_calibration(fit_calibration([0, 0, 1, 1], logits, method), logits)
    assert (0 < probs).all() and (probs < 1).all() and probs.mean() == pytest.approx(0.5, abs=0.05)


def test_one_melanoma_can_be_fitted():
    assert 0 < apply_calibration(fit_calibration([0, 0, 0, 1], [0, 1, 2, 3]), [3.0])[0] < 1


def test_the_prior_shift_is_bayes_rule():
    """Of 100 with a probability of 0.8 where half are melanomas, 80 are; among people with 1 melanoma to 99 benign
    lesions the benign ones count 99 times."""
    assert shift_prior(np.array([0.8, 0.5, 0, 1]), 0.5, 0.01) == pytest.approx([80 / (80 + 20 * 99), 0.01, 0, 1])
    probs = np.array([0.001, 0.3, 0.99])
    assert shift_prior(shift_prior(probs, 0.5, 0.0176), 0.0176, 0.5) == pytest.approx(probs)
    assert logit(shift_prior(probs, 0.2, 0.1)) - logit(probs) == pytest.approx(logit(0.1) - logit(0.2))
    for share, prevalence in ((0.5, 0), (0.5, 1.76), (1, 0.1)):
        with pytest.raises(ValueError, match="is not between 0 and 1"):
            shift_prior(probs, share, prevalence)


@pytest.mark.parametrize("method", METHODS)
def test_nobody_is_scored_by_a_calibrator_that_has_seen_the_patient(method, overconfident):
    """To turn round all targets of one patient changes the probabilities of others, never his own."""
    targets, logits, patients = overconfident
    before = cross_fit(targets, logits, patients, method, seed=1)
    is_his = patients == 7
    turned = np.where(is_his, 1 - targets, targets)
    turned[is_his] = np.where((targets[is_his] == 1).any() & (targets[is_his] == 0).any(), turned[is_his], 1)
    after = cross_fit(turned, logits, patients, method, seed=1)
    assert after[is_his] == pytest.approx(before[is_his], abs=1e-12) and not np.allclose(after, before, atol=1e-12)


def test_cross_fitted_probabilities_are_near_the_truth(overconfident):
    targets, logits, patients = overconfident
    truth = expit(logits / 3 + 0.5)
    probs = cross_fit(targets, logits, patients)
    assert np.abs(probs - truth).mean() < 0.03 < np.abs(expit(logits) - truth).mean()
    rare = cross_fit(targets, logits, patients, prevalence=0.0176)
    true, raw = (shift_prior(p, targets.mean(), 0.0176) for p in (truth, expit(logits)))
    assert np.abs(rare - true).mean() < 0.006 < np.abs(raw - true).mean()


@pytest.mark.parametrize(("targets", "patients"), [
    ([1, 0, 1, 0], "aabb"), ([1, 0, 1, 0], "aabc"), ([1, 1, 0, 0, 0, 0], "abccdd"), ([1, 0, 1, 1, 0], "aabcd")])
def test_few_patients_are_dealt_so_that_both_classes_are_always_left(targets, patients):
    for seed in range(10):
        probs = cross_fit(targets, np.arange(len(targets)), list(patients), seed=seed)
        assert np.isfinite(probs).all()


@pytest.mark.parametrize(("targets", "patients", "message"), [
    ([1, 1, 0, 0], "aabc", "wants melanomas of two patients at least, met 1"),
    ([1, 1, 0, 0], "abcc", "wants benign images of two patients at least, met 1")])
def test_one_patient_can_not_be_cross_fitted(targets, patients, message):
    assert message in explain_no_cross_fit(targets, list(patients))
    with pytest.raises(ValueError, match=message):
        cross_fit(targets, [1, 2, 3, 4], list(patients))


@pytest.mark.parametrize("method", METHODS)
def test_a_stored_calibrator_gives_the_same_probabilities(method, overconfident, tmp_path):
    targets, logits, _ = overconfident
    fitted = fit_calibration(targets, logits, method)
    write_calibration(tmp_path / "calibration.json", fitted)
    loaded = read_calibration(tmp_path / "calibration.json")
    assert loaded == fitted
    assert (apply_calibration(loaded, logits, 0.0176) == apply_calibration(fitted, logits, 0.0176)).all()


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="CALIBRATION 'spline' is not one of"):
        fit_calibration([0, 1], [0, 1], "spline")
    with pytest.raises(ValueError, match="both classes"):
        fit_calibration([1, 1], [0, 1])
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        cross_fit([0, 1], [0, np.nan], ["a", "b"])
    with pytest.raises(ValueError, match="1 of 2 images have no patient_id"):
        cross_fit([0, 1], [0, 1], ["a", None])
    with pytest.raises(ValueError, match="1 of 1 logits are not finite"):
        apply_calibration(fit_calibration([0, 1], [0, 1]), [np.inf])
    with pytest.raises(FileNotFoundError, match="run 04_evaluate_oof"):
        read_calibration(tmp_path / "calibration.json")
    sound = '{"method": "platt", "share": 0.5, "n_images": 9, "scale": 1, "shift": 0, "logits": [], "probs": []}'
    (tmp_path / "calibration.json").write_text(sound)
    assert read_calibration(tmp_path / "calibration.json").scale == 1
    changes = {'"scale": 1': '"scale": NaN', '"scale": 1,': '"scale": -1,', '"share": 0.5': '"share": 0',
               '"shift": 0': '"shift": "abc"', '"probs": []': '"probs": [1]'}
    texts = [sound.replace(*change) for change in changes.items()]
    for text in ('{"method": "platt"}', '{"method": "pickle", "scale": 1}', *texts):
        (tmp_path / "calibration.json").write_text(text)
        with pytest.raises(ValueError, match="run 04_evaluate_oof again"):
            read_calibration(tmp_path / "calibration.json")


def test_equal_logits_tell_the_share_of_melanomas_and_nothing_else():
    targets, values = np.arange(100) % 5 == 0, np.random.default_rng(0).normal(0, 3, 30).round(9)
    for value in (-2.7, *values):  # whose mean is rarely just that number
        fitted = fit_calibration(targets.astype(int), np.full(100, value))
        assert apply_calibration(fitted, [value - 1, value, value + 1]) == pytest.approx(0.2, abs=0.01)
