import numpy as np
import pytest

from melanoma_utils.ablation import compare_steps
from melanoma_utils.evaluation import compute_auc_difference, compute_auc_interval


@pytest.fixture
def scored():
    """200 images of 40 patients and three steps: noise, a good score, the same with its order kept."""
    rng = np.random.default_rng(0)
    targets, patients = rng.integers(0, 2, 200), np.arange(200) % 40
    good = targets + rng.normal(0, 1, 200)
    return targets, {"noise": rng.normal(size=200), "good": good, "the same": np.exp(good)}, patients


def test_the_numbers_are_those_of_the_evaluation(scored):
    targets, scores, patients = scored
    df = compare_steps(targets, scores, patients, n_resamples=200, seed=3)
    how = {"n_resamples": 200, "seed": 3}
    for name, values in scores.items():
        alone = compute_auc_interval(targets, values, patients, **how)
        above = compute_auc_difference(targets, values, scores["noise"], patients, **how)
        assert df.loc[name, ["auc", "low", "high"]].tolist() == [alone.auc, alone.low, alone.high]
        assert df.loc[name, ["gain", "gain_low", "gain_high"]].tolist() == [above.auc, above.low, above.high]
    assert df.loc["good", "added"] == df.loc["good", "gain"]
    assert not df.loc["the same", ["added", "added_low", "added_high"]].any()
    assert df["verdict"].tolist() == ["–", "better", "below noise"]
    assert compare_steps(targets, dict(reversed(scores.items())), patients)["verdict"].tolist()[-1] == "worse"


@pytest.mark.parametrize(("change", "message"), [
    ({"scores": {}}, "at least one step"),
    ({"targets": np.ones(200)}, "needs both classes"),
    ({"scores": {"a": np.zeros(3)}}, "a: 3 scores, 200 targets and 200 patient_ids differ in number"),
    ({"scores": {"a": np.full(200, np.nan)}}, "a: 200 of 200 scores are not finite"),
    ({"n_resamples": 39}, "N_RESAMPLES 39 is too small"),
])
def test_bad_input_is_refused(scored, change, message):
    arguments = {**dict(zip(("targets", "scores", "patient_ids"), scored, strict=True)), **change}
    with pytest.raises(ValueError, match=message):
        compare_steps(**arguments)
