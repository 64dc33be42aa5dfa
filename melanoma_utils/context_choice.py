"""The choice whether a submission is scored beside the patient's other images, kept with what applies it."""

from pathlib import Path

import pandas as pd

from melanoma_utils.files import find_differences, hash_table, read_json
from melanoma_utils.folds import measure_patient_leak
from melanoma_utils.image_context import OOF_COLUMNS, add_context
from melanoma_utils.patient_context import KINDS, describe_features
from melanoma_utils.second_stage import SecondStage, read_second_stages, write_second_stages

CHOICES = ("auto", "none", "lesion", "collection")
KINDS_OF = {"lesion": ("lesion",), "collection": KINDS}  # the kinds of features that a second stage reads
STEP_OF = {"lesion": "+ context", "collection": "+ collection"}  # the step of `image_context.ablate_context`
CHOICE_FILE = "second_stage.json"


def explain_no_context(oof_df: pd.DataFrame) -> str:
    """Returns why no second stage can be fitted on these out-of-fold scores, "" where one can.

    Args:
        oof_df: (N, …) table with the columns patient_id, target and fold.
    """
    if oof_df["fold"].nunique() < 2:
        return f"a second stage wants two folds at least, and only fold {oof_df['fold'].iloc[0]} is there"
    leak = measure_patient_leak(oof_df)
    n_leaked = round((leak["leak"] * leak["n_images"]).sum())
    return f"a second stage wants folds by patient, and {n_leaked:,} of {len(oof_df):,} images have their patient in " \
           "another fold as well" if n_leaked else ""


def choose_context(context: str, oof_df: pd.DataFrame, ablation_df: pd.DataFrame) -> tuple[str, str]:
    """Returns what the submission gets, "none", "lesion" or "collection", and why, in words.

    Args:
        context: CONTEXT, out of `CHOICES`. "auto" takes "lesion" where "+ context" gains on the image alone and on
            "+ metadata", the intervals of both lying above 0: a gain that sex, age and site bring is none of the
            patient's other images. What the collection of the pictures gives away is never taken by itself.
        oof_df: see `explain_no_context`; where that says no, nothing is taken, whatever is wanted.
        ablation_df: of `image_context.ablate_context` on these scores; read by "auto" alone.

    Raises:
        ValueError: the context is unknown.
    """
    _check_context(context)
    why_not = "" if context == "none" else explain_no_context(oof_df)
    if why_not:
        return "none", why_not
    if context != "auto":
        return context, f"CONTEXT is {context!r}"
    row = ablation_df.loc["+ context"]
    gain, added = (f"{row[name]:+.3f} ({row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f})"
                   for name in ("gain", "added"))
    words = f"{gain} over the image alone, {added} over image and metadata"
    is_sure = min(row["gain_low"], row["added_low"]) > 0
    return ("lesion", f"it gains: {words}") if is_sure else ("none", f"no sure gain: {words}")


def write_choice(experiment_dir: str | Path, context: str, used: str, oof_df: pd.DataFrame,
                 metadata_df: pd.DataFrame) -> None:
    """Writes `CHOICE_FILE`: what is used, the second stages of the folds for it, and what they were made from.

    Args:
        experiment_dir: the experiment's folder.
        context: CONTEXT, out of `CHOICES`.
        used: what became of it, of `choose_context`.
        oof_df, metadata_df: see `image_context.add_context`, also for what is raised.
    """
    stages = [] if used == "none" else add_context(oof_df, metadata_df, kinds=KINDS_OF[used])[1]
    write_second_stages(Path(experiment_dir) / CHOICE_FILE, stages, used=used, made_from=_describe(context, oof_df))


def read_choice(experiment_dir: str | Path, context: str, oof_df: pd.DataFrame) -> tuple[str, list[SecondStage]]:
    """Returns what is used, and the second stages to apply, a fold each (none of them where that is "none").

    Args:
        experiment_dir: the experiment's folder.
        context: CONTEXT, out of `CHOICES`; with "none" no file is wanted.
        oof_df: the out-of-fold scores as they are now, with the columns `image_context.OOF_COLUMNS`.

    Raises:
        FileNotFoundError: the choice was not made yet.
        ValueError: the context is unknown; the choice was made for another one, or on other folds or scores.
    """
    _check_context(context)
    if context == "none":
        return "none", []
    path = Path(experiment_dir) / CHOICE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run 04_evaluate_oof first, or say CONTEXT='none'")
    stored = read_json(path)
    differences = find_differences(stored.get("made_from", {}), _describe(context, oof_df))
    if differences:
        raise ValueError(f"{path} was made otherwise ({differences}): run 04_evaluate_oof again")
    return stored["used"], read_second_stages(path)


def _check_context(context: str) -> None:
    if context not in CHOICES:
        raise ValueError(f"CONTEXT {context!r} is not one of {CHOICES}")


def _describe(context: str, oof_df: pd.DataFrame) -> dict:
    """Returns what a choice was made from: other folds, labels or logits have another checksum, as have other
    features."""
    rows_df = oof_df[list(OOF_COLUMNS)].sort_values("image_name")
    return {"context": context, "folds": sorted(map(int, oof_df["fold"].unique())), "oof_sha256": hash_table(rows_df),
            "features_sha256": hash_table(describe_features().reset_index())}
