"""The notebooks in order through papermill: one command from a competition folder to a checked submission."""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
import papermill
import psutil
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from melanoma_utils.data_folder import find_data_dir
from melanoma_utils.files import find_differences, lock_folder, read_json, write_json
from melanoma_utils.image_store import name_store
from melanoma_utils.parameters import check_parameters, read_notebook_defaults, read_parameters

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("01_resize_images", "02_create_folds", "03_train_fold", "04_evaluate_oof", "05_predict_test")
PATHS = ("DATA_DIR", "INPUT_DIR", "OUTPUT_DIR", "EXTERNAL_DIR", "STORE_DIR", "SUBMISSIONS_DIR", "DUPLICATES_CSV",
         "WEIGHTS", "PHOTOGRAPHS_DIR")
ROOTS = {"INPUT_DIR": str(ROOT / "input"), "OUTPUT_DIR": str(ROOT / "output"),
         "SUBMISSIONS_DIR": str(ROOT / "submissions")}
# May change between two calls that continue each other. MORE_IMAGE_SIZES changes for which size new stores are decoded;
# stores that differ in that are not used together.
FREE = (*PATHS, "FOLD", "N_JOBS", "DEVICE", "MORE_IMAGE_SIZES")
OF_STORES = ("EXTERNAL_DIR", "IMAGE_SIZE", "RESIZE_MODE", "CLEAN_STEPS")  # other ones have stores of their own
LEAVES = {  # what each step leaves in the experiment's folder
    "02_create_folds": ("folds.csv", "external_copies.csv"),
    "03_train_fold": ("fold_*.safetensors", "fold_*.partial.pt", "history_fold_*.csv", "oof_fold_*.csv",
                      "external_oof_fold_*.csv"),
    "04_evaluate_oof": ("metrics.json",),
    "05_predict_test": ("test_fold_*.csv", "test_fold_*.json"),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One execution of a notebook.

    Attributes:
        name: of the executed notebook without its ending: the step, with its fold where it has one.
        step: the notebook.
        parameters: what papermill passes, each known to the notebook.
        outputs: files that exist when it has run.
    """

    name: str
    step: str
    parameters: dict
    outputs: tuple[Path, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything one call of the pipeline works on; see `make_plan`."""

    parameters: dict
    defaults: dict[str, dict]
    runs_dir: Path

    @property
    def experiment_dir(self) -> Path:
        """The folder output/<experiment>."""
        return Path(self.parameters["OUTPUT_DIR"], self.parameters["EXPERIMENT"])

    @property
    def store_dirs(self) -> list[Path]:
        """The folders of the image stores: train, test and, with EXTERNAL_DIR, external, in all sizes."""
        p = self.parameters
        stores_dir = Path(p["STORE_DIR"] or Path(p["OUTPUT_DIR"], "stores"))
        folders = {"train": p["DATA_DIR"], "test": p["DATA_DIR"], "external": p["EXTERNAL_DIR"]}
        return [stores_dir / name_store(folder, image_size, p["RESIZE_MODE"], p["CLEAN_STEPS"]) / split
                for image_size in (p["IMAGE_SIZE"], *p["MORE_IMAGE_SIZES"])
                for split, folder in folders.items() if folder]

    @property
    def submission_path(self) -> Path:
        """The file submissions/<experiment>.csv."""
        return Path(self.parameters["SUBMISSIONS_DIR"], f"{self.parameters['EXPERIMENT']}.csv")

    def list_runs(self, step: str) -> list[Run]:
        """Returns the runs of a step: one, or for 03_train_fold one a fold (only FOLD where that is given)."""
        p, folder = self.parameters, self.experiment_dir
        known = {name: p[name] for name in self.defaults[step] if name in p}
        if step == "03_train_fold":
            folds = [p["FOLD"]] if "FOLD" in p else range(p["N_FOLDS"])
            names = ["history", "oof"] + ["external_oof"] * bool(p["EXTERNAL_DIR"])
            return [Run(f"{step}_{k}", step, known | {"FOLD": k}, (
                *(folder / f"{name}_fold_{k}.csv" for name in names), folder / f"fold_{k}.safetensors")) for k in folds]
        outputs = {"01_resize_images": tuple(store_dir / "store.json" for store_dir in self.store_dirs),
                   "02_create_folds": (folder / "folds.csv",), "04_evaluate_oof": (folder / "metrics.json",),
                   "05_predict_test": (self.submission_path,)}
        return [Run(step, step, known, outputs[step])]


def make_plan(given: Mapping[str, object], runs_dir: str | Path = "runs") -> Plan:
    """Returns the plan of a call: parameters checked, defaults filled in, paths absolute, the competition drawn
    where none is given.

    Args:
        given: parameters by name, as in a parameter file.
        runs_dir: folder for the executed notebooks of all experiments.

    Raises:
        ValueError: a parameter is unknown to all notebooks, of another type than its default, or out of range.
        FileNotFoundError: DATA_DIR or EXTERNAL_DIR does not exist.
    """
    defaults = {step: read_notebook_defaults(ROOT / "notebooks" / f"{step}.ipynb") for step in STEPS}
    merged = {name: value for known in defaults.values() for name, value in known.items() if name != "FOLD"}
    p = _resolve_paths(merged | ROOTS | {"REQUIRE_ALL_FOLDS": True} | check_parameters(given, defaults))
    if "FOLD" in p and p["FOLD"] not in range(p["N_FOLDS"]):
        raise ValueError(f"FOLD {p['FOLD']} is not in 0..{p['N_FOLDS'] - 1} (N_FOLDS is {p['N_FOLDS']})")
    if not re.fullmatch(r"[\w-][\w.-]*", p["EXPERIMENT"]) or p["EXPERIMENT"] == "stores":
        raise ValueError(f"EXPERIMENT {p['EXPERIMENT']!r} is not a plain name for a folder (nor is 'stores')")
    if p["EXTERNAL_DIR"] and not Path(p["EXTERNAL_DIR"]).is_dir():
        raise FileNotFoundError(f"EXTERNAL_DIR {p['EXTERNAL_DIR']} does not exist")
    if p["N_EXTERNAL"] and not p["EXTERNAL_DIR"]:
        raise ValueError(f"N_EXTERNAL is {p['N_EXTERNAL']}, but EXTERNAL_DIR names no external images: give it "
                         "(make: EXTERNAL=DIR), or N_EXTERNAL 0")
    if not p["DATA_DIR"]:
        print("no DATA_DIR is given: the competition attached on Kaggle is taken, elsewhere a synthetic one is drawn",
              flush=True)
    p["DATA_DIR"] = str(find_data_dir(p["DATA_DIR"], p["INPUT_DIR"]))
    return Plan(p, defaults, Path(runs_dir).absolute() / p["EXPERIMENT"])


def _resolve_paths(parameters: Mapping[str, object]) -> dict:
    """Returns the parameters with their paths absolute, as seen from where the command was typed."""
    return {name: os.path.abspath(os.path.expanduser(value))
            if name in PATHS and value and not (name == "WEIGHTS" and value in ("none", "imagenet")) else value
            for name, value in parameters.items()}


def run_notebook(name: str, given: Mapping[str, object], runs_dir: str | Path = "runs") -> None:
    """Runs one notebook alone, its executed copy going to runs_dir.

    Args:
        name: of the notebook, such as "10_benchmark".
        given: parameters by name.
        runs_dir: folder of the executed notebook.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: a parameter is unknown to it, or of another type than its default.
        PapermillExecutionError: it failed; its executed copy is in the runs folder.
    """
    path = ROOT / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        known = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
        raise FileNotFoundError(f"there is no notebook {name!r}; there are {', '.join(known)}")
    defaults = read_notebook_defaults(path)
    roots = {key: value for key, value in ROOTS.items() if key in defaults}
    parameters = _resolve_paths(roots | check_parameters(given, {name: defaults}))
    Path(runs_dir).mkdir(parents=True, exist_ok=True)
    _execute(name, Path(runs_dir) / f"{name}.ipynb", parameters)


def run_pipeline(plan: Plan, steps: Sequence[str] = STEPS, fresh: bool = False) -> None:
    """Runs the steps' notebooks in order, leaving out each that has run already with the same result to come.

    A run is left out when its parameters, the notebook, this package, the competition's tables, what the step before
    left, and its own outputs are as they were when it ended.

    Args:
        plan: of `make_plan`.
        steps: names out of `STEPS`, in order.
        fresh: delete what these steps left before, and run all of them.

    Raises:
        ValueError: the experiment exists with other parameters, and the steps they touch do not all start over.
        PapermillExecutionError: a notebook failed; its executed copy is in the runs folder.
        OSError: no space, or no permission to write.
    """
    with lock_folder(plan.runs_dir, timeout=5):
        _check_experiment(plan, steps if fresh else ())
        if fresh:
            delete_outputs(plan, steps)
        if not all(path.is_file() for path in plan.list_runs(STEPS[0])[0].outputs):
            steps = [STEPS[0], *(step for step in steps if step != STEPS[0])]  # no other step can do without
        records_path = plan.runs_dir / "steps.json"
        records = read_json(records_path) if records_path.is_file() else {}
        after = _hash([_fingerprint(p) for p in _list_inputs(plan)])
        todo = {step: plan.list_runs(step) for step in STEPS}
        n_runs, n = sum(len(todo[step]) for step in steps), 0
        for step in STEPS:
            for run in todo[step] if step in steps else ():
                n += 1
                key = {"after": after, "code": _hash(_read_sources(step)),
                       "parameters": {k: v for k, v in run.parameters.items() if k not in FREE}}
                done = records.get(run.name, {})
                if done.get("key") == key and done.get("outputs") == [_fingerprint(p) for p in run.outputs]:
                    print(f"[{n}/{n_runs}] {run.name}: nothing to do", flush=True)
                    continue
                print(f"[{n}/{n_runs}] {run.name}", flush=True)
                _execute(run.step, plan.runs_dir / f"{run.name}.ipynb", run.parameters)
                missing = [str(path) for path in run.outputs if not path.is_file()]
                if missing:
                    raise FileNotFoundError(f"{run.name} ran but did not write {missing}")
                records[run.name] = {"key": key, "outputs": [_fingerprint(p) for p in run.outputs]}
                write_json(records_path, records)
            after = _hash([records.get(run.name) for run in todo[step]])


def _list_inputs(plan: Plan) -> list[Path]:
    """Returns the files that every result depends on: the tables, the list of duplicates, the weights."""
    p = plan.parameters
    tables = [path for name in ("DATA_DIR", "EXTERNAL_DIR") if p[name] for path in sorted(Path(p[name]).glob("*.csv"))]
    return [*tables, Path(p["DUPLICATES_CSV"]), Path(p["WEIGHTS"])]


def _execute(name: str, executed_path: Path, parameters: Mapping[str, object]) -> None:
    """Runs one notebook, its printed lines shown as they come."""
    with tempfile.TemporaryDirectory(prefix=f"melanoma-{os.getpid()}-") as sockets_dir:
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets_dir}/kernel"},  # no open port
                         "NotebookClient": {"shutdown_kernel": "immediate"}})  # a gentle end prints a KeyboardInterrupt
        papermill.execute_notebook(ROOT / "notebooks" / f"{name}.ipynb", executed_path, dict(parameters),
                                   cwd=ROOT / "notebooks", kernel_name="python3", progress_bar=False,
                                   stdout_file=sys.stdout, stderr_file=sys.stderr, config=config)


def delete_outputs(plan: Plan, steps: Sequence[str]) -> None:
    """Deletes what the steps left before: stores, the experiment's files (of FOLD alone where that is given), executed
    notebooks, the submission."""
    for store_dir in plan.store_dirs if "01_resize_images" in steps else ():
        if store_dir.exists():
            shutil.rmtree(store_dir)
    if "05_predict_test" in steps:
        plan.submission_path.unlink(missing_ok=True)
    for step in steps:
        for path in _list_leftovers(plan, step):
            path.unlink()
        for run in plan.list_runs(step):
            (plan.runs_dir / f"{run.name}.ipynb").unlink(missing_ok=True)


def _list_leftovers(plan: Plan, step: str) -> list[Path]:
    """Returns the files that a step has left in the experiment's folder."""
    fold = plan.parameters.get("FOLD", "*") if step == "03_train_fold" else "*"
    patterns = (pattern.replace("*", str(fold), 1) for pattern in LEAVES.get(step, ()))
    return [path for pattern in patterns for path in plan.experiment_dir.glob(pattern)]


def _check_experiment(plan: Plan, fresh_steps: Sequence[str]) -> None:
    """Stores the experiment's parameters; refuses others than those under which a step that stays has left something.

    A parameter touches the first step that knows it and all after that.
    """
    path = plan.experiment_dir / "parameters.json"
    wanted = {k: v for k, v in sorted(plan.parameters.items()) if k not in FREE}
    wanted |= {name: Path(plan.parameters[name]).name for name in ("WEIGHTS", "DUPLICATES_CSV", "EXTERNAL_DIR")}
    known = {name: value for of_step in plan.defaults.values() for name, value in of_step.items()}
    # a parameter that came later had its default
    stored = read_json(path) if path.is_file() else {}
    found = {name: known.get(name) for name in wanted} | stored if stored else {}
    differing = [name for name in wanted if name in found and found[name] != wanted[name]]
    first = min((i for i, step in enumerate(STEPS) if set(differing) - (set(OF_STORES) if i == 0 else set())
                 & set(plan.defaults[step])), default=len(STEPS))
    whole = dataclasses.replace(plan, parameters={k: v for k, v in plan.parameters.items() if k != "FOLD"})
    staying = [step for step in STEPS[first:] if (step not in fresh_steps or "FOLD" in plan.parameters)
               and _list_leftovers(whole, step)]
    if staying:
        raise ValueError(
            f"the experiment {plan.parameters['EXPERIMENT']!r} was begun otherwise ("
            + find_differences(found, {name: wanted[name] for name in differing})
            + f"): give another EXPERIMENT, or start it over with --steps {first + 1:02d}-05 --fresh")
    if stored != wanted:
        write_json(path, wanted)


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
    """Returns the last line: the submission's file and rows, the OOF AUC with its interval, the time."""
    n_rows = plan.submission_path.read_bytes().count(b"\n") - 1
    m = read_json(plan.experiment_dir / "metrics.json")
    kind = " on a SYNTHETIC competition" if m["is_synthetic"] else ""
    return (f"{os.path.relpath(plan.submission_path)}: {n_rows:,} rows, OOF AUC {m['oof_auc']:.4f} (95 % interval "
            f"{m['oof_auc_low']:.4f}–{m['oof_auc_high']:.4f}, {m['n_patients']} patients){kind}, {seconds:.0f} s")


def _stop(command: str) -> None:
    """Ends this process and all it started, at once: every file is whole or absent, whenever that happens.

    A KeyboardInterrupt in the midst of the kernels' event loops would end in a random traceback.
    """
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for sockets_dir in Path(tempfile.gettempdir()).glob(f"melanoma-{os.getpid()}-*"):
        shutil.rmtree(sockets_dir, ignore_errors=True)
    os.write(sys.stderr.fileno(), f"\nstopped; {command} continues here\n".encode())
    os._exit(130)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m melanoma_utils.pipeline", description=__doc__)
    parser.add_argument("-f", "--parameters_file", action="append", default=[], metavar="FILE", help="YAML parameters")
    parser.add_argument("-p", "--parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("-r", "--parameters_raw", nargs=2, action="append", default=[], metavar=("NAME", "TEXT"))
    parser.add_argument("-y", "--parameters_yaml", action="append", default=[], metavar="YAML")
    parser.add_argument("--steps", default=f"{STEPS[0][:2]}-{STEPS[-1][:2]}", help="part of 01-05, e.g. 03-05 or 04")
    parser.add_argument("--notebook", metavar="NAME", help="run this notebook alone instead, e.g. 10_benchmark")
    parser.add_argument("--fresh", action="store_true", help="start the steps over instead of continuing")
    parser.add_argument("--runs-dir", default=ROOT / "runs", help="where the executed notebooks go")
    a = parser.parse_args(arguments)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else each kernel warns about its own modules
    signal.signal(signal.SIGINT, lambda *_: _stop("the same command" + " without --fresh" * a.fresh))
    start, where = time.perf_counter(), ""
    try:
        given = read_parameters(a.parameters_file, a.parameters_yaml, a.parameters + a.parameters_raw)
        if a.notebook:
            where = f"; the whole story is in {os.path.relpath(a.runs_dir)}"
            run_notebook(a.notebook, given, a.runs_dir)
            return 0
        steps, plan = parse_steps(a.steps), make_plan(given, a.runs_dir)
        where = f"; the whole story is in {os.path.relpath(plan.runs_dir)}"
        run_pipeline(plan, steps, a.fresh)
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
    sys.exit(main())
