"""Several pictures of one person: ranked, compared with each other, as a table and a report to take along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import common
import numpy as np
import pandas as pd
import patient_input
import patient_known
import streamlit as st

if TYPE_CHECKING:
    from melanoma_utils.assessment import Assessor

MAX_ROWS = 12  # that a table shows at once
CAUTION = ("Two photographs of an unchanged lesion differ too: by light, angle, pressure. A lesion that has changed "
           "goes to a doctor, also where the number fell.")


def show_problems(problems: Sequence[str]) -> None:
    """Writes a sentence on each file that is passed over."""
    if problems:
        lines = [f"- {common.escape(problem)}" for problem in dict.fromkeys(problems)]
        st.warning("\n".join(lines[:6]), icon=":material/block:")
        if len(lines) > 6:
            with st.expander(f"{len(lines) - 6} more"):
                st.markdown("\n".join(lines[6:]))


def show_summary(df: pd.DataFrame, point: pd.Series) -> None:
    """Writes how many lesions are called suspicious, and which looks unlike the others."""
    from melanoma_utils.evaluation_tables import tell_missed

    n, n_suspicious = len(df), int(df["is_suspicious"].sum())
    missed = f"{tell_missed(point['sensitivity'])} lie below it too"
    others = f" What lies below it is not cleared: {missed}." if n_suspicious < n else ""
    if n_suspicious:
        st.warning(f"**{n_suspicious} of {n} suspicious: above the threshold.** A doctor should look at "
                   f"{'it' if n_suspicious == 1 else 'them'}.{others}", icon=":material/priority_high:")
    else:
        pictures = "it" if n == 1 else f"any of these {n} pictures"
        st.info(f"**Below the threshold.** That does not clear {pictures}: {missed}.", icon=":material/search:")
    if n == 1:
        st.markdown("This is one picture: there is nothing to compare it with.")
    elif n == 2:
        st.markdown("With two pictures there is no odd one out: each is as far from the other.")
    elif df["is_odd"].any():
        names = ", ".join(map(common.escape, df.index[df["is_odd"]]))
        st.markdown(f"◆ **Odd one out: {names}**, which looks least like the person's other lesions. There always is "
                    "one; the mark says where to look again, whatever the number.")
    else:
        st.markdown("All these pictures look alike to the models: there is no odd one out.")


def show_table(df: pd.DataFrame) -> None:
    """Shows the ranked lesions; a click on a column's head sorts by it."""
    sites = df["anatom_site_general_challenge"].astype(object)
    says = np.where(df["is_suspicious"], "▲ suspicious", "below the threshold")
    says = says + np.where(df["is_odd"], ", ◆ odd one out", "")
    says = says + np.where(df["objection"] != "", ", can't really be assessed", "")
    shown_df = pd.DataFrame({
        "picture": df["thumbnail"], "percent": 100 * df["probability"], "says": says, "rank": df["rank"],
        "unlike": df["duckling_z"], "name": df.index, "low": 100 * df["lowest"], "high": 100 * df["highest"],
        "site": sites.where(sites.notna(), ""), "note": df["objection"]})
    config, percent = st.column_config, "%.3g %%"
    st.dataframe(shown_df, hide_index=True, row_height=patient_input.ROW_HEIGHT, key="patient_table", column_config={
        "picture": config.ImageColumn("Picture", width=86, pinned=True),
        "percent": config.NumberColumn("Probability", format=percent, width=96),
        "says": config.TextColumn("Model says", width=140),
        "rank": config.NumberColumn("Rank", width=56, help="1: the highest of this person's numbers"),
        "unlike": config.NumberColumn("Unlike the others", format="%+.1f", width=126, help="The ugly-duckling score: "
                                      "how far it looks from the person's other lesions, in standard deviations"),
        "name": config.TextColumn("Name"), "low": config.NumberColumn("Lowest", format=percent, help="Of the networks"),
        "high": config.NumberColumn("Highest", format=percent, help="Of the networks"), "site": "Site", "note": "Note",
    }, height="content" if len(df) <= MAX_ROWS else patient_input.ROW_HEIGHT * MAX_ROWS,
        alt="the person's lesions, the most suspicious first")
    st.caption("A click on a column's head sorts by it.")


def show_refused(refused: dict[str, patient_input.Lesion]) -> bool:
    """Lists the pictures that can't be assessed with the reason; returns whether they shall have a number all the
    same."""
    if not refused:
        return False
    st.subheader(f"Cannot assess: {len(refused)}", anchor=False)
    reasons_df = pd.DataFrame({"picture": [lesion.thumbnail for lesion in refused.values()], "name": list(refused),
                               "because": ["; ".join(lesion.objections) for lesion in refused.values()]})
    picture = st.column_config.ImageColumn("Picture", width=86)
    st.dataframe(reasons_df, hide_index=True, row_height=patient_input.ROW_HEIGHT, column_config={
        "picture": picture, "name": "Name", "because": "Cannot assess, because"})
    digests = "".join(lesion.digest for lesion in refused.values())  # asked anew about other pictures
    return st.checkbox("Show their numbers all the same. I know that they may mean nothing.",
                       key=f"patient_overrule_{hash(digests)}")


def show_downloads(df: pd.DataFrame, refused: dict[str, patient_input.Lesion], facts: dict,
                   problems: list[str]) -> None:
    """Offers the table as CSV and the report to print."""
    from melanoma_utils.patient_report import ReportFacts, make_csv, make_report

    sexes, ages = df["sex"].dropna().unique(), df["age_approx"].dropna()
    facts = ReportFacts(**facts, made=datetime.now().astimezone(), sex=sexes[0] if len(sexes) == 1 else None,
                        age=ages.min() if len(ages) else None, age_to=ages.max() if len(ages) else None)
    reasons = [(name, lesion.thumbnail, "; ".join(lesion.objections)) for name, lesion in refused.items()]
    left, right = st.columns(2)
    left.download_button("The table (CSV)", make_csv(df, facts, reasons), "lesions.csv", "text/csv",
                         key="patient_csv", on_click="ignore", width="stretch")
    right.download_button("A report to print (HTML)", make_report(df, facts, reasons, list(dict.fromkeys(problems))),
                          "lesions.html", "text/html", key="patient_html", on_click="ignore", width="stretch")


def show_earlier(assessor: Assessor, df: pd.DataFrame, known_df: pd.DataFrame, digests: Mapping[str, str],
                 prevalence: float) -> None:
    """Shows a lesion beside a picture of it from an earlier visit, with both numbers; digests: of the pictures."""
    from melanoma_utils.archives import MemoryFile
    from melanoma_utils.assessment import ask_models, to_probs
    from melanoma_utils.evaluation_tables import format_prob

    st.subheader("An earlier visit", anchor=False)
    name = st.selectbox("Lesion", list(df.index), key="patient_now")
    upload = st.file_uploader("An earlier picture of this lesion", common.PICTURE_TYPES,
                              max_upload_size=common.MAX_MEGABYTES,
                              key=f"patient_earlier_{digests[name]}")  # that of another lesion is none of this one
    if upload is None:
        return
    lesion = common.remember("patient_then", (upload.file_id, id(assessor)),
                             lambda: patient_input.read_lesion(assessor, MemoryFile(upload.name, upload.getvalue())))
    if isinstance(lesion, str):
        st.error(common.escape(lesion), icon=":material/block:")
        return
    if lesion.digest == digests[name]:
        st.warning("This is the same file as now.")
    then_df = patient_input.pick_age_then(assessor, known_df.loc[[name]], digests[name])
    left, right = st.columns(2)
    left.image(lesion.thumbnail, width="stretch")
    right.image(df.loc[name, "thumbnail"], width="stretch")
    right.metric(f"Now: {common.escape(name)}", format_prob(df.loc[name, "probability"]))
    if lesion.objections and not left.checkbox("Show the number all the same", key=f"patient_then_{upload.file_id}"):
        left.error(f"Cannot assess this picture, because {'; '.join(lesion.objections)}.", icon=":material/block:")
        return
    known = lesion.digest, id(assessor), str(then_df.iloc[0].tolist())
    answer = common.remember("patient_then_answer", known, lambda: ask_models(assessor, lesion.image[None], then_df))
    left.metric(f"Earlier: {common.escape(upload.name)}",
                format_prob(float(to_probs(assessor, answer.logits.mean(), prevalence))))
    st.markdown(CAUTION)


st.title("One patient", anchor=False)
st.caption("Several lesions of one person, ranked and compared with each other. Nothing is stored: what you upload "
           "stays in the memory of the computer that runs this app and is let go when you leave this page.")
files = patient_input.pick_files()
assessor = common.get_assessor(common.pick_model_dir())
prevalence, point = common.pick_prevalence(assessor), common.pick_operating_point(assessor)
sex, age = patient_input.pick_person(assessor, files)
if not files.pictures:
    show_problems(files.problems)
    if files.tables:
        st.info("The table is here; add the pictures that it names.")
    st.stop()

from melanoma_utils.assessment import to_probs  # noqa: E402  after the page's head is there
from melanoma_utils.lesion_ranking import score_lesions  # noqa: E402

known_df = patient_input.describe(files, sex, age)
lesions = patient_input.read_lesions(assessor, files, list(known_df.index))
files.problems[:0] = common.find_warnings(assessor, [lesion.side for lesion in lesions.values()])
show_problems(files.problems)
known_df = patient_known.edit_known(assessor, lesions, known_df)
refused = {name: lesion for name, lesion in lesions.items() if lesion.objections}
results, listed = st.container(), st.container()
with listed:
    refused = {} if show_refused(refused) else refused
shown = {name: lesion for name, lesion in lesions.items() if name not in refused}
if not shown:
    st.stop()
with results:
    answers = patient_input.ask(assessor, shown, known_df)
    df = score_lesions(list(shown), np.concatenate([answer.logits for answer in answers]),
                       np.concatenate([answer.embeddings for answer in answers], axis=1),
                       lambda logits: to_probs(assessor, logits, prevalence), point["threshold"]).join(known_df)
    df["thumbnail"] = [shown[name].thumbnail for name in df.index]
    df["objection"] = ["; ".join(shown[name].objections) for name in df.index]
    show_summary(df, point)
    show_table(df)
facts = {"model": st.session_state["model"], "prevalence": prevalence, "sensitivity": point["sensitivity"],
         "specificity": point["specificity"]}
show_downloads(df, refused, facts, files.problems)
show_earlier(assessor, df, known_df, {name: lesion.digest for name, lesion in shown.items()}, prevalence)
