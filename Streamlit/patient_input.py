"""The pictures on the page "One patient": picked, read, asked about."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import common
import numpy as np
import pandas as pd
import streamlit as st

if TYPE_CHECKING:
    from melanoma_utils.archives import MemoryFile, ZipMember
    from melanoma_utils.assessment import Answer, Assessor
    from melanoma_utils.patient_files import PatientFiles

ROW_HEIGHT = 76  # of a table with pictures, pixels
FILE_TYPES = (*common.PICTURE_TYPES, "zip", "csv")
MAX_ZIP_MEGABYTES = 500  # of one upload, as in .streamlit/config.toml; a picture may have `uploads.MAX_MEGABYTES`
DRAWN = [(8, -0.9), (1, -1.2), (22, 3.4), (18, -1.5), (20, -0.9)]  # seed, atypia: four alike and one that is not
STYLE = {"skin": 0.2, "hue": 0.1, "pattern": 0.8, "mole_size": 0.4, "pigment": 0.2, "copy_of": ""}


class Lesion(NamedTuple):
    """A picture that could be read: as it is shown, as the models want it, its shorter side in pixels, what speaks
    against it, its content's hash."""

    thumbnail: str
    image: np.ndarray
    side: int
    objections: tuple[str, ...]
    digest: str


def pick_files() -> PatientFiles:
    """Returns what is uploaded, or drawn on demand."""
    from melanoma_utils.archives import MemoryFile
    from melanoma_utils.patient_files import sort_files

    taken = st.session_state.setdefault("patient_uploads_taken", 0)  # a new key empties the uploader
    uploads = st.file_uploader(
        "Pictures of one person's lesions: JPEG, PNG or DICOM files, or a zip of them", FILE_TYPES, True,
        key=f"patient_files_{taken}", max_upload_size=MAX_ZIP_MEGABYTES, on_change=choose_drawn, args=(False,),
        help="A CSV table beside them may give sex, age and site of each: columns image_name, sex, age_approx, "
             "anatom_site_general_challenge, as in the competition's test.csv. Else DICOM files' headers are asked.")
    st.button("A drawn person", key="patient_drawn", on_click=choose_drawn, args=(True,), help="Five lesions drawn by "
              "this program, not photographs: to see what the page looks like.")
    if st.session_state.get("patient_is_drawn"):
        return sort_files(common.remember("patient_drawing", "drawn", draw_person))
    return sort_files(MemoryFile(upload.name, upload.getvalue()) for upload in uploads)


def choose_drawn(is_drawn: bool) -> None:
    """Takes the drawn person (and lets the uploads go), or the uploads."""
    st.session_state["patient_is_drawn"] = is_drawn
    st.session_state["patient_uploads_taken"] += is_drawn


def draw_person() -> list[MemoryFile]:
    """Returns the pictures of a drawn person as JPEG files in memory."""
    from PIL import Image

    from melanoma_utils.archives import MemoryFile
    from melanoma_utils.drawing import draw_image

    files = []
    for number, (seed, atypia) in enumerate(DRAWN, 1):
        buffer = io.BytesIO()
        image = draw_image(STYLE | {"draw_seed": seed, "atypia": atypia}, 480)[0]
        Image.fromarray(image).save(buffer, "JPEG", quality=92)
        files.append(MemoryFile(f"drawn {number}.jpg", buffer.getvalue()))
    return files


def pick_person(assessor: Assessor, files: PatientFiles) -> tuple[str | None, float | None]:
    """Returns sex and age (years) as they are entered for the person in these files, None where they are not."""
    from melanoma_utils.competition import SEXES

    if not common.uses_metadata(assessor):
        st.caption("This model looks at the pictures alone; sex, age and site would make no difference.")
        return None, None
    sources = {hash(source) for source in files.pictures.values()}
    if sources and not sources & st.session_state.get("patient_sources", sources):  # none of the pictures before
        forget_person()
        st.session_state["patient_edits"] = {}
    if sources:
        st.session_state["patient_sources"] = sources
    left, right = st.columns(2)
    sex = left.selectbox("Sex", (common.UNKNOWN, *SEXES), key="patient_sex",
                         help="Unknown: as a table or the DICOM files say of any picture, if there are any")
    age = right.number_input("Age, years", 0, 120, None, key="patient_age", placeholder=common.UNKNOWN)
    return None if sex == common.UNKNOWN else sex, age


def forget_person() -> None:
    """Empties what was entered of another person."""
    st.session_state.update(patient_sex=common.UNKNOWN, patient_age=None)


def describe(files: PatientFiles, sex: str | None, age: float | None) -> pd.DataFrame:
    """Returns what is known of each picture, those of the person that is chosen where a table tells of several; a sex
    that is told of one picture counts for all."""
    from melanoma_utils.patient_table import describe_pictures, read_headers, read_patient_table, spread_sex

    headers_df = common.remember("patient_headers", tuple(files.pictures.items()), lambda: read_headers(files.pictures))
    table_df = None
    for source in files.tables:
        try:
            if table_df is not None:
                raise ValueError(f"{source} is one table too many: it is left out")
            table_df = common.remember("patient_table", source, lambda source=source: read_patient_table(source))
        except ValueError as error:
            files.problems.append(f"{str(error).rstrip('.')}.")
    try:
        known_df, problems = describe_pictures(list(files.pictures), table_df, sex, age, headers_df)
    except ValueError as error:
        known_df, problems = describe_pictures(list(files.pictures), None, sex, age, headers_df)
        problems.append(f"The table is left out: {error}.")
    files.problems.extend(problems)
    patients = sorted(known_df["patient_id"].dropna().unique())
    if len(patients) > 1:
        patient = st.selectbox("The table tells of several persons. Whose lesions are to be compared?", patients,
                               key="patient_id", on_change=forget_person)
        nobodys = known_df.index[known_df["patient_id"].isna()]
        if len(nobodys):
            files.problems.append("By the table these are of no person, and are left out: " + ", ".join(nobodys))
        known_df = known_df[known_df["patient_id"] == patient]
    known_df, problems = spread_sex(known_df)
    files.problems.extend(problems)
    return known_df


def read_lesion(assessor: Assessor, source: MemoryFile | ZipMember) -> Lesion | str:
    """Returns a picture in the forms in which it is needed, or why it can't be read."""
    from melanoma_utils import uploads
    from melanoma_utils.assessment import decode_image
    from melanoma_utils.thumbnails import encode_thumbnail

    try:
        content = source.read_bytes()
        file = uploads.check_upload(str(source), content)
        picture = common.read_picture(file)
        return Lesion(encode_thumbnail(picture), decode_image(assessor, file), min(picture.shape[:2]),
                      common.find_objections(picture), hashlib.sha256(content).hexdigest())
    except (ValueError, FileNotFoundError) as error:
        return f"{str(error).rstrip('.')}."


def read_lesions(assessor: Assessor, files: PatientFiles, names: Sequence[str]) -> dict[str, Lesion]:
    """Returns the pictures that can be read, each once; what can't be is added to the problems."""
    known = common.remember("patient_lesions", id(assessor), dict)  # source -> what `read_lesion` gave
    lesions, first, progress = {}, {}, st.empty()
    for n, name in enumerate(names):
        source = files.pictures[name]
        if source not in known:
            progress.progress(n / len(names), f"Reading picture {n + 1} of {len(names)} …")
            known[source] = read_lesion(assessor, source)
        lesion = known[source]
        if isinstance(lesion, str):
            files.problems.append(lesion)
        elif lesion.digest in first:
            files.problems.append(f"{source} is the same file as {first[lesion.digest]}: it is left out.")
        else:
            lesions[name], first[lesion.digest] = lesion, source
    progress.empty()
    for source in set(known) - set(files.pictures.values()):
        del known[source]
    return lesions


def pick_age_then(assessor: Assessor, known_df: pd.DataFrame, digest: str) -> pd.DataFrame:
    """Returns what is known of a lesion, a table of one row, with the age that is entered for an earlier visit; digest:
    of its picture."""
    age = known_df["age_approx"].iloc[0]
    if not common.uses_metadata(assessor) or pd.isna(age):
        return known_df
    n_years = st.number_input("Years ago", 0, int(age), 0, key=f"patient_years_{digest}",
                              help="So many years are taken from the age that counts now.")
    return known_df.assign(age_approx=age - n_years)


def ask(assessor: Assessor, lesions: dict[str, Lesion], known_df: pd.DataFrame) -> list[Answer]:
    """Returns what the models say of each picture; each is asked about once as long as what is known of it stays."""
    from melanoma_utils.assessment import ask_models

    answers = common.remember("patient_answers", id(assessor), dict)
    keys, progress = [], st.empty()
    for n, (name, lesion) in enumerate(lesions.items()):
        row_df = known_df.loc[[name]]
        keys.append((lesion.digest, str(row_df.iloc[0].tolist())))
        if keys[-1] not in answers:
            progress.progress(n / len(lesions), f"Asking the models about picture {n + 1} of {len(lesions)} …")
            answers[keys[-1]] = ask_models(assessor, lesion.image[None], row_df)
    progress.empty()
    for key in set(answers) - set(keys):
        del answers[key]
    return [answers[key] for key in keys]
