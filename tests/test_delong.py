"""DeLong's variance against his own data, a count by hand and the bootstrap."""

from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_utils.delong import compare_aucs, compute_auc_covariance
from melanoma_utils.evaluation import bootstrap_aucs

# The ovarian cancer data of DeLong et al. 1988 as in the documentation of SAS/STAT's LOGISTIC procedure, "Comparing
# Receiver Operating Characteristic Curves": albumin, total protein, K-G score, whether surgery helped.
OVARIAN = np.array("""
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1""".split(), float)


def test_the_ovarian_cancer_data_give_the_published_table():
    albumin, protein, kg_score, target = OVARIAN.reshape(-1, 4).T
    target, kg_score, patients = target.astype(int), 10 - kg_score, np.arange(43)
    aucs, covariance = compute_auc_covariance(target, [albumin, kg_score, protein], patients)
    assert aucs == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)
    for scores, difference, error, p_value in ((albumin, 0.0108, 0.0953, 0.9102), (protein, -0.0780, 0.1046, 0.4561)):
        test = compare_aucs(target, scores, kg_score, patients)
        assert (test.difference, test.standard_error, test.p_value) == pytest.approx((difference, error, p_value),
                                                                                     abs=5e-5)
        assert test.low < 0 < test.high and test.high - test.low == pytest.approx(2 * 1.959964 * test.standard_error)


def test_three_melanomas_and_two_benign_images_by_hand():
    """Melanomas at 1, 3, 4 against benign ones at 2, 3: they beat 0, 1.5 and 2 of 2; the benign ones lose to 2, 1.5 of
    3. So the AUC is 3.5 / 6, and the variances of these shares over their numbers give that of the AUC."""
    of_melanomas, of_benign = (Fraction(0), Fraction(3, 4), Fraction(1)), (Fraction(2, 3), Fraction(1, 2))
    auc = Fraction(7, 12)
    variance = sum((s - auc) ** 2 for s in of_melanomas) / 2 / 3 + sum((s - auc) ** 2 for s in of_benign) / 1 / 2
    aucs, covariance = compute_auc_covariance([1, 1, 1, 0, 0], [[1, 3, 4, 2, 3]], range(5))
    assert (aucs[0], covariance[0, 0]) == pytest.approx((float(auc), float(variance)))


def test_images_of_a_patient_are_no_independent_witnesses():
    """The clustered variance is the bootstrap's; every image named ten times under one patient adds nothing."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(150), 4)
    targets = (rng.random(600) < 0.3).astype(int)
    scores = targets + rng.normal(size=600) + 1.5 * rng.normal(size=150)[patients]
    aucs, covariance = compute_auc_covariance(targets, [scores], patients)
    assert aucs[0] == pytest.approx(roc_auc_score(targets, scores))
    sd = bootstrap_aucs(targets, scores, patients, 1000, rng).std()
    assert np.sqrt(covariance[0, 0]) == pytest.approx(sd, rel=0.1)
    repeated = compute_auc_covariance(np.repeat(targets, 10), [np.repeat(scores, 10)], np.repeat(patients, 10))[1]
    assert repeated == pytest.approx(covariance)
    independent = compute_auc_covariance(np.repeat(targets, 10), [np.repeat(scores, 10)], np.arange(6000))[1]
    assert independent[0, 0] < covariance[0, 0] / 5


@pytest.mark.parametrize(("scores", "auc"), [([0, 0, 1, 1], 1), ([1, 1, 0, 0], 0), ([5, 5, 5, 5], 0.5)])
def test_perfect_inverted_and_tied_scores_have_no_variance(scores, auc):
    aucs, covariance = compute_auc_covariance([0, 0, 1, 1], [scores], list("abcd"))
    assert (aucs[0], covariance[0, 0]) == (auc, 0)
    same = compare_aucs([0, 0, 1, 1], scores, scores, list("abcd"))
    assert (same.difference, same.p_value) == (0, 1)
    assert compare_aucs([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1], list("abcd")).p_value == 0


@pytest.mark.parametrize(("targets", "scores", "patients", "message"), [
    ([0, 1, 1], [1, 2, 3], "aba", "all 1 benign images are of one patient"),
    ([0, 0, 1, 1], [1, 2, 3, 4], "abcc", "all 2 melanomas are of one patient"),
    ([0, 0, 1, 1], [1, 2, 3, np.nan], "abcd", "not finite"),
    ([1, 1], [1, 2], "ab", "both classes"),
])
def test_what_has_no_variance_is_refused(targets, scores, patients, message):
    with pytest.raises(ValueError, match=message):
        compare_aucs(targets, scores, scores, list(patients))
