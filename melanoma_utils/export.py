"""A trained experiment as a small folder to ship: weights in half precision, its figures, a model card."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from melanoma_utils.experiment import checkpoint_path, find_evaluated_folds, find_trained_folds, hash_checkpoints
from melanoma_utils.files import read_json, write_bytes, write_json
from melanoma_utils.model_card import CARD_NAME, tell_half_precision
from melanoma_utils.models import load_checkpoint, save_checkpoint

FILES = ("parameters.json", "calibration.json", "operating_points.csv", "subgroups.csv", "oof_scores.csv")


def export_model(experiment_dir: str | Path, model_dir: str | Path) -> float:
    """Writes the models of all folds in half precision, the experiment's `FILES`, metrics.json and its model card, as
    README.md, to a folder.

    Returns:
        The size of the folder in MiB.

    Raises:
        FileNotFoundError: a fold is not trained, or the experiment not evaluated.
        ValueError: a checkpoint is damaged or of other folds, the evaluation is of other folds or checkpoints
            than are there, or the second folder is the experiment's, another experiment's or no model's at all.
    """
    experiment_dir, model_dir = Path(experiment_dir), Path(model_dir)
    for name in ("metrics.json", *FILES, CARD_NAME):
        if not (experiment_dir / name).is_file():
            raise FileNotFoundError(f"{experiment_dir} holds no {name}: run the pipeline's steps 02-04 first")
    if experiment_dir.resolve() == model_dir.resolve():
        raise ValueError(f"{experiment_dir} would be exported onto itself: give another folder")
    if (model_dir / "folds.csv").is_file():
        raise ValueError(f"{model_dir} is an experiment, whose checkpoints would be replaced: give another folder")
    if (model_dir / "README.md").is_file() and not (model_dir / "parameters.json").is_file():
        raise ValueError(f"{model_dir} holds a README.md and no exported model: give another folder")
    folds = find_trained_folds(experiment_dir, require_all=True)
    if find_evaluated_folds(experiment_dir) != folds:
        raise ValueError(f"metrics.json in {experiment_dir} is not about the folds {folds} as they are trained now: "
                         "run 04_evaluate_oof again")
    loaded = [load_checkpoint(checkpoint_path(experiment_dir, fold)) for fold in folds]
    (model_dir / "metrics.json").unlink(missing_ok=True)  # stopped halfway, it is no model
    for fold, (model, config) in zip(folds, loaded, strict=True):
        save_checkpoint(checkpoint_path(model_dir, fold), model.half(), config)
    for path in set(model_dir.glob("fold_*.safetensors")) - {checkpoint_path(model_dir, fold) for fold in folds}:
        path.unlink()  # of a model with more folds
    for name in FILES:
        shutil.copyfile(experiment_dir / name, model_dir / name)
    card = (experiment_dir / CARD_NAME).read_text(encoding="utf-8")
    write_bytes(model_dir / "README.md", tell_half_precision(card).encode())
    metrics = read_json(experiment_dir / "metrics.json") | {"checkpoints_sha256": hash_checkpoints(model_dir, folds)}
    write_json(model_dir / "metrics.json", metrics)  # last: the app takes no model without it
    return sum(path.stat().st_size for path in model_dir.iterdir()) / 2**20


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
