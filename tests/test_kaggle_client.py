"""Kaggle could not be reached where this was written: a stub stands for its client, first on PATH.

What the stub says when it fails is what kaggle 2.2.4 itself printed without a network, without a token, on a full disk
and to a server on this machine that answered 401, 403, 404, 429 and 500. Its success is by the client's source.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import ROOT

from melanoma_utils import kaggle_client
from melanoma_utils.competition import find_images, read_test, read_train
from melanoma_utils.kaggle_client import main

NAME = "siim-isic-melanoma-classification"
ANSWER = "Client Error: {} for url: https://api.kaggle.com/v1/competitions.CompetitionApiService/DownloadDataFiles"
NO_TOKEN = 'Authentication required to call the Kaggle API.\n\n    export KAGGLE_API_TOKEN=xx  # token\n'
NO_NETWORK = ("HTTPSConnectionPool(host='api.kaggle.com', port=443): Max retries exceeded with url: /v1/x (Caused by "
              "NameResolutionError(\"Failed to resolve 'api.kaggle.com' ([Errno -2] Name or service not known)\"))")
FULL = "Connection error: OSError: [Errno 28] No space left on device\nRetrying in 2.4 seconds... (attempt 1/5)\n" \
       "Download failed after 5 retries.\nYou can resume by running the same command again."
RULES = "You must accept this competition's rules before you'll be able to download files."
FAILURES = [(NO_TOKEN, "no token.*https://www.kaggle.com/settings/api.*KAGGLE_API_TOKEN.*kaggle.json"),
            ("requests.exceptions.HTTPError: 401 " + ANSWER.format("Unauthorized"), "401.*it is wrong or expired"),
            (RULES, f"accept the competition's rules.*https://www.kaggle.com/c/{NAME}/rules"),
            ("403 " + ANSWER.format("Forbidden"), f"https://www.kaggle.com/c/{NAME}/rules"),
            ("429 " + ANSWER.format("Too Many Requests"), "too many requests"),
            (NO_NETWORK, "can't be reached: look at the connection"), (FULL, "the disk is full: make room"),
            ("Downloading\n500 Server Error: boom", "ended with status 1:\n  Downloading\n  500 Server Error: boom")]


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Writes the shell script that stands for the client, and tells with which arguments it was called."""
    path, log = tmp_path / "bin" / "kaggle", tmp_path / "calls"
    path.parent.mkdir()
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    def write(script):
        path.write_text(f'#!/bin/sh\necho "$*" >> "{log}"\n{script}\n')
        path.chmod(0o755)
    return SimpleNamespace(write=write, path=path, calls=lambda: log.read_text().splitlines() if log.exists() else [])


@pytest.fixture
def service(data_dir, tmp_path, stub, monkeypatch):
    """The competition's zip, and a script that fetches n more bytes of it, as the client resumes."""
    source = tmp_path / "source.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for path in [*data_dir.glob("*.csv"), *data_dir.glob("jpeg/*/*.jpg")]:
            archive.write(path, path.relative_to(data_dir))
    n_bytes = source.stat().st_size
    monkeypatch.setattr(kaggle_client, "COMPETITION_BYTES", n_bytes)
    fetch = (f'file="$6/{NAME}.zip"; touch "$file"; have=$(wc -c < "$file"); echo "Resuming from $have bytes"\n'
             f'tail -c +$((have + 1)) "{source}" | head -c %d >> "$file"')
    return SimpleNamespace(whole=fetch % n_bytes, half=fetch % (n_bytes // 2), n_bytes=n_bytes, path=source)


def check_downloaded(folder, data_dir):
    for table in kaggle_client.TABLES:
        assert (folder / table).read_bytes() == (data_dir / table).read_bytes()
    for split, df in (("train", read_train(folder)), ("test", read_test(folder))):
        found = find_images(folder, split, df["image_name"])
        name, source = next(iter(found.items()))
        assert len(found) == len(df) and str(source).startswith(str(folder / f"{NAME}.zip"))
        assert source.read_bytes() == (data_dir / "jpeg" / split / f"{name}.jpg").read_bytes()


def test_a_download_leaves_tables_and_the_zip_and_is_not_repeated(stub, service, data_dir, tmp_path, capsys):
    stub.write(service.whole + "\necho 'half done' >&2")
    folder = tmp_path / "new" / "siim"
    assert main(["download", str(folder)]) == 0
    assert stub.calls() == [f"competitions download -c {NAME} -p {folder}"]
    check_downloaded(folder, data_dir)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*kaggle_client.TABLES, f"{NAME}.zip"])
    n_train, n_test = len(read_train(folder)), len(read_test(folder))
    said = capsys.readouterr().out
    assert "half done" in said and f"holds {n_train} training and {n_test} test images" in said
    assert main(["download", str(folder)]) == 0 and len(stub.calls()) == 1
    assert "images already" in capsys.readouterr().out
    (folder / "test.csv").write_text("broken")
    assert main(["download", str(folder)]) == 0 and len(stub.calls()) == 1  # from the zip that is there
    check_downloaded(folder, data_dir)


def test_a_complete_folder_that_cannot_be_used_is_not_downloaded_again(stub, data_dir, tmp_path, capsys):
    folder = shutil.copytree(data_dir, tmp_path / "siim")
    path = next((folder / "jpeg" / "train").iterdir())
    shutil.copy(path, path.with_suffix(".png"))
    assert main(["download", str(folder)]) == 1 and stub.calls() == []
    assert f"the image {path.stem} has two files" in capsys.readouterr().err


def test_an_interrupted_download_continues(stub, service, data_dir, tmp_path, capsys):
    stub.write(service.half + '\necho "Connection error: ChunkedEncodingError: IncompleteRead" >&2; exit 1')
    assert main(["download", str(tmp_path / "siim")]) == 1
    assert not (tmp_path / "siim" / "train.csv").exists() and "a download continues" in capsys.readouterr().err
    stub.write(service.whole)
    assert main(["download", str(tmp_path / "siim")]) == 0
    assert f"Resuming from {service.n_bytes // 2} bytes" in capsys.readouterr().out
    check_downloaded(tmp_path / "siim", data_dir)


def test_a_client_that_ends_well_with_half_a_zip_is_run_again(stub, service, data_dir, tmp_path, capsys):
    stub.write(service.half)
    (tmp_path / "siim").mkdir()
    (tmp_path / "siim" / f"{NAME}.zip").write_bytes(service.path.read_bytes()[:10])
    assert main(["download", str(tmp_path / "siim")]) == 0 and len(stub.calls()) == 2
    check_downloaded(tmp_path / "siim", data_dir)
    (tmp_path / "siim" / f"{NAME}.zip").write_bytes(b"x" * service.n_bytes)  # as long as it should be, and damaged
    assert main(["download", str(tmp_path / "siim")]) == 1
    assert "delete it" in capsys.readouterr().err and len(stub.calls()) == 4


@pytest.mark.parametrize(("said", "wanted"), FAILURES)
def test_a_failure_comes_with_advice(stub, tmp_path, capsys, monkeypatch, said, wanted):
    monkeypatch.setattr(kaggle_client, "COMPETITION_BYTES", 0)
    (tmp_path / "said").write_text(said)
    stub.write(f'cat "{tmp_path}/said" >&2; exit 1')
    assert main(["download", str(tmp_path / "siim")]) == 1
    out, err = capsys.readouterr()
    assert said in out and err.startswith("error: ") and len(err.splitlines()) <= 3
    assert re.search(wanted, err, re.DOTALL), err
    assert not list((tmp_path / "siim").iterdir())


def test_no_room_no_client_and_a_kaggle_notebook(stub, tmp_path, capsys, monkeypatch):
    stub.write("exit 0")
    monkeypatch.setattr(kaggle_client, "COMPETITION_BYTES", 10**18)
    assert main(["download", str(tmp_path / "siim")]) == 1 and not stub.calls()
    assert "needs 1,000,000,000.0 GB more" in capsys.readouterr().err
    with open(tmp_path / "siim" / f"{NAME}.zip", "wb") as file:
        file.truncate(2 * 10**9)  # what is there already counts
    assert main(["download", str(tmp_path / "siim")]) == 1 and not stub.calls()
    assert "needs 999,999,998.0 GB more" in capsys.readouterr().err
    monkeypatch.setattr(kaggle_client, "COMPETITION_BYTES", 0)
    monkeypatch.setattr(kaggle_client, "KAGGLE_INPUT", tmp_path)
    assert main(["download", str(tmp_path / "siim")]) == 1 and not stub.calls()
    assert "Add Input > Competitions > SIIM-ISIC Melanoma Classification" in capsys.readouterr().err
    monkeypatch.setattr(kaggle_client, "KAGGLE_INPUT", tmp_path / "no")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert main(["download", str(tmp_path / "siim")]) == 1
    assert "there is no client 'kaggle'" in capsys.readouterr().err


def test_a_mirror_is_unpacked(stub, data_dir, tmp_path, capsys):
    stub.write(f'mkdir -p "$6"; cp "{data_dir}"/*.csv "$6"; cp -r "{data_dir}"/jpeg/* "$6"')
    for _ in range(2):
        assert main(["download", "--dataset", "owner/small", str(tmp_path / "small")]) == 0
    assert stub.calls() == [f"datasets download -d owner/small -p {tmp_path / 'small'} --unzip"]
    names = read_train(data_dir)["image_name"]
    assert len(find_images(tmp_path / "small", "train", names)) == len(names)
    stub.write("echo \"Permission 'datasets.get' was denied\"; exit 1")
    assert main(["download", "--dataset", "owner/smal", str(tmp_path / "other")]) == 1
    assert "no dataset 'owner/smal'" in capsys.readouterr().err
    stub.write("exit 0")
    assert main(["download", "--dataset", "owner/empty", str(tmp_path / "other")]) == 1
    assert "test.csv does not exist" in capsys.readouterr().err


def test_output_is_passed_on_at_once_and_ctrl_c_ends_the_client_too(stub, tmp_path):
    stub.write('echo "my number is $$"; exec sleep 60')
    command = [sys.executable, "-m", "melanoma_utils.kaggle_client", "download", "--dataset", "a/b", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        number = int(process.stdout.readline().split()[-1])  # while the client still runs
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == "\nstopped; the same command continues here\n"
        assert process.returncode == 130
    with contextlib.suppress(psutil.NoSuchProcess):  # or it has ended, and nobody has asked how yet
        assert psutil.Process(number).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def submission_path(tmp_path):
    n = 10_982
    df = pd.DataFrame({"image_name": [f"ISIC_{i:07d}" for i in range(n)], "target": np.linspace(0, 1, n)})
    df.to_csv(tmp_path / "s.csv", index=False)
    return tmp_path / "s.csv"


def test_a_submission_is_sent(stub, submission_path, capsys):
    stub.write("echo 'Successfully submitted to SIIM-ISIC Melanoma Classification'")
    assert main(["submit", str(submission_path), "-m", "ten folds"]) == 0
    assert stub.calls() == [f"competitions submit -c {NAME} -f {submission_path} -m ten folds"]
    assert f"{NAME}/submissions" in capsys.readouterr().out
    stub.write("echo 'Could not submit to competition'")
    assert main(["submit", str(submission_path), "-m", "x"]) == 1
    assert "did not take the submission" in capsys.readouterr().err
    stub.write(f'echo "{RULES}"; exit 1')
    assert main(["submit", str(submission_path), "-m", "x"]) == 1 and "/rules" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "wanted"), [
    (lambda df: df.assign(image_name="SYN_" + df["image_name"]), "drawn, synthetic"),
    (lambda df: df.rename(columns={"target": "prob"}), r"columns are \['image_name', 'prob'\]"),
    (lambda df: df.assign(fold=1), "columns are"), (lambda df: df.assign(target=df["target"] * 2), r"outside 0\.\.1"),
    (lambda df: df.assign(target=0.5), "a constant ranks nothing"),
    (lambda df: df.iloc[:100], "100 rows, Kaggle wants 10,982"), (lambda df: df.iloc[:0, :0], "No columns to parse")])
def test_what_is_no_submission_is_not_sent(stub, submission_path, capsys, change, wanted):
    stub.write("exit 0")
    change(pd.read_csv(submission_path)).to_csv(submission_path, index=False)
    assert main(["submit", str(submission_path), "-m", "x"]) == 1
    assert re.search(f"s.csv is not sent: .*{wanted}", capsys.readouterr().err)
    submission_path.unlink()
    assert main(["submit", str(submission_path), "-m", "x"]) == 1 and "does not exist" in capsys.readouterr().err
    assert not stub.calls()


@pytest.mark.parametrize(("arguments", "wanted"), [
    ("data", 'kaggle_client download  "input/siim-isic"'), ("data SOURCE=isic DATA=x", 'isic_archive "x"'),
    ("data DATASET=a/b", '--dataset "a/b"'), ("data SOURCE=web", "SOURCE=web is not one of kaggle, isic"),
    ("submit", "say which: make submit EXPERIMENT=NAME"),
    ("submit EXPERIMENT=a", 'kaggle_client submit "submissions/a.csv" -m "a"')])
def test_make_names_the_command(arguments, wanted):
    process = subprocess.run(["make", "-n", *arguments.split()], cwd=ROOT, capture_output=True, text=True)
    assert wanted in process.stdout + process.stderr and bool(process.returncode) == ("***" in process.stderr)
