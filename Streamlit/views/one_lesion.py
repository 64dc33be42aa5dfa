"""One picture of one lesion: what the model says of it, how sure that is, and what it would mean for people."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import common
import numpy as np
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
UNKNOWN, NO_BREAK = "unknown", "\u00a0"
ADVICE = ("**Whatever the number:** a lesion that is new, changes, bleeds, itches, looks unlike the others or worries "
          "somebody goes to a doctor. The model looks for melanoma alone; it does not know basal cell carcinoma, "
          "squamous cell carcinoma and other diseases.")


# ---- what is looked at


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
        left, middle, right = st.columns(3)
        sex = left.selectbox("Sex", (UNKNOWN, *SEXES), key="sex")
        age = middle.number_input("Age, years", 0, 120, None, key="age", placeholder=UNKNOWN)
        site = right.selectbox("Site", (UNKNOWN, *SITES), key="site")
    known = [value for value in (sex, f"{age} years" if age is not None else UNKNOWN, site) if value != UNKNOWN]
    st.caption(f"Counted in: {', '.join(known)}." if known else "Sex, age and site count as unknown.")
    row = [None if value == UNKNOWN else value for value in (sex, age, site)]
    return pd.DataFrame([dict(zip(METADATA_COLUMNS, row, strict=True))])


def forget_person() -> None:
    """Empties what was entered of the person in the picture before."""
    st.session_state.update(sex=UNKNOWN, age=None, site=UNKNOWN, header_problems=[])


def read_header(file: MemoryFile) -> None:
    """Enters what a DICOM file's header says of the person, where that is something the model knows; what it does not
    say stays as it is."""
    from melanoma_utils.competition import METADATA_COLUMNS
    from melanoma_utils.patient_table import describe_pictures, read_headers

    known_df, problems = describe_pictures([file.name], None, headers_df=read_headers({file.name: file}))
    told = dict(zip(("sex", "age", "site"), known_df[list(METADATA_COLUMNS)].iloc[0], strict=True))
    st.session_state.update({key: int(value) if key == "age" else value for key, value in told.items()
                             if not pd.isna(value)} | {"header_problems": problems})


# ---- what is said of it


def show_answer(assessor: Assessor, logits: np.ndarray, point: pd.Series, prevalence: float) -> None:
    """Writes the probability, the spread of the models, the decision."""
    from melanoma_utils.assessment import to_probs
    from melanoma_utils.evaluation_tables import format_prob

    *probs, threshold = to_probs(assessor, [logits.min(), logits.mean(), logits.max(), point["threshold"]], prevalence)
    low, mean, high, threshold = (format_prob(prob).replace(" ", NO_BREAK) for prob in (*probs, threshold))
    st.metric("Probability of melanoma", mean)
    st.caption(f"where {100 * prevalence:.3g} of 100 lesions like this are melanomas. The {logits.size} models by "
               f"themselves say {low} to {high}.")
    found = round(100 * point["sensitivity"])
    if logits.mean() >= point["threshold"]:
        st.warning(f"**Suspicious: above the threshold of {threshold}.** A doctor should look at this lesion. This "
                   f"threshold finds {found} of 100 melanomas.", icon=":material/priority_high:")
    else:
        st.info(f"**Below the threshold of {threshold}.** That does not clear it: {100 - found} of 100 melanomas lie "
                "below it too.", icon=":material/search:")


def show_people(point: pd.Series, prevalence: float) -> None:
    """Writes what the threshold would mean for 1,000 people."""
    from melanoma_utils.assessment import count_per_1000

    counts = count_per_1000(point, prevalence)
    st.subheader("This threshold among 1,000 people", anchor=False)
    n = f"{1000 * prevalence:.3g}"
    st.markdown(f"Each shows one lesion, and {n} of these lesions {'is a melanoma' if n == '1' else 'are melanomas'}:")
    with st.container(horizontal=True):
        for name, label in (("found", "Found"), ("missed", "Missed"), ("false_alarms", "False alarms")):
            st.metric(label, f"{counts[name]:,.{0 if name == 'false_alarms' else 1}f}", width=105)
    precision = 100 * counts["found"] / max(counts["found"] + counts["false_alarms"], 1e-9)
    st.caption(f"Found and missed are melanomas; a false alarm is another lesion that is called suspicious. Of 100 "
               f"called so, {precision:.2g} are melanomas.")


def show_position(assessor: Assessor, logit: float, point: pd.Series, prevalence: float) -> None:
    """Shows where the score lies among those of benign lesions and of melanomas."""
    from melanoma_utils.app_plots import plot_score_position
    from melanoma_utils.assessment import rank_among, to_probs

    st.subheader("Beside lesions whose diagnosis is known", anchor=False)
    if assessor.scores_df is None:
        st.caption("The model's folder has no out-of-fold scores (oof_scores.csv): there is nothing to compare with.")
        return
    scores_df = assessor.scores_df
    *probs, prob, threshold = to_probs(assessor, [*scores_df["logit"], logit, point["threshold"]], prevalence)
    benign, melanomas = (format_count(share) for share in rank_among(scores_df, logit))
    text = f"Of 100 benign lesions of the training data {benign} score lower than this picture, of 100 melanomas " \
           f"{melanomas}; each was scored by models that had not seen its patient."
    st.markdown(text)
    key = id(assessor), logit, threshold, prevalence, common.is_dark()
    chart = common.remember("lesion_chart", key, lambda: common.encode_chart(plot_score_position(
        scores_df["target"], probs, prob, threshold, assessor.metrics.get("source", ""))))
    st.image(chart, width=560, alt=text)


def format_count(share: float) -> str:
    """Returns a share as a number of 100, "none" and "all" where it is exactly that; NaN where there are none."""
    if np.isnan(share):
        return "nobody knows how many"
    if share in (0, 1):
        return "all" if share else "none"
    n = round(100 * share)
    return "fewer than 1" if n == 0 else "more than 99" if n == 100 else f"{n}"


def show_saliency(assessor: Assessor, key: tuple, image: np.ndarray, picture: np.ndarray) -> None:
    """Shows on demand which part of the picture speaks for melanoma."""
    st.subheader("Where it looks", anchor=False)
    if not st.toggle("Show what speaks for melanoma", key="saliency_on"):
        return
    from melanoma_utils.explain import explain_images, overlay_saliency, stretch_saliency

    models, config = assessor.ensemble.models, assessor.ensemble.models[0].config
    with st.spinner("Asking the models where …"):
        saliency = common.remember("lesion_saliency", key, lambda: explain_images(models, image[None])[0])
    opacity = st.slider("Opacity, %", 0, 100, 60, 5, key="opacity") / 100
    if config.resize_mode == "squash" and not config.clean_steps:
        image, saliency = picture, stretch_saliency(saliency, picture.shape[:2])
    st.image(overlay_saliency(image, saliency, opacity), output_format="JPEG", width=560,
             alt="the picture under a colour that is the stronger the more a place speaks for melanoma")
    st.caption("Yellow speaks most for melanoma among all places of this picture, dark blue little; where there is no "
               "colour, nothing does. It says neither how probable a melanoma is nor where its border runs."
               if saliency.any() else "No place in this picture speaks for melanoma.")


st.title("One lesion", anchor=False)
st.caption("A dermoscopy picture in, the probability of a melanoma out. Nothing is stored: what you upload stays in "
           "the memory of the computer that runs this app and is let go after you close the page.")
key, make_file = pick_source()
assessor = common.get_assessor(common.pick_model_dir())
prevalence, point = common.pick_prevalence(assessor), common.pick_operating_point(assessor)
if key is None:
    st.stop()

from melanoma_utils.assessment import ask_models, decode_image  # noqa: E402  after the page's head is there

try:
    file = common.remember("lesion_file", key, make_file)
    picture = common.remember("lesion_picture", key, lambda: common.read_picture(file))
    image = common.remember("lesion_image", (key, id(assessor)), lambda: decode_image(assessor, file))
except ValueError as error:
    common.show_refusal(error)
    st.stop()
common.remember("lesion_person", key, forget_person)
left, right = st.columns(2, gap="medium")
with left:
    st.image(picture, output_format="JPEG", width="stretch", alt="the picture that is assessed")
    st.caption("Drawn by this program, not a photograph." if key in EXAMPLES else common.escape(file.name))
    person_df = pick_person(assessor, file)
asked = key, id(assessor), tuple(person_df.iloc[0])
is_kept = common.is_remembered("lesion_answer", asked)
below = st.container() if is_kept else st.empty()  # which takes away what was said of the picture before
with right:
    objections = common.remember("lesion_objections", key, lambda: common.find_objections(picture))
    if objections:
        st.error(f"Cannot assess this picture, because {'; '.join(objections)}.", icon=":material/block:")
        if not st.checkbox("Show the number all the same", key=f"overrule_{key}"):
            st.stop()
    said = st.empty()
    with said, st.spinner("Asking the models …"):  # where the number of the picture before stood
        answer = common.remember("lesion_answer", asked,
                                 lambda: ask_models(assessor, image[None], person_df).logits[0])  # (n_models,)
    with said.container():
        for warning in common.find_warnings(assessor, [min(picture.shape[:2])]):
            st.warning(warning)
        show_answer(assessor, answer, point, prevalence)
with below if is_kept else below.container():
    st.markdown(ADVICE)
    show_people(point, prevalence)
    show_position(assessor, float(answer.mean()), point, prevalence)
    show_saliency(assessor, (key, id(assessor)), image, picture)
