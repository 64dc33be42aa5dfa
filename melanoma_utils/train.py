"""One fold trained by all processes that torchrun or `accelerate launch` has started, on one machine or on many:
torchrun --nproc-per-node 2 -m melanoma_utils.train -f FILE.yaml -p FOLD 0, after the pipeline's --steps 01-02."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from melanoma_utils.competition import read_test, read_train
from melanoma_utils.fold_training import run_fold
from melanoma_utils.folds import read_folds
from melanoma_utils.image_store import open_training_store
from melanoma_utils.inference import pick_device
from melanoma_utils.leak_audit import check_folds
from melanoma_utils.parameters import add_parameter_flags, read_parameters
from melanoma_utils.plan import Plan, keep_parameters, make_plan
from melanoma_utils.pseudo_labels import read_pseudo_labels
from melanoma_utils.train_config import make_config


def train(plan: Plan) -> None:
    """Trains the fold of a plan as 03_train_fold does and stores it; that notebook then finds it done.

    Raises:
        FileNotFoundError: there are no folds or no image stores yet.
        ValueError: FOLD is not given; N_PROCESSES is not how many have been started; the experiment has other
            parameters, see `plan.keep_parameters`; folds.csv leaks, see `leak_audit.check_folds`; or see
            `fold_training.run_fold`.
        TimeoutError: see `plan.keep_parameters` and `fold_training.run_fold`.
    """
    p, folder = plan.parameters, plan.experiment_dir
    if "FOLD" not in p:
        raise ValueError("FOLD is not given: say which fold to leave out, e.g. -p FOLD 0")
    world = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
    if p["N_PROCESSES"] not in (1, world):
        raise ValueError(f"N_PROCESSES {p['N_PROCESSES']} is for 03_train_fold, here {world} train: start so many with "
                         f"torchrun --nproc-per-node {p['N_PROCESSES']}, or say N_PROCESSES 1")
    folds_df, config = read_folds(folder / "folds.csv"), make_config(p)
    lines = check_folds(folder, folds_df, p["DATA_DIR"], p["FOLD_STRATEGY"])
    if os.environ.get("RANK", "0") == "0":  # torchrun's: one process speaks and writes for all
        keep_parameters(plan)
        print(*lines, sep="\n", flush=True)
    store = open_training_store(p["STORE_DIR"] or Path(p["OUTPUT_DIR"], "stores"), p["DATA_DIR"], p["EXTERNAL_DIR"],
                                p["IMAGE_SIZE"], p["RESIZE_MODE"], p["CLEAN_STEPS"], with_test=bool(config.teachers))
    pseudo_df = None
    if config.teachers:
        teacher_dirs = [Path(p["OUTPUT_DIR"], name) for name in config.teachers]
        pseudo_df = read_pseudo_labels(teacher_dirs, folds_df, p["FOLD"], read_test(p["DATA_DIR"]))
    metadata_df = read_train(p["METADATA_FROM"]) if p["METADATA_FROM"] else None
    run_fold(folder, store, folds_df, p["FOLD"], config, tta_views=p["TTA_VIEWS"], pseudo_df=pseudo_df,
             metadata_df=metadata_df, start_dir=p["START_FROM"],
             teacher_dirs=[Path(p["OUTPUT_DIR"], name) for name in config.distill_from],
             device=pick_device(p["DEVICE"]), log=lambda line: print(line, flush=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m melanoma_utils.train", description=__doc__)
    add_parameter_flags(parser)
    a = parser.parse_args(arguments)
    try:
        train(make_plan(read_parameters(a.parameters_file, a.parameters_yaml, a.parameters + a.parameters_raw)))
    except (ValueError, OSError, KeyError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
