import numpy as np
import pytest

from melanoma_utils.saliency_plots import plot_saliency_grid


@pytest.mark.parametrize("n", [1, 3, 4])
def test_saliency_lies_under_each_image(n):
    images = [np.full((8, 8, 3), 10 * i, np.uint8) for i in range(n)]
    saliency = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8) * np.ones((n, 1, 1), np.float32)
    saliency[0] = 0
    fig = plot_saliency_grid(images, saliency, [f"image {i}" for i in range(n)], n_columns=3)
    shown = [ax for ax in fig.axes if ax.images]
    named = [ax for ax in shown if ax.get_title().startswith("image")]
    assert [ax.get_title() for ax in named] == [f"image {i}" for i in range(n)]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in named] == [10 * i for i in range(n)]
    covered = [ax for ax in shown if len(ax.images) == 2]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in covered] == [10 * i for i in range(1, n)]
    for ax in covered:
        assert np.array_equal(ax.images[1].get_array(), saliency[1]) and ax.images[1].get_clim() == (0, 1)
        assert ax.images[1].get_alpha()[0, 0] == 0  # where nothing is salient, the image shows as it is
    assert [ax.get_title() for ax in shown if len(ax.images) == 1 and ax not in named] == ["no evidence"]
    assert "1 = most in its image" in fig.axes[-1].get_ylabel()


@pytest.mark.parametrize(("n_images", "shape", "n_titles"), [(0, (0, 8, 8), 0), (2, (1, 8, 8), 2), (2, (2, 8, 9), 2),
                                                             (2, (2, 8, 8), 1)])
def test_saliency_that_does_not_fit_is_refused(n_images, shape, n_titles):
    with pytest.raises(ValueError, match="one map of the image's size and one title an image"):
        plot_saliency_grid([np.zeros((8, 8, 3), np.uint8)] * n_images, np.zeros(shape), ["a"] * n_titles)
