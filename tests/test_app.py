"""The app without a browser: what each page says, and what it says instead of failing."""

import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from conftest import ROOT
from PIL import Image
from streamlit.testing.v1 import AppTest

from melanoma_utils import assessment, explain
from melanoma_utils.competition import find_images, read_test
from melanoma_utils.dicom import write_dicom
from melanoma_utils.evaluation_tables import format_prob
from melanoma_utils.files import read_json, write_json
from melanoma_utils.predict import main

NOT_A_DEVICE = "not a medical device"


@pytest.fixture
def common(monkeypatch, model_dir, tmp_path):
    """The pages' shared module, with a copy of the small model in place of the shipped one."""
    monkeypatch.syspath_prepend(ROOT / "Streamlit")
    import common

    monkeypatch.setattr(common, "SHIPPED_DIR", shutil.copytree(model_dir, tmp_path / "shipped"))
    monkeypatch.setattr(common, "OUTPUT_DIR", tmp_path / "output")
    monkeypatch.setattr(common, "find_objections", lambda picture: ())  # the gate has its own tests
    return common


@pytest.fixture
def app(common):
    return AppTest.from_file(ROOT / "Streamlit" / "app.py", default_timeout=120).run()


@pytest.fixture(scope="module")
def path(data_dir):
    names = read_test(data_dir)["image_name"]
    return find_images(data_dir, "test", names[:1])[names[0]]


@pytest.fixture(scope="module")
def jpeg(path):
    return path.read_bytes()


@pytest.fixture(scope="module")
def large_jpeg(path):
    """The picture larger than what the model looks at, so that nothing is said of its size."""
    buffer = io.BytesIO()
    Image.open(path).resize((120, 90)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def upload(app, content, name="lesion.jpg"):
    return app.file_uploader[0].set_value((name, content, "application/octet-stream")).run()


def read_texts(app):
    """Returns all that a person can read on the page, as one string."""
    kinds = (app.title, app.subheader, app.markdown, app.caption, app.error, app.warning, app.info)
    return "\n".join([element.value for kind in kinds for element in kind]
                     + [f"{metric.label} {metric.value}" for metric in app.metric]).replace("\u00a0", " ")


def check_whole(app):
    assert not app.exception and NOT_A_DEVICE in read_texts(app) and "Traceback" not in read_texts(app)


def answer_with(monkeypatch, logit):
    monkeypatch.setattr(assessment, "ask_models", lambda *args, **kwargs: assessment.Answer(
        np.array([[logit - 1, logit + 1]]), np.zeros((2, 1, 1), np.float32)))


def test_the_first_page_waits_for_a_picture(app):
    check_whole(app)
    assert app.title[0].value == "One lesion" and len(app.file_uploader) == 1 and not app.metric
    assert app.file_uploader[0].proto.max_upload_size_mb == 50
    assert [radio.label for radio in app.radio] == ["Melanomas to be found, of 100"]
    assert app.number_input(key="prevalence").value == 2 and app.radio(key="sensitivity").value == 0.95


@pytest.mark.parametrize("page", ["about", "one_patient", "explore", "model"])
def test_every_page_says_that_it_is_no_medical_device(app, page):
    check_whole(app.switch_page(f"views/{page}.py").run())


def test_about_tells_data_licences_and_limits(app):
    text = read_texts(app.switch_page("views/about.py").run())
    assert all(words in text for words in ("SIIM-ISIC 2020", "HAM10000", "CC BY-NC 4.0", "Not a medical device",
                                           "No reassurance", "Basal cell carcinoma", "writes none"))


def test_the_number_is_that_of_predict(app, common, jpeg, path, tmp_path):
    upload(app, jpeg)
    check_whole(app)
    out = tmp_path / "predictions.csv"
    assert main([str(path), "--model", str(common.SHIPPED_DIR), "-o", str(out), "--prevalence", "0.02"]) == 0
    wanted = pd.read_csv(out).iloc[0]
    logits, assessor = app.session_state["lesion_answer"][1], assessment.load_assessor(common.SHIPPED_DIR)
    found = assessment.to_probs(assessor, np.array([logits.mean(), logits.min(), logits.max()]), 0.02)
    np.testing.assert_allclose(found, wanted[["probability", "lowest", "highest"]].astype(float), atol=1e-4)
    assert app.metric[0].value.replace("\u00a0", " ") == format_prob(wanted["probability"])
    assert f"{format_prob(wanted['lowest'])} to {format_prob(wanted['highest'])}" in read_texts(app)


def test_one_click_takes_a_drawn_lesion_and_says_so(app, jpeg):
    upload(app, jpeg)
    for name in ("Drawn lesion 1", "Drawn lesion 2", "Drawn lesion 3"):
        app.button(key=name).click().run()
        check_whole(app)
        assert "Drawn by this program, not a photograph" in read_texts(app) and len(app.metric) == 4
    values = app.file_uploader[0].value
    assert not values  # the upload has gone
    upload(app, jpeg, "mine.jpg")
    assert "mine" in read_texts(app) and "not a photograph" not in read_texts(app)


def test_a_low_score_never_reassures(app, large_jpeg, monkeypatch):
    answer_with(monkeypatch, -9)
    text = read_texts(upload(app, large_jpeg))
    assert "That does not clear it: 3.3 of 100 melanomas lie below it too" in text
    assert "Whatever the number" in text and "goes to a doctor" in text and "basal cell carcinoma" in text
    assert not app.warning and not any(word in app.info[0].value for word in ("benign", "harmless", "healthy"))


def test_a_high_score_sends_to_a_doctor(app, jpeg, monkeypatch):
    answer_with(monkeypatch, 9)
    text = read_texts(upload(app, jpeg))
    assert "Suspicious: above the threshold" in text and "A doctor should look at this lesion" in text
    assert not app.info and "Whatever the number" in text


def test_threshold_and_prevalence_are_those_of_the_sidebar(app, common, large_jpeg, monkeypatch):
    points_df = pd.read_csv(common.SHIPPED_DIR / "operating_points.csv").set_index("wanted_sensitivity")
    answer_with(monkeypatch, (points_df.loc[0.9, "threshold"] + points_df.loc[0.98, "threshold"]) / 2)
    upload(app, large_jpeg)
    app.radio(key="sensitivity").set_value(0.9).run()
    assert len(app.info) == 1 and not app.warning
    app.radio(key="sensitivity").set_value(0.98).run()
    assert len(app.warning) == 1 and not app.info
    before = [metric.value for metric in app.metric]
    app.number_input(key="prevalence").set_value(20.0).run()
    after = [metric.value for metric in app.metric]
    check_whole(app)
    counts = assessment.count_per_1000(points_df.loc[0.98], 0.2)
    assert after[1:] == [f"{counts['found']:.1f}", f"{counts['missed']:.1f}", f"{counts['false_alarms']:.0f}"]
    assert before[0] != after[0] and len(app.warning) == 1  # another probability, the same decision


def test_settings_are_kept_while_another_page_is_looked_at(app):
    app.radio(key="sensitivity").set_value(0.98).run()
    app.number_input(key="prevalence").set_value(7.5).run()
    app.switch_page("views/about.py").run()
    app.switch_page("views/one_lesion.py").run()
    assert app.radio(key="sensitivity").value == 0.98 and app.number_input(key="prevalence").value == 7.5


def test_who_it_is_about_counts_and_unknown_is_an_answer(app, jpeg):
    upload(app, jpeg)
    unknown = app.session_state["lesion_answer"][1]
    assert "Sex, age and site count as unknown" in read_texts(app)
    app.selectbox(key="sex").set_value("female")
    app.number_input(key="age").set_value(70)
    app.selectbox(key="site").set_value("torso").run()
    check_whole(app)
    assert "Counted in: female, 70 years, torso." in read_texts(app)
    assert not np.array_equal(app.session_state["lesion_answer"][1], unknown)
    app.number_input(key="age").set_value(None)
    app.selectbox(key="sex").set_value("unknown")
    app.selectbox(key="site").set_value("unknown").run()
    np.testing.assert_array_equal(app.session_state["lesion_answer"][1], unknown)


def test_a_model_of_drawn_pictures_says_so_beside_its_number(app, common, jpeg):
    path = common.SHIPPED_DIR / "metrics.json"
    write_json(path, read_json(path) | {"is_synthetic": True})
    app.switch_page("views/one_lesion.py").run()
    assert "drawn by a program: its numbers say nothing about skin" in read_texts(upload(app, jpeg))


@pytest.mark.parametrize(("size", "is_small"), [((64, 90), True), ((66, 90), False)])
def test_a_picture_no_larger_than_what_the_model_looks_at_has_a_number_that_is_less_sure(app, size, is_small):
    buffer = io.BytesIO()
    Image.new("RGB", size, (180, 120, 100)).save(buffer, "PNG")
    texts = read_texts(upload(app, buffer.getvalue(), "small.png"))
    assert ("This picture has no more than the 64 × 64 pixels" in texts) == is_small and "Probability of" in texts


def test_the_next_picture_is_of_a_person_of_whom_nothing_is_known(app, jpeg):
    upload(app, jpeg)
    app.selectbox(key="sex").set_value("male")
    app.number_input(key="age").set_value(70).run()
    assert "Counted in: male, 70 years." in read_texts(app)
    app.button(key="Drawn lesion 2").click().run()
    check_whole(app)
    assert "Sex, age and site count as unknown" in read_texts(app) and app.selectbox(key="sex").value == "unknown"


def test_a_dicom_header_is_read_only_where_that_is_asked_for(app, jpeg, tmp_path):
    row = {"image_name": "ISIC_SECRET", "sex": "male", "age_approx": 55.0, "anatom_site_general_challenge": "torso"}
    write_dicom(tmp_path / "x.dcm", jpeg, row)
    upload(app, (tmp_path / "x.dcm").read_bytes(), "x.dcm")
    check_whole(app)
    assert len(app.metric) == 4 and "Sex, age and site count as unknown" in read_texts(app)
    app.button(key="from_header").click().run()
    assert "Counted in: male, 55 years, torso." in read_texts(app)
    assert "SECRET" not in read_texts(app)
    write_dicom(tmp_path / "y.dcm", jpeg, row | {"anatom_site_general_challenge": "[tail](x)"})
    upload(app, (tmp_path / "y.dcm").read_bytes(), "Y.DCM")
    app.selectbox(key="site").set_value("palms/soles")
    app.button(key="from_header").click().run()
    check_whole(app)
    texts = read_texts(app)
    assert "Counted in: male, 55 years, palms/soles." in texts and r"site \'\[tail\]\(x\)\' of" in texts
    upload(app, jpeg)
    assert "tail" not in read_texts(app)


def encode(size, kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 150, 140)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("empty.jpg", b"", "is empty"),
    ("letter.jpg", b"%PDF-1.7 and so on", "is no JPEG, PNG or DICOM file"),
    ("page.png", b"<html></html>", "is no JPEG, PNG or DICOM file"),
    ("cut.jpg", encode((400, 400))[:900], "can't be decoded: the file is incomplete, copy it again"),
    ("cut.png", encode((400, 400), "PNG")[:120], "can't be decoded"),
    ("hollow.dcm", bytes(128) + b"DICM", "holds no picture"),
    ("huge.png", encode((9000, 6000), "PNG"), "9000 x 6000 pixels"),
    ("large.jpg", encode((40, 40)) + bytes(51 * 2**20), "51 MB"),
])
def test_a_bad_file_gives_one_friendly_sentence(app, name, content, sentence, capfd):
    upload(app, content, name)
    check_whole(app)
    assert len(app.error) == 1 and sentence in app.error[0].value.replace("\\", "") and not app.metric
    assert len(app.radio) == 1  # the settings stay
    assert name not in "".join(capfd.readouterr())  # and no log
    app.button(key="Drawn lesion 1").click().run()
    assert len(app.metric) == 4 and not app.error


def test_a_file_name_is_not_read_as_markdown(app, jpeg, common):
    upload(app, jpeg, "![x](http://elsewhere/x.png) :red[a] $b$ <b>.jpg")
    shown = next(caption.value for caption in app.caption if "elsewhere" in caption.value)
    bare = re.sub(r"\\.", "", shown)  # what is left without the escaped signs
    assert bare and not set(bare) & set("![]()<>$:_*`")


def test_what_can_not_be_assessed_gets_no_number_unless_that_is_wanted(app, common, jpeg, monkeypatch):
    monkeypatch.setattr(common, "find_objections", lambda picture: ("it is blurred", "it shows no lesion"))
    upload(app, jpeg)
    check_whole(app)
    assert app.error[0].value == "Cannot assess this picture, because it is blurred; it shows no lesion."
    assert not app.metric and not app.warning and not app.info
    app.checkbox[0].check().run()
    check_whole(app)
    assert len(app.metric) == 4 and len(app.error) == 1  # what speaks against it stays there
    upload(app, encode((300, 200)))
    assert not app.metric  # overruled for that picture alone


def test_without_scores_it_says_so(app, common, jpeg):
    upload(app, jpeg)
    assert "score lower than this picture" in read_texts(app)
    (common.SHIPPED_DIR / "oof_scores.csv").unlink()
    app.run()
    check_whole(app)
    assert "has no out-of-fold scores" in read_texts(app) and len(app.metric) == 4


def test_saliency_comes_on_demand(app, jpeg, monkeypatch):
    real = explain.explain_images  # which finds nothing in this picture
    monkeypatch.setattr(explain, "explain_images", lambda models, images: (real(models, images) + 0.1).clip(0, 1))
    upload(app, jpeg)
    assert not app.slider and "lesion_saliency" not in app.session_state
    app.toggle(key="saliency_on").set_value(True).run()
    check_whole(app)
    kept = app.session_state["lesion_saliency"][1]
    assert kept.shape == (64, 64)
    app.slider(key="opacity").set_value(20).run()
    check_whole(app)
    assert app.session_state["lesion_saliency"][1] is kept  # not computed again


def test_an_empty_map_does_not_reassure(app, jpeg, monkeypatch):
    monkeypatch.setattr("melanoma_utils.explain.explain_images", lambda models, images: np.zeros((1, 64, 64)))
    upload(app, jpeg)
    app.toggle(key="saliency_on").set_value(True).run()
    check_whole(app)
    assert "No single place stands out.** That does not clear the lesion" in read_texts(app) and not app.slider


@pytest.mark.parametrize(("change", "sentence"), [
    (shutil.rmtree, "There is no model"),
    (lambda folder: (folder / "fold_1.safetensors").unlink(), "holds 1 checkpoints"),
    (lambda folder: (folder / "fold_1.safetensors").write_bytes(b"no"), "is damaged"),
    (lambda folder: (folder / "metrics.json").write_text("{"), "is not valid JSON"),
])
def test_a_model_that_goes_while_the_app_runs_is_told(app, common, jpeg, change, sentence):
    upload(app, jpeg)
    kept = shutil.copytree(common.SHIPPED_DIR, common.SHIPPED_DIR.with_name("kept"))
    change(common.SHIPPED_DIR)
    app.run()
    check_whole(app)
    assert len(app.error) == 1 and sentence in app.error[0].value.replace("\\", "") and not app.metric
    shutil.rmtree(common.SHIPPED_DIR, ignore_errors=True)
    shutil.copytree(kept, common.SHIPPED_DIR)
    assert len(app.run().metric) == 4


def test_experiments_can_be_chosen(app, common, model_dir):
    shutil.copytree(model_dir, common.OUTPUT_DIR / "mine")
    app.run()
    assert app.selectbox(key="model").options == ["shipped model", "mine"]
    app.selectbox(key="model").set_value("mine").run()
    check_whole(app)
    shutil.rmtree(common.OUTPUT_DIR / "mine")
    app.run()
    check_whole(app)
    assert app.selectbox(key="model").value == "shipped model"


def test_a_model_is_read_once_for_all(app, common, monkeypatch):
    monkeypatch.setattr(assessment, "load_assessor", lambda folder: pytest.fail("it was read again"))
    check_whole(AppTest.from_file(ROOT / "Streamlit" / "app.py", default_timeout=120).run())
    st.cache_resource.clear()


def test_what_nobody_foresaw_gives_a_sentence_and_no_traceback(app, common, jpeg, monkeypatch, capfd):
    message = "secret of a patient"

    def fail(picture):
        raise RuntimeError(message)

    monkeypatch.setattr(common, "find_objections", fail)
    upload(app, jpeg)
    check_whole(app)
    assert "Something went wrong in this app" in app.error[0].value and not app.metric
    log = "".join(capfd.readouterr())
    assert "RuntimeError at" in log and "one_lesion.py" in log and "secret" not in log


def test_streamlit_serves_this_machine_alone_and_phones_nobody():
    import tomllib

    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert config["server"]["address"] == "localhost" and config["browser"]["gatherUsageStats"] is False
    assert config["client"]["showErrorDetails"] == "none" and config["server"]["maxUploadSize"] == 500


def test_the_gate_is_asked_and_its_absence_is_an_objection(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "Streamlit")
    import common

    common._read_gate.clear()
    assert common.find_objections(np.zeros((300, 300, 3), np.uint8))
    assert any("20 × 20" in why for why in common.find_objections(np.full((20, 20, 3), 128, np.uint8)))
    common._read_gate.clear()
    monkeypatch.setattr(common, "GATE_PATH", tmp_path / "gate.json")
    for _ in range(2):  # absent, then damaged
        assert "is not there or damaged" in common.find_objections(np.zeros((300, 300, 3), np.uint8))[0]
        (tmp_path / "gate.json").write_text("{")
