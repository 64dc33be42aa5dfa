from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy.special import logit

from melanoma_utils.app_plots import encode_dark_png, plot_score_position
from melanoma_utils.plots import encode_png


def test_the_picture_and_the_threshold_stand_where_their_odds_are():
    rng = np.random.default_rng(0)
    targets, probs = np.arange(200) % 2, rng.uniform(0.001, 0.6, 200)
    fig = plot_score_position(targets, probs, 0.03, 0.01, "somewhere")
    (ax,), (legend,) = fig.axes, fig.legends
    lines = {line.get_label(): np.unique(line.get_xdata()) for line in ax.lines}
    assert lines["this picture"] == pytest.approx(logit(0.03)) and lines["threshold"] == pytest.approx(logit(0.01))
    names = [text.get_text() for text in legend.get_texts()]
    assert {"benign, n = 100", "melanoma, n = 100", "threshold", "this picture"} == set(names)
    ticks = {text.get_text(): place for text, place in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)}
    assert ticks["1 %"] == pytest.approx(logit(0.01)) and ticks["50 %"] == pytest.approx(0)


@pytest.mark.parametrize("prob", [0.0, 1.0, 1e-12, 0.5])
def test_certain_probabilities_have_a_place(prob):
    fig = plot_score_position([0, 1, 1], [0.0, 1.0, 0.2], prob, 0.3)
    assert np.isfinite(fig.axes[0].get_xlim()).all() and encode_png(fig)[:4] == b"\x89PNG"


def test_each_class_sums_to_a_hundred_and_may_be_absent():
    fig = plot_score_position([0] * 10, np.linspace(0.1, 0.9, 10), 0.5, 0.3)
    steps = {patch.get_label(): patch for patch in fig.axes[0].patches}
    heights = {name: patch.get_xy()[1:-1:2, 1] for name, patch in steps.items()}  # of a step outline
    assert sum(heights["benign, n = 10"]) == pytest.approx(100) and sum(heights["melanoma, n = 0"]) == 0


@pytest.mark.parametrize(("probs", "prob", "threshold"), [([], 0.5, 0.5), ([0.2, 1.4], 0.5, 0.5), ([0.2], -3, 0.5),
                                                          ([0.2], 0.5, np.nan)])
def test_what_is_no_probability_is_refused(probs, prob, threshold):
    with pytest.raises(ValueError, match=r"all in 0\.\.1"):
        plot_score_position([0] * len(probs), probs, prob, threshold)


def test_dark_colours_keep_their_hue_and_white_becomes_the_background():
    fig = Figure(figsize=(1, 1))
    ax = fig.add_axes([0, 0, 1, 1])
    ax.set_axis_off()
    ax.imshow([[[1, 1, 1], [0, 0, 0], [0, 0, 1], [0.5, 0, 0]]], aspect="auto", interpolation="nearest")
    image = np.asarray(Image.open(BytesIO(encode_dark_png(fig, 40, "#151515"))))
    white, black, blue, dark_red = (image[20, 5 + 10 * n].tolist() for n in range(4))
    assert image.shape == (40, 40, 3) and white == [21, 21, 21] and black == [255, 255, 255]
    assert blue[2] == 255 and blue[0] == blue[1] < 40
    assert dark_red[0] == 255 and dark_red[1] == dark_red[2] == pytest.approx(138, abs=2)
