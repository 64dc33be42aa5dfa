"""The tables of a competition folder as charts, for all images or a part of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import common
import pandas as pd
import streamlit as st

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INPUT_DIR = Path(os.environ.get("MELANOMA_INPUT_DIR", Path(__file__).parents[2] / "input"))
NONE_YET = "These are drawn tables: no patients. `make data` fetches the real competition; type here the path of a " \
           "folder that holds a train.csv."


@st.cache_data(max_entries=2, show_spinner="Reading the tables …")
def read_tables(folder: str, changed: tuple[float, ...]) -> dict[str, pd.DataFrame]:
    """Returns "train" and, where there is one, "test" -> table."""
    from melanoma_utils.competition import read_test, read_train

    tables = {"train": read_train(folder)}
    return tables | ({"test": read_test(folder)} if Path(folder, "test.csv").is_file() else {})


@st.cache_data
def draw_tables() -> dict[str, pd.DataFrame]:
    """Returns "train" and "test" -> table of the drawn competition, without drawing its images."""
    from melanoma_utils.synthetic import SyntheticConfig, make_tables

    train_df, test_df, _ = make_tables(SyntheticConfig())
    return {"train": train_df, "test": test_df}


def pick_tables() -> tuple[str, dict[str, pd.DataFrame]]:
    """Returns what charts say of their source and the tables of the folder that is typed in, by default those of the
    drawn competition; stops the page with one sentence where there are none."""
    from melanoma_utils.data_folder import is_synthetic, name_source

    drawn = INPUT_DIR / "synthetic"
    typed = st.text_input("Competition folder", str(drawn) if (drawn / "train.csv").is_file() else "",
                          key="explore_dir", help="On the computer that runs this app, in the layout of SIIM-ISIC: a "
                                                  "train.csv and, if there is one, a test.csv")
    if not typed.strip():
        st.info(NONE_YET)
        return "synthetic competition", draw_tables()
    folder = Path(typed.strip()).expanduser()
    try:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder on the computer that runs this app")
        paths = [path for path in (folder / "train.csv", folder / "test.csv") if path.is_file()]
        tables = read_tables(str(folder), tuple(path.stat().st_mtime for path in paths))
        return name_source(folder) if is_synthetic(folder) else "", tables
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: ~somebody who is not there
        common.show_refusal(error)
        st.stop()


def pick_rows(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Returns the tables' rows of the sexes, ages and sites that are chosen; tables without any are left out."""
    from melanoma_utils.competition import MAX_AGE, SEXES, SITES
    from melanoma_utils.table_summaries import UNKNOWN, select_rows

    with st.expander("Only some of the images"):
        sexes = st.multiselect("Sex", (*SEXES, UNKNOWN), (*SEXES, UNKNOWN), key="explore_sex")
        sites = st.multiselect("Site", (*SITES, UNKNOWN), (*SITES, UNKNOWN), key="explore_site")
        ages = st.slider("Age, years", 0, MAX_AGE, (0, MAX_AGE), 5, key="explore_age")
        with_unknown_age = st.checkbox("with those of unknown age", True, key="explore_unknown_age")
    rows = {split: select_rows(df, sexes, sites, ages, with_unknown_age) for split, df in tables.items()}
    return {split: df for split, df in rows.items() if len(df)}


def draw_classes(tables: dict[str, pd.DataFrame], source: str) -> list[Figure]:
    """Returns charts of how rare melanomas are and of what the tables lack."""
    from melanoma_utils import plots, table_plots, table_summaries

    charts = [plots.plot_bars({name: counts}, f"Classes: {sum(counts.values()):,} {name}", source)
              for name, counts in table_summaries.count_classes(tables["train"]).items()]
    if "test" in tables:
        shares = table_summaries.share_missing(tables)
        charts.append(table_plots.plot_shares({"empty": shares}, "Missing values", source))
    return charts


def draw_columns(tables: dict[str, pd.DataFrame], source: str) -> list[Figure]:
    """Returns a chart a column: images and share of melanomas by its values."""
    from melanoma_utils.table_plots import plot_melanoma_rate

    columns = {"sex": "Sex", "anatom_site_general_challenge": "Site", "age_approx": "Age", "diagnosis": "Diagnosis"}
    return [plot_melanoma_rate(tables["train"], column, title, source, True) for column, title in columns.items()]


def draw_pairs(tables: dict[str, pd.DataFrame], source: str) -> list[Figure]:
    """Returns charts of two columns at a time."""
    from melanoma_utils.table_plots import plot_rate_heatmap
    from melanoma_utils.table_summaries import name_decades

    df = tables["train"].assign(age_group=name_decades(tables["train"]["age_approx"]))
    return [plot_rate_heatmap(df, "age_group", "sex", "Age and sex", source),
            plot_rate_heatmap(df, "anatom_site_general_challenge", "sex", "Site and sex", source)]


def draw_splits(tables: dict[str, pd.DataFrame], source: str) -> list[Figure]:
    """Returns charts of train beside test, none where there is no test."""
    from melanoma_utils import table_plots, table_summaries

    if "test" not in tables:
        return []
    return [table_plots.plot_shares({f"{name}, where known": shares}, "Train against test", source)
            for name, shares in table_summaries.share_groups(tables).items()]


def draw_patients(tables: dict[str, pd.DataFrame], source: str) -> list[Figure]:
    """Returns charts of how many images patients have, and what that tells of the target."""
    from melanoma_utils import table_plots, table_summaries

    df, counts = tables["train"], {split: df.groupby("patient_id").size() for split, df in tables.items()}
    title = "Images per patient: " + ", ".join(f"{len(df):,} {split}" for split, df in tables.items()) + " images"
    df = df.assign(n_of_patient=table_summaries.name_image_counts(df))
    return [table_plots.plot_images_per_patient(counts, title, source),
            table_plots.plot_melanoma_rate(df, "n_of_patient", "Images of a patient", source, True)]


VIEWS = {"Classes": draw_classes, "One column": draw_columns, "Two columns": draw_pairs, "Train and test": draw_splits,
         "Patients": draw_patients}
st.title("Explore", anchor=False)
st.caption("Who is in a competition's data, and how rare is melanoma? The charts of EDA/01_explore_metadata; no image "
           "is looked at.")
source, tables = pick_tables()
tables = pick_rows(tables)
if "train" not in tables:
    st.info("No training image is left: choose more of them.")
    st.stop()

train_df = tables["train"]
with st.container(horizontal=True, gap="large"):
    for name, value in {"Training images": len(train_df), "Patients": train_df["patient_id"].nunique(),
                        "Melanomas": train_df["target"].sum()}.items():
        st.metric(name, f"{value:,}", width="content")
chosen = st.segmented_control("What to look at", list(VIEWS), default="Classes", key="explore_view") or "Classes"
charts = VIEWS[chosen](tables, source)
places = st.container(horizontal=True)  # side by side as far as there is room
for chart in charts:
    places.image(common.encode_chart(chart), width=round(68 * chart.get_figwidth()), alt=chart.get_suptitle())
if not charts:
    st.info("There is no test image to compare with.")
