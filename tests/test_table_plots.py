"""Charts of tables show the numbers that the tables hold."""

import numpy as np
import pandas as pd
import pytest
from conftest import read_texts

from melanoma_utils import table_plots


@pytest.fixture
def train_df() -> pd.DataFrame:
    """100 torso images with 10 melanomas, 50 of the palms with 0, 20 of the head with 20, 40 without a site with 4."""
    counts = [("torso", 100, 10), ("palms/soles", 50, 0), ("head/neck", 20, 20), (np.nan, 40, 4)]
    rows = [{"site": site, "sex": ("female", "male")[i % 2], "target": int(i < k)} for site, n, k in counts
            for i in range(n)]
    return pd.DataFrame(rows)


def test_melanoma_rate_has_wilson_interval_and_none_for_small_groups(train_df):
    fig = table_plots.plot_melanoma_rate(train_df, "site", "Site")
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
    labels = table_plots.plot_melanoma_rate(ages, "age", "Age").axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["5", "45", "50"]
    dates = ages.assign(age=ages["age"].replace({45.0: 45.38264, 50.0: 45.38262}))  # as computed from dates
    assert len(table_plots.plot_melanoma_rate(dates, "age", "Age").axes[0].get_yticklabels()) == 2
    groups = train_df.assign(age=pd.cut(ages["age"], [0, 10, 60], labels=["young", "old"]))
    labels = table_plots.plot_melanoma_rate(groups, "age", "Age").axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["young", "old"]


def test_heatmap_shows_rates_with_counts(train_df):
    fig = table_plots.plot_rate_heatmap(train_df, "site", "sex", "Site and sex")
    texts = read_texts(fig)
    assert texts[:2] == ["10.0 %\n5 of 50", "10.0 %\n5 of 50"]
    assert texts.count("10 images") == 2  # the head: all melanomas, but too few to give a rate
    assert np.isnan(fig.axes[0].images[0].get_array().filled(np.nan)[2]).all()


def test_shares_are_drawn_for_both_splits():
    table = pd.DataFrame({"train": [0.25, 0.75], "test": [1.0, 0.0]}, index=["female", "male"])
    fig = table_plots.plot_shares({"sex": table}, "Train against test")
    assert [bar.get_width() for bar in fig.axes[0].patches] == [25, 75, 100, 0]
    assert read_texts(fig) == ["25.0 %", "75.0 %", "100 %", "0 %"]


def test_images_per_patient_is_a_survival_curve():
    fig = table_plots.plot_images_per_patient({"train": [2, 2, 8, 4], "test": [3]}, "Images per patient")
    line = fig.axes[0].lines[0]
    assert list(line.get_xdata()) == [2, 2, 4, 8]
    assert list(line.get_ydata()) == [100, 75, 50, 25]


def test_image_sizes_count_the_sizes():
    sizes_df = pd.DataFrame({"split": ["train"] * 3, "width": [6000, 6000, 640], "height": [4000, 4000, 480]})
    fig = table_plots.plot_image_sizes(sizes_df, "Sizes")
    assert fig.axes[0].collections[0].get_offsets().tolist() == [[6000, 4000], [640, 480]]
    assert "6000×4000" in fig.legends[0].texts[0].get_text()


def test_few_images_without_a_melanoma_or_any_value_are_drawn_too(recwarn):
    df = pd.DataFrame({"sex": [None, None], "age": [np.nan, np.nan], "target": [0, 0]})
    for column in ("sex", "age"):
        fig = table_plots.plot_melanoma_rate(df, column, "All unknown")
        assert read_texts(fig) == ["2", "fewer than 30 images"] and fig.axes[1].get_xlim() == (0, 1)
    assert read_texts(table_plots.plot_rate_heatmap(df, "age", "sex", "All unknown"))[0] == "2 images"
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
