"""Experiments beside each other: what they were, how good, and which difference is more than noise."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from melanoma_utils.delong import compare_aucs
from melanoma_utils.evaluation import compute_auc_difference
from melanoma_utils.experiment import find_evaluated_folds, find_experiment, read_history
from melanoma_utils.files import read_json
from melanoma_utils.fold_predictions import read_fold_predictions
from melanoma_utils.folds import measure_patient_leak, read_folds


def find_experiments(output_dir: str | Path) -> list[str]:
    """Returns the names of the folders in output_dir that hold a trained and evaluated experiment, in alphabetical
    order; a blend is none, nor is one that was trained again since."""
    names = sorted(path.parent.name for path in Path(output_dir).glob("*/metrics.json"))
    return [name for name in names if find_evaluated_folds(Path(output_dir) / name)]


def summarize_experiments(output_dir: str | Path, experiments: Sequence[str]) -> pd.DataFrame:
    """Returns one row an experiment.

    Returns:
        Index experiment; columns oof_auc, oof_auc_low, oof_auc_high, fold_auc_mean, fold_auc_sd, external_auc (NaN
        without external images), n_images, n_melanomas, n_patients, n_folds (evaluated ones), is_synthetic,
        patient_leak (share of the images of the worst fold whose patient is in another one too), train_seconds (of all
        folds; NaN where unknown), images_per_second (trained on, with each epoch's scoring).

    Raises:
        FileNotFoundError: an experiment is not there, or not evaluated as it is trained now.
    """
    rows = {}
    for name in experiments:
        folder = _find_evaluated(output_dir, name)
        metrics = read_json(folder / "metrics.json")
        timing = read_json(folder / "timing.json") if (folder / "timing.json").is_file() else {}
        seconds = [timing.get(f"train_fold_{fold}_seconds") for fold in metrics["folds"]]
        total = sum(seconds) if None not in seconds else float("nan")
        history_df = read_history(folder, metrics["folds"])
        n_seen = history_df["n_images"].sum() if "n_images" in history_df else float("nan")
        columns = ("oof_auc", "oof_auc_low", "oof_auc_high", "fold_auc_mean", "fold_auc_sd", "external_auc", "n_images",
                   "n_melanomas", "n_patients", "is_synthetic")
        rows[name] = {column: metrics.get(column) for column in columns} | {
            "n_folds": len(metrics["folds"]), "patient_leak": _measure_leak(folder), "train_seconds": total,
            "images_per_second": n_seen / total}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("experiment")


def find_parameter_differences(output_dir: str | Path, experiments: Sequence[str]) -> pd.DataFrame:
    """Returns the parameters that are not the same in all experiments: a row a parameter, a column an experiment.

    A parameter that an experiment does not know, being older or run by hand in Jupyter, is "–" there.
    """
    paths = {name: Path(output_dir) / name / "parameters.json" for name in experiments}
    parameters = {name: read_json(path) if path.is_file() else {} for name, path in paths.items()}
    known = sorted({key for of_one in parameters.values() for key in of_one} - {"EXPERIMENT"})
    rows = {key: {name: str(of_one.get(key, "–")) for name, of_one in parameters.items()} for key in known}
    differing = {key: row for key, row in rows.items() if len(set(row.values())) > 1}
    return pd.DataFrame.from_dict(differing, orient="index", columns=list(experiments)).rename_axis("parameter")


def compare_experiments(output_dir: str | Path, experiments: Sequence[str], reference: str, *, n_resamples: int = 2000,
                        seed: int = 0) -> pd.DataFrame:
    """Returns by how much each experiment's out-of-fold AUC is above the reference's, on the images that both have.

    Args:
        output_dir: folder of the experiments.
        experiments: names; the reference itself is left out.
        reference: what they are compared with.
        n_resamples, seed: of the paired bootstrap, see `evaluation.compute_auc_difference`.

    Returns:
        Index experiment; columns difference, low, high, delong_p (p-value of `delong.compare_aucs`; NaN where a class
        is of one patient), n_shared (images), verdict: "better", "worse", "below noise" (the bootstrap's interval holds
        0), "leaks" (one of the two has patients in several folds: it is too good, and nobody knows by how much), or
        "nothing to compare" (too few shared images).

    Raises:
        FileNotFoundError: an experiment or its predictions are not there.
        ValueError: two experiments disagree about an image's target.
    """
    rows = {}
    reference_df = _read_oof(output_dir, reference)
    for name in experiments:
        if name == reference:
            continue
        df = reference_df.merge(_read_oof(output_dir, name), on="image_name", suffixes=("", "_other"))
        if (df["target"] != df["target_other"]).any():
            raise ValueError(f"{name} and {reference} disagree about the target of "
                             f"{df['image_name'][df['target'] != df['target_other']].iloc[0]}")
        if df["target"].nunique() < 2:
            rows[name] = {"n_shared": len(df), "verdict": "nothing to compare"}
            continue
        gain = compute_auc_difference(df["target"], df["logit_other"], df["logit"], df["patient_id"],
                                      n_resamples=n_resamples, seed=seed)
        of_class = df.groupby("target")["patient_id"].nunique()
        p_value = compare_aucs(df["target"], df["logit_other"], df["logit"], df["patient_id"]).p_value \
            if of_class.min() > 1 else float("nan")
        verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "below noise"
        if any(_measure_leak(Path(output_dir) / one) for one in (name, reference)):
            verdict = "leaks"
        rows[name] = {"difference": gain.auc, "low": gain.low, "high": gain.high, "delong_p": p_value,
                      "n_shared": len(df), "verdict": verdict}
    columns = ["difference", "low", "high", "delong_p", "n_shared", "verdict"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("experiment")


def _measure_leak(folder: Path) -> float:
    folds_df = read_folds(folder / "folds.csv")
    return float(measure_patient_leak(folds_df[folds_df["source"] == "competition"])["leak"].max())


def _read_oof(output_dir: str | Path, experiment: str) -> pd.DataFrame:
    folder = _find_evaluated(output_dir, experiment)
    return read_fold_predictions(folder, read_json(folder / "metrics.json")["folds"])


def _find_evaluated(output_dir: str | Path, experiment: str) -> Path:
    folder = find_experiment(output_dir, experiment)
    if (folder / "metrics.json").is_file() and "folds" not in read_json(folder / "metrics.json"):
        raise FileNotFoundError(f"{folder} holds no trained experiment but what 12_blend_experiments, which compares a "
                                "blend with its parts, or 13_metadata_baseline wrote: leave it out")
    if not find_evaluated_folds(folder):
        raise FileNotFoundError(f"{folder} is not evaluated as it is trained now: run 04_evaluate_oof first")
    return folder
