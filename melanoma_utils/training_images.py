"""The images of a fold's training: those trained on, left out and watched, and how many of which an epoch draws."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from melanoma_utils.folds import split_by_fold
from melanoma_utils.image_store import ImageStore
from melanoma_utils.inference import Samples, select_samples
from melanoma_utils.objective import CLASSES, encode_diagnoses
from melanoma_utils.train_config import TrainConfig


def gather_samples(store: ImageStore, folds_df: pd.DataFrame, fold: int, config: TrainConfig,
                   pseudo_df: pd.DataFrame | None, log: Callable[[str], None]) -> tuple[dict[str, Samples], np.ndarray]:
    """Returns the samples of each part and the (n,) source of those trained on.

    Args:
        store, folds_df, fold, config, pseudo_df, log: see `training.train_fold`.

    Returns:
        ({"train": …, "valid": what is left out, "monitor": what is watched, if anything is, "competition": of "train"
        the competition's labelled ones}, "competition", "external" or "test" for each of "train").

    Raises:
        ValueError, KeyError: see `training.train_fold`.
    """
    frames = _split_frames(folds_df, fold, config.has_monitor, log)
    frames["competition"] = frames["train"][frames["train"]["source"] == "competition"]
    frames["train"] = pd.concat([frames["train"], pseudo_df], ignore_index=True)
    samples = {name: select_samples(store, df, config.model.use_metadata) for name, df in frames.items()}
    if config.target == "diagnosis":
        samples["train"] = replace(samples["train"], diagnoses=_encode_diagnoses(frames["train"]))
    sources = frames["train"]["source"].to_numpy()
    if config.n_external and "external" not in sources:
        raise ValueError(f"N_EXTERNAL is {config.n_external}, but there are no external images in the folds: run "
                         "02_create_folds with EXTERNAL_DIR, or say N_EXTERNAL 0")
    return samples, sources


def _split_frames(folds_df: pd.DataFrame, fold: int, has_monitor: bool,
                  log: Callable[[str], None]) -> dict[str, pd.DataFrame]:
    """Returns the rows to train on, "train", those left out, "valid", and those that a monitor watches."""
    train_df, valid_df, _ = split_by_fold(folds_df, fold)
    frames = {"train": train_df, "valid": valid_df}
    if has_monitor:
        n_folds = int(folds_df["fold"].max()) + 1
        if n_folds < 3:
            raise ValueError(f"SCHEDULER 'plateau' and EARLY_STOPPING_PATIENCE need at least 3 folds, met {n_folds}: "
                             "one is scored, another watched, the rest trained on")
        is_monitor = (train_df["fold"] == (fold + 1) % n_folds) & (train_df["source"] == "competition")
        frames |= {"train": train_df[~is_monitor], "monitor": train_df[is_monitor]}
        log(f"fold {(fold + 1) % n_folds} is watched and not trained on, so that fold {fold} decides nothing")
    for name, df in frames.items():
        if df["target"].nunique() < 2:
            raise ValueError(f"fold {fold}: the {len(df)} images of the {name} part hold one class only: make fewer "
                             "folds in 02_create_folds")
    return frames


def _encode_diagnoses(train_df: pd.DataFrame) -> np.ndarray:
    diagnoses = encode_diagnoses(train_df)
    if len(np.unique(diagnoses[diagnoses >= 0])) < 2:
        raise ValueError(f"TARGET 'diagnosis': the {len(train_df)} training images name less than two of the diagnoses "
                         f"{CLASSES}: say TARGET 'melanoma'")
    return diagnoses


def make_pools(sources: np.ndarray, targets: np.ndarray, config: TrainConfig) -> list[tuple[np.ndarray, int]]:
    """Returns (rows, how many of them an epoch draws), one a pool: those that are all drawn, and the external
    melanomas, the other external images and the test images where not all are wanted.

    Args:
        sources, targets: (n,) of the images trained on, see `gather_samples`.
        config: how many of them are wanted.
    """
    drawn, pools = np.zeros(len(targets), bool), []
    if config.n_external:
        melanomas, others = (np.flatnonzero((sources == "external") & (targets == t)) for t in (1, 0))
        n_melanomas = min(len(melanomas), config.n_external // 2)
        pools += [(melanomas, n_melanomas), (others, min(len(others), config.n_external - n_melanomas))]
        drawn |= sources == "external"
    if config.n_pseudo:
        rows = np.flatnonzero(sources == "test")
        pools.append((rows, min(len(rows), config.n_pseudo)))
        drawn |= sources == "test"
    whole = np.flatnonzero(~drawn)
    return [(whole, len(whole)), *pools]
