"""What all pages share: the chosen model, the settings in the sidebar, uploads, the line at the foot."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import streamlit as st

if TYPE_CHECKING:  # the networks' libraries take seconds to import: the page is there before them
    from matplotlib.figure import Figure
    from PIL import Image
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from melanoma_utils.archives import MemoryFile
    from melanoma_utils.assessment import Assessor
    from melanoma_utils.input_gate import Gate

SHIPPED_DIR = Path(__file__).parent / "model"
GATE_PATH = SHIPPED_DIR / "input_gate.json"
OUTPUT_DIR = Path(os.environ.get("MELANOMA_OUTPUT_DIR", Path(__file__).parents[1] / "output"))
FOOTER = "Research software, not a medical device. A suspicious or changing lesion goes to a doctor, whatever it says."
MAX_SIDE = 1024  # of a picture as it is shown and looked at by the input gate, pixels
PICTURE_TYPES = ("jpg", "jpeg", "png", "dcm")
SETTINGS = ("model", "prevalence", "sensitivity")  # keys of what the sidebar asks for
MAX_MEGABYTES = 50  # of an uploaded picture
UNKNOWN = "unknown"  # what a person may leave open: sex, age, site
T = TypeVar("T")


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
    _set_default("model", list(models), "")
    name = st.sidebar.selectbox("Model", list(models), key="model", help="The shipped model, or one of your "
                                "experiments in output/ that 04_evaluate_oof has evaluated.")
    return models[name]


@st.cache_resource(max_entries=2, show_spinner="Reading the model …")
def _load(folder: str, changed: tuple[float, ...]) -> Assessor:
    from melanoma_utils.assessment import load_assessor

    return load_assessor(folder)


def get_assessor(folder: Path) -> Assessor:
    """Returns the model of a folder, read once a server; stops the page with one sentence where it can't be read.

    All users share it: read it, never change it.
    """
    try:
        return _load(str(folder), tuple(path.stat().st_mtime for path in sorted(folder.iterdir())))
    except (ValueError, OSError, KeyError) as error:
        st.error(f"This model can't be read: {escape(str(error))}")
        st.stop()


def uses_metadata(assessor: Assessor) -> bool:
    """Returns whether sex, age and site make a difference to a model."""
    return assessor.ensemble.models[0].config.use_metadata


def name_unseen(metrics: dict) -> str:
    """Returns what of a scored image its networks had not seen: with folds by image its patient may be among those
    trained on."""
    return "it, but perhaps its patient" if metrics.get("patient_leak") else "its patient"


def find_warnings(assessor: Assessor, sides: Sequence[int]) -> list[str]:
    """Returns a sentence where a model has learnt from drawn pictures, and one where pictures are smaller than what it
    has learnt from, or as small.

    Args:
        assessor: of the model.
        sides: of the pictures, the shorter one of each in pixels.
    """
    is_drawn, wanted = assessor.metrics.get("is_synthetic", False), assessor.ensemble.models[0].config.image_size
    n_small = sum(side <= wanted for side in sides)
    which = "This picture has" if len(sides) == 1 else f"{n_small} of these {len(sides)} pictures have"
    return [*["This model has learnt from pictures drawn by a program: its numbers say nothing about skin."] * is_drawn,
            *[f"{which} no more than the {wanted} × {wanted} pixels that the model looks at: so small a file is less "
              "or more sharp than what it has learnt from, and the number less sure."] * (n_small > 0)]


def pick_prevalence(assessor: Assessor) -> float:
    """Returns the share of melanomas, between 0 and 1, that is chosen in the sidebar."""
    low, high = 0.01, 90.0
    st.session_state.setdefault("prevalence", min(max(low, round(100 * assessor.metrics["prevalence"], 2)), high))
    percent = st.sidebar.number_input("Melanomas among 100 lesions like this", low, high, step=0.5, key="prevalence",
                                      help="Where you work: 1 to 2 in most clinics that look at many moles, less in "
                                      "screening, more among referred lesions.")
    return percent / 100


def pick_operating_point(assessor: Assessor) -> pd.Series:
    """Returns the row of `Assessor.points_df` that is chosen in the sidebar."""
    wanted = assessor.points_df["wanted_sensitivity"].tolist()
    _set_default("sensitivity", wanted, 0.95)
    chosen = st.sidebar.radio("Melanomas to be found, of 100", wanted, format_func=lambda share: f"{100 * share:.0f}",
                              horizontal=True, key="sensitivity")
    return assessor.points_df.set_index("wanted_sensitivity", drop=False).loc[chosen]


def _set_default(key: str, options: list, default: object) -> None:
    """Makes a setting the default (the first option where that is none) unless it is one of the options already."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = default if default in options else options[0]


def keep_settings() -> None:
    """Keeps what is set in the sidebar while pages without these settings are looked at; Streamlit would forget it."""
    for key in SETTINGS:
        if key in st.session_state:
            st.session_state[key] = st.session_state[key]


def check_upload(upload: UploadedFile) -> MemoryFile:
    """Returns what was uploaded as a source for `assessment.decode_image`, see `uploads.check_upload`.

    Raises:
        ValueError: one sentence for the person: what is wrong with the file.
    """
    from melanoma_utils import uploads

    return uploads.check_upload(upload.name, upload.getvalue())


def read_picture(source: MemoryFile) -> np.ndarray:
    """Returns a picture to show and to judge, (H, W, 3) uint8 RGB, upright, its longest side at most `MAX_SIDE`.

    Args:
        source: of `check_upload`, or of `uploads.check_upload` where the bytes come out of an archive.

    Raises:
        ValueError: one sentence for the person: why it can't be decoded.
    """
    from melanoma_utils.images import load_upright

    return load_upright(source, MAX_SIDE)


def find_objections(picture: np.ndarray) -> tuple[str, ...]:
    """Returns why a picture can't be assessed, in short sentences; empty: nothing speaks against it.

    Where the gate can't be read that is an objection too: nobody has looked whether it is such a picture at all.

    Args:
        picture: of `read_picture`.
    """
    from melanoma_utils import input_gate

    try:
        gate = _read_gate()
    except (OSError, ValueError):
        return ("the file that tells dermoscopy from other pictures, Streamlit/model/input_gate.json, is not there or "
                "damaged",)
    return input_gate.find_objections(picture, gate)


@st.cache_resource
def _read_gate() -> Gate:
    from melanoma_utils import input_gate

    return input_gate.read_gate(GATE_PATH)


def remember(slot: str, key: Hashable, make: Callable[[], T]) -> T:
    """Returns make(), called only where the key is another than in this session's last call for the slot.

    One result a slot is kept, in this session alone: it goes with the tab.
    """
    if not is_remembered(slot, key):
        st.session_state[slot] = (key, make())
    return st.session_state[slot][1]


def is_remembered(slot: str, key: Hashable) -> bool:
    """Returns whether `remember` would return what it kept, without calling anything."""
    return slot in st.session_state and st.session_state[slot][0] == key


@st.cache_resource
def draw_icon() -> Image.Image:
    """Returns the browser tab's icon: a brown spot on skin."""
    from PIL import Image

    y, x = np.mgrid[-15.5:16, -15.5:16]  # 32 x 32 pixels
    return Image.fromarray(np.where((np.hypot(x, y) < 9)[..., None], (110, 62, 42), (235, 196, 172)).astype(np.uint8))


def is_dark() -> bool:
    """Returns whether the visitor sees the dark theme."""
    return st.context.theme.type == "dark"


def encode_chart(fig: Figure) -> bytes:
    """Returns a chart as a PNG file of 150 pixels an inch in the colours of the visitor's theme."""
    from melanoma_utils.app_plots import encode_dark_png
    from melanoma_utils.plots import encode_png

    return encode_dark_png(fig, 150, st.get_option("theme.dark.backgroundColor")) if is_dark() else encode_png(fig, 150)


def escape(text: str) -> str:
    """Returns a text, such as a file's name, that Markdown shows letter by letter."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def show_refusal(error: Exception) -> None:
    """Writes what is wrong with a file as one sentence."""
    sentence = escape(str(error)).rstrip("\\.")
    st.error(f"{sentence}.", icon=":material/block:")


def show_footer() -> None:
    """Writes the quiet line at the foot of every page."""
    st.divider()
    st.caption(FOOTER)
