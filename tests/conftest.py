"""Fixtures: one small drawn competition, its stores and one run of the whole pipeline, built once a session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from melanoma_utils.competition import find_images, read_test, read_train
from melanoma_utils.folds import create_folds
from melanoma_utils.store_building import build_store
from melanoma_utils.synthetic import SyntheticConfig, draw_competition

ROOT = Path(__file__).resolve().parents[1]
TINY, DEMO = ROOT / "tests" / "tiny.yaml", ROOT / "notebooks" / "parameters" / "demo.yaml"


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


def make_command(*arguments, parameters=TINY):
    """Returns the pipeline's command line, with a parameter file unless that is None."""
    file = ["-f", str(parameters)] if parameters else []
    return [sys.executable, "-m", "melanoma_utils.pipeline", *file, *map(str, arguments)]


def run_pipeline(*arguments, parameters=TINY, check=True, **options):
    """Runs the pipeline and returns the finished process, its output as text."""
    command = make_command(*arguments, parameters=parameters)
    process = subprocess.run(command, capture_output=True, text=True, **options)
    if check and process.returncode:
        raise AssertionError(f"the pipeline ended with {process.returncode}:\n{process.stdout}\n{process.stderr}")
    return process


def place(folder, data_dir=""):
    """Returns the flags that make the pipeline read data_dir and write everything below a folder."""
    return ("--runs-dir", folder / "runs", "-r", "DATA_DIR", data_dir, "-r", "INPUT_DIR", folder / "input",
            "-r", "OUTPUT_DIR", folder / "output", "-r", "SUBMISSIONS_DIR", folder / "submissions")


@pytest.fixture(scope="session")
def finished(data_dir, tmp_path_factory):
    """A folder in which the whole pipeline has run, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run_pipeline(*place(folder, data_dir)).stdout
