"""The tables of a model card, as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_utils.evaluation import are_enough_benign
from melanoma_utils.files import hash_file
from melanoma_utils.folds import measure_patient_leak

AREAS = {"oof_auc": ("ROC AUC", "0.5"), "pr_auc": ("PR AUC, the data's own share of melanomas", "that share"),
         "pr_auc_at_prevalence": ("PR AUC at the prevalence", "the prevalence"),
         "partial_auc": ("area above 80 % sensitivity, 0 to 0.2 (ISIC 2024)", "0.02"),
         "external_auc": ("ROC AUC on the external images, lesions resampled", "0.5")}
RATES = {"sensitivity": "melanomas found", "specificity": "benign lesions spared",
         "ppv": "melanomas among those called suspicious", "npv": "benign among the others"}
NONE = "–"


def to_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a Markdown table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def tell_number(value: float | None, form: str = ".3f") -> str:
    """Returns a number in a form of Python's, "–" where there is none (None, NaN)."""
    return NONE if value is None or pd.isna(value) else format(float(value), form).replace("-", "−")


def tell_interval(values: Mapping[str, float | None], name: str, form: str = ".3f") -> str:
    """Returns "value (low–high)" of the keys NAME, NAME_low and NAME_high, "–" where there is no value; "low to high"
    where one of them has a sign."""
    value, low, high = (tell_number(values.get(f"{name}{end}"), form) for end in ("", "_low", "_high"))
    between = " to " if {low[0], high[0]} & {"+", "−"} else "–"
    return NONE if value == NONE else f"{value} ({low}{between}{high})"


def tabulate_areas(metrics: Mapping) -> str:
    """Returns the areas under curves of metrics.json with their intervals, and what chance gives; words instead of a
    number where `evaluation.are_enough_benign` says so."""
    told = {name: tell_interval(metrics, name) for name in AREAS if name in metrics}
    if "pr_auc_at_prevalence" in told and not are_enough_benign(metrics["n_images"] - metrics["n_melanomas"],
                                                                metrics["prevalence"]):
        told["pr_auc_at_prevalence"] = "too few benign images to say"
    return to_table(("measure", "value (95 % interval)", "by chance"),
                    [(AREAS[name][0], value, AREAS[name][1]) for name, value in told.items()])


def tabulate_folds(metrics: Mapping, folds_df: pd.DataFrame) -> str:
    """Returns size and ROC AUC of each fold that is evaluated, out of metrics.json and the competition's rows of
    folds.csv."""
    sizes_df = measure_patient_leak(folds_df)
    return to_table(("fold", "images", "patients", "melanomas", "ROC AUC"),
                    [(fold, *(f"{sizes_df.loc[fold, column]:,}" for column in ("n_images", "n_patients",
                                                                               "n_melanomas")), tell_number(auc))
                     for fold, auc in zip(metrics["folds"], metrics["fold_auc"], strict=True)])


def tabulate_points(points: Sequence[Mapping]) -> str:
    """Returns the operating points of metrics.json, all their rates with intervals."""
    forms = dict.fromkeys(RATES, ".1%") | {"npv": ".2%"}  # which is near 100 % wherever melanomas are rare
    rows = [(f"{100 * point['wanted_sensitivity']:.3g} %", *(tell_interval(point, *item) for item in forms.items()),
             tell_interval(point, "number_needed_to_biopsy", ".1f"), tell_interval(point, "missed_per_1000", ".2f"),
             tell_interval(point, "threshold", ".3f"), tell_number(point.get("threshold_prob"), ".2%"))
            for point in points]
    return to_table(("wanted", *RATES.values(), "called suspicious for each found", "missed in 1,000 lesions",
                     "threshold, a logit", "the same as a probability"), rows)


def tabulate_calibration(scores: Mapping[str, Mapping]) -> str:
    """Returns Brier score and calibration error before and after, as metrics.json holds them for one population."""
    return to_table(("probabilities", "Brier score", "Brier skill", "calibration error (ECE)", "mean"),
                    [(name, *(tell_number(row[key], ".4f") for key in ("brier", "brier_skill", "ece", "mean_prob")))
                     for name, row in scores.items()])


def tabulate_subgroups(subgroups_df: pd.DataFrame) -> str:
    """Returns subgroups.csv; the words "too few" stand where a group gets no number."""
    rows = [(row["attribute"], row["group"], *(f"{row[name]:,}" for name in ("n_images", "n_patients", "n_melanomas")),
             *((row["note"], NONE, NONE) if row["note"] else
               [tell_interval(row, name, form) for name, form in (("auc", ".3f"), ("sensitivity", ".1%"),
                                                                  ("specificity", ".1%"))]))
            for row in subgroups_df.fillna({"note": ""}).to_dict("records")]
    return to_table(("by", "group", "images", "patients", "melanomas", "ROC AUC", *list(RATES.values())[:2]), rows)


def tabulate_context(context_df: pd.DataFrame) -> str:
    """Returns context.csv: what each group of features adds, to the first row and to the step before."""
    rows_df = context_df.rename(columns={"low": "auc_low", "high": "auc_high"})
    rows = [(row["step"], tell_interval(row, "auc"), tell_interval(row, "gain", "+.3f"),
             tell_interval(row, "added", "+.3f"), row["verdict"]) for row in rows_df.to_dict("records")]
    return to_table(("step", "ROC AUC", "above the first row", "above the step before", "that step"), rows)


def tabulate_diagnoses(diagnoses: Sequence[Mapping]) -> str:
    """Returns how the score treats each diagnosis, the `diagnoses` of metrics.json; its columns source (of the images)
    and benign_malignant may be missing."""
    rows = []
    for row in diagnoses:
        share = {"share": row["share_suspicious"], "share_low": row["share_low"], "share_high": row["share_high"]}
        told = tell_interval(share, "share", ".1%")
        rows.append((row["diagnosis"], row.get("benign_malignant", NONE), row.get("source", NONE), f"{row['n']:,}",
                     f"{row['n_groups']:,}", row["note"] or told, tell_number(row["median_logit"], ".2f")))
    return to_table(("diagnosis", "it is", "images from", "images", "patients or lesions", "called suspicious",
                     "median logit"), rows)


def tabulate_training(folds_df: pd.DataFrame) -> str:
    """Returns how many images of each diagnosis the rows of folds.csv hold, by source."""
    names = folds_df["diagnosis"].fillna("not recorded") if "diagnosis" in folds_df else \
        np.where(folds_df["target"] == 1, "melanoma", "not melanoma")
    counts_df = pd.crosstab(pd.Series(names, folds_df.index, name="diagnosis"), folds_df["source"])
    counts_df = counts_df.loc[counts_df.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    return to_table(("diagnosis", *counts_df.columns), [(name, *(f"{n:,}" for n in row))
                                                        for name, row in zip(counts_df.index, counts_df.to_numpy(),
                                                                             strict=True)])


def tabulate_checksums(paths: Iterable[str | Path], store_identity: Mapping) -> str:
    """Returns the SHA-256 of files, and of the names of the images in a store (of `image_store.ImageStore.identity`,
    with those joined to it)."""
    rows = [(f"`{Path(path).name}`", hash_file(path)) for path in paths]
    joined = [value for value in store_identity.values() if isinstance(value, Mapping)]
    rows += [(f"names of {store['n_images']:,} images in the store, of `{store['source']}`", store["names_sha256"])
             for store in (store_identity, *joined)]
    return to_table(("what", "SHA-256"), rows)
