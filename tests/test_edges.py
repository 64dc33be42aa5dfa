import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_utils.edges import measure_edges, score_by_edges


def test_the_middle_does_not_count():
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    changed = images.copy()
    changed[:, 8:-8, 8:-8] = 0
    assert np.array_equal(measure_edges(images), measure_edges(changed)) and measure_edges(images).shape == (4, 10)


def test_an_edge_is_measured_by_colour_and_corner():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[..., 0] = 255
    image[:, :4, :4] = 255  # one white corner
    features = measure_edges(image)[0]
    assert features[0] == 1 and features[1] == features[2] > 0  # all red; the corner alone is green and blue
    assert features[6:].tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])


def test_edges_that_tell_the_class_are_found_and_others_give_chance():
    rng = np.random.default_rng(0)
    images, targets = rng.integers(100, 150, (400, 16, 16, 3), np.uint8), rng.integers(0, 2, 400)
    groups = np.arange(400) // 2
    assert abs(roc_auc_score(targets, score_by_edges(images, targets, groups)) - 0.5) < 0.1
    images[(targets == 1) & (rng.random(400) < 0.6), 0] = 0  # a dark line above most of one class
    assert roc_auc_score(targets, score_by_edges(images, targets, groups)) > 0.75


def test_what_belongs_together_is_not_learnt_by_heart():
    """Each group has its own edge and class: only groups that were seen could be told."""
    rng = np.random.default_rng(1)
    targets, colors = rng.integers(0, 2, 60), rng.integers(0, 256, (60, 1, 1, 3), np.uint8)
    images = np.repeat(np.broadcast_to(colors, (60, 16, 16, 3)), 5, axis=0)
    scores = score_by_edges(images, np.repeat(targets, 5), np.repeat(np.arange(60), 5))
    assert roc_auc_score(np.repeat(targets, 5), scores) < 0.7


def test_too_few_groups_are_refused():
    with pytest.raises(ValueError, match="4"):
        score_by_edges(np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 2, np.arange(40) % 4)
