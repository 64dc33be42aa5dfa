"""The picture on the page "One lesion" and the person whose it is: picked, drawn, entered."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import common
import pandas as pd
import streamlit as st

if TYPE_CHECKING:
    from melanoma_utils.archives import MemoryFile
    from melanoma_utils.assessment import Assessor

EXAMPLES = {"Drawn lesion 1": {"draw_seed": 20, "atypia": -1.6, "pigment": 0.0, "mole_size": 0.4},
            "Drawn lesion 2": {"draw_seed": 22, "atypia": 1.2, "pigment": 0.4},
            "Drawn lesion 3": {"draw_seed": 21, "atypia": 3.6, "pigment": 0.9}}
EXAMPLE_SIDE = 640  # pixels
STYLE = {"skin": 0.0, "hue": 0.0, "pattern": 0.8, "mole_size": 0.8, "copy_of": ""}


def pick_source() -> tuple[str, Callable[[], MemoryFile]] | tuple[None, None]:
    """Returns a key of the picture chosen and what gives its file, (None, None) where none is chosen yet."""
    taken = st.session_state.setdefault("uploads_taken", 0)  # a new key empties the uploader
    upload = st.file_uploader(f"A dermoscopy picture: JPEG, PNG or DICOM, up to {common.MAX_MEGABYTES} MB",
                              common.PICTURE_TYPES, key=f"upload_{taken}", max_upload_size=common.MAX_MEGABYTES,
                              on_change=take_upload)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("or try a", width="content")
        for name in EXAMPLES:
            st.button(name.lower(), key=name, on_click=take_example, args=(name,))
        has_camera = st.toggle("Camera", key="camera_on", on_change=take_camera)
    if has_camera:
        upload = st.camera_input("Take a picture", key="camera")
    name = st.session_state.get("example")
    if name:
        return name, lambda: draw_example(name)
    return (upload.file_id, lambda: common.check_upload(upload)) if upload else (None, None)


def take_upload() -> None:
    """Lets the example and the camera go."""
    st.session_state.update(example=None, camera_on=False)


def take_camera() -> None:
    """Lets the example go."""
    st.session_state["example"] = None


def take_example(name: str) -> None:
    """Takes a drawn example, and lets the upload and the camera go."""
    st.session_state.update(example=name, camera_on=False, uploads_taken=st.session_state["uploads_taken"] + 1)


def draw_example(name: str) -> MemoryFile:
    """Returns a drawn lesion as a JPEG file in memory."""
    from PIL import Image

    from melanoma_utils.archives import MemoryFile
    from melanoma_utils.drawing import draw_image

    buffer = io.BytesIO()
    Image.fromarray(draw_image(STYLE | EXAMPLES[name], EXAMPLE_SIDE)[0]).save(buffer, "JPEG", quality=92)
    return MemoryFile(f"{name}.jpg", buffer.getvalue())


def pick_person(assessor: Assessor, file: MemoryFile) -> pd.DataFrame:
    """Returns a table of one row: sex, age and site as they are entered, missing where unknown."""
    from melanoma_utils.competition import METADATA_COLUMNS, SEXES, SITES

    if not common.uses_metadata(assessor):
        st.caption("This model looks at the picture alone; sex, age and site would make no difference.")
        return pd.DataFrame([dict.fromkeys(METADATA_COLUMNS)])
    with st.expander("Sex, age and site, as far as known"):
        if file.suffix.lower() == ".dcm":
            st.button("Take them from the DICOM file", key="from_header", on_click=read_header, args=(file,))
            for problem in st.session_state.get("header_problems", ()):
                st.caption(common.escape(problem))
        left, right = st.columns(2)
        sex = left.selectbox("Sex", (common.UNKNOWN, *SEXES), key="sex")
        age = right.number_input("Age, years", 0, 120, None, key="age", placeholder=common.UNKNOWN)
        site = st.selectbox("Site", (common.UNKNOWN, *SITES), key="site")
    said = (sex, common.UNKNOWN if age is None else f"{age} years", site)
    known = [value for value in said if value != common.UNKNOWN]
    st.caption(f"Counted in: {', '.join(known)}." if known else "Sex, age and site count as unknown.")
    row = [None if value == common.UNKNOWN else value for value in (sex, age, site)]
    return pd.DataFrame([dict(zip(METADATA_COLUMNS, row, strict=True))])


def forget_person() -> None:
    """Empties what was entered of the person in the picture before."""
    st.session_state.update(sex=common.UNKNOWN, age=None, site=common.UNKNOWN, header_problems=[])


def read_header(file: MemoryFile) -> None:
    """Enters what a DICOM file's header says of the person, where that is something the model knows; what it does not
    say stays as it is."""
    from melanoma_utils.competition import METADATA_COLUMNS
    from melanoma_utils.patient_table import describe_pictures, read_headers

    known_df, problems = describe_pictures([file.name], None, headers_df=read_headers({file.name: file}))
    told = dict(zip(("sex", "age", "site"), known_df[list(METADATA_COLUMNS)].iloc[0], strict=True))
    st.session_state.update({key: int(value) if key == "age" else value for key, value in told.items()
                             if not pd.isna(value)} | {"header_problems": problems})
