"""The page "One patient", used as somebody would, without a browser."""

import io
import re
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from scipy.special import expit
from streamlit.testing.v1 import AppTest

from melanoma_utils import assessment, patient_report
from melanoma_utils.competition import find_images, read_test
from melanoma_utils.dicom import write_dicom
from melanoma_utils.predict import load_ensemble, predict_images

WORDS = ("warning", "error", "info", "markdown", "caption", "text", "metric", "subheader")


@pytest.fixture
def page(monkeypatch):
    """The page with nothing uploaded yet, at the shipped model."""
    monkeypatch.syspath_prepend(ROOT / "Streamlit")
    import common
    monkeypatch.setattr(common, "OUTPUT_DIR", ROOT / "no output")  # the shipped model alone
    monkeypatch.setattr(common, "find_objections", lambda picture: ())  # the gate has its own tests
    at = AppTest.from_file(str(ROOT / "Streamlit" / "app.py"), default_timeout=300)
    return at.switch_page("views/one_patient.py").run()


@pytest.fixture
def fast_models(monkeypatch):
    """Five models that answer at once: the logit is the picture's brightness, the embedding its mean colour. Returns
    the list of the calls, a table of what is known each."""
    calls = []

    def ask_models(assessor, images, metadata_df=None, tta_views=4):
        calls.append(metadata_df)
        colours = images.mean((1, 2), dtype=np.float64)  # (N, 3)
        logits = (colours.mean(1, keepdims=True) - 128) / 16 + np.linspace(-0.4, 0.4, 5)
        return assessment.Answer(logits, np.stack([colours] * 5))

    monkeypatch.setattr(assessment, "ask_models", ask_models)
    return calls


@pytest.fixture
def downloads(monkeypatch):
    """What the page offers to download: "table" and "report" -> text of the last one."""
    found = {}

    def keep(key, make_file):
        def make(*arguments):
            content = make_file(*arguments)
            found[key] = content if isinstance(content, str) else content.decode()
            return content
        return make

    monkeypatch.setattr(patient_report, "make_csv", keep("table", patient_report.make_csv))
    monkeypatch.setattr(patient_report, "make_report", keep("report", patient_report.make_report))
    return found


def encode(colour, suffix="JPEG", size=(60, 40)):
    """Returns a picture of one colour (R, G, B) as a file's bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, suffix)
    return buffer.getvalue()


PICTURES = [("dark.jpg", encode((90, 60, 50))), ("light.jpg", encode((200, 170, 150))),
            ("middle.jpg", encode((150, 100, 90))), ("blue.jpg", encode((20, 20, 250)))]


def upload(at, files, which=0):
    """Returns the page after files, (name, content) each, were put into an uploader."""
    at.file_uploader[which].set_value([(name, content, "application/octet-stream") for name, content in files])
    return at.run()


def read_words(at):
    """Returns every word on the page, without what escapes Markdown; fails where something was raised."""
    assert not at.exception and "Something went wrong" not in " ".join(e.value for e in at.error)
    texts = [element.value for kind in WORDS for element in getattr(at, kind)]
    labels = [element.label for kind in ("metric", "expander", "checkbox") for element in getattr(at, kind)]
    return re.sub(r"\\(.)", r"\1", "\n".join([*texts, *labels]))


def find(widgets, key):
    """Returns the one widget whose key begins so."""
    widget, = (widget for widget in widgets if (widget.key or "").startswith(key))
    return widget


def find_tables(at, column):
    """Returns the tables on the page that have a column; the one whose cells can be changed is on it too."""
    return [element.value for element in at.dataframe if column in element.value]


def read_table(at):
    df, = find_tables(at, "percent")
    return df.set_index("name")


def test_the_empty_page_says_what_it_is_for_and_that_it_is_no_medical_device(page):
    words = read_words(page)
    assert "ranked and compared" in words and "not a medical device" in words and not page.dataframe


def test_pictures_become_a_ranked_table_with_an_odd_one_out(page, fast_models):
    at = upload(page, PICTURES)
    df, words = read_table(at), read_words(at)
    assert df.index.tolist() == ["light", "middle", "blue", "dark"] and df["rank"].tolist() == [1, 2, 3, 4]
    assert df["percent"].is_monotonic_decreasing and (df["low"] < df["percent"]).all() and (
        df["percent"] < df["high"]).all()
    assert df["says"].str.contains("◆ odd one out").tolist() == [False, False, True, False]
    assert "Odd one out: blue" in words
    assert df["picture"].str.startswith("data:image/jpeg;base64,").all()
    assert df["says"].tolist()[0] == "▲ suspicious" and df["says"].tolist()[-1] == "below the threshold"
    assert "suspicious: above the threshold" in words and "4.9 of 100 melanomas lie below it too" in words
    assert "benign" not in words and "4 of these 4 pictures have no more than the 224 × 224 pixels" in words


def test_low_numbers_do_not_reassure(page, fast_models):
    words = read_words(upload(page, PICTURES[:1]))
    assert "does not clear it: 4.9 of 100 melanomas lie below it too" in words and "benign" not in words
    assert "nothing to compare it with" in words
    words = read_words(upload(page, [PICTURES[0], ("b.jpg", encode((80, 60, 50)))]))
    assert "any of these 2 pictures" in words and "no odd one out" in words


def test_the_prevalence_moves_the_numbers_and_the_line_moves_the_decision(page, fast_models):
    before = read_table(upload(page, PICTURES))
    n_calls = len(fast_models)
    page.number_input(key="prevalence").set_value(20.0)
    page.radio(key="sensitivity").set_value(0.98)
    after = read_table(page.run())
    assert (after["percent"] > before["percent"]).all()
    n_before, n_after = (df["says"].str.contains("▲ suspicious").sum() for df in (before, after))
    assert n_after > n_before
    assert len(fast_models) == n_calls == 4  # no model was asked again


def test_bad_files_are_named_in_a_sentence_each_and_the_rest_is_done(page, fast_models):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("visit/left/1.jpg", PICTURES[1][1])
        archive.writestr("visit/right/1.jpg", PICTURES[2][1])
        archive.writestr("__MACOSX/visit/left/._1.jpg", b"junk")
        archive.writestr("visit/notes.txt", b"hello")
        archive.writestr("visit/bomb.png", bytes(60 * 2**20))
    files = [("visit.zip", buffer.getvalue()), PICTURES[0], ("cut.jpg", PICTURES[1][1][:300]), ("empty.png", b""),
             ("no.dcm", b"DICM"), ("bad.zip", b"PK"), ("again.jpg", PICTURES[0][1]), ("dark.jpg", encode((9, 9, 9))),
             ("![x](http://x)<b>.png", b"\x89PNG\r\n\x1a\n")]
    at = upload(page, files)
    words = read_words(at)
    assert set(read_table(at).index) == {"visit/left/1", "visit/right/1", "dark", "dark (2)"}
    for sentence in ("cut.jpg can't be decoded", "empty.png is empty", "no.dcm is no JPEG, PNG or DICOM file",
                     "bad.zip is not a whole zip archive", "again.jpg is the same file as dark.jpg: it is left out.",
                     "dark.jpg is called dark (2) here", "visit.zip/visit/notes.txt is no JPEG, PNG or DICOM file",
                     "bomb.png would unpack to 60 MB", "![x](http://x)<b>.png is not an image"):
        assert sentence in words
    assert "._1.jpg" not in words and "Traceback" not in words


def test_sixty_files_at_once_and_one_more_later(page, fast_models):
    files = [(f"{i}.png", encode((i, 2 * i, 3 * i), "PNG")) for i in range(1, 61)]
    assert len(read_table(upload(page, files))) == 60 and len(fast_models) == 60
    assert len(read_table(upload(page, [*files, PICTURES[0]]))) == 61 and len(fast_models) == 61


def test_a_table_beside_the_pictures_is_used(page, fast_models, downloads):
    table = ("image_name,patient_id,sex,age_approx,anatom_site_general_challenge\ndark,p,female,45,torso\n"
             "light.jpg,p,female,45,palms/soles\nother,p,,,\nmiddle,p,X,45,torso\n")
    at = upload(page, [*PICTURES, ("table.csv", table.encode()), ("two.csv", b"image_name\na")])
    df, words = read_table(at), read_words(at)
    assert df["site"].to_dict() == {"dark": "torso", "light": "palms/soles", "middle": "torso", "blue": ""}
    assert "Person: female, 45 years" in downloads["report"]
    known = {str(row.index[0]): row.iloc[0].to_dict() for row in fast_models}
    assert known["dark"]["sex"] == "female" and known["dark"]["age_approx"] == 45
    assert "1 of 4 rows of the table name a picture that is not here, first other" in words
    assert "The table's sex 'X' of middle is not one of female, male" in words and "two.csv is one table too" in words
    at.selectbox(key="patient_sex").set_value("male")
    at.number_input(key="patient_age").set_value(70)
    at.run()
    assert "Person: male, 70 years" in downloads["report"]
    assert fast_models[-1]["sex"].tolist() == ["male"] and fast_models[-1]["age_approx"].tolist() == [70]


def make_dicom(tmp_path, colour, **row):
    """Returns a DICOM file's bytes, whose header says what the row does."""
    known = {"image_name": "x", "sex": None, "age_approx": None, "anatom_site_general_challenge": None} | row
    write_dicom(tmp_path / "x.dcm", encode(colour), known)
    return (tmp_path / "x.dcm").read_bytes()


def test_what_dicom_headers_say_counts_behind_the_table_and_the_person(page, fast_models, tmp_path):
    whole = {"sex": "female", "age_approx": 70.0, "anatom_site_general_challenge": "torso"}
    files = [("a.dcm", make_dicom(tmp_path, (90, 60, 50), **whole)), ("b.dcm", make_dicom(tmp_path, (200, 170, 150))),
             ("c.dcm", make_dicom(tmp_path, (150, 100, 90), **whole | {"anatom_site_general_challenge": "hand"})),
             ("cut.dcm", make_dicom(tmp_path, (1, 1, 1), **whole)[:700])]
    at = upload(page, files)
    known = {row.index[0]: row.iloc[0].to_dict() for row in fast_models}
    assert known["a"] | whole == known["a"] and known["c"]["age_approx"] == 70
    assert pd.isna([known["b"]["age_approx"], known["c"]["anatom_site_general_challenge"]]).all()
    assert known["b"]["sex"] == "female"  # one person's, so said of all
    words = read_words(at)
    assert "The DICOM header's site 'hand' of c is not one of" in words
    assert "sex of 3, age of 2, site of 1 of 3 pictures" in words
    at = upload(page, [*files[:1], ("table.csv", b"image_name,age_approx\na,45\n")])
    assert fast_models[-1]["age_approx"].tolist() == [45] and fast_models[-1]["sex"].tolist() == ["female"]
    at.selectbox(key="patient_sex").set_value("male").run()
    assert fast_models[-1]["sex"].tolist() == ["male"]


def test_what_is_known_of_a_picture_can_be_changed(page, fast_models, downloads):
    at = upload(page, [*PICTURES, ("table.csv", b"image_name,sex,age_approx\ndark,female,45\nblue,female,45\n")])
    editor = at.data_editor[0]
    assert editor.value["image_name"].tolist() == ["dark", "light", "middle", "blue"]
    n_calls = len(fast_models)
    at.session_state[editor.key] = {"edited_rows": {0: {"age_approx": 50, "anatom_site_general_challenge": "torso"},
                                                    3: {"sex": None}}, "added_rows": [], "deleted_rows": []}
    at.run()
    assert read_table(at)["site"].to_dict() == {"dark": "torso", "light": "", "middle": "", "blue": ""}
    known = {row.index[0]: row.iloc[0].to_dict() for row in fast_models[n_calls:]}
    assert set(known) == {"dark", "blue"} and known["dark"]["age_approx"] == 50 and known["dark"]["sex"] == "female"
    assert pd.isna(known["blue"]["sex"]) and known["blue"]["age_approx"] == 45
    assert "sex of 3, age of 2, site of 1 of 4 pictures" in read_words(at)
    assert re.search(r"^dark,.*female,50.0,torso", downloads["table"], re.MULTILINE)
    at.number_input(key="prevalence").set_value(20.0).run()
    assert read_table(at).loc["dark", "site"] == "torso"


def test_what_was_typed_stays_when_a_picture_more_comes(page, fast_models):
    at = upload(page, PICTURES[:2])
    editor = at.data_editor[0]
    at.session_state[editor.key] = {"edited_rows": {0: {"age_approx": 80, "sex": "male"}}, "added_rows": [],
                                    "deleted_rows": []}
    at.run()
    assert fast_models[-1][["sex", "age_approx"]].iloc[0].tolist() == ["male", 80]
    at = upload(at, PICTURES[:3])
    assert at.data_editor[0].value["age_approx"].fillna(0).tolist() == [80, 0, 0]
    assert "age of 1" in read_words(at)
    at.number_input(key="patient_age").set_value(30).run()  # of the others; what is typed of one goes before
    assert at.data_editor[0].value["age_approx"].tolist() == [80, 30, 30]
    at.number_input(key="patient_age").set_value(80).run()  # the same as what was typed, for a while
    at.number_input(key="patient_age").set_value(None)
    at = upload(at, PICTURES)
    assert at.data_editor[0].value["age_approx"].fillna(0).tolist() == [80, 0, 0, 0]
    at = upload(upload(at, []), PICTURES)  # the table was not on the page meanwhile
    assert at.data_editor[0].value["age_approx"].fillna(0).tolist() == [80, 0, 0, 0]
    at = upload(upload(at, []), PICTURES[3:])
    assert upload(at, PICTURES[:2]).data_editor[0].value["age_approx"].isna().all()  # another person came between


def test_nothing_of_a_lesion_or_person_counts_for_the_next(page, fast_models, monkeypatch):
    import common
    at = upload(page, [*PICTURES, ("table.csv", b"image_name,patient_id\ndark,p\nlight,p\nmiddle,q\nblue,q\n")])
    at = upload(at, [("then.jpg", encode((130, 90, 80)))], which=1)
    assert len(at.metric) == 2
    at.selectbox(key="patient_now").set_value("dark").run()
    assert not at.metric and "Earlier" not in read_words(at)
    monkeypatch.setattr(common, "find_objections", lambda picture: ("it is small",))
    at = upload(page, [("x" + name, content + b" ") for name, content in PICTURES] + [
        ("table.csv", b"image_name,patient_id\nxdark,p\nxlight,p\nxmiddle,q\nxblue,q\n")])
    find(at.checkbox, "patient_overrule").check().run()
    assert len(read_table(at)) == 2
    at.selectbox(key="patient_id").set_value("q").run()
    assert not find(at.checkbox, "patient_overrule").value and not find_tables(at, "percent")


def test_a_person_is_forgotten_with_the_next_ones_pictures_not_with_one_more(page, fast_models):
    at = upload(page, PICTURES[:2])
    at.selectbox(key="patient_sex").set_value("male")
    at.number_input(key="patient_age").set_value(70).run()
    at = upload(at, PICTURES[:3])
    assert (at.selectbox(key="patient_sex").value, at.number_input(key="patient_age").value) == ("male", 70)
    at = upload(upload(at, []), PICTURES[3:])
    assert (at.selectbox(key="patient_sex").value, at.number_input(key="patient_age").value) == ("unknown", None)
    assert fast_models[-1][["sex", "age_approx"]].isna().all(axis=None)


@pytest.mark.parametrize(("content", "message"), [
    (b"name;sex\na;b", "table.csv: column 'image_name' is missing"),
    (b"image_name,sex\ndark.jpg,male\ndark.png,female", "The table is left out: the table has two rows for the picture "
                                                        "'dark': leave one out"),
])
def test_a_broken_table_is_named_and_the_pictures_are_done(page, fast_models, content, message):
    at = upload(page, [*PICTURES, ("table.csv", content)])
    assert message in read_words(at) and len(read_table(at)) == 4


def test_several_persons_are_not_compared_with_each_other(page, fast_models):
    table = b"image_name,patient_id\ndark,p\nlight,p\nmiddle,q\nblue,q\n"
    at = upload(page, [*PICTURES, ("table.csv", table)])
    assert set(read_table(at).index) == {"dark", "light"}
    at.number_input(key="patient_age").set_value(70).run()
    at.selectbox(key="patient_id").set_value("q").run()
    assert at.number_input(key="patient_age").value is None  # it was the other's
    assert set(read_table(at).index) == {"middle", "blue"}
    at = upload(page, [*PICTURES, ("table.csv", table.replace(b"blue,q\n", b""))])
    assert set(read_table(at).index) == {"middle"} and "of no person, and are left out: blue" in read_words(at)


def test_what_cannot_be_assessed_has_a_reason_and_a_number_only_knowingly(page, fast_models, downloads, monkeypatch):
    import common
    monkeypatch.setattr(common, "find_objections", lambda picture: ("it is blue",) * int(picture[..., 2].mean() > 200))
    at = upload(page, PICTURES)
    assert set(read_table(at).index) == {"dark", "light", "middle"}
    assert find_tables(at, "because")[0][["name", "because"]].to_numpy().tolist() == [["blue", "it is blue"]]
    assert "Cannot assess: 1" in read_words(at)
    assert "cannot assess: it is blue" in downloads["report"]
    assert re.search(r"^blue,+it is blue,", downloads["table"], re.MULTILINE)
    find(at.checkbox, "patient_overrule").check().run()
    df = read_table(at)
    assert df.loc["blue", "note"] == "it is blue" and len(df) == 4
    assert "cannot really assess: it is blue" in downloads["report"]
    at = upload(at, PICTURES[3:])
    find(at.checkbox, "patient_overrule").uncheck().run()
    assert find_tables(at, "because") and not find_tables(at, "percent")  # the reasons alone
    assert "Cannot assess: 1" in read_words(at)


def test_the_downloads_hold_what_the_page_shows(page, fast_models, downloads):
    at = upload(page, PICTURES)
    df, report, table = read_table(at), downloads["report"], downloads["table"]
    assert [button.label for button in at.download_button] == ["The table (CSV)", "A report to print (HTML)"]
    assert [line.split(",")[0] for line in table.splitlines()] == ["image_name", *df.index]
    assert [report.index(f"<td>{name}<") for name in df.index] == sorted(report.index(f"<td>{name}<")
                                                                         for name in df.index)
    assert report.count("data:image/jpeg") == 4 and "not a medical device" in report and "1.76 of 100" in report


def test_an_earlier_picture_stands_beside_the_lesion(page, fast_models):
    at = upload(page, PICTURES)
    at.selectbox(key="patient_now").set_value("middle").run()
    at = upload(at, [("then.jpg", encode((130, 90, 80)))], which=1)
    then, now = at.metric
    assert (then.label, now.label) == ("Earlier: then\\.jpg", "Now: middle") and "also where the number fell" in \
        read_words(at)
    prob = read_table(at).loc["middle", "percent"] / 100
    assert now.value == patient_report.format_prob(prob)
    assert float(then.value.split()[0]) < float(now.value.split()[0])
    assert len(read_table(at)) == 4  # it is not one of the lesions that are compared
    assert not [box for box in at.number_input if (box.key or "").startswith("patient_years")]  # no age is known
    at.number_input(key="patient_age").set_value(60).run()
    find(at.number_input, "patient_years").set_value(4).run()
    assert fast_models[-1]["age_approx"].tolist() == [56]
    assert "then.jpg can't be decoded" in read_words(upload(at, [("then.jpg", PICTURES[0][1][:300])], which=1))


def test_an_earlier_picture_that_cannot_be_assessed(page, fast_models, monkeypatch):
    import common
    at = upload(page, PICTURES)
    monkeypatch.setattr(common, "find_objections", lambda picture: ("it is small",))
    at = upload(at, [("then.jpg", encode((130, 90, 80)))], which=1)
    assert len(at.metric) == 1 and "Cannot assess this picture, because it is small" in read_words(at)
    at.checkbox[0].check().run()
    assert len(at.metric) == 2


def test_a_drawn_person_is_one_click_away_and_goes_with_the_next_upload(page, fast_models):
    at = page.button(key="patient_drawn").click().run()
    assert set(read_table(at).index) == {f"drawn {n}" for n in range(1, 6)}
    words = read_words(at)
    assert "5 of 5 suspicious" in words and "What lies below it is not cleared" not in words  # there are no others
    assert set(read_table(upload(at, PICTURES)).index) == {"dark", "light", "middle", "blue"}


def test_nothing_is_written_to_disk(page, fast_models, monkeypatch):
    opened = []
    sys.addaudithook(lambda event, details: opened.append(details[0]) if event == "open" and isinstance(
        details[1], str) and set(details[1]) & set("wax+") else None)
    upload(page, PICTURES)
    assert not [path for path in opened if "pycache" not in str(path) and path != "/dev/null"]


def test_the_numbers_are_those_of_predict(page, data_dir):
    """With the shipped model itself: two pictures, to 1e-4."""
    images = find_images(data_dir, "test", read_test(data_dir)["image_name"][:2])
    at = upload(page, [(path.name, path.read_bytes()) for path in images.values()])
    predictions_df, _ = predict_images(load_ensemble(ROOT / "Streamlit" / "model"), images, n_jobs=1, to_probs=expit)
    assessor = assessment.load_assessor(ROOT / "Streamlit" / "model")
    logits = np.log(predictions_df["probability"] / (1 - predictions_df["probability"])).to_numpy()
    wanted = dict(zip(images, assessment.to_probs(assessor, logits, assessor.metrics["prevalence"]), strict=True))
    assert (read_table(at)["percent"] / 100).to_dict() == pytest.approx(wanted, abs=1e-4)
