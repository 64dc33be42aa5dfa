"""Charts show the numbers they were given, and leave nothing behind."""

import base64

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

from melanoma_utils import plots


@pytest.fixture
def train_df() -> pd.DataFrame:
    """100 torso images with 10 melanomas, 50 of the palms with 0, 20 of the head with 20, 40 without a site with 4."""
    counts = [("torso", 100, 10), ("palms/soles", 50, 0), ("head/neck", 20, 20), (np.nan, 40, 4)]
    rows = [{"site": site, "sex": ("female", "male")[i % 2], "target": int(i < k)} for site, n, k in counts
            for i in range(n)]
    return pd.DataFrame(rows)


def read_texts(fig: Figure) -> list[str]:
    """Returns every text of the axes but the tick labels."""
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def test_bars_are_as_long_as_the_counts_and_say_them():
    fig = plots.plot_bars({"images": {"benign": 32542, "melanoma": 584}}, "Classes")
    assert [bar.get_width() for bar in fig.axes[0].patches] == [32542, 584]
    assert read_texts(fig) == ["32,542 (98.2 %)", "584 (1.76 %)"]
    colors = [bar.get_facecolor() for bar in fig.axes[0].patches]
    assert colors[0] != colors[1]
    assert fig.axes[0].patches[0].get_hatch() != fig.axes[0].patches[1].get_hatch()  # not told by colour alone


def test_bars_of_zeros_are_drawn():
    fig = plots.plot_bars({"leak": {"fold 0": 0.0, "fold 1": 0.0}}, "Leak")
    assert read_texts(fig) == ["0.000", "0.000"]


def test_melanoma_rate_has_wilson_interval_and_none_for_small_groups(train_df):
    fig = plots.plot_melanoma_rate(train_df, "site", "Site")
    left, right = fig.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["torso", "palms/soles", "head/neck", "(missing)"]
    assert [bar.get_width() for bar in left.patches] == [100, 50, 20, 40]
    points = {int(line.get_ydata()[0]): float(line.get_xdata()[0]) for line in right.lines if line.get_marker() == "o"}
    assert points == pytest.approx({0: 10, 1: 0, 3: 10})  # 20 images of the head are too few
    intervals = [line.get_xdata() for line in right.lines if line.get_marker() != "o" and line.get_linestyle() == "-"]
    assert intervals[0] == pytest.approx([5.5229, 17.4366], abs=1e-3)  # 10 of 100, Wilson (1927)
    assert intervals[1][0] == pytest.approx(0, abs=1e-9)
    assert "fewer than 30 images" in read_texts(fig)
    assert "210 images, 34 melanomas" in fig.get_suptitle()


def test_melanoma_rate_keeps_the_order_of_ages_and_categories(train_df):
    ages = train_df.assign(age=[50.0, 5.0, 45.0] * 70)
    labels = plots.plot_melanoma_rate(ages, "age", "Age").axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["5", "45", "50"]
    groups = train_df.assign(age=pd.cut(ages["age"], [0, 10, 60], labels=["young", "old"]))
    labels = plots.plot_melanoma_rate(groups, "age", "Age").axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["young", "old"]


def test_heatmap_shows_rates_with_counts(train_df):
    fig = plots.plot_rate_heatmap(train_df, "site", "sex", "Site and sex")
    texts = read_texts(fig)
    assert texts[:2] == ["10.0 %\n5 of 50", "10.0 %\n5 of 50"]
    assert texts.count("10 images") == 2  # the head: all melanomas, but too few to give a rate
    assert np.isnan(fig.axes[0].images[0].get_array().filled(np.nan)[2]).all()


def test_shares_are_drawn_for_both_splits():
    table = pd.DataFrame({"train": [0.25, 0.75], "test": [1.0, 0.0]}, index=["female", "male"])
    fig = plots.plot_shares({"sex": table}, "Train against test")
    assert [bar.get_width() for bar in fig.axes[0].patches] == [25, 75, 100, 0]
    assert read_texts(fig) == ["25.0 %", "75.0 %", "100 %", "0 %"]


def test_images_per_patient_is_a_survival_curve():
    fig = plots.plot_images_per_patient({"train": [2, 2, 8, 4], "test": [3]}, "Images per patient")
    line = fig.axes[0].lines[0]
    assert list(line.get_xdata()) == [2, 2, 4, 8]
    assert list(line.get_ydata()) == [100, 75, 50, 25]


def test_densities_have_one_violin_a_group_and_feature():
    df = pd.DataFrame({"red": np.linspace(0, 1, 30), "blue": np.linspace(0, 2, 30)})
    df["part"] = ["melanoma", "benign"] * 15
    fig = plots.plot_densities(df, ["red", "blue"], "part", "Colour")
    assert len(fig.axes) == 2
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["benign\nn = 15", "melanoma\nn = 15"]


def test_image_sizes_count_the_sizes():
    sizes_df = pd.DataFrame({"split": ["train"] * 3, "width": [6000, 6000, 640], "height": [4000, 4000, 480]})
    fig = plots.plot_image_sizes(sizes_df, "Sizes")
    assert fig.axes[0].collections[0].get_offsets().tolist() == [[6000, 4000], [640, 480]]
    assert "6000×4000" in fig.legends[0].texts[0].get_text()


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


def test_same_data_give_the_same_png(train_df):
    first, second = (plots.encode_png(plots.plot_melanoma_rate(train_df, "site", "Site")) for _ in range(2))
    assert first.startswith(b"\x89PNG")
    assert first == second


def test_jupyter_shows_a_chart_as_png_and_pyplot_holds_none(train_df):
    before = plt.get_fignums()
    fig = plots.plot_melanoma_rate(train_df, "site", "Site")
    data, _ = InteractiveShell().display_formatter.format(fig)
    png = data["image/png"]
    png = base64.b64decode(png) if isinstance(png, str) else png
    assert png == plots.encode_png(fig)
    assert plt.get_fignums() == before


def test_few_images_without_a_melanoma_or_any_value_are_drawn_too(recwarn):
    df = pd.DataFrame({"sex": [None, None], "age": [np.nan, np.nan], "target": [0, 0]})
    for column in ("sex", "age"):
        fig = plots.plot_melanoma_rate(df, column, "All unknown")
        assert read_texts(fig) == ["2", "fewer than 30 images"] and fig.axes[1].get_xlim() == (0, 1)
    assert read_texts(plots.plot_rate_heatmap(df, "age", "sex", "All unknown"))[0] == "2 images"
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
