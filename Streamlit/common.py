"""What all pages share: the chosen model, the settings in the sidebar, the line at the foot."""

import os
from pathlib import Path

import pandas as pd
import streamlit as st

from melanoma_utils.assessment import Assessor, load_assessor

SHIPPED_DIR = Path(__file__).parent / "model"
OUTPUT_DIR = Path(os.environ.get("MELANOMA_OUTPUT_DIR", Path(__file__).parents[1] / "output"))
FOOTER = "Research software, not a medical device. A suspicious or changing lesion goes to a doctor, whatever it says."


def list_models() -> dict[str, Path]:
    """Returns the name shown -> folder of the shipped model and of every evaluated experiment."""
    folders = sorted(path.parent for path in OUTPUT_DIR.glob("*/calibration.json"))
    shipped = {"shipped model": SHIPPED_DIR} if any(SHIPPED_DIR.glob("fold_*.safetensors")) else {}
    return shipped | {folder.name: folder for folder in folders}


def pick_model_dir() -> Path:
    """Returns the folder of the model that is chosen in the sidebar; stops the page where there is none."""
    models = list_models()
    if not models:
        st.error("There is no model. Train one with `make submission`, or put the shipped one back into "
                 "Streamlit/model.")
        st.stop()
    name = st.sidebar.selectbox("Model", list(models), key="model", help="The shipped model, or one of your "
                                "experiments in output/ that 04_evaluate_oof has evaluated.")
    return models[name]


@st.cache_resource(max_entries=2, show_spinner="Reading the model …")
def _load(folder: str, changed: tuple[float, ...]) -> Assessor:
    return load_assessor(folder)


def get_assessor(folder: Path) -> Assessor:
    """Returns the model of a folder, read once a server; stops the page with one sentence where it can't be read."""
    try:
        return _load(str(folder), tuple(path.stat().st_mtime for path in sorted(folder.iterdir())))
    except (ValueError, OSError, KeyError) as error:
        st.error(f"This model can't be read: {error}")
        st.stop()


def pick_prevalence(assessor: Assessor) -> float:
    """Returns the share of melanomas, between 0 and 1, that is chosen in the sidebar."""
    default = 100 * assessor.metrics["prevalence"]
    percent = st.sidebar.number_input("Melanomas among 100 lesions like this", 0.01, 90.0, float(round(default, 2)),
                                      step=0.5, key="prevalence", help="Where you work: 1 to 2 in most clinics that "
                                      "look at many moles, less in screening, more among referred lesions.")
    return percent / 100


def pick_operating_point(assessor: Assessor) -> pd.Series:
    """Returns the row of `Assessor.points_df` that is chosen in the sidebar."""
    wanted = assessor.points_df["wanted_sensitivity"].tolist()
    chosen = st.sidebar.radio("Melanomas to be found, of 100", wanted, index=min(1, len(wanted) - 1),
                              format_func=lambda share: f"{100 * share:.0f}", horizontal=True, key="sensitivity")
    return assessor.points_df.set_index("wanted_sensitivity", drop=False).loc[chosen]


def show_footer() -> None:
    """Writes the quiet line at the foot of every page."""
    st.divider()
    st.caption(FOOTER)
