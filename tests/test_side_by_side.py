"""Folds trained side by side: on this machine, and on the workers of a Dask scheduler."""

import json
import re
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import make_command, place, run_command, run_pipeline


def read_oof(folder):
    """Returns the out-of-fold logits of the tiny experiment by image_name."""
    paths = sorted((folder / "output" / "tiny").glob("oof_fold_*.csv"))
    return pd.concat([pd.read_csv(path) for path in paths]).set_index("image_name")["logit"]


@pytest.mark.slow
def test_folds_trained_side_by_side_are_those_trained_in_turn(finished, data_dir, tmp_path):
    done = run_command(*place(tmp_path, data_dir), "--workers", 2)
    assert "side by side: [3/6] 03_train_fold_0, [4/6] 03_train_fold_1" in done.stdout
    assert {f"03_train_fold_{k}: epoch  2/2" in done.stdout for k in (0, 1)} == {True} and not done.stderr
    assert len(re.findall(r"^\[[34]/6\] 03_train_fold_\d: done$", done.stdout, re.M)) == 2
    ours, theirs = read_oof(tmp_path), read_oof(finished[0])
    assert (ours - theirs[ours.index]).abs().max() < 1e-3  # fewer threads a process: other roundings
    timing = json.loads((tmp_path / "output" / "tiny" / "timing.json").read_text())
    assert {"train_fold_0_seconds", "train_fold_1_seconds"} <= set(timing)
    done = run_command(*place(tmp_path, data_dir), "--workers", 2)
    assert done.stdout.count("nothing to do") == 6


@pytest.mark.slow
def test_a_fold_that_fails_beside_others_is_one_clear_line(data_dir, tmp_path):
    done = run_command(*place(tmp_path, data_dir), "--workers", 2, "-p", "LR", "9", "-p", "OPTIMIZER", "sgd",
                       "-p", "SCHEDULER", "none", "-p", "N_EPOCHS", "60")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(r"^error: ValueError: .*lower LR", done.stderr, re.M)


def wait_for(look, seconds=240):
    """Returns what a function gives as soon as it finds its files whole."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return look()
        except (OSError, ValueError):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path):
    """Starts a Dask scheduler; gives its address and a function that starts a worker."""
    processes, file = [], tmp_path / "scheduler.json"

    def start(*arguments):
        log = open(tmp_path / f"dask_{len(processes)}.log", "wb")
        processes.append(subprocess.Popen([sys.executable, "-m", "dask", *map(str, arguments)], stdout=log, stderr=log))
        return processes[-1]

    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file)
    yield file, lambda: start("worker", "--scheduler-file", file, "--nthreads", 1, "--no-nanny", "--no-dashboard",
                              "--local-directory", tmp_path)
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_worker_killed_in_a_fold_has_it_finished_by_another(finished, data_dir, tmp_path, cluster):
    file, start_worker = cluster
    workers = [start_worker(), start_worker()]
    address = wait_for(lambda: json.loads(file.read_text())["address"])
    run_pipeline(*place(tmp_path, data_dir), "--steps", "01-02", "-p", "N_EPOCHS", "30")
    command = make_command(*place(tmp_path, data_dir), "-p", "N_EPOCHS", "30", "--dask", address)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as pipeline:
        partial_paths = [tmp_path / "output" / "tiny" / f"fold_{k}.partial.pt" for k in (0, 1)]
        wait_for(lambda: [path.stat() for path in partial_paths])
        workers[0].kill()
        stdout, stderr = pipeline.communicate()
    assert pipeline.returncode == 0, stderr
    assert stdout.splitlines()[-1].startswith("submissions") or "rows, OOF AUC" in stdout.splitlines()[-1]
    logs = "".join(path.read_text() for path in tmp_path.glob("dask_*.log"))
    assert re.search(r"fold \d continues after epoch \d+ of 30", logs)
    run_pipeline(*place(tmp_path / "alone", data_dir), "-p", "N_EPOCHS", "30")
    ours, theirs = read_oof(tmp_path), read_oof(tmp_path / "alone")
    assert (ours - theirs[ours.index]).abs().max() < 1e-2


def test_no_such_scheduler_is_one_clear_line_before_any_work(data_dir, tmp_path):
    done = run_pipeline(*place(tmp_path, data_dir), "--dask", "tcp://127.0.0.1:9", check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: no Dask scheduler answers at tcp://127.0.0.1:9")
    assert not list(tmp_path.iterdir())
