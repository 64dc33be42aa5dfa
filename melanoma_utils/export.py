"""A trained experiment as a small folder to ship: weights in half precision, its figures, a model card."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from melanoma_utils.experiment import checkpoint_path, find_trained_folds
from melanoma_utils.files import read_json, write_bytes
from melanoma_utils.models import load_checkpoint, save_checkpoint

FILES = ("metrics.json", "parameters.json", "calibration.json", "operating_points.csv")
CARD = """# Model card: {experiment}

{n_models} networks ({arch}, {image_size} px), one a fold of the training data; their mean logit gives the answer.

**What for.** Research, teaching, and showing what such a model can and cannot do. **Not a medical device.** It must not
decide about a person, and a low score never means that a lesion is harmless: suspicious or changing lesions go to a
doctor, whatever the number.

**Input.** One dermoscopy picture ({resize_mode} to {image_size}×{image_size} pixels){metadata}. Nothing else was ever
shown to it: photographs without a dermoscope, other organs and drawings get meaningless numbers.

**Output.** A number that ranks; by itself it is no probability for the people you see. `calibration.json`, fitted out
of fold, makes one of it for a share of melanomas that you give (`melanoma_utils.calibration`).

**How good, out of fold, folds by {fold_strategy}** ({n_images:,} images of {n_patients:,} patients, {n_melanomas:,}
melanomas): ROC AUC {oof_auc:.3f} (95 % interval {oof_auc_low:.3f}–{oof_auc_high:.3f}, patients resampled).{external}
At a share of melanomas of {prevalence:.2%}, on the same images:

| melanomas found | benign lesions spared | melanomas among those called suspicious | missed in 1,000 lesions |
|---|---|---|---|
{points}

The recipe was chosen on the same folds, so these figures flatter a little. So may how the pictures were collected: on
909 images of SIIM-ISIC 2020, and on HAM10000, the rim of the picture alone tells melanomas with an AUC of 0.77.

**Trained on** {trained_on}. Research collections are mostly of light skin, of a few clinics, with far more melanomas
than a practice sees, and with next to none on palms, soles, nails and mucosa. How it does elsewhere nobody knows.
The parameters are in `parameters.json`.

**Licence.** The weights follow the data that they were trained on. SIIM-ISIC 2020 (doi 10.34970/2020-ds01) and HAM10000
(doi 10.7910/DVN/DBW86T), for two, are CC BY-NC 4.0: research data for non-commercial use.
"""


def export_model(experiment_dir: str | Path, model_dir: str | Path) -> float:
    """Writes the models of all folds in half precision, the experiment's `FILES` and a model card to a folder.

    Returns:
        The size of the folder in MiB.

    Raises:
        FileNotFoundError: a fold is not trained, or the experiment not evaluated.
        ValueError: a checkpoint is damaged or of other folds, the evaluation is of other folds than are trained, or the
            two folders are the same.
    """
    experiment_dir, model_dir = Path(experiment_dir), Path(model_dir)
    for name in FILES:
        if not (experiment_dir / name).is_file():
            raise FileNotFoundError(f"{experiment_dir} holds no {name}: run the pipeline's steps 02-04 first")
    if experiment_dir.resolve() == model_dir.resolve():
        raise ValueError(f"{experiment_dir} would be exported onto itself: give another folder")
    folds, evaluated = find_trained_folds(experiment_dir, require_all=True), read_json(experiment_dir / "metrics.json")
    if evaluated["folds"] != folds:
        raise ValueError(f"metrics.json is about the folds {evaluated['folds']} of {folds}: run 04_evaluate_oof again")
    for fold in folds:
        model, config = load_checkpoint(checkpoint_path(experiment_dir, fold))
        save_checkpoint(checkpoint_path(model_dir, fold), model.half(), config)
    for path in set(model_dir.glob("fold_*.safetensors")) - {checkpoint_path(model_dir, fold) for fold in folds}:
        path.unlink()  # of a model with more folds
    for name in FILES:
        shutil.copyfile(experiment_dir / name, model_dir / name)
    write_bytes(model_dir / "README.md", _make_card(experiment_dir, len(folds)).encode())
    return sum(path.stat().st_size for path in model_dir.iterdir()) / 2**20


def _make_card(experiment_dir: Path, n_models: int) -> str:
    metrics, parameters = (read_json(experiment_dir / f"{name}.json") for name in ("metrics", "parameters"))
    _, config = load_checkpoint(checkpoint_path(experiment_dir, metrics["folds"][0]))
    model, external, trained_on = config["model"], "", metrics["source"]
    if "external_auc" in metrics:
        trained_on += f" and {parameters['EXTERNAL_DIR']}"
        external = (" On the {n_external_images:,} external images, out of fold by lesion: {external_auc:.3f} "
                    "({external_auc_low:.3f}–{external_auc_high:.3f}).").format(**metrics)
    row = "| {sensitivity:.1%} | {specificity:.1%} | {ppv:.1%} | {missed_per_1000:.2f} |"
    points = "\n".join(row.format(**point) for point in metrics["operating_points"])
    return CARD.format(
        **metrics, points=points, experiment=parameters["EXPERIMENT"], n_models=n_models, arch=model["arch"],
        fold_strategy=parameters["FOLD_STRATEGY"], image_size=model["image_size"], resize_mode=model["resize_mode"],
        external=external, trained_on=trained_on,
        metadata=", and sex, age and site, each of which may be unknown" if model["use_metadata"] else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m melanoma_utils.export", description=__doc__)
    parser.add_argument("experiment_dir", metavar="EXPERIMENT_DIR", help="such as output/joint_cpu")
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="such as Streamlit/model")
    a = parser.parse_args(arguments)
    try:
        size = export_model(a.experiment_dir, a.model_dir)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{a.model_dir}: {size:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
