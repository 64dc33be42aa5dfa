"""One fold trained by several processes together, as torchrun starts them."""

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from conftest import TINY, make_flags, place, run_pipeline
from sklearn.metrics import roc_auc_score

from melanoma_utils import plan
from melanoma_utils.train import main

# Nothing that depends on which process an image falls to: no batch norm over a process's images, nothing random.
PLAIN = ("{FREEZE_BATCH_NORM: true, FLIP: false, ROTATION: 0, SHIFT: 0, SCALE_MIN: 1, SCALE_MAX: 1, BRIGHTNESS: 0, "
         "CONTRAST: 0, DROPOUT: 0, TTA_VIEWS: 1, BATCH_SIZE: 7, N_EPOCHS: 3, USE_METADATA: true}")


def train_with(n_processes, folder, data_dir, *arguments):
    """Trains fold 1 of the tiny experiment with so many processes; returns the finished process."""
    flags = [*map(str, place(folder, data_dir))][2:]  # but --runs-dir
    return subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                           str(n_processes), "-m", "melanoma_utils.train", "-f", str(TINY), *flags, "-y", PLAIN,
                           "-p", "FOLD", "1", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """The folders of a fold that one process has trained, that two of torchrun's have, and that two have which
    03_train_fold has started by notebook_launcher."""
    first = tmp_path_factory.mktemp("one")
    run_pipeline(*place(first, data_dir), "-y", PLAIN, "--steps", "01-02")
    second, third = (shutil.copytree(first, tmp_path_factory.mktemp(name) / "copy") for name in ("two", "launched"))
    for n, folder in ((1, first), (2, second)):
        done = train_with(n, folder, data_dir)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch  3/3") == 1  # one process speaks for all
    launched = ["-y", PLAIN, "-p", "FOLD", "1", "-p", "N_PROCESSES", "2", "-r", "DEVICE", "cpu", "--steps", "03"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")  # with one a forked process has no thread to wait for in vain
        done = run_pipeline(*place(third, data_dir), *launched)
    assert "Launching training on 2 " in done.stdout and done.stdout.count("epoch  3/3") == 1
    return [folder / "output" / "tiny" for folder in (first, second, third)]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(trained):
    """The batches are ragged: 7 images are 4 and 3 for two processes."""
    one, *others = (pd.read_csv(folder / "oof_fold_1.csv").set_index("image_name")["logit"] for folder in trained)
    losses, *others_losses = (pd.read_csv(folder / "history_fold_1.csv")["train_loss"] for folder in trained)
    for other, other_losses in zip(others, others_losses, strict=True):
        assert (one - other[one.index]).abs().max() < 1e-4 and one.std() > 0
        assert (losses - other_losses).abs().max() < 1e-4


@pytest.mark.slow
def test_the_auc_of_two_processes_is_that_of_all_their_images(trained):
    for folder in trained:
        oof_df, history_df = pd.read_csv(folder / "oof_fold_1.csv"), pd.read_csv(folder / "history_fold_1.csv")
        assert len(oof_df) % 2 == 1  # the processes' shares differ
        assert history_df["valid_auc"].iloc[-1] == pytest.approx(roc_auc_score(oof_df["target"], oof_df["logit"]),
                                                                 abs=1e-9)


@pytest.mark.slow
def test_the_notebook_finds_the_fold_done(trained, data_dir):
    folder = trained[1].parents[1]
    done = run_pipeline(*place(folder, data_dir), "-y", PLAIN, "-p", "FOLD", "1", "--steps", "03")
    assert "fold 1 is trained already: nothing to do" in done.stdout


def test_wrong_calls_get_one_clear_line(finished, data_dir, capsys):
    flags = make_flags(*place(finished[0], data_dir)[2:])
    assert main(flags) == 1
    assert capsys.readouterr().err == "error: FOLD is not given: say which fold to leave out, e.g. -p FOLD 0\n"
    assert main([*flags, "-y", PLAIN, "-p", "FOLD", "1"]) == 1
    assert "'tiny' was begun otherwise (" in capsys.readouterr().err
    assert main([*flags, "-p", "FOLD", "1", "-p", "N_PROCESSES", "2"]) == 1
    assert "N_PROCESSES 2 is for 03_train_fold, here 1 train" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_without_folds_get_one_clear_line_too(trained, data_dir):
    done = train_with(2, trained[0].parents[1], data_dir, "-p", "EXPERIMENT", "other")
    assert done.returncode and "error: " in done.stderr and "folds.csv" in done.stderr


def test_folds_trained_side_by_side_store_the_parameters_one_after_another(data_dir, tmp_path, monkeypatch):
    both = threading.Barrier(2)

    def write(path, value):
        with pytest.raises(threading.BrokenBarrierError):  # waits for another that writes at the same time
            both.wait(0.2)

    monkeypatch.setattr(plan, "write_json", write)
    tiny = plan.make_plan({"DATA_DIR": str(data_dir), "OUTPUT_DIR": str(tmp_path), "EXPERIMENT": "tiny"})
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(plan.keep_parameters, tiny) for _ in range(2)]:
            done.result()
