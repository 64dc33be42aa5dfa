import numpy as np
import pytest
from scipy.stats import binomtest

from melanoma_utils.bootstrap import (
    CHUNK,
    bootstrap_sums,
    check_scores,
    draw_patients,
    sum_by_patient,
    take_interval,
    widen_certain,
)


@pytest.mark.parametrize(("targets", "scores", "patients", "message"), [
    ([0, 1], [0.1, np.nan], "ab", "1 of 2 scores are not finite"),
    ([0, 1], [0.1, np.inf], "ab", "1 of 2 scores are not finite"),
    ([0, np.nan], [0.1, 0.2], "ab", "1 of 2 targets are not 0 or 1, first nan"),
    ([0, 2, 1], [0.1, 0.2, 0.3], "abc", "1 of 3 targets are not 0 or 1, first 2"),
    ([0, 0], [0.1, 0.2], "ab", r"both classes, met only target \[0\]"),
    ([0, 1], [0.1, 0.2], ["a", None], "1 of 2 images have no patient_id"),
    ([0, 1], [0.1, 0.2], [1.0, np.nan], "1 of 2 images have no patient_id"),
    ([0, 1], [0.1, 0.2], "abc", "2 targets, 2 scores and 3 patient_ids differ"),
])
def test_bad_rows_are_refused(targets, scores, patients, message):
    with pytest.raises(ValueError, match=message):
        check_scores(targets, scores, list(patients))


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="N_RESAMPLES 39 is too small"):
        check_scores([0, 1], [0.1, 0.2], ["a", "b"], 39)


def test_every_resample_draws_as_many_patients_as_there_are():
    chunks = list(draw_patients(7, 2 * CHUNK + 3, np.random.default_rng(0)))
    assert [len(chunk) for chunk in chunks] == [CHUNK, CHUNK, 3]
    counts = np.concatenate(chunks)
    assert (counts.sum(1) == 7).all() and counts.mean(0) == pytest.approx(1, abs=0.3)


def test_sums_of_resamples_equal_the_plain_loop():
    rng = np.random.default_rng(0)
    patients, values = rng.integers(0, 9, 50), rng.normal(size=(50, 2))
    patients[:9] = np.arange(9)
    assert sum_by_patient(patients, values)[3] == pytest.approx(values[patients == 3].sum(0))
    sums = bootstrap_sums(patients, values, 20, seed=4)
    drawn = np.random.default_rng(4).multinomial(9, np.full(9, 1 / 9), size=20)
    slow = [sum((n * values[patients == p].sum(0) for p, n in enumerate(counts)), np.zeros(2)) for counts in drawn]
    assert sums == pytest.approx(np.array(slow))


def test_an_interval_leaves_out_what_is_not_there():
    values = np.stack([np.arange(101.0), np.full(101, np.nan)], axis=1)
    values[100, 0] = np.nan
    low, high = take_interval(values, 0.9)
    assert (low[0], high[0]) == pytest.approx((4.95, 94.05)) and np.isnan([low[1], high[1]]).all()


def test_a_share_without_exceptions_is_not_certain():
    """24 of 24 found in 24 patients: 0.8575 to 1 by Clopper and Pearson."""
    ends = widen_certain(np.array([1, 0, 0.5]), np.array([[1, 0, 0.4], [1, 0, 0.6]]), 24, 0.95)
    exact = [binomtest(k, 24).proportion_ci(method="exact") for k in (24, 0)]
    assert ends[:, 0] == pytest.approx(exact[0]) and ends[:, 1] == pytest.approx(exact[1])
    assert ends[:, 2].tolist() == [0.4, 0.6]
