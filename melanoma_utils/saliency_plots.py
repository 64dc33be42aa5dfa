"""Charts of saliency: data in, matplotlib Figure out."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from melanoma_utils.plots import new_figure

SALIENCY_COLORS, SALIENCY_OPACITY = "viridis", 0.7  # the scale of explain.overlay_saliency


def plot_saliency_grid(images: Sequence[np.ndarray], saliency: Sequence[np.ndarray], titles: Sequence[str],
                       n_columns: int = 6, title: str = "", source: str = "") -> Figure:
    """Returns the images row by row, each under its title and above itself with its saliency over it.

    The colour covers the more the more salient a place is, and a white line runs where the saliency is 0.5; an image
    without any shows "no evidence".

    Args:
        images: (height, width, 3) uint8 arrays, at least one.
        saliency: a (height, width) array in 0..1 an image, as of `explain.explain_images`.
        titles: one an image.
        n_columns: images a row.
        title, source: see `plots.plot_bars`.

    Raises:
        ValueError: there is no image, or the numbers or sizes of images, maps and titles differ.
    """
    shapes = [image.shape[:2] for image in images]
    if not shapes or len(titles) != len(shapes) or [np.shape(values) for values in saliency] != shapes:
        raise ValueError(f"{len(shapes)} images, {len(saliency)} saliency maps and {len(titles)} titles: give one map "
                         "of the image's size and one title an image")
    n_columns = min(n_columns, len(images))
    n_rows = 2 * -(-len(images) // n_columns)
    fig, axes = new_figure(n_columns, (1.5 * n_columns + 1, 1.6 * n_rows + 0.4), title, source, n_rows)
    for ax in axes:
        ax.axis("off")
    for i, (image, values, name) in enumerate(zip(images, saliency, titles, strict=True)):
        above = i // n_columns * 2 * n_columns + i % n_columns
        for ax in (axes[above], axes[above + n_columns]):
            ax.imshow(image)
        axes[above].set_title(name, fontsize=8)
        _draw_saliency(axes[above + n_columns], np.asarray(values))
    bar = fig.colorbar(ScalarMappable(Normalize(0, 1), SALIENCY_COLORS), ax=axes, shrink=min(1, 4 / n_rows),
                       label="evidence for melanoma (1 = most in its image)")
    bar.ax.axhline(0.5, color="white")
    return fig


def _draw_saliency(ax: Axes, saliency: np.ndarray) -> None:
    if not saliency.any():
        ax.set_title("no evidence", fontsize=8)
        return
    ax.imshow(saliency, SALIENCY_COLORS, vmin=0, vmax=1, alpha=SALIENCY_OPACITY * saliency)
    if saliency.min() < 0.5 < saliency.max():
        ax.contour(saliency, [0.5], colors="white", linewidths=1)
