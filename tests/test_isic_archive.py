"""The ISIC Archive could not be reached where this was written: a stub stands for its client, first on PATH.

The stub leaves what isic-cli 12.4.0 left when it fetched images from a server on this machine, and says what it said to
it: among others nothing at all, with exit status 0, of an image that it could not fetch. The columns of the metadata
are those of its package isic-metadata; the archive's real metadata were not seen.
"""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from melanoma_utils import isic_archive
from melanoma_utils.clients import check_reachable
from melanoma_utils.competition import (
    TEST_COLUMNS,
    TRAIN_COLUMNS,
    find_images,
    read_sample_submission,
    read_test,
    read_train,
)
from melanoma_utils.isic_archive import main, make_test, make_train

NO_SPACE = "Warning: Insufficient disk space for download.\nContinue with download anyway? [y/N]: Aborted!"
MAJOR = "There is a new major version of isic-cli available.\nYou must upgrade before continuing."
MELANOMA = "Malignant melanocytic proliferations (Melanoma)"


@pytest.fixture
def archive(data_dir, tmp_path, monkeypatch):
    """A stub of the client; the archive holds the drawn training images, first without one of them."""
    files, bin_dir, log = tmp_path / "archive", tmp_path / "bin", tmp_path / "calls"
    shutil.copytree(data_dir / "jpeg" / "train", files)
    bin_dir.mkdir()
    df = read_train(data_dir)
    metadata_df = pd.DataFrame({
        "isic_id": df["image_name"], "attribution": "A", "age_approx": df["age_approx"], "sex": df["sex"],
        "anatom_site_general": df["anatom_site_general_challenge"].replace("torso", "anterior torso"),
        "diagnosis_1": df["target"].map({0: "Benign", 1: "Malignant"}), "diagnosis_2": df["target"].map({1: MELANOMA}),
        "patient_id": df["patient_id"]})
    metadata_df.to_csv(files / "metadata.csv", index=False)
    page = tmp_path / "page"
    page.write_text("{}")
    monkeypatch.setattr(isic_archive, "API_URL", page.as_uri())
    monkeypatch.setenv("PATH", f"{bin_dir}{os.pathsep}{os.environ['PATH']}")

    def write(script):
        (bin_dir / "isic").write_text(f'#!/bin/sh\necho "$*" >> "{log}"\nmkdir -p "$5"\n{script}\n')
        (bin_dir / "isic").chmod(0o755)
    return SimpleNamespace(write=write, fetch=f'cp -rn "{files}"/. "$5"', files=files, df=df,
                           calls=lambda: log.read_text().splitlines() if log.exists() else [])


def test_the_collection_becomes_a_competition_folder(archive, tmp_path, capsys):
    archive.write(archive.fetch)
    folder = tmp_path / "siim"
    assert main([str(folder)]) == 0
    assert archive.calls() == [f"image download --collections 70 {folder / 'jpeg' / 'train'}"]
    train_df = read_train(folder).set_index("image_name")
    wanted_df = archive.df.set_index("image_name").loc[train_df.index]
    assert ("image_name", *train_df) == TRAIN_COLUMNS
    for column in ("patient_id", "sex", "age_approx", "anatom_site_general_challenge", "benign_malignant", "target"):
        pd.testing.assert_series_equal(train_df[column], wanted_df[column], check_dtype=False)
    assert len(find_images(folder, "train", train_df.index)) == len(archive.df)
    assert "ISIC_2020_Test_Metadata.csv" in capsys.readouterr().out  # what the pipeline still needs
    before = (folder / "train.csv").read_bytes()
    archive.write("exit 1")
    assert main([str(folder)]) == 0 and len(archive.calls()) == 1 and (folder / "train.csv").read_bytes() == before


def test_an_image_that_could_not_be_fetched_is_noticed_and_fetched_by_the_next_run(archive, tmp_path, capsys):
    name = archive.df["image_name"].iloc[3]
    (archive.files / f"{name}.jpg").rename(tmp_path / "kept")
    archive.write(archive.fetch)
    assert main([str(tmp_path / "siim")]) == 1
    err = capsys.readouterr().err
    assert f"names 1 of {len(archive.df)} images" in err and name in err and "a download continues" in err
    (tmp_path / "kept").rename(archive.files / f"{name}.jpg")
    assert main([str(tmp_path / "siim")]) == 0 and len(archive.calls()) == 2


def test_a_train_csv_that_is_there_is_kept(archive, data_dir, tmp_path):
    archive.write(archive.fetch)
    (tmp_path / "siim").mkdir()
    shutil.copy(data_dir / "train.csv", tmp_path / "siim")
    assert main([str(tmp_path / "siim")]) == 0
    assert (tmp_path / "siim" / "train.csv").read_bytes() == (data_dir / "train.csv").read_bytes()


def test_the_challenge_s_test_metadata_become_the_other_tables(archive, data_dir, tmp_path, capsys):
    archive.write(archive.fetch)
    folder, df = tmp_path / "siim", read_test(data_dir)
    shutil.copytree(data_dir / "jpeg" / "test", folder / "jpeg" / "test")
    df.rename(columns={"image_name": "image", "patient_id": "patient",
                       "anatom_site_general_challenge": "anatom_site_general"}
              ).to_csv(folder / "ISIC_2020_Test_Metadata.csv", index=False)
    assert main([str(folder)]) == 0 and f"{len(df)} test images" in capsys.readouterr().out
    pd.testing.assert_frame_equal(read_test(folder), df[list(TEST_COLUMNS)])
    assert set(read_sample_submission(folder)["image_name"]) == set(df["image_name"])
    (folder / "jpeg" / "test" / f"{df['image_name'][0]}.jpg").unlink()
    assert main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert df["image_name"][0] in said and "are in no collection" not in said


@pytest.mark.parametrize(("said", "wanted"), [
    (NO_SPACE, "the disk has no room for the whole collection"), (MAJOR, "pip install --upgrade isic-cli"),
    ("OSError: [Errno 28] No space left on device", "the disk is full"),
    ("requests.exceptions.ConnectionError: x\nAborted!", "can't be reached"),
    ("KeyError: 'files'\nAborted!", "isic ended with status 1:\n  KeyError: 'files'\n  Aborted!")])
def test_a_failure_comes_with_advice(archive, tmp_path, capsys, said, wanted):
    (tmp_path / "said").write_text(said)
    archive.write(f'cat "{tmp_path}/said"; exit 1')
    assert main([str(tmp_path / "siim")]) == 1
    err = capsys.readouterr().err
    assert wanted in err and len(err.splitlines()) <= 3
    assert not (tmp_path / "siim" / "train.csv").exists()


def test_a_client_that_asks_gets_no_answer(archive, tmp_path):
    archive.write(f'read answer && echo "answered $answer" > "{tmp_path}/answer"; exit 1')
    command = [sys.executable, "-c", "import sys; from melanoma_utils.clients import run_client; "
                                     "run_client(['isic', 'image', 'download', '-c', sys.argv[1]])", str(tmp_path)]
    process = subprocess.run(command, input="y\n", capture_output=True, text=True)
    assert "ChildProcessError" in process.stderr and not (tmp_path / "answer").exists()


def test_no_network_is_told_before_the_client_tries_in_silence(archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(isic_archive, "API_URL", "http://127.0.0.1:1/")
    archive.write("exit 0")
    assert main([str(tmp_path / "siim")]) == 1 and not archive.calls()
    assert "http://127.0.0.1:1/ can't be reached" in capsys.readouterr().err
    with pytest.raises(ConnectionError):
        check_reachable((tmp_path / "gone").as_uri())


@pytest.fixture
def metadata_df():
    return pd.DataFrame({
        "isic_id": list("dabc"), "patient_id": ["p", "p", "q", "r"], "sex": ["male", None, "female", "male"],
        "age_approx": ["45", "50", None, "85"],
        "anatom_site_general": ["lateral torso", "palms/soles", None, "posterior torso"],
        "diagnosis_1": ["Malignant", "Benign", "Benign", "Indeterminate"],
        "diagnosis_2": [MELANOMA, None, "Benign melanocytic proliferations", "Indeterminate proliferations"],
        "diagnosis_3": ["Melanoma Invasive", None, "Nevus", None], "diagnosis_4": None})


def test_metadata_become_kaggle_s_columns(metadata_df):
    df = make_train(metadata_df)
    assert tuple(df) == TRAIN_COLUMNS and df["image_name"].tolist() == list("abcd")
    assert df["anatom_site_general_challenge"].fillna("").tolist() == ["palms/soles", "", "torso", "torso"]
    assert df["diagnosis"].tolist() == ["unknown", "nevus", "indeterminate proliferations", "melanoma"]
    assert df["benign_malignant"].tolist() == ["benign", "benign", "indeterminate", "malignant"]
    assert df["target"].tolist() == [0, 0, 0, 1] and df["patient_id"].tolist() == ["p", "q", "r", "p"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda df: df.drop(columns=["patient_id", "sex"]), r"lack 2 of 6 columns: \['patient_id', 'sex'\]"),
    (lambda df: df.drop(columns="diagnosis_1"), "diagnosis_1"),
    (lambda df: df.assign(patient_id=["p", None, "q", None]), "'patient_id' is empty in 2 of 4 rows, first for a"),
    (lambda df: df.assign(diagnosis_1=["Benign", "Benign", None, "Benign"]), "'diagnosis_1' is empty in 1 of 4 rows"),
    (lambda df: df.assign(anatom_site_general="chest"), "'chest' in one of 4 rows")])
def test_metadata_that_lack_something_are_refused(metadata_df, change, message):
    with pytest.raises(ValueError, match=message):
        make_train(change(metadata_df))
    with pytest.raises(ValueError, match="lack 2 of 5 columns"):
        make_test(metadata_df)
