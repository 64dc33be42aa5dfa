import numpy as np
import pytest
from scipy.special import expit

from melanoma_utils.lesion_ranking import rank_lesions, score_lesions
from melanoma_utils.patient_context import CONTEXT_FEATURES

LOGITS = np.array([[0.0, 2.0], [5.0, 3.0], [-1.0, -1.0], [0.5, 1.5]])  # (4, n_models): means 1, 4, -1, 1


def make_embeddings(rows, n_models=2):
    """Returns the same (N, C) embeddings for each model, each on a scale of its own."""
    return np.stack([np.asarray(rows, float) * 10 ** k for k in range(n_models)])


def test_the_highest_logit_is_first_and_equal_ones_share_a_rank():
    df = rank_lesions(list("abcd"), LOGITS, make_embeddings(np.eye(4)))
    assert df.index.tolist() == ["b", "a", "d", "c"] and df["rank"].tolist() == [1, 2.5, 2.5, 4]
    assert df["logit"].tolist() == [4, 1, 1, -1] and df["logit_difference"].tolist() == [3, 0, 0, -2]


def test_the_odd_one_is_the_one_that_looks_unlike_whatever_its_score():
    df = rank_lesions(list("abcd"), LOGITS, make_embeddings([[0, 0], [0, 1], [9, 9], [1, 0]]))
    assert df.index[df["is_odd"]].tolist() == ["c"] and df["duckling_z"].idxmax() == "c"


def test_each_model_weighs_alike_whatever_the_scale_of_its_embeddings():
    near, far = [[0, 0], [0, 1], [9, 9], [1, 0]], [[0, 0], [0, 1], [1, 0], [9, 9]]
    df = rank_lesions(list("abcd"), LOGITS, np.stack([np.array(near, float), 1000 * np.array(far, float)]))
    assert df.loc["c", "duckling_z"] == pytest.approx(df.loc["d", "duckling_z"])


def test_nothing_describes_the_collection():
    df = rank_lesions(list("abcd"), LOGITS, make_embeddings(np.eye(4)))
    assert {CONTEXT_FEATURES[name][1] for name in df if name in CONTEXT_FEATURES} == {"lesion"}


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_lesions_have_no_odd_one(n):
    df = rank_lesions(list("ab")[:n], LOGITS[:n], make_embeddings([[0, 0], [5, 5]][:n]))
    assert not df["is_odd"].any() and not df["duckling_z"].any() and df["rank"].tolist() == [1, 2][:n]


def test_alike_lesions_have_no_odd_one():
    assert not rank_lesions(list("abc"), np.ones((3, 2)), make_embeddings(np.ones((3, 4))))["is_odd"].any()


def test_a_repeated_name_is_refused():
    with pytest.raises(ValueError, match="1 image_names are repeated, first a"):
        rank_lesions(["a", "a"], LOGITS[:2], make_embeddings(np.eye(2)))


def test_scores_are_those_of_the_mean_and_of_the_single_models():
    df = score_lesions(list("abcd"), LOGITS, make_embeddings(np.eye(4)), expit, threshold=1.0)
    assert df.loc["b", ["probability", "lowest", "highest"]].tolist() == pytest.approx(expit([4, 3, 5]).tolist())
    assert df["is_suspicious"].to_dict() == {"b": True, "a": True, "d": True, "c": False}  # at the line counts
