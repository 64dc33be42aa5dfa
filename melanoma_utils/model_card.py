"""The model card of an experiment, written from its own files."""

import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from melanoma_utils import card_tables as tables
from melanoma_utils.card_text import CARD, COMMITTEE, DIAGNOSES, DRAWN, HALF, RARE, REAL, SALIENCY, SINGLE
from melanoma_utils.experiment import checkpoint_path
from melanoma_utils.files import read_json, write_bytes
from melanoma_utils.folds import measure_patient_leak, read_folds
from melanoma_utils.leak_audit import PAIRS_FILE, read_pairs
from melanoma_utils.models import read_checkpoint_config
from melanoma_utils.near_duplicates import SURE_SIZE
from melanoma_utils.train_config import fill_defaults

CARD_NAME = "model_card.md"
PACKAGES = ("torch", "torchvision", "timm", "pretrainedmodels", "numpy", "pandas", "scipy", "scikit-learn", "pillow")
SITE, DARK_TONES = "anatom_site_general_challenge", ("dark", "brown")
OTHER_CANCERS = ("basal cell carcinoma", "actinic keratosis", "squamous cell carcinoma")


def write_card(experiment_dir: str | Path, table_paths: Iterable[str | Path] = (), how: Mapping | None = None) -> str:
    """Returns the card of `build_card`, and writes it into the experiment's folder as model_card.md.

    Raises:
        FileNotFoundError, ValueError: see `build_card`.
    """
    card = build_card(experiment_dir, table_paths, how)
    write_bytes(Path(experiment_dir) / CARD_NAME, card.encode())
    return card


def build_card(experiment_dir: str | Path, table_paths: Iterable[str | Path] = (), how: Mapping | None = None) -> str:
    """Returns the model card of an evaluated experiment as Markdown: figures, data, limits, intended use.

    Args:
        experiment_dir: the experiment's folder.
        table_paths: the data's tables, told by checksum beside folds.csv.
        how: the parameters that the figures were made with, where parameters.json may have others; none = as there.

    Raises:
        FileNotFoundError: a fold's checkpoint, folds.csv or what 04_evaluate_oof writes is missing.
        ValueError: one of them is damaged.
    """
    folder = Path(experiment_dir)
    missing = [name for name in ("metrics.json", "subgroups.csv", "context.csv") if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} holds no {missing[0]}: run 04_evaluate_oof for this experiment")
    metrics, folds_df = read_json(folder / "metrics.json"), read_folds(folder / "folds.csv")
    configs = {fold: fill_defaults(read_checkpoint_config(checkpoint_path(folder, fold))) for fold in metrics["folds"]}
    config = configs[metrics["folds"][0]]
    parameters_path = folder / "parameters.json"
    parameters = read_json(parameters_path) if parameters_path.is_file() else _flatten(config)  # run by hand
    parameters |= how or {}
    subgroups_df = pd.read_csv(folder / "subgroups.csv")
    return CARD.format(**metrics | (DRAWN if metrics["is_synthetic"] else REAL)
                       | _tell_model(config) | _tell_data(folder, metrics, config, folds_df, subgroups_df)
                       | _tell_training(configs, has_external=(folds_df["source"] == "external").any())
                       | _tell_figures(metrics, folds_df, subgroups_df, pd.read_csv(folder / "context.csv"),
                                       config["model"]["use_metadata"]),
                       experiment=folder.resolve().name, packages=_tell_packages(),
                       parameters=" · ".join(f"`{name}` {json.dumps(value)}" for name, value in parameters.items()),
                       n_resamples=f"{parameters['N_RESAMPLES']:,} " if "N_RESAMPLES" in parameters else "",
                       checksums=tables.tabulate_checksums([*table_paths, folder / "folds.csv"], config["store"]))


def tell_half_precision(card: str) -> str:
    """Returns a card for weights that were rounded to half precision after it was written, as an export rounds them."""
    title, _, rest = card.partition("\n")
    return f"{title}\n\n{HALF}\n{rest}"


def _flatten(config: Mapping) -> dict:
    """Returns the parameters inside a checkpoint under the names that notebooks give them."""
    train = {key: value for key, value in config["train"].items() if key != "augment"}
    flat = {**config["model"], **train, **config["train"]["augment"], "tta_views": config["tta_views"]}
    return {name.upper(): value for name, value in sorted(flat.items())}


def _tell_packages() -> str:
    """Returns the versions of Python and of the packages that figures can depend on."""
    told = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            told.append(f"no {name}")
    return ", ".join(told)


def _tell_model(config: Mapping) -> dict[str, object]:
    model, train = config["model"], config["train"]
    rows = f", fitted on the train.csv of `{train['metadata_from']}`," * bool(train["metadata_from"])
    return {
        "arch": model["arch"], "image_size": model["image_size"], "resize_mode": model["resize_mode"],
        "clean_steps": f", after {', '.join(model['clean_steps'])}" if model["clean_steps"] else "",
        "metadata_kind": f", to which a logistic regression on sex, age and site{rows} adds" * model["use_metadata"],
        "metadata_input": (", and sex, age and site, each of which may be unknown and then counts as the average"
                           * model["use_metadata"]),
        "tta_views": config["tta_views"]}


def _tell_data(folder: Path, metrics: Mapping, config: Mapping, folds_df: pd.DataFrame,
               subgroups_df: pd.DataFrame) -> dict[str, object]:
    ours_df, external_df = (folds_df[folds_df["source"] == source] for source in ("competition", "external"))
    leak = measure_patient_leak(ours_df)["leak"].max()
    external = ""
    if len(external_df):
        external = (f" {len(external_df):,} external images (`{config['store']['external']['source']}`) of "
                    f"{external_df['patient_id'].nunique():,} lesions or patients, {external_df['target'].sum():,} "
                    "melanomas, are scored apart, out of folds of their own, by lesion: where nobody knows the "
                    "patients, one may be in two folds.")
    tones_df = subgroups_df[subgroups_df["attribute"].str.startswith("skin tone")
                            & subgroups_df["group"].isin(DARK_TONES)]
    dark = f"{tones_df['n_images'].sum():,} images, {tones_df['n_melanomas'].sum():,} of them melanomas"
    rare = RARE.format(acral=_count(folds_df, SITE, ["palms/soles"]), dark=dark,
                       mucosal=_count(folds_df, SITE, ["oral/genital"]))
    return {
        "leak": "No patient is in two folds." if leak == 0 else f"**LEAK: in the worst fold {leak:.1%} of the images "
                "have their patient in training as well. The figures are too good.**",
        "duplicates": _tell_duplicates(folder, ours_df, config["store"]["image_size"]),
        "share": metrics["n_melanomas"] / metrics["n_images"], "external_data": external,
        "rare": rare, "training": tables.tabulate_training(folds_df),
        "other_cancers": "In the training data so many are marked as one of these: "
                         f"{_count(folds_df, 'diagnosis', OTHER_CANCERS, with_melanomas=False)}."}


def _tell_duplicates(folder: Path, folds_df: pd.DataFrame, image_size: int) -> str:
    """Returns how many images of a competition are there twice, as far as 02_create_folds has found any."""
    if not (folder / PAIRS_FILE).is_file():
        return "Whether a picture is among them twice, nobody has searched."
    pairs_df = read_pairs(folder).query("split == 'train' and other_split == 'train' and kind != 'alike'")
    names = folds_df["image_name"]
    n = int((pairs_df["image_name"].isin(names) & pairs_df["other_name"].isin(names)).sum())
    how = "names and lists tell (a perceptual hash is sure from 64 px on)" if image_size < SURE_SIZE else \
        "names, lists and a perceptual hash tell"
    found = f"{n} pair{'s' * (n != 1)} of them show the same picture twice" if n else "No picture is among them twice"
    return f"{found}, as far as {how}."


def _tell_training(configs: Mapping[int, Mapping], has_external: bool) -> dict[str, str]:
    """Returns what the folds' networks were trained on, all alike or, in a committee, each in a training of its own."""
    config, n_models = next(iter(configs.values())), len(configs)
    if "committee" not in config:
        return {"start": _tell_start(config), "extra_training": _tell_extra_training(config, has_external), "gap": " ",
                "scored_by": "the network that has", "measured": SINGLE.format(n_models=n_models)}
    lines = []
    for name in dict.fromkeys(config["committee"]):
        folds = [fold for fold in configs if config["committee"][fold] == name]
        of_one = configs[folds[0]]
        without = " and ".join(f"without fold {fold}" for fold in folds)
        lines.append(f"\n- `{name}` (the network{'s' * (len(folds) > 1)} {without}), from {_tell_start(of_one)}"
                     + _tell_extra_training(of_one, has_external))
    return {"start": 'what "Training data" says of its training', "extra_training": ", in these trainings:\n"
            + "".join(lines), "gap": "\n\n", "measured": COMMITTEE.format(n_models=n_models),
            "scored_by": "networks, one of each training named below, that have"}


def _tell_start(config: Mapping) -> str:
    model, start = config["model"], config["train"]["start_from"]
    if start:
        return f"the models of the experiment `{start}` (what those began with, its own card says)"
    return {"none": "random weights", "imagenet": "ImageNet's weights"}.get(
        model["weights"], f"the weights `{model['weights']}` (SHA-256 {config['weights_sha256']})")


def _tell_extra_training(config: Mapping, has_external: bool) -> str:
    """Returns what is trained on beside the images as they are."""
    train, augment, extra = config["train"], config["train"]["augment"], ""
    if has_external:
        extra = f", and the external images (`{config['store']['external']['source']}`) without those of that fold" + (
            f", of which an epoch draws {train['n_external']:,}, half of them melanomas as far as there are so many"
            if train["n_external"] else "")
    if train["early_stopping_patience"] or train["scheduler"] == "plateau":
        extra += ", and without one more fold of the competition's images, whose AUC picked the epoch"
    if train["teachers"]:
        extra += f", and test images labelled by {', '.join(train['teachers'])}"
    if augment["artefacts"]:
        extra += (f"; on {augment['artefacts']:.0%} of the pictures, melanomas or not, a dark frame, bars, a ruler or "
                  "a pen mark is added, which says nothing")
    if augment["sharpness"]:
        extra += f"; {augment['sharpness']:.0%} are made sharper or coarser"
    if train["distill_from"]:
        extra += (f"; {train['distill_share']:.0%} of each target is what the networks of "
                  f"{', '.join(train['distill_from'])} without that fold say of the same turned, shifted and coloured "
                  "picture")
    return extra


def _count(df: pd.DataFrame, column: str, values: Iterable[str], with_melanomas: bool = True) -> str:
    """Returns how many images have one of the values in a column, and how many of these are melanomas."""
    if column not in df:
        return "nobody knows, the tables do not tell"
    rows_df = df[df[column].isin(list(values))]
    return f"{len(rows_df):,} image{'s' * (len(rows_df) != 1)}" + (
        f", {rows_df['target'].sum():,} of them melanomas" if with_melanomas else "")


def _tell_figures(metrics: Mapping, folds_df: pd.DataFrame, subgroups_df: pd.DataFrame, context_df: pd.DataFrame,
                  uses_metadata: bool) -> dict[str, object]:
    folds, calibration, external = metrics["folds"], metrics["calibration"], ""
    if "external_auc" in metrics:
        external = (" On {n_external_images:,} external images, out of fold as well: {external_auc:.3f} "
                    "({external_auc_low:.3f}–{external_auc_high:.3f}).").format(**metrics)
    is_whole, sd = len(folds) == metrics["n_folds"], metrics["fold_auc_sd"]
    return {
        "n_models": len(folds), "external": external, "areas": tables.tabulate_areas(metrics),
        "unfinished": "" if is_whole else f" **Only {len(folds)} of {metrics['n_folds']} folds are trained: the "
                                          "figures are about their images alone.**",
        "folds": tables.tabulate_folds(metrics, folds_df[folds_df["source"] == "competition"]),
        "fold_sd": f" ± {sd:.3f} (standard deviation)" if sd is not None else "",
        "points": tables.tabulate_points(metrics["operating_points"]), "method": calibration["method"],
        "why_not": calibration["why_not"] and f" Not here: {calibration['why_not']}.",
        "calibration": tables.tabulate_calibration(calibration["among_images"]),
        "calibration_for_people": tables.tabulate_calibration(calibration["at_prevalence"]),
        "subgroups": tables.tabulate_subgroups(subgroups_df),
        "context": _tell_context(metrics, context_df, uses_metadata),
        "diagnoses": DIAGNOSES.format(table=tables.tabulate_diagnoses(metrics["diagnoses"]))
                     if metrics.get("diagnoses") else "",
        "saliency": SALIENCY.format(**metrics) if "saliency_outside" in metrics else ""}


def _tell_context(metrics: Mapping, context_df: pd.DataFrame, uses_metadata: bool) -> str:
    if context_df.empty:
        return "Not measured: that wants two trained folds at least, and folds by patient."
    used = metrics.get("context", {"used": "none"})["used"]
    what = "networks', which count sex, age and site themselves" if uses_metadata else "image networks' alone"
    sentence = f"The figures above are the {what}" + (
        "." if used == "none" else f"; the submission of 05 blends them with the second stage \"{used}\".")
    if uses_metadata:
        context_df = context_df.replace({"step": {"image": "image with sex, age and site",
                                                  "+ metadata": "+ metadata once more, in the second stage"}})
    return f"{tables.tabulate_context(context_df)}\n\n{sentence}"
