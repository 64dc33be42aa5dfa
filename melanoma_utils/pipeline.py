"""The notebooks in order through papermill: one command from a competition folder to a checked submission."""

import argparse
import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from melanoma_utils.files import check_writable, lock_folder, read_json, write_json
from melanoma_utils.notebook_runs import SOCKETS, connect_dask, execute_runs, run_notebook
from melanoma_utils.parameters import add_parameter_flags, read_parameters
from melanoma_utils.plan import FREE, ROOT, STEPS, Plan, delete_outputs, keep_parameters, make_plan
from melanoma_utils.report import update_report
from melanoma_utils.stopping import stop_at_signals


def run_pipeline(plan: Plan, steps: Sequence[str] = STEPS, fresh: bool = False, *, n_workers: int = 1,
                 dask: str = "") -> None:
    """Runs the steps' notebooks in order, leaving out each that has run already with the same result to come.

    A run is left out when its parameters, the notebook, this package, the competition's tables, what the step before
    left, and its own outputs are as they were when it ended. One that runs again after a change of the code still
    leaves whole stores, trained folds and their predictions as they are; `fresh` makes them anew.

    Args:
        plan: of `make_plan`.
        steps: names out of `STEPS`, in order.
        fresh: delete what these steps left before, and run all of them.
        n_workers: folds trained side by side on this machine.
        dask: address of a Dask scheduler whose workers train the folds instead, such as "tcp://10.0.0.1:8786"; they
            see the same files under the same paths. A worker that is lost has its fold continued by another.

    Raises:
        ValueError: the experiment exists with other parameters, and the steps they touch do not all start over.
        FileNotFoundError: WEIGHTS is no file.
        PapermillExecutionError: a notebook failed; its executed copy is in the runs folder.
        OSError: no space, no permission to write, or no such Dask scheduler.
    """
    if dask and "03_train_fold" in steps:
        connect_dask(dask).close()  # before anything else is done in vain
    if "03_train_fold" in steps:
        importlib.import_module("melanoma_utils.backbones").check_weights(plan.parameters["WEIGHTS"])
    if STEPS[-1] in steps:
        check_writable(plan.submission_path)  # before hours of training, not after
    with lock_folder(plan.runs_dir, timeout=5):
        keep_parameters(plan, steps if fresh else ())
        if fresh:
            delete_outputs(plan, steps)
        if not all(path.is_file() for path in plan.list_runs(STEPS[0])[0].outputs):
            steps = [STEPS[0], *(step for step in steps if step != STEPS[0])]  # no other step can do without
        _run_steps(plan, steps, n_workers, dask)


def _run_steps(plan: Plan, steps: Sequence[str], n_workers: int, dask: str) -> None:
    """Runs what steps.json does not tell as done with the same result to come."""
    records_path = plan.runs_dir / "steps.json"
    records = read_json(records_path) if records_path.is_file() else {}
    after = _hash([_fingerprint(p) for p in _list_inputs(plan)])
    todo = {step: plan.list_runs(step) for step in STEPS}
    n_runs, n = sum(len(todo[step]) for step in steps), 0
    for step in STEPS:
        pending, code = {}, _hash(_read_sources(step))
        for run in todo[step] if step in steps else ():
            n += 1
            key = {"after": after, "code": code,
                   "parameters": {k: v for k, v in run.parameters.items() if k not in FREE}}
            done = records.get(run.name, {})
            if done.get("key") == key and done.get("outputs") == [_fingerprint(p) for p in run.outputs]:
                print(f"[{n}/{n_runs}] {run.name}: nothing to do", flush=True)
            else:
                pending[f"[{n}/{n_runs}] {run.name}"] = run, key
        for title in execute_runs({title: run for title, (run, _) in pending.items()}, plan.runs_dir, n_workers,
                                   dask if step == "03_train_fold" else ""):
            run, key = pending[title]
            missing = [str(path) for path in run.outputs if not path.is_file()]
            if missing:
                raise FileNotFoundError(f"{run.name} ran but did not write {missing}")
            records[run.name] = {"key": key, "outputs": [_fingerprint(p) for p in run.outputs]}
            write_json(records_path, records)
        after = _hash([[records.get(run.name), *map(_fingerprint, run.outputs)] for run in todo[step]])


def _list_inputs(plan: Plan) -> list[Path]:
    """Returns the files that every result depends on: the tables, the teachers' labels, the models to begin with,
    the list of duplicates, the weights."""
    p = plan.parameters
    tables = [path for name in ("DATA_DIR", "EXTERNAL_DIR") if p[name] for path in sorted(Path(p[name]).glob("*.csv"))]
    labels = [path for name in p["TEACHERS"] for path in sorted(Path(p["OUTPUT_DIR"], name).glob("test_fold_*.csv"))]
    folders = [Path(p["OUTPUT_DIR"], name) for name in p["DISTILL_FROM"]]
    folders += [Path(p["START_FROM"])] if p["START_FROM"] else []
    models = [path for folder in folders for path in sorted(folder.glob("fold_*.safetensors"))]
    tables += [Path(p["FOLDS_FROM"], "folds.csv")] if p["FOLDS_FROM"] else []
    tables += [Path(p["METADATA_FROM"], "train.csv")] if p["METADATA_FROM"] else []
    return [*tables, *labels, *models, Path(p["DUPLICATES_CSV"]), Path(p["WEIGHTS"])]


def _fingerprint(path: Path) -> list | None:
    if not path.is_file():
        return None
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]


def _read_sources(step: str) -> list[str]:
    """Returns the code of a notebook and of this package."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{step}.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return cells + [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def parse_steps(text: str) -> list[str]:
    """Returns the steps of a range such as "03-05" or of one number such as "04".

    Raises:
        ValueError: it is no such range.
    """
    numbers = [step[:2] for step in STEPS]
    first, dash, last = text.partition("-")
    last = last if dash else first
    if first not in numbers or last not in numbers or last < first:
        raise ValueError(f"--steps {text!r} is not a number or range out of {numbers[0]}-{numbers[-1]}")
    return list(STEPS[numbers.index(first):numbers.index(last) + 1])


def describe_result(plan: Plan, seconds: float) -> str:
    """Returns the last line: the submission's file and rows, the OOF AUC of just that with its interval, where 04 has
    evaluated these checkpoints, and the time."""
    n_rows = plan.submission_path.read_bytes().count(b"\n") - 1
    experiment = importlib.import_module("melanoma_utils.experiment")  # it imports torch
    if experiment.find_evaluated_folds(plan.experiment_dir) != experiment.find_trained_folds(plan.experiment_dir,
                                                                                             require_all=False):
        return (f"{os.path.relpath(plan.submission_path)}: {n_rows:,} rows of models that are not evaluated: run "
                f"04_evaluate_oof, {seconds:.0f} s")
    m = read_json(plan.experiment_dir / "metrics.json")
    kind = " on a SYNTHETIC competition" if m["is_synthetic"] else ""
    has_context = m["context"]["used"] != "none"
    of = m["context"] if has_context else m
    return (f"{os.path.relpath(plan.submission_path)}: {n_rows:,} rows, OOF AUC{' with patient context' * has_context} "
            f"{of['oof_auc']:.4f} (95 % interval {of['oof_auc_low']:.4f}–{of['oof_auc_high']:.4f}, {m['n_patients']} "
            f"patients){kind}, {seconds:.0f} s")


def _delete_sockets() -> None:
    for sockets_dir in Path(tempfile.gettempdir()).glob(f"{SOCKETS.format(pid=os.getpid())}*"):
        shutil.rmtree(sockets_dir, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m melanoma_utils.pipeline", description=__doc__)
    add_parameter_flags(parser)
    parser.add_argument("--steps", default=f"{STEPS[0][:2]}-{STEPS[-1][:2]}", help="part of 01-05, e.g. 03-05 or 04")
    parser.add_argument("--notebook", metavar="NAME", help="run this notebook alone instead, e.g. 10_benchmark")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="train N folds side by side here")
    parser.add_argument("--dask", default="", metavar="ADDRESS",
                        help="train the folds on the workers of a Dask scheduler, e.g. tcp://10.0.0.1:8786")
    parser.add_argument("--fresh", action="store_true", help="start the steps over instead of continuing")
    parser.add_argument("--runs-dir", default=ROOT / "runs", help="where the executed notebooks go")
    a = parser.parse_args(arguments)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else each kernel warns about its own modules
    advice = "the same command starts over" if a.notebook else (
        f"the same command{' without --fresh' * a.fresh} continues here")
    stop_at_signals(f"stopped; {advice}", _delete_sockets)
    start, where = time.perf_counter(), ""
    try:
        given = read_parameters(a.parameters_file, a.parameters_yaml, a.parameters + a.parameters_raw)
        if a.notebook:
            if a.fresh or a.dask or a.workers != 1 or a.steps != parser.get_default("steps"):
                raise ValueError("--notebook runs one notebook as it is: --steps, --workers, --dask and --fresh are "
                                 "for the pipeline")
            where = f"; the whole story is in {os.path.relpath(a.runs_dir)}"
            run_notebook(a.notebook, given, a.runs_dir)
            return 0
        steps, plan = parse_steps(a.steps), make_plan(given, a.runs_dir)
        where = f"; the whole story is in {os.path.relpath(plan.runs_dir)}"
        run_pipeline(plan, steps, a.fresh, n_workers=a.workers, dask=a.dask)
        if "04_evaluate_oof" in steps:
            print(update_report(plan.runs_dir / "04_evaluate_oof.ipynb", plan.report_path), flush=True)
    except PapermillExecutionError as error:
        print(f"error: {error.ename}: {error.evalue}{where}", file=sys.stderr)
        return 1
    except DeadKernelError:
        print(f"error: the notebook's kernel died, most often for want of memory: try a smaller BATCH_SIZE{where}",
              file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if steps[-1] == STEPS[-1]:
        print(describe_result(plan, time.perf_counter() - start))
    return 0


if __name__ == "__main__":
    from melanoma_utils import pipeline  # workers find its functions there, not in __main__

    sys.exit(pipeline.main())
