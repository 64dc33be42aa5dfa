"""What an app asks of a trained model: pictures in memory to logits, probabilities, a decision."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from melanoma_utils.archives import Source
from melanoma_utils.calibration import Calibration, apply_calibration, read_calibration
from melanoma_utils.competition import METADATA_COLUMNS, encode_metadata
from melanoma_utils.evaluation import check_prevalence
from melanoma_utils.experiment import check_evaluated
from melanoma_utils.files import read_json
from melanoma_utils.images import load_at_sizes
from melanoma_utils.inference import fuse_batch_norm
from melanoma_utils.predict import Ensemble, load_ensemble
from melanoma_utils.transforms import make_tta_views, to_float

POINT_COLUMNS = ("wanted_sensitivity", "threshold", "sensitivity", "specificity")  # what an app needs of each table
SCORE_COLUMNS = ("target", "logit")
METRICS = ("prevalence", "folds", "checkpoints_sha256")


@dataclass(frozen=True)
class Assessor:
    """A trained ensemble with what its experiment measured.

    Attributes:
        ensemble: of `predict.load_ensemble`; its forwards are the models with their batch norms folded.
        calibration: what makes probabilities of the mean logit.
        points_df: operating points of the experiment, a row each, see `operating_points.compute_operating_points`.
        metrics: the experiment's metrics.json.
        scores_df: columns target and logit, out of fold, and mostly patient (a number each); None where the folder has
            no oof_scores.csv.
    """

    ensemble: Ensemble
    calibration: Calibration
    points_df: pd.DataFrame
    metrics: dict
    scores_df: pd.DataFrame | None


@dataclass(frozen=True)
class Answer:
    """What an ensemble says of N images.

    Attributes:
        logits: (N, n_models), each the mean over the views.
        embeddings: (n_models, N, C) float32 features of the first view, the image as it is.
    """

    logits: np.ndarray
    embeddings: np.ndarray


def load_assessor(model_dir: str | Path) -> Assessor:
    """Returns the ensemble of an exported model, or of an experiment that was evaluated.

    Raises:
        FileNotFoundError: there is no such folder, or it lacks checkpoints or what 04_evaluate_oof writes.
        ValueError: a checkpoint or a table is damaged, or the models want different images, or are not those that were
            evaluated.
    """
    folder = Path(model_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist")
    for name in ("metrics.json", "operating_points.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}: run 04_evaluate_oof for this experiment")
    metrics = read_json(folder / "metrics.json")
    _check_names(folder / "metrics.json", METRICS, metrics)
    ensemble = load_ensemble(folder)
    check_evaluated(folder)
    fused = tuple(fuse_batch_norm(model.float().eval()).to(memory_format=torch.channels_last)
                  for model in ensemble.models)
    scores_path = folder / "oof_scores.csv"
    return Assessor(replace(ensemble, forwards=fused), read_calibration(folder / "calibration.json"),
                    _read_csv(folder / "operating_points.csv", POINT_COLUMNS), metrics,
                    _read_csv(scores_path, SCORE_COLUMNS) if scores_path.is_file() else None)


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        df = pd.read_csv(path)
    except ValueError as error:  # pandas' errors of empty, broken or binary files are such
        raise ValueError(f"{path} can't be read as CSV: {error}") from error
    _check_names(path, columns, df)
    if df[list(columns)].empty or not np.isfinite(df[list(columns)].to_numpy(float)).all():
        raise ValueError(f"{path} has no rows, or values in {list(columns)} that are not finite numbers")
    return df


def _check_names(path: Path, wanted: Sequence[str], found: Container[str]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"{path} lacks {missing}: run 04_evaluate_oof again")


def decode_image(assessor: Assessor, source: Source) -> np.ndarray:
    """Returns the (S, S, 3) uint8 RGB image that the models want of a picture, decoded as in their training.

    Raises:
        FileNotFoundError, ValueError: see `images.load_at_sizes`.
    """
    config = assessor.ensemble.models[0].config
    return load_at_sizes(source, [config.image_size], config.resize_mode, config.clean_steps,
                         assessor.ensemble.decode_size)[0]


def ask_models(assessor: Assessor, images: np.ndarray, metadata_df: pd.DataFrame | None = None,
               tta_views: int = 4) -> Answer:
    """Returns the logits and embeddings of images by each model.

    Args:
        assessor: of `load_assessor`.
        images: (N, S, S, 3) uint8 RGB of `decode_image`.
        metadata_df: a row an image in this order, with the columns sex, age_approx (years) and
            anatom_site_general_challenge, missing where unknown; None: nothing is known of any.
        tta_views: 1, 2, 4 or 8 flips and turns averaged.
    """
    if metadata_df is None:
        metadata_df = pd.DataFrame(columns=METADATA_COLUMNS, index=range(len(images)))
    metadata = torch.from_numpy(encode_metadata(metadata_df[list(METADATA_COLUMNS)].astype({"age_approx": float})))
    x, logits, embeddings = to_float(images), [], []
    with torch.inference_mode():
        for model in assessor.ensemble.forwards:
            features = [model.embed(view) for view in make_tta_views(x, tta_views)]
            logits.append(torch.stack([model.score(f, metadata) for f in features]).mean(0).numpy())
            embeddings.append(features[0].numpy())
    return Answer(np.stack(logits, axis=1), np.stack(embeddings))


def to_probs(assessor: Assessor, logits: np.ndarray, prevalence: float) -> np.ndarray:
    """Returns calibrated probabilities of logits of any shape, for people among whose lesions so many are melanomas.

    Raises:
        ValueError: see `calibration.apply_calibration`.
    """
    return apply_calibration(assessor.calibration, logits, prevalence)


def count_per_1000(point: pd.Series, prevalence: float) -> dict[str, float]:
    """Returns what a threshold does to 1,000 people with a lesion each: found, missed, false_alarms, spared.

    Args:
        point: a row of `Assessor.points_df`.
        prevalence: share of melanomas among these lesions, between 0 and 1.

    Raises:
        ValueError: the prevalence is out of range.
    """
    check_prevalence(prevalence)
    melanomas, benign = 1000 * prevalence, 1000 * (1 - prevalence)
    found, spared = melanomas * point["sensitivity"], benign * point["specificity"]
    return {"found": found, "missed": melanomas - found, "false_alarms": benign - spared, "spared": spared}


def rank_among(scores_df: pd.DataFrame, logit: float) -> tuple[float, float]:
    """Returns the shares of benign lesions' and of melanomas' out-of-fold scores that are below a logit, 0..1 each.

    Args:
        scores_df: of `Assessor`.
        logit: the ensemble's mean for an image.
    """
    below = (scores_df["logit"] < logit).groupby(scores_df["target"]).mean()
    return float(below.get(0, np.nan)), float(below.get(1, np.nan))
