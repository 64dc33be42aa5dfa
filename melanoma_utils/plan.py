"""What a call of the pipeline will do: its parameters checked and filled in, its runs and what they leave."""

import dataclasses
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from melanoma_utils.data_folder import find_data_dir
from melanoma_utils.files import find_differences, lock_folder, read_json, write_json
from melanoma_utils.image_store import name_store
from melanoma_utils.parameters import check_parameters, read_notebook_defaults

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("01_resize_images", "02_create_folds", "03_train_fold", "04_evaluate_oof", "05_predict_test")
PATHS = ("DATA_DIR", "INPUT_DIR", "OUTPUT_DIR", "EXTERNAL_DIR", "STORE_DIR", "SUBMISSIONS_DIR", "DUPLICATES_CSV",
         "WEIGHTS", "FOLDS_FROM", "START_FROM", "METADATA_FROM", "PHOTOGRAPHS_DIR", "MODEL_DIR", "NEGATIVES_DIR",
         "HELD_OUT_DIR", "CHARTS_DIR")
ROOTS = {"INPUT_DIR": str(ROOT / "input"), "OUTPUT_DIR": str(ROOT / "output"),
         "SUBMISSIONS_DIR": str(ROOT / "submissions"), "MODEL_DIR": str(ROOT / "Streamlit" / "model")}
# May change between two calls that continue each other. MORE_IMAGE_SIZES changes for which size new stores are decoded;
# stores that differ in that are not used together.
FREE = (*PATHS, "FOLD", "N_JOBS", "DEVICE", "MORE_IMAGE_SIZES")
OF_STORES = ("EXTERNAL_DIR", "IMAGE_SIZE", "RESIZE_MODE", "CLEAN_STEPS")  # other ones have stores of their own
COMMITTEE = "COMMITTEE"  # in parameters.json: the trainings that `committee.gather_committee` took a fold's network of
LEAVES = {  # what each step leaves in the experiment's folder
    "02_create_folds": ("folds.csv", "duplicate_pairs.csv", "external_copies.csv"),
    "03_train_fold": ("fold_*.safetensors", "fold_*.partial.pt", "history_fold_*.csv", "oof_fold_*.csv",
                      "external_oof_fold_*.csv"),
    "04_evaluate_oof": ("metrics.json", "calibration.json", "operating_points.csv", "subgroups.csv",
                        "diagnoses.csv", "context.csv", "second_stage.json", "oof_scores.csv", "model_card.md",
                        "decision_curve.csv"),
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

    @property
    def report_path(self) -> Path:
        """The file runs/<experiment>/report.html."""
        return self.runs_dir / "report.html"

    def list_runs(self, step: str) -> list[Run]:
        """Returns the runs of a step: one, or for 03_train_fold one a fold (only FOLD where that is given)."""
        p, folder = self.parameters, self.experiment_dir
        known = {name: p[name] for name in self.defaults[step] if name in p}
        if step == "03_train_fold":
            folds = [p["FOLD"]] if "FOLD" in p else range(p["N_FOLDS"])
            names = ["history", "oof"] + ["external_oof"] * bool(p["EXTERNAL_DIR"])
            return [Run(f"{step}_{k}", step, known | {"FOLD": k}, (
                *(folder / f"{name}_fold_{k}.csv" for name in names), folder / f"fold_{k}.safetensors")) for k in folds]
        evaluation = LEAVES["04_evaluate_oof"][:-1]  # a decision curve is not always possible
        outputs = {"01_resize_images": tuple(store_dir / "store.json" for store_dir in self.store_dirs),
                   "02_create_folds": (folder / "folds.csv", folder / "duplicate_pairs.csv"),
                   "04_evaluate_oof": tuple(folder / name for name in evaluation),
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
        FileNotFoundError: DATA_DIR, EXTERNAL_DIR or the folder of another experiment does not exist.
    """
    defaults = {step: read_notebook_defaults(ROOT / "notebooks" / f"{step}.ipynb") for step in STEPS}
    merged = {name: value for known in defaults.values() for name, value in known.items() if name != "FOLD"}
    p = resolve_paths(merged | ROOTS | {"REQUIRE_ALL_FOLDS": True} | check_parameters(given, defaults))
    if "FOLD" in p and p["FOLD"] not in range(p["N_FOLDS"]):
        raise ValueError(f"FOLD {p['FOLD']} is not in 0..{p['N_FOLDS'] - 1} (N_FOLDS is {p['N_FOLDS']})")
    if not re.fullmatch(r"[\w-][\w.-]*", p["EXPERIMENT"]) or p["EXPERIMENT"] == "stores":
        raise ValueError(f"EXPERIMENT {p['EXPERIMENT']!r} is not a plain name for a folder (nor is 'stores')")
    if p["EXTERNAL_DIR"] and not Path(p["EXTERNAL_DIR"]).is_dir():
        raise FileNotFoundError(f"EXTERNAL_DIR {p['EXTERNAL_DIR']} does not exist")
    for kind in ("TEACHERS", "DISTILL_FROM"):
        p[kind] = [str(name) for name in p[kind]]  # [7] in a file
    _check_sources(p)
    if p["N_EXTERNAL"] and not p["EXTERNAL_DIR"]:
        raise ValueError(f"N_EXTERNAL is {p['N_EXTERNAL']}, but EXTERNAL_DIR names no external images: give it "
                         "(make: EXTERNAL=DIR), or N_EXTERNAL 0")
    importlib.import_module("melanoma_utils.ranges").check_ranges(p)  # it imports torch: who gets as far waits for it
    if not p["DATA_DIR"]:
        print("no DATA_DIR is given: the competition attached on Kaggle is taken, elsewhere a synthetic one is drawn",
              flush=True)
    p["DATA_DIR"] = str(find_data_dir(p["DATA_DIR"], p["INPUT_DIR"]))
    return Plan(p, defaults, Path(runs_dir).absolute() / p["EXPERIMENT"])


def _check_sources(p: Mapping[str, object]) -> None:
    """Checks that what an experiment takes from others is there and not its own."""
    for name in ("START_FROM", "FOLDS_FROM"):
        if p[name] and not Path(p[name]).is_dir():
            raise FileNotFoundError(f"{name} {p[name]} is not the folder of an experiment")
    folder = Path(p["OUTPUT_DIR"], p["EXPERIMENT"]).resolve()
    own = [name for name in ("START_FROM", "FOLDS_FROM") if p[name] and Path(p[name]).resolve() == folder]
    own += [name for name in ("TEACHERS", "DISTILL_FROM") if p["EXPERIMENT"] in p[name]]
    if own:
        raise ValueError(f"{own[0]} is the EXPERIMENT {p['EXPERIMENT']!r} itself, whose files it would replace: give "
                         "this one another name")
    if p["METADATA_FROM"] and not Path(p["METADATA_FROM"], "train.csv").is_file():
        raise FileNotFoundError(f"METADATA_FROM {p['METADATA_FROM']} is not a folder with a train.csv")
    for kind in ("TEACHERS", "DISTILL_FROM"):
        missing = [name for name in p[kind] if not Path(p["OUTPUT_DIR"], name, "folds.csv").is_file()]
        if missing:
            raise FileNotFoundError(f"{kind}: there is no experiment {missing[0]!r} in {p['OUTPUT_DIR']}")


def resolve_paths(parameters: Mapping[str, object]) -> dict:
    """Returns the parameters with their paths absolute, as seen from where the command was typed."""
    return {name: os.path.abspath(os.path.expanduser(value))
            if name in PATHS and value and not (name == "WEIGHTS" and value in ("none", "imagenet")) else value
            for name, value in parameters.items()}


def delete_outputs(plan: Plan, steps: Sequence[str]) -> None:
    """Deletes what the steps left before: stores, the experiment's files (of FOLD alone where that is given), executed
    notebooks, the report, the submission."""
    for store_dir in plan.store_dirs if "01_resize_images" in steps else ():
        if store_dir.exists():
            with lock_folder(store_dir):  # another experiment may be building it
                (store_dir / "store.json").unlink(missing_ok=True)  # without it a store is not whole
                for path in store_dir.iterdir():
                    if path.name != ".lock":
                        path.unlink()
    if "04_evaluate_oof" in steps:
        plan.report_path.unlink(missing_ok=True)
    if "05_predict_test" in steps:
        plan.submission_path.unlink(missing_ok=True)
    for step in steps:
        for path in list_leftovers(plan, step):
            path.unlink()
        for run in plan.list_runs(step):
            (plan.runs_dir / f"{run.name}.ipynb").unlink(missing_ok=True)


def list_leftovers(plan: Plan, step: str) -> list[Path]:
    """Returns the files that a step has left in the experiment's folder."""
    fold = plan.parameters.get("FOLD", "*") if step == "03_train_fold" else "*"
    patterns = (pattern.replace("*", str(fold), 1) for pattern in LEAVES.get(step, ()))
    return [path for pattern in patterns for path in plan.experiment_dir.glob(pattern)]


def keep_parameters(plan: Plan, fresh_steps: Sequence[str] = ()) -> None:
    """Stores an experiment's parameters as parameters.json.

    A parameter touches the first step that knows it and all after that.

    Args:
        plan: of `make_plan`.
        fresh_steps: those that start over.

    Raises:
        ValueError: the experiment is a committee, or has other parameters, and a step that they touch and that does
            not start over has left something; names them.
        TimeoutError: another process has been writing them for 30 s.
    """
    with lock_folder(plan.experiment_dir, name="parameters"):  # folds that are trained side by side all come here
        _keep_parameters(plan, fresh_steps)


def _keep_parameters(plan: Plan, fresh_steps: Sequence[str]) -> None:
    path = plan.experiment_dir / "parameters.json"
    wanted = {k: v for k, v in sorted(plan.parameters.items()) if k not in FREE}
    wanted |= {name: Path(plan.parameters[name]).name
               for name in ("WEIGHTS", "FOLDS_FROM", "START_FROM", "METADATA_FROM", "DUPLICATES_CSV",
                            "EXTERNAL_DIR")}
    known = {name: value for of_step in plan.defaults.values() for name, value in of_step.items()}
    # a parameter that came later had its default
    stored = read_json(path) if path.is_file() else {}
    if COMMITTEE in stored:
        raise ValueError(f"the experiment {plan.parameters['EXPERIMENT']!r} is a committee of {stored[COMMITTEE]}, "
                         "which no training may change: run its 04 and 05 with --notebook, or give another EXPERIMENT")
    found = {name: known.get(name) for name in wanted} | stored if stored else {}
    differing = [name for name in wanted if name in found and found[name] != wanted[name]]
    first = min((i for i, step in enumerate(STEPS) if set(differing) - (set(OF_STORES) if i == 0 else set())
                 & set(plan.defaults[step])), default=len(STEPS))
    whole = dataclasses.replace(plan, parameters={k: v for k, v in plan.parameters.items() if k != "FOLD"})
    staying = [step for step in STEPS[first:] if (step not in fresh_steps or "FOLD" in plan.parameters)
               and list_leftovers(whole, step)]
    if staying:
        raise ValueError(
            f"the experiment {plan.parameters['EXPERIMENT']!r} was begun otherwise ("
            + find_differences(found, {name: wanted[name] for name in differing})
            + f"): give another EXPERIMENT, or start it over with --steps {first + 1:02d}-05 --fresh")
    if stored != wanted:
        write_json(path, wanted)
