"""What is known of each picture on the page "One patient": a table whose cells can be changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import common
import pandas as pd
import patient_input
import streamlit as st

if TYPE_CHECKING:
    from melanoma_utils.assessment import Assessor


def edit_known(assessor: Assessor, lesions: dict[str, patient_input.Lesion], known_df: pd.DataFrame) -> pd.DataFrame:
    """Returns what is known of each of the lesions, as it stands in a table whose cells can be changed."""
    from melanoma_utils.competition import METADATA_COLUMNS

    known_df = known_df.loc[list(lesions)]
    if not common.uses_metadata(assessor) or known_df.empty:
        return known_df
    sex, age, site = METADATA_COLUMNS
    counts, digests = st.empty(), [lesion.digest for lesion in lesions.values()]
    plain_df = known_df[[sex, age, site]].astype({sex: "string", site: "string"})
    key = f"patient_known_{hash(tuple(digests))}"
    if key not in st.session_state:  # a page without the table forgets what was typed into it
        st.session_state.pop("patient_known", None)
    base_df, edits = common.remember("patient_known", (*digests, plain_df.to_csv()),
                                     lambda: _apply_edits(plain_df, digests))
    edited_df = _show_editor(base_df, [lesion.thumbnail for lesion in lesions.values()], key)
    st.session_state["patient_edits"] |= _find_edits(base_df, edited_df, edits)
    known_df = known_df.assign(**{column: edited_df[column].astype(object) for column in (sex, site)},
                               age_approx=edited_df[age].astype(float))
    n, n_known = len(known_df), known_df[[sex, age, site]].notna().sum()
    counts.caption(f"Counted in: sex of {n_known[sex]}, age of {n_known[age]}, site of {n_known[site]} of {n} "
                   f"{'picture' if n == 1 else 'pictures'}; what is unknown counts as the average.")
    return known_df


def _show_editor(known_df: pd.DataFrame, thumbnails: list[str], key: str) -> pd.DataFrame:
    """Returns the table as it was changed on the page."""
    from melanoma_utils.competition import MAX_AGE, METADATA_COLUMNS, SEXES, SITES

    (sex, age, site), config, shown_df = METADATA_COLUMNS, st.column_config, known_df.reset_index()
    shown_df.insert(0, "picture", thumbnails)
    with st.expander("Sex, age and site of each picture: look at them, change them"):
        edited_df = st.data_editor(
            shown_df, hide_index=True, row_height=patient_input.ROW_HEIGHT, disabled=("picture", "image_name"),
            placeholder=common.UNKNOWN, key=key, column_config={
                "picture": config.ImageColumn("Picture", width=86), "image_name": "Name",
                sex: config.SelectboxColumn("Sex", options=SEXES),
                age: config.NumberColumn("Age, years", min_value=0, max_value=MAX_AGE, step=1),
                site: config.SelectboxColumn("Site", options=SITES, width="medium")})
    return edited_df.set_index("image_name")[list(METADATA_COLUMNS)]


def _apply_edits(known_df: pd.DataFrame, digests: Sequence[str]) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Returns what is known of each picture with what was typed over it before other pictures came or went, and that:
    digest -> column -> value."""
    known_df, kept = known_df.copy(), st.session_state.setdefault("patient_edits", {})
    edits = {digest: dict(kept.get(digest, {})) for digest in digests}
    for name, of_picture in zip(known_df.index, edits.values(), strict=True):
        for column, value in of_picture.items():
            known_df.loc[name, column] = value
    return known_df, edits


def _find_edits(base_df: pd.DataFrame, edited_df: pd.DataFrame, edits: dict[str, dict]) -> dict[str, dict]:
    """Returns the edits of `_apply_edits` with those that have been typed since."""
    before, after = (df.astype(object).where(df.notna(), None).to_dict("index") for df in (base_df, edited_df))
    return {digest: of_picture | {column: value for column, value in after[name].items()
                                  if value != before[name][column]}
            for name, (digest, of_picture) in zip(base_df.index, edits.items(), strict=True)}
