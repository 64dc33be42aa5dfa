"""The files in an experiment's folder: their names, what is finished, what a fold leaves behind."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from melanoma_utils.files import find_differences, hash_file, hash_table, read_json, write_csv
from melanoma_utils.folds import read_folds
from melanoma_utils.image_store import ImageStore
from melanoma_utils.models import LesionClassifier, describe_model, read_checkpoint_config, save_checkpoint
from melanoma_utils.train_config import TrainConfig, fill_defaults


def find_experiment(output_dir: str | Path, name: str) -> Path:
    """Returns an experiment's folder.

    Raises:
        FileNotFoundError: there is none of that name; tells which there are.
    """
    folder = Path(output_dir) / name
    if not folder.is_dir():
        names = ", ".join(sorted(path.parent.name for path in Path(output_dir).glob("*/folds.csv"))) or "none"
        raise FileNotFoundError(f"there is no experiment {name!r} in {output_dir}; there are: {names}")
    return folder


def check_name(output_dir: str | Path, name: str, key: str) -> None:
    """Checks that a notebook that trains nothing writes over nothing but its own results.

    Args:
        output_dir: folder of the experiments.
        name: of the folder in it that is to be written to.
        key: what the notebook's own metrics.json holds, and no other.

    Raises:
        ValueError: the folder is that of a trained experiment, or holds another notebook's metrics.json.
    """
    folder = Path(output_dir) / name
    if (folder / "folds.csv").is_file() or (
            (folder / "metrics.json").is_file() and key not in read_json(folder / "metrics.json")):
        raise ValueError(f"EXPERIMENT {name!r} is another one's folder in {output_dir}: give another name")


def checkpoint_path(experiment_dir: str | Path, fold: int) -> Path:
    """Returns the path of a fold's checkpoint; where it exists the fold is finished."""
    return Path(experiment_dir) / f"fold_{fold}.safetensors"


def partial_path(experiment_dir: str | Path, fold: int) -> Path:
    """Returns the path of the state of a training that is under way."""
    return Path(experiment_dir) / f"fold_{fold}.partial.pt"


def describe_training(config: TrainConfig, fold: int, folds_path: str | Path, store: ImageStore,
                      tta_views: int, pseudo_df: pd.DataFrame | None = None,
                      metadata_df: pd.DataFrame | None = None) -> dict:
    """Returns all that decides a fold's result, as it is kept inside the checkpoint (JSON types only)."""
    tables = {} if pseudo_df is None else {"pseudo_labels_sha256": hash_table(pseudo_df[["image_name", "target"]])}
    if metadata_df is not None:
        tables["metadata_sha256"] = hash_table(metadata_df)
    train = {key: value for key, value in asdict(config).items() if key != "model"}
    weights = Path(config.model.weights)
    return {"model": describe_model(config.model), "weights_sha256": hash_file(weights) if weights.is_file() else None,
            "train": train, "fold": fold, "tta_views": tta_views, "folds_sha256": hash_file(folds_path),
            "store": store.identity, **tables}


def is_trained(experiment_dir: str | Path, description: dict) -> bool:
    """Returns whether the fold is finished, all its files there, with just this description (of `describe_training`).

    Raises:
        ValueError: it is finished, but with other parameters, folds or images; names them. Nothing is overwritten.
    """
    folder, fold = Path(experiment_dir), description["fold"]
    path = checkpoint_path(folder, fold)
    if not path.is_file():
        return False
    differences = find_differences(fill_defaults(read_checkpoint_config(path)), json.loads(json.dumps(description)))
    if differences:
        raise ValueError(f"{path} was trained otherwise ({differences}): give another EXPERIMENT, or start over with "
                         "`--fresh` (in Jupyter: delete the file)")
    partial_path(folder, fold).unlink(missing_ok=True)  # left by a kill between the last two lines of save_fold
    names = ("history", "oof", "external_oof") if "external" in description["store"] else ("history", "oof")
    return all((folder / f"{name}_fold_{fold}.csv").is_file() for name in names)


def save_fold(experiment_dir: str | Path, description: dict, model: LesionClassifier, history_df: pd.DataFrame,
              oof_df: pd.DataFrame, external_oof_df: pd.DataFrame) -> None:
    """Writes history_fold_k.csv, oof_fold_k.csv, external_oof_fold_k.csv where there are external images, then the
    checkpoint; drops the training's partial state.

    Args:
        experiment_dir: the experiment's folder.
        description: of `describe_training`.
        model: the trained classifier.
        history_df: a row an epoch.
        oof_df: columns image_name, patient_id, target, fold, logit of the competition's images left out.
        external_oof_df: the same of the external images left out, without rows where there are none.
    """
    fold, folder = description["fold"], Path(experiment_dir)
    write_csv(folder / f"history_fold_{fold}.csv", history_df)
    write_csv(folder / f"oof_fold_{fold}.csv", oof_df)
    if len(external_oof_df):
        write_csv(folder / f"external_oof_fold_{fold}.csv", external_oof_df)
    save_checkpoint(checkpoint_path(folder, fold), model, {k: v for k, v in description.items() if k != "model"})
    partial_path(folder, fold).unlink(missing_ok=True)


def find_trained_folds(experiment_dir: str | Path, *, require_all: bool) -> list[int]:
    """Returns the finished folds in order.

    Raises:
        FileNotFoundError: there is no folds.csv, no fold is finished, or one is not with require_all or
            in a committee; names those.
        ValueError: a fold was trained on another folds.csv than the one there, or otherwise than another fold.
    """
    folds_path = Path(experiment_dir) / "folds.csv"
    n_folds = int(read_folds(folds_path)["fold"].max()) + 1
    folds = [fold for fold in range(n_folds) if checkpoint_path(experiment_dir, fold).is_file()]
    configs = {fold: fill_defaults(read_checkpoint_config(checkpoint_path(experiment_dir, fold))) for fold in folds}
    folds_sha256 = hash_file(folds_path)
    for fold, config in configs.items():
        if config.get("folds_sha256") != folds_sha256:
            raise ValueError(f"fold {fold} in {experiment_dir} was trained on other folds than those of folds.csv: "
                             "start over with --steps 02-05 --fresh, or give another EXPERIMENT")
        parts = ("committee",) if "committee" in configs[folds[0]] else ("model", "train", "tta_views")
        first = {part: configs[folds[0]][part] for part in parts}
        if differences := find_differences(config, first):
            raise ValueError(f"fold {fold} in {experiment_dir} was not trained as fold {folds[0]}, so they are no one "
                             f"experiment ({differences}): train it again, or give it another EXPERIMENT")
    missing = sorted(set(range(n_folds)) - set(folds))
    if folds and missing and "committee" in configs[folds[0]]:
        raise FileNotFoundError(f"{experiment_dir} is a committee that lacks the network of fold "
                                f"{', '.join(map(str, missing))}: delete it, and gather it again")
    if not folds or (require_all and missing):
        raise FileNotFoundError(f"in {experiment_dir} {len(folds)} of {n_folds} folds are trained, fold "
                                f"{', '.join(map(str, missing))} not: run 03_train_fold for each first")
    return folds


def hash_checkpoints(experiment_dir: str | Path, folds: Sequence[int]) -> list[str]:
    """Returns the SHA-256 of each fold's checkpoint, "" where there is none: what metrics.json is about."""
    paths = [checkpoint_path(experiment_dir, fold) for fold in folds]
    return [hash_file(path) if path.is_file() else "" for path in paths]


def find_evaluated_folds(experiment_dir: str | Path) -> list[int]:
    """Returns the folds that an experiment's metrics.json is about, none where it is not there or one of them was
    trained again since."""
    folder = Path(experiment_dir)
    metrics = read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
    folds = metrics.get("folds", [])
    is_whole = all((folder / f"oof_fold_{fold}.csv").is_file() for fold in folds)
    return folds if is_whole and metrics.get("checkpoints_sha256") == hash_checkpoints(folder, folds) else []


def check_evaluated(model_dir: str | Path) -> None:
    """Checks that the metrics.json of an experiment or of an exported model is about the checkpoints beside it.

    Raises:
        FileNotFoundError: there is no metrics.json.
        ValueError: there are more or fewer checkpoints, or others.
    """
    folder = Path(model_dir)
    metrics, n = read_json(folder / "metrics.json"), len(list(folder.glob("fold_*.safetensors")))
    folds = metrics.get("folds", [])
    if n != len(folds):
        raise ValueError(f"{folder} holds {n} checkpoints, its metrics.json is about the {len(folds)} folds {folds}: "
                         "put the others back, or run 04_evaluate_oof again")
    if metrics.get("checkpoints_sha256") != hash_checkpoints(folder, folds):
        raise ValueError(f"the figures in {folder}/metrics.json are those of other checkpoints than the ones there: "
                         "run 04_evaluate_oof again")


def read_history(experiment_dir: str | Path, folds: list[int]) -> pd.DataFrame:
    """Returns the training histories of the folds named: a column fold and one row an epoch."""
    return pd.concat([pd.read_csv(Path(experiment_dir) / f"history_fold_{fold}.csv").assign(fold=fold)
                      for fold in folds], ignore_index=True)
