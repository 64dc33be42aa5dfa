"""The leak audit: what must not be on both sides of a split, found by name before a training or a submission."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from melanoma_utils.competition import read_test, read_train
from melanoma_utils.folds import FOLD_STRATEGIES, SOURCES

PAIRS_FILE = "duplicate_pairs.csv"  # columns as in `near_duplicates.PAIR_COLUMNS`; 02_create_folds writes it
N_NAMED = 3  # findings that a message names
AGAIN = "make the folds anew with 02_create_folds"
WORDS = {  # finding -> what was found, what to do
    "strange_rows": ("rows are not of where their `source` says", f"{AGAIN}, on this DATA_DIR"),
    "changed_rows": ("rows have another patient_id or target than in train.csv", f"{AGAIN}, on this DATA_DIR"),
    "test_patients": ("patients are in the test set too", "leave their rows out of the training tables"),
    "test_images": ("images are in test.csv too", "leave their rows out of the training tables"),
    "test_copies": ("images are copies of test images", "leave their rows out of the training tables"),
    "external_copies": ("external images are copies of the competition's", AGAIN),
    "split_patients": ("patients or lesions are in several folds", AGAIN),
    "split_listed": ("pairs of the list of duplicates are in two folds", AGAIN),
    "split_copies": ("pairs of copies are in two folds",
                     "add them to the list of duplicates (DUPLICATES_CSV), of which one a pair is dropped"),
    "split_external": ("pairs of external copies are in two folds", "the AUC on external images is too good by that"),
    "alike": ("pairs look alike, in two folds or in training and test",
              "look at them, for one photograph in two colours is such a pair"),
}
OF_FOLDS = ("split_patients", "split_listed", "split_copies")  # what FOLD_STRATEGY "image" is bound to leak
NEVER_REFUSED = ("split_external", "alike")


def find_split_patients(folds_df: pd.DataFrame) -> pd.DataFrame:
    """Returns the patients, or lesions of external images, that are in several folds.

    Args:
        folds_df: folds.csv.

    Returns:
        Columns patient_id, n_folds, n_images.
    """
    by_patient = folds_df.groupby(["source", "patient_id"])  # a lesion may be called what a patient is
    df = by_patient.agg(n_folds=("fold", "nunique"), n_images=("fold", "size")).reset_index()
    return df.loc[df["n_folds"] > 1, ["patient_id", "n_folds", "n_images"]].reset_index(drop=True)


def find_test_patients(folds_df: pd.DataFrame, test_df: pd.DataFrame) -> pd.DataFrame:
    """Returns patient_id, n_images (in folds_df) of the patients that test.csv holds too."""
    patients_df = folds_df[folds_df["source"] == "competition"]
    shared_df = patients_df[patients_df["patient_id"].isin(test_df["patient_id"])]
    return shared_df.groupby("patient_id").size().rename("n_images").reset_index()


def find_strange_rows(folds_df: pd.DataFrame, train_df: pd.DataFrame, test_df: pd.DataFrame) -> pd.DataFrame:
    """Returns image_name, source of the rows that are not from where they say: the competition's that are not in
    train.csv, external ones that are in train.csv or test.csv, and those of no known source."""
    is_train, is_test = (folds_df["image_name"].isin(df["image_name"]) for df in (train_df, test_df))
    is_external = folds_df["source"] == "external"
    is_strange = ~folds_df["source"].isin(SOURCES) | (~is_external & ~is_train) | (is_external & (is_train | is_test))
    return folds_df.loc[is_strange, ["image_name", "source"]].reset_index(drop=True)


def find_test_images(folds_df: pd.DataFrame, test_df: pd.DataFrame) -> pd.DataFrame:
    """Returns image_name of the competition's rows whose name is in test.csv too: nobody could tell the two apart."""
    is_shared = (folds_df["source"] == "competition") & folds_df["image_name"].isin(test_df["image_name"])
    return folds_df.loc[is_shared, ["image_name"]].reset_index(drop=True)


def find_changed_rows(folds_df: pd.DataFrame, train_df: pd.DataFrame) -> pd.DataFrame:
    """Returns image_name of the competition's rows whose patient_id or target is another one than in train.csv."""
    both_df = folds_df[folds_df["source"] == "competition"].merge(train_df, on="image_name", suffixes=("", "_wanted"))
    is_changed = (both_df["patient_id"] != both_df["patient_id_wanted"]) | (
        both_df["target"] != both_df["target_wanted"])
    return both_df.loc[is_changed, ["image_name"]].reset_index(drop=True)


def find_leaking_pairs(folds_df: pd.DataFrame, pairs_df: pd.DataFrame) -> pd.DataFrame:
    """Returns the pairs of duplicates, copies and look-alikes that folds.csv has on two sides: in two folds, or in
    training and test; with an external image that the competition holds too in any folds.

    Args:
        folds_df: folds.csv.
        pairs_df: columns as in `near_duplicates.PAIR_COLUMNS`.

    Returns:
        Those columns and fold, other_fold; fold "test" is the test set.
    """
    fold_of = {("external" if source == "external" else "train", name): fold for name, source, fold
               in folds_df[["image_name", "source", "fold"]].itertuples(index=False)}
    folds = [[("test" if split == "test" else fold_of.get((split, name)))
              for split, name in pairs_df[[f"{end}split", name]].itertuples(index=False)]
             for end, name in (("", "image_name"), ("other_", "other_name"))]
    df = pairs_df.assign(fold=pd.Series(folds[0], pairs_df.index, object),
                         other_fold=pd.Series(folds[1], pairs_df.index, object))
    is_there = df["fold"].notna() & df["other_fold"].notna()
    return df[is_there & ((df["fold"] != df["other_fold"]) | (df["split"] != df["other_split"]))].reset_index(drop=True)


def audit_folds(folds_df: pd.DataFrame, train_df: pd.DataFrame, test_df: pd.DataFrame,
                pairs_df: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Returns all findings, empty tables where there is nothing to find; the keys are those of `WORDS`.

    Args:
        folds_df: folds.csv.
        train_df, test_df: train.csv, test.csv.
        pairs_df: see `find_leaking_pairs`.
    """
    leaking_df = find_leaking_pairs(folds_df, pairs_df)
    is_sure, is_test = leaking_df["kind"] != "alike", leaking_df["other_split"] == "test"
    is_external, is_listed = leaking_df["split"] == "external", leaking_df["kind"] == "listed"
    within_external = is_external & (leaking_df["other_split"] == "external")
    parts = {"test_copies": is_sure & is_test, "external_copies": is_sure & is_external & ~is_test & ~within_external,
             "split_listed": is_listed & ~is_test, "split_copies": is_sure & ~is_listed & ~is_test & ~is_external,
             "split_external": is_sure & within_external, "alike": ~is_sure}
    findings = {"strange_rows": find_strange_rows(folds_df, train_df, test_df),
                "changed_rows": find_changed_rows(folds_df, train_df),
                "test_patients": find_test_patients(folds_df, test_df),
                "test_images": find_test_images(folds_df, test_df),
                "split_patients": find_split_patients(folds_df)}
    findings |= {name: leaking_df[part].reset_index(drop=True) for name, part in parts.items()}
    return {name: findings[name] for name in WORDS}


def check_findings(findings: Mapping[str, pd.DataFrame], strategy: str = "patient") -> list[str]:
    """Returns what is to be said aloud of the findings of `audit_folds`, a line each.

    Folds of the strategy "image" leak patients and their duplicates on purpose: a warning. So is what is no sure copy,
    or touches external images alone.

    Raises:
        ValueError: there is any other finding; one line that names some and what to do.
    """
    if strategy not in FOLD_STRATEGIES:
        raise ValueError(f"FOLD_STRATEGY {strategy!r} is not one of {FOLD_STRATEGIES}")
    found = [name for name, df in findings.items() if len(df)]
    wanted = OF_FOLDS if strategy == "image" else ()
    refused = [name for name in found if name not in (*wanted, *NEVER_REFUSED)]
    if refused:
        hint = "; folds that leak patients on purpose want FOLD_STRATEGY 'image'" * ("split_patients" in refused)
        raise ValueError("folds.csv leaks: " + "; ".join(_describe(name, findings[name]) for name in refused) + hint)
    lines = [f"WARNING: {_describe(name, findings[name], advise=name not in OF_FOLDS)}" for name in found]
    if set(found) & set(OF_FOLDS):
        lines.append("WARNING: FOLD_STRATEGY 'image' leaks on purpose: these scores tell how well patients are "
                     "remembered, and say little about new ones")
    return lines or ["leak audit: no patient, duplicate or copy is in two folds, or in training and test"]


def _describe(name: str, df: pd.DataFrame, advise: bool = True) -> str:
    what, advice = WORDS[name]
    columns = [column for column in ("image_name", "other_name") if column in df] or ["patient_id"]
    named = [" = ".join(row) for row in df[columns].head(N_NAMED).astype(str).itertuples(index=False)]
    more = ", …" * (len(df) > N_NAMED)
    return f"{len(df)} {what} ({', '.join(named)}{more})" + (f": {advice}" if advise else "")


def read_pairs(experiment_dir: str | Path) -> pd.DataFrame:
    """Returns the experiment's duplicate_pairs.csv, see `near_duplicates.find_pairs`.

    Raises:
        FileNotFoundError: nobody has searched for duplicates yet.
        ValueError: a column is missing.
    """
    path = Path(experiment_dir) / PAIRS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run 02_create_folds, which searches for duplicates and "
                                "leaves folds that are there as they are")
    df = pd.read_csv(path, dtype={"image_name": str, "other_name": str})
    missing = {"image_name", "split", "other_name", "other_split", "kind"} - set(df)
    if missing:
        raise ValueError(f"{path}: column {min(missing)!r} is missing; met {list(df.columns)}: run 02_create_folds "
                         "again")
    return df


def check_folds(experiment_dir: str | Path, folds_df: pd.DataFrame, data_dir: str | Path,
                strategy: str = "patient") -> list[str]:
    """Returns the lines of `check_findings` for an experiment's folds.csv; cheap, so that it can be done each time.

    Args:
        experiment_dir: the experiment's folder, with duplicate_pairs.csv.
        folds_df: its folds.csv.
        data_dir: the competition folder.
        strategy: FOLD_STRATEGY.

    Raises:
        FileNotFoundError: there is no duplicate_pairs.csv, train.csv or test.csv.
        ValueError: the folds leak, or a table is damaged.
    """
    pairs_df = read_pairs(experiment_dir)
    return check_findings(audit_folds(folds_df, read_train(data_dir), read_test(data_dir), pairs_df), strategy)
