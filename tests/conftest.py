"""Fixtures: one small drawn competition, its stores and one run of the whole pipeline, built once a session."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from melanoma_utils import pipeline, predict
from melanoma_utils.calibration import fit_calibration, write_calibration
from melanoma_utils.competition import find_images, read_test, read_train
from melanoma_utils.experiment import hash_checkpoints
from melanoma_utils.files import write_csv, write_json
from melanoma_utils.folds import create_folds
from melanoma_utils.models import ModelConfig, build_model, save_checkpoint
from melanoma_utils.operating_points import compute_operating_points
from melanoma_utils.store_building import build_store
from melanoma_utils.synthetic import SyntheticConfig, draw_competition

ROOT = Path(__file__).resolve().parents[1]
TINY, DEMO = ROOT / "tests" / "tiny.yaml", ROOT / "notebooks" / "parameters" / "demo.yaml"


@pytest.fixture(autouse=True)
def keep_main(monkeypatch):
    """Streamlit's AppTest leaves the app behind as `__main__`, which processes that later tests spawn would import."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session", autouse=True)
def hear_ctrl_c():
    """Tests started in a shell's background ignore Ctrl-C, and so would every process that they start."""
    on_ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, on_ctrl_c)


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch):
    """A command line that runs in this process lets Ctrl-C and SIGTERM as they are."""
    for command in (pipeline, predict):
        monkeypatch.setattr(command, "stop_at_signals", lambda *arguments: None)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A competition of about 100 training images of 24 patients."""
    config = SyntheticConfig(n_train_patients=24, n_test_patients=6, mean_images_per_patient=4, prevalence=0.3,
                             image_size=64, seed=1)
    return draw_competition(tmp_path_factory.mktemp("input") / "tiny", config, n_jobs=1)


@pytest.fixture(scope="session")
def store(data_dir, tmp_path_factory):
    """Its training images at 32 px."""
    paths = find_images(data_dir, "train", read_train(data_dir)["image_name"])
    return build_store(paths, tmp_path_factory.mktemp("store"), 32, n_jobs=1)


@pytest.fixture(scope="session")
def test_store(data_dir, tmp_path_factory):
    """Its test images at 32 px."""
    paths = find_images(data_dir, "test", read_test(data_dir)["image_name"])
    return build_store(paths, tmp_path_factory.mktemp("store"), 32, n_jobs=1)


@pytest.fixture(scope="session")
def folds_df(data_dir):
    """Its training rows in three folds by patient."""
    return create_folds(read_train(data_dir), 3)


@pytest.fixture(scope="session")
def real_dir():
    """The folder of real data; a test that wants it is skipped where there is none."""
    if not os.environ.get("MELANOMA_REAL_DATA"):
        pytest.skip("MELANOMA_REAL_DATA does not name a folder with real data")
    return Path(os.environ["MELANOMA_REAL_DATA"])


def make_flags(*arguments, parameters=TINY):
    """Returns the pipeline's arguments, with a parameter file unless that is None."""
    return [*(["-f", str(parameters)] if parameters else []), *map(str, arguments)]


def make_command(*arguments, parameters=TINY):
    """Returns the pipeline's whole command line."""
    return [sys.executable, "-m", "melanoma_utils.pipeline", *make_flags(*arguments, parameters=parameters)]


def run_pipeline(*arguments, parameters=TINY, check=True):
    """Runs the pipeline in this process, its notebooks in kernels; returns its exit status, stdout and stderr.

    Python's own warnings go to pytest, which lists them; `run_command` has them on stderr.
    """
    out, err = io.StringIO(), io.StringIO()
    with (mock.patch.object(pipeline, "stop_at_signals"),  # session fixtures call this too
          contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)):
        status = pipeline.main(make_flags(*arguments, parameters=parameters))
    done = SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())
    if check and status:
        raise AssertionError(f"the pipeline ended with {status}:\n{done.stdout}\n{done.stderr}")
    return done


def run_command(*arguments):
    """Runs the pipeline as its command does, in a process of its own; returns it when it has ended, output as text."""
    return subprocess.run(make_command(*arguments), capture_output=True, text=True)


def place(folder, data_dir=""):
    """Returns the flags that make the pipeline read data_dir and write everything below a folder."""
    return ("--runs-dir", folder / "runs", "-r", "DATA_DIR", data_dir, "-r", "INPUT_DIR", folder / "input",
            "-r", "OUTPUT_DIR", folder / "output", "-r", "SUBMISSIONS_DIR", folder / "submissions")


@pytest.fixture(scope="session")
def finished_command(data_dir, tmp_path_factory):
    """A folder in which the command of the whole pipeline has run, and its process."""
    folder = tmp_path_factory.mktemp("finished")
    process = run_command(*place(folder, data_dir))
    assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"
    return folder, process


@pytest.fixture(scope="session")
def finished(finished_command):
    """A folder in which the whole pipeline has run, and what it printed."""
    folder, process = finished_command
    return folder, process.stdout


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """A model as an experiment leaves it, but untrained: two small networks that want sex, age and site, 64 px."""
    folder, rng = tmp_path_factory.mktemp("output") / "untrained", np.random.default_rng(0)
    torch.manual_seed(0)
    for fold in range(2):
        config = ModelConfig("timm/resnet10t", image_size=64, use_metadata=True)
        save_checkpoint(folder / f"fold_{fold}.safetensors", build_model(config), {"store": {"decode_size": 96}})
    targets, patients = np.arange(60) % 2, np.arange(60) // 2
    logits = 0.02 * (rng.normal(size=60) + targets)  # about as small as the untrained networks' own
    write_calibration(folder / "calibration.json", fit_calibration(targets, logits))
    points_df = compute_operating_points(targets, logits, patients, 0.02, n_resamples=50)
    write_csv(folder / "operating_points.csv", points_df)
    write_csv(folder / "oof_scores.csv", pd.DataFrame({"target": targets, "logit": logits}))
    write_json(folder / "metrics.json", {"prevalence": 0.02, "folds": [0, 1], "source": "nothing at all",
                                         "checkpoints_sha256": hash_checkpoints(folder, [0, 1])})
    return folder


def read_texts(fig):
    """Returns every text of a chart's axes but the tick labels."""
    return [text.get_text() for ax in fig.axes for text in ax.texts]
