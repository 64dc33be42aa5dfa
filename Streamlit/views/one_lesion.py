"""One picture of one lesion: what the model says of it, how sure that is, and what it would mean for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import common
import lesion_input
import numpy as np
import pandas as pd
import streamlit as st

if TYPE_CHECKING:
    from melanoma_utils.assessment import Assessor

NO_BREAK = "\u00a0"
ADVICE = ("**Whatever the number:** a lesion that is new, changes, bleeds, itches, looks unlike the others or worries "
          "somebody goes to a doctor. The model looks for melanoma alone; it does not know basal cell carcinoma, "
          "squamous cell carcinoma and other diseases.")


def show_answer(assessor: Assessor, logits: np.ndarray, point: pd.Series, prevalence: float) -> None:
    """Writes the probability, the spread of the models, the decision."""
    from melanoma_utils.assessment import to_probs
    from melanoma_utils.evaluation_tables import format_prob, tell_missed

    *probs, threshold = to_probs(assessor, [logits.min(), logits.mean(), logits.max(), point["threshold"]], prevalence)
    low, mean, high, threshold = (format_prob(prob).replace(" ", NO_BREAK) for prob in (*probs, threshold))
    st.metric("Probability of melanoma", mean)
    st.caption(f"where {100 * prevalence:.3g} of 100 lesions like this are melanomas. The {logits.size} models by "
               f"themselves say {low} to {high}.")
    sensitivity = point["sensitivity"]
    found = f"finds {round(100 * sensitivity)} of 100 melanomas" if sensitivity < 0.995 else \
        "found nearly all melanomas that it was measured on"
    if logits.mean() >= point["threshold"]:
        st.warning(f"**Suspicious: above the threshold of {threshold}.** A doctor should look at this lesion. This "
                   f"threshold {found}.", icon=":material/priority_high:")
    else:
        st.info(f"**Below the threshold of {threshold}.** That does not clear it: {tell_missed(sensitivity)} lie below "
                "it too.", icon=":material/search:")


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
    precision = counts["found"] / max(counts["found"] + counts["false_alarms"], 1e-9)
    of_100 = f"{100 * precision:.2g}" if precision < 0.1 else format_count(precision)
    st.caption(f"Found and missed are melanomas; a false alarm is another lesion that is called suspicious. Of 100 "
               f"called so, {of_100} are melanomas.")


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
           f"{melanomas}; each was scored by models that had not seen {common.name_unseen(assessor.metrics)}."
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
    if not saliency.any():
        st.info("**No single place stands out.** That does not clear the lesion: it happens with melanomas too.")
        return
    opacity = st.slider("Opacity, %", 0, 100, 60, 5, key="opacity") / 100
    if config.resize_mode == "squash" and not config.clean_steps:
        image, saliency = picture, stretch_saliency(saliency, picture.shape[:2])
    st.image(overlay_saliency(image, saliency, opacity), output_format="JPEG", width=560,
             alt="the picture under a colour that is the stronger the more a place speaks for melanoma")
    st.caption("Yellow speaks most for melanoma among all places of this picture, dark blue little; where there is no "
               "colour, nothing does. It says neither how probable a melanoma is nor where its border runs.")


st.title("One lesion", anchor=False)
st.caption("A dermoscopy picture in, the probability of a melanoma out. Nothing is stored: what you upload stays in "
           "the memory of the computer that runs this app and is let go when you leave this page.")
key, make_file = lesion_input.pick_source()
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
common.remember("lesion_person", key, lesion_input.forget_person)
left, right = st.columns(2, gap="medium")
with left:
    st.image(picture, output_format="JPEG", width="stretch", alt="the picture that is assessed")
    st.caption("Drawn by this program, not a photograph." if key in lesion_input.EXAMPLES else common.escape(file.name))
    person_df = lesion_input.pick_person(assessor, file)
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
