"""The page "Explore", used as somebody would, without a browser."""

import shutil

import pytest
from conftest import ROOT
from streamlit.testing.v1 import AppTest

from melanoma_utils.competition import read_train
from melanoma_utils.synthetic import SyntheticConfig, make_tables
from melanoma_utils.table_summaries import UNKNOWN

VIEWS = {"Classes": 3, "One column": 4, "Two columns": 2, "Train and test": 3, "Patients": 2}  # number of charts


@pytest.fixture
def open_page(monkeypatch):
    """What opens the page with a folder as the input folder of this project."""
    def open_page(input_dir):
        monkeypatch.syspath_prepend(ROOT / "Streamlit")
        monkeypatch.setenv("MELANOMA_INPUT_DIR", str(input_dir))
        at = AppTest.from_file(str(ROOT / "Streamlit" / "app.py"), default_timeout=300)
        return check(at.switch_page("views/explore.py").run())
    return open_page


def check(at):
    """Returns the page; fails where something was raised."""
    assert not at.exception and "Something went wrong" not in " ".join(error.value for error in at.error)
    return at


def type_folder(at, folder):
    return check(at.text_input(key="explore_dir").set_value(str(folder)).run())


def read_metrics(at):
    return [int(metric.value.replace(",", "")) for metric in at.metric]


@pytest.fixture
def drawn_dir(data_dir, tmp_path):
    """An input folder in which the competition was drawn."""
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "synthetic").symlink_to(data_dir)
    return tmp_path / "input"


def test_the_drawn_competition_is_there_by_itself_with_every_chart(open_page, drawn_dir, data_dir):
    at, df = open_page(drawn_dir), read_train(data_dir)
    assert read_metrics(at) == [len(df), df["patient_id"].nunique(), df["target"].sum()]
    for view, n_charts in VIEWS.items():
        at = check(at.segmented_control(key="explore_view").set_value(view).run())
        assert len(at.image) == n_charts


def test_filters_choose_images(open_page, drawn_dir, data_dir):
    at, df = open_page(drawn_dir), read_train(data_dir)
    at.multiselect(key="explore_sex").set_value(["female"])
    at.slider(key="explore_age").set_value((40, 60))
    at.checkbox(key="explore_unknown_age").uncheck()
    wanted = df[(df["sex"] == "female") & df["age_approx"].between(40, 60)]
    assert read_metrics(check(at.run()))[0] == len(wanted) > 0
    at.multiselect(key="explore_site").set_value([UNKNOWN])
    wanted = wanted[wanted["anatom_site_general_challenge"].isna()]
    at = check(at.run())
    assert (read_metrics(at) or [0])[0] == len(wanted)
    at.multiselect(key="explore_sex").set_value([])
    assert "No training image is left" in check(at.run()).info[0].value and not at.image


def test_without_any_folder_it_shows_drawn_tables_and_says_how_to_get_real_ones(open_page, tmp_path):
    at = open_page(tmp_path)
    assert "drawn" in at.info[0].value and "make data" in at.info[0].value
    df, _, _ = make_tables(SyntheticConfig())
    assert read_metrics(at) == [len(df), df["patient_id"].nunique(), df["target"].sum()] and len(at.image) == 3


@pytest.mark.parametrize(("folder", "words"), [("nowhere", "is no folder"), ("train.csv", "is no folder"),
                                               ("~nobody/x", ""), ("x" * 5000, ""), ("a\0b", "")])
def test_what_is_no_folder_is_told_in_a_sentence(open_page, tmp_path, folder, words):
    (tmp_path / "train.csv").touch()
    at = type_folder(open_page(tmp_path), folder if folder.startswith("~") else f"{tmp_path}/{folder}")
    assert len(at.error) == 1 and words in at.error[0].value and not at.metric


def test_what_is_no_competition_is_told_in_a_sentence(open_page, tmp_path):
    at = type_folder(open_page(tmp_path), tmp_path)
    assert len(at.error) == 1 and "train" in at.error[0].value and "does not exist" in at.error[0].value
    (tmp_path / "train.csv").write_text("image_name,target\na,2\n")
    assert "is missing" in type_folder(at, tmp_path).error[0].value
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00")
    assert "read as CSV" in type_folder(at, tmp_path).error[0].value.replace("\\", "")


def test_train_alone_is_enough(open_page, data_dir, tmp_path):
    shutil.copy(data_dir / "train.csv", tmp_path)
    at = type_folder(open_page(tmp_path), tmp_path)
    assert len(at.image) == 2 and read_metrics(at)[0] == len(read_train(data_dir))
    at = check(at.segmented_control(key="explore_view").set_value("Train and test").run())
    assert "no test image" in at.info[0].value and not at.image
