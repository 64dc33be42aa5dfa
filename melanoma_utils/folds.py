"""Patient-grouped stratified folds, the original's image-level ones for comparison, and what those leak."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from melanoma_utils.files import write_csv

FOLD_STRATEGIES = ("patient", "image")
SOURCES = ("competition", "external")


def create_folds(train_df: pd.DataFrame, n_folds: int = 10, strategy: str = "patient", seed: int = 0,
                 source: str = "competition") -> pd.DataFrame:
    """Returns the training table with two more columns: `fold` in 0..n_folds-1, and `source`.

    Args:
        train_df: (N, …) table with the columns image_name, patient_id and target.
        n_folds: number of folds, at least 2.
        strategy: "patient" keeps all images of a patient in one fold and balances the targets (scikit-learn's
            StratifiedGroupKFold); "image" is the original's StratifiedKFold, which leaks patients.
        seed: seed of the shuffle.
        source: one of `SOURCES`; external rows have folds of their own, and are never scored with the competition's.

    Raises:
        ValueError: the strategy or the source is unknown, a patient_id is missing, n_folds is out of range, or a fold
            would hold one class only.
    """
    if strategy not in FOLD_STRATEGIES:
        raise ValueError(f"FOLD_STRATEGY {strategy!r} is not one of {FOLD_STRATEGIES}")
    if source not in SOURCES:
        raise ValueError(f"the source {source!r} is not one of {SOURCES}")
    nobodys = train_df["image_name"][train_df["patient_id"].isna()]
    if len(nobodys):
        raise ValueError(f"patient_id is missing for {len(nobodys)} of {len(train_df)} {source} images, first "
                         f"{nobodys.iloc[0]}: where nobody knows the patient, give the image's own name")
    n_melanomas, n_patients = int(train_df["target"].sum()), train_df["patient_id"].nunique()
    most = min([n_melanomas, len(train_df) - n_melanomas] + [n_patients] * (strategy == "patient"))
    if most < 2:
        raise ValueError(f"the {source} images ({len(train_df)} images, {n_melanomas} melanomas, {n_patients} patients)"
                         " can't be in folds: each wants a melanoma and another image")
    if not 2 <= n_folds <= most:
        raise ValueError(f"N_FOLDS {n_folds} is not in 2..{most} for the {source} images ({len(train_df)} images, "
                         f"{n_melanomas} melanomas, {n_patients} patients)")
    groups = train_df["patient_id"] if strategy == "patient" else None
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    splits = splitter(n_folds, shuffle=True, random_state=seed).split(train_df, train_df["target"], groups)
    fold = np.full(len(train_df), -1)
    for k, (_, valid) in enumerate(splits):
        fold[valid] = k
    folds_df = train_df.assign(fold=fold, source=source)
    one_class = folds_df.groupby("fold")["target"].nunique() < 2
    if one_class.any():
        raise ValueError(f"fold {one_class.idxmax()} of the {source} images would hold one class only: N_FOLDS "
                         f"{n_folds} is too many for {n_melanomas} melanomas of {n_patients} patients")
    return folds_df


def adopt_folds(path: str | Path, rows_df: pd.DataFrame, has_external: bool, n_folds: int,
                strategy: str) -> pd.DataFrame:
    """Returns another experiment's folds.csv, so that both are scored on the same folds.

    Args:
        path: that file.
        rows_df: image_name and target of all images that there are, the competition's before the external ones.
        has_external: whether there are external ones.
        n_folds, strategy: what the folds must be, see `create_folds`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds images that are not in rows_df, or other targets, external images where there are none or
            none where there are, another number of folds, or patients in two folds where the strategy is "patient".
    """
    other_df = read_folds(path)
    known = rows_df.drop_duplicates("image_name").set_index("image_name")["target"]
    strange = other_df[other_df["image_name"].map(known) != other_df["target"]]
    if len(strange):
        raise ValueError(f"{path} holds {len(strange)} images that are not among these, or with another target, first "
                         f"{strange['image_name'].iloc[0]}: FOLDS_FROM wants an experiment on the same DATA_DIR and "
                         "EXTERNAL_DIR")
    if (other_df["source"] == "external").any() != has_external:
        raise ValueError(f"{path} holds {'no ' * has_external}external images: FOLDS_FROM wants an experiment with the "
                         "same EXTERNAL_DIR, or none")
    if other_df["fold"].max() + 1 != n_folds:
        raise ValueError(f"{path} has {other_df['fold'].max() + 1} folds: say N_FOLDS so")
    leaks = [measure_patient_leak(df)["leak"].any() for _, df in other_df.groupby("source")]
    if strategy == "patient" and any(leaks):
        raise ValueError(f"{path} has patients in two folds: it was made with FOLD_STRATEGY 'image'")
    return other_df


def write_folds(path: str | Path, folds_df: pd.DataFrame) -> None:
    """Writes folds.csv, whole or not at all.

    Raises:
        ValueError: other folds are there already, and models beside them that were trained on those.
    """
    path = Path(path)
    if path.is_file() and any(path.parent.glob("fold_*.safetensors")):
        if read_folds(path).astype(str).equals(folds_df.reset_index(drop=True).astype(str)):
            return
        raise ValueError(f"{path} holds other folds, on which models beside it were trained: give another EXPERIMENT, "
                         "or start over with `--fresh` (in Jupyter: delete the experiment's folder)")
    write_csv(path, folds_df)


def read_folds(path: str | Path) -> pd.DataFrame:
    """Returns folds.csv as written by 02_create_folds.

    Raises:
        FileNotFoundError: there is none yet.
        ValueError: a column is missing, an image_name or patient_id empty, an image_name repeated, a target outside
            {0, 1}, a fold no whole number, or one without images.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run 02_create_folds first, with the same EXPERIMENT")
    df = pd.read_csv(path, dtype={"image_name": str, "patient_id": str})
    missing = {"image_name", "patient_id", "target", "fold"} - set(df)
    if missing:
        raise ValueError(f"{path}: column {min(missing)!r} is missing; met {list(df.columns)}")
    _check_rows(path, df)
    return df if "source" in df else df.assign(source="competition")  # before there were external images


def _check_rows(path: Path, df: pd.DataFrame) -> None:
    """Raises ValueError where folds.csv was edited into something that no folds can be."""
    fold = pd.to_numeric(df["fold"], errors="coerce")
    for column, is_bad, what in (
            ("image_name", df["image_name"].isna(), "is empty"), ("patient_id", df["patient_id"].isna(), "is empty"),
            ("image_name", df["image_name"].duplicated(), "is repeated"),
            ("target", ~df["target"].isin((0, 1)), "is not 0 or 1"),
            ("fold", ~(fold >= 0) | (fold % 1 != 0), "is not 0, 1, 2, …")):
        if is_bad.any():
            raise ValueError(f"{path}: column {column!r} {what} in {is_bad.sum()} of {len(df)} rows, first in that of "
                             f"{df['image_name'][is_bad].iloc[0]}: run 02_create_folds again")
    if fold.nunique() != fold.max() + 1:
        raise ValueError(f"{path}: {fold.nunique()} folds have images, the last one is fold {fold.max()}: run "
                         "02_create_folds again")


def split_by_fold(folds_df: pd.DataFrame, fold: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Returns (train_df, valid_df, external_df): the rows of all other folds, competition and external together; the
    competition's rows of the fold named; the external rows of that fold, none where there are no external data.

    Raises:
        ValueError: the fold is out of range.
    """
    n_folds = int(folds_df["fold"].max()) + 1
    if fold not in range(n_folds):
        raise ValueError(f"fold {fold} is not in 0..{n_folds - 1} (folds.csv has {n_folds} folds)")
    is_left_out, is_external = folds_df["fold"] == fold, folds_df["source"] == "external"
    parts = (~is_left_out, is_left_out & ~is_external, is_left_out & is_external)
    return tuple(folds_df[part].reset_index(drop=True) for part in parts)


def measure_patient_leak(folds_df: pd.DataFrame) -> pd.DataFrame:
    """Returns per fold how many validation images have their patient in the training folds as well.

    Args:
        folds_df: (N, …) table with the columns patient_id, target and fold.

    Returns:
        Index fold; columns n_images, n_melanomas, n_patients, leak (share of validation images, 0..1).
    """
    n_folds_of_patient = folds_df.groupby("patient_id")["fold"].transform("nunique")
    df = folds_df.assign(is_leaked=n_folds_of_patient > 1)
    return df.groupby("fold").agg(n_images=("target", "size"), n_melanomas=("target", "sum"),
                                  n_patients=("patient_id", "nunique"), leak=("is_leaked", "mean"))


def score_by_patient_memory(folds_df: pd.DataFrame) -> np.ndarray:
    """Returns (N,) scores of a "model" that looks at no image: the melanoma rate of the patient in other folds.

    The rate is shrunk by one image at the overall rate, (melanomas + rate) / (images + 1), so that a patient not seen
    there gets the overall rate: under patient-grouped folds all scores are that constant and the AUC is 0.5. Whatever
    it scores above that under other folds is leak.

    Args:
        folds_df: (N, …) table with the columns patient_id, target and fold.
    """
    by_patient = folds_df.groupby("patient_id")["target"]
    by_both = folds_df.groupby(["patient_id", "fold"])["target"]
    n_others = by_patient.transform("size") - by_both.transform("size")
    melanomas_of_others = by_patient.transform("sum") - by_both.transform("sum")
    return ((melanomas_of_others + folds_df["target"].mean()) / (n_others + 1)).to_numpy()
