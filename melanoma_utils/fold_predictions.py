"""What the folds' models say, as tables in an experiment's folder: of the images left out, of the test images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_utils.experiment import checkpoint_path, find_trained_folds
from melanoma_utils.files import hash_file, hash_table, read_json, write_csv, write_json
from melanoma_utils.image_store import ImageStore, check_made_alike
from melanoma_utils.inference import PREDICTED, predict_logits, select_samples
from melanoma_utils.models import load_checkpoint, read_checkpoint_config
from melanoma_utils.openvino_runtime import compile_openvino

OOF_NAMES = {"competition": "oof", "external": "external_oof"}  # source -> how the files of its predictions begin


def read_oof(experiment_dir: str | Path, folds_df: pd.DataFrame, folds: list[int],
             source: str = "competition") -> pd.DataFrame:
    """Returns folds.csv's rows of the folds and the source named, with their out-of-fold `logit`, joined by image_name.

    Raises:
        ValueError: the predictions of a fold are not those of the images that folds.csv puts there.
    """
    expected_df = folds_df[folds_df["fold"].isin(folds) & (folds_df["source"] == source)]
    if expected_df.empty:
        return expected_df.assign(logit=[])
    oof_df = read_fold_predictions(experiment_dir, folds, source)
    expected, predicted = (set(zip(df["image_name"], df["fold"], strict=True)) for df in (expected_df, oof_df))
    bad = [name for name, _ in sorted(expected ^ predicted)]
    if bad:
        raise ValueError(f"the predictions in {experiment_dir} do not match folds.csv for {len(bad)} images, first "
                         f"{bad[0]}: train again with another EXPERIMENT")
    expected_df = expected_df.drop(columns="logit", errors="ignore")  # of somebody's own in train.csv
    return expected_df.merge(oof_df[["image_name", "logit"]], on="image_name", validate="one_to_one")


def read_fold_predictions(experiment_dir: str | Path, folds: list[int], source: str = "competition") -> pd.DataFrame:
    """Returns the out-of-fold predictions of the folds named as they were written: image_name, patient_id, target,
    fold, logit.

    Raises:
        FileNotFoundError: those of a fold are not there.
        ValueError: an image is predicted twice, or a logit is not a finite number.
    """
    paths = [Path(experiment_dir) / f"{OOF_NAMES[source]}_fold_{fold}.csv" for fold in folds]
    oof_df = pd.concat([_read_predictions(path) for path in paths], ignore_index=True)
    _refuse(oof_df["image_name"][oof_df["image_name"].duplicated()], "images are predicted twice", experiment_dir)
    return oof_df


def predict_test_fold(experiment_dir: str | Path, fold: int, store: ImageStore, test_df: pd.DataFrame, *,
                      tta_views: int, device: str = "cpu", precision: str = "fp32", use_openvino: bool = False,
                      log: Callable[[str], None] = lambda line: None) -> pd.DataFrame:
    """Returns image_name, logit of the test images by one fold's model, and keeps them as test_fold_k.csv.

    Predictions that are there already are returned as they are, if the checkpoint, the images and the views are the
    same; test_fold_k.json says of which they are.

    Args:
        experiment_dir: the experiment's folder.
        fold: whose checkpoint predicts.
        store: the test images.
        test_df: test.csv.
        tta_views, device, precision: see `inference.predict_logits`.
        use_openvino: predict with `openvino_runtime`, see there; it rounds otherwise.
        log: called with a line now and then.

    Raises:
        ValueError: the test images were made in another way than those that the model was trained on.
    """
    csv_path = Path(experiment_dir) / f"test_fold_{fold}.csv"
    made_from = {"checkpoint_sha256": hash_file(checkpoint_path(experiment_dir, fold)), "store": store.identity,
                 "tta_views": tta_views, "precision": precision, "test_sha256": hash_table(test_df),
                 **({"runtime": "openvino"} if use_openvino else {})}
    if csv_path.is_file() and _matches(csv_path.with_suffix(".json"), made_from):
        log(f"fold {fold}: predicted already")
    else:
        csv_path.with_suffix(".json").unlink(missing_ok=True)
        model, config = load_checkpoint(checkpoint_path(experiment_dir, fold))
        check_made_alike(config["store"], store.identity)
        samples = select_samples(store, test_df, model.config.use_metadata)
        logits = predict_logits(model, samples, tta_views=tta_views, device=device, precision=precision,
                                batch_size=min(PREDICTED, config["train"]["batch_size"]),
                                forward=compile_openvino(model) if use_openvino else None,
                                log=lambda line: log(f"fold {fold}: {line}"))
        write_csv(csv_path, test_df[["image_name"]].assign(logit=logits))
        write_json(csv_path.with_suffix(".json"), made_from)
        log(f"fold {fold}: done")
    return _read_predictions(csv_path)  # as a later call will read it: same digits, same bytes


def read_test_predictions(experiment_dir: str | Path) -> pd.Series:
    """Returns the mean logit of all folds' models for each test image, by image_name.

    Raises:
        FileNotFoundError: a fold is not trained, or has not predicted the test images.
    """
    folds = find_trained_folds(experiment_dir, require_all=True)
    return pd.concat([read_test_fold(experiment_dir, fold).set_index("image_name")["logit"] for fold in folds],
                     axis=1).mean(axis=1)


def read_test_fold(experiment_dir: str | Path, fold: int) -> pd.DataFrame:
    """Returns image_name, logit of the test images by one fold's model, as `predict_test_fold` wrote them.

    Raises:
        FileNotFoundError: it has not predicted them.
        ValueError: they are of another checkpoint than the one there, an image is predicted twice, or a logit is not a
            finite number.
    """
    path = Path(experiment_dir) / f"test_fold_{fold}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run 05_predict_test for this experiment")
    made_from = read_json(path.with_suffix(".json")) if path.with_suffix(".json").is_file() else {}
    if made_from.get("checkpoint_sha256") != hash_file(checkpoint_path(experiment_dir, fold)):
        raise ValueError(f"{path} is not of the model that is there now: run 05_predict_test again")
    return _read_predictions(path)


def match_oof(experiment_dir: str | Path, folds: Sequence[int], tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Returns the folds' tables (image_name, logit) of new images as out-of-fold logits were made: by one network each,
    in a committee by the mean of the networks, which every fold then has."""
    config = read_checkpoint_config(checkpoint_path(experiment_dir, folds[0]))
    if "committee" not in config:
        return list(tables)
    return [pd.concat(tables).groupby("image_name", as_index=False)["logit"].mean()] * len(tables)


def _matches(path: Path, made_from: dict) -> bool:
    return path.is_file() and read_json(path) == made_from


def _read_predictions(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run 03_train_fold for this fold again")
    df = pd.read_csv(path, dtype={"image_name": str, "patient_id": str})
    missing = {"image_name", "logit"} - set(df)
    if missing:
        raise ValueError(f"{path}: column {min(missing)!r} is missing; met {list(df.columns)}")
    _refuse(df["image_name"][~np.isfinite(pd.to_numeric(df["logit"], errors="coerce"))], "logits are not finite", path)
    _refuse(df["image_name"][df["image_name"].duplicated()], "images are predicted twice", path)
    return df


def _refuse(names: pd.Series, what: str, where: str | Path) -> None:
    if len(names):
        raise ValueError(f"{where}: {len(names)} {what}, first {names.iloc[0]}: the file was changed, or is damaged")
