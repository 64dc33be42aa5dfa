"""Charts show the numbers they were given, and leave nothing behind."""

import base64

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import read_texts
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import to_hex

from melanoma_utils import plots


def test_bars_are_as_long_as_the_counts_and_say_them():
    fig = plots.plot_bars({"images": {"benign": 32542, "melanoma": 584}}, "Classes")
    assert [bar.get_width() for bar in fig.axes[0].patches] == [32542, 584]
    assert read_texts(fig) == ["32,542 (98.2 %)", "584 (1.76 %)"]
    colors = [bar.get_facecolor() for bar in fig.axes[0].patches]
    assert colors[0] != colors[1]
    assert fig.axes[0].patches[0].get_hatch() != fig.axes[0].patches[1].get_hatch()  # not told by colour alone


def test_a_bar_has_the_colour_of_the_split_that_it_names_as_a_word():
    fig = plots.plot_bars({"images": {"train images": 3, "training on cpu": 3}}, "Bars")
    assert [to_hex(bar.get_facecolor()).upper() for bar in fig.axes[0].patches] == [plots.COLORS["train"], plots.GREY]


def test_bars_of_zeros_are_drawn():
    fig = plots.plot_bars({"leak": {"fold 0": 0.0, "fold 1": 0.0}}, "Leak")
    assert read_texts(fig) == ["0.000", "0.000"]







def test_densities_have_one_violin_a_group_and_feature():
    df = pd.DataFrame({"red": np.linspace(0, 1, 30), "blue": np.linspace(0, 2, 30)})
    df["part"] = ["melanoma", "benign"] * 15
    fig = plots.plot_densities(df, ["red", "blue"], "part", "Colour")
    assert len(fig.axes) == 2
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["benign\nn = 15", "melanoma\nn = 15"]



@pytest.mark.parametrize("n", [1, 6, 7])
def test_grid_shows_every_image_under_its_title(n):
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(n)]
    fig = plots.plot_image_grid(images, [f"image {i}" for i in range(n)], n_columns=3)
    shown = [ax for ax in fig.axes if ax.images]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in shown] == list(range(n))
    assert [ax.get_title() for ax in shown] == [f"image {i}" for i in range(n)]
    assert not any(ax.axison for ax in fig.axes)


def test_grid_refuses_images_without_titles():
    with pytest.raises(ValueError, match="1 images and 0 titles"):
        plots.plot_image_grid([np.zeros((8, 8, 3), np.uint8)], [])


def test_learning_curves_have_a_line_a_fold():
    rows = [{"fold": k, "epoch": e, "train_loss": 1 / e, "valid_loss": 2 / e, "valid_auc": 0.5 + 0.1 * e}
            for k in (0, 3) for e in (1, 2, 3)]
    left, right = plots.plot_learning_curves(pd.DataFrame(rows)).axes
    assert [len(left.lines), len(right.lines)] == [4, 2]
    assert list(right.lines[1].get_ydata()) == pytest.approx([0.6, 0.7, 0.8])
    assert [line.get_label() for line in right.lines] == ["fold 0", "fold 3"]


def test_fold_balance_shows_every_column():
    leak_df = pd.DataFrame({"n_images": [10, 12], "n_melanomas": [1, 2], "n_patients": [3, 4], "leak": [0.0, 0.5]},
                           index=pd.Index([0, 1], name="fold"))
    fig = plots.plot_fold_balance(leak_df)
    assert read_texts(fig) == ["10", "12", "1", "2", "3", "4", "0.000", "0.500"]
    assert fig.get_suptitle() == "2 folds: 22 images, 3 melanomas"


def test_source_is_named_on_the_figure():
    fig = plots.plot_bars({"images": {"benign": 3}}, "Classes", source="synthetic competition")
    assert fig.get_supxlabel() == "synthetic competition"


def test_same_data_give_the_same_png():
    panels = {"images": {"benign": 3, "melanoma": 1}}
    first, second = (plots.encode_png(plots.plot_bars(panels, "Classes")) for _ in range(2))
    assert first.startswith(b"\x89PNG")
    assert first == second


def test_jupyter_shows_a_chart_as_png_and_pyplot_holds_none():
    before = plt.get_fignums()
    fig = plots.plot_bars({"images": {"benign": 3, "melanoma": 1}}, "Classes")
    data, _ = InteractiveShell().display_formatter.format(fig)
    png = data["image/png"]
    png = base64.b64decode(png) if isinstance(png, str) else png
    assert png == plots.encode_png(fig)
    assert plt.get_fignums() == before
