"""Charts as the app wants them: a single answer's place, dark colours."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from scipy.special import logit

from melanoma_utils.plots import COLORS, LINES, new_figure

TICKS = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99)  # probabilities
N_BINS = 30
SMALLEST = 1e-6  # the axis of odds has no place for 0 and 1


def plot_score_position(targets: Sequence[int], probs: Sequence[float], prob: float, threshold: float,
                        source: str = "") -> Figure:
    """Returns where one picture's probability lies among those of benign lesions and of melanomas.

    Each class sums to 100 %; the axis is that of the odds, so that small probabilities can be told apart.

    Args:
        targets: (N,) 0 or 1.
        probs: (N,) probabilities, 0..1, of images that their model had not seen.
        prob: the picture's.
        threshold: the probability from which on a picture is called suspicious.
        source: see `plots.plot_bars`.

    Raises:
        ValueError: there are no probabilities, or one is not in 0..1.
    """
    targets = np.asarray(targets)
    values = np.array([*probs, prob, threshold], float)
    if len(values) == 2 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{len(values) - 2} probabilities, the picture's {prob} and the threshold {threshold}: wanted "
                         "at least one, and all in 0..1")
    x = logit(values.clip(SMALLEST, 1 - SMALLEST))
    fig, (ax,) = new_figure(1, (5.6, 3.2), "", source)
    edges = np.linspace(x.min() - 0.01, x.max() + 0.01, N_BINS + 1)
    for target, name in enumerate(("benign", "melanoma")):
        of_class = x[:-2][targets == target]
        ax.hist(of_class, edges, weights=np.full(len(of_class), 100 / max(1, len(of_class))), histtype="step",
                linewidth=2, linestyle=LINES[name], color=COLORS[name], label=f"{name}, n = {len(of_class):,}")
    ax.axvline(x[-1], color="black", linestyle=":", linewidth=1.5, label="threshold")
    ax.axvline(x[-2], color="black", linewidth=1)
    top = ax.get_ylim()[1]
    ax.plot(x[-2], top, "v", color="black", markersize=11, clip_on=False, label="this picture")
    ticks = [tick for tick in TICKS if edges[0] <= logit(tick) <= edges[-1]]
    ax.set_xticks(logit(ticks), [f"{100 * tick:g} %" for tick in ticks])
    ax.set(ylim=(0, top), xlabel="probability of melanoma", ylabel="% of the class")
    ax.tick_params(labelsize=9)
    fig.legend(loc="outside upper left", ncols=2, fontsize=9, frameon=False)
    return fig


def encode_dark_png(fig: Figure, dpi: int, background: str) -> bytes:
    """Returns a figure drawn on white as the bytes of a PNG file on a dark background: light and dark change places,
    hues stay (the lightness of HSL is inverted).

    Args:
        fig: the figure.
        dpi: pixels an inch.
        background: what white becomes, a colour that matplotlib knows.
    """
    fig.set_dpi(dpi)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    rgb = np.asarray(canvas.buffer_rgba())[..., :3] / 255  # (H, W, 3)
    inverted = rgb + 1 - rgb.max(2, keepdims=True) - rgb.min(2, keepdims=True)
    floor = np.array(to_rgb(background))
    buffer = BytesIO()
    Image.fromarray(np.round(255 * (floor + (1 - floor) * inverted)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
