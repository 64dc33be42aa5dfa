"""The probability of melanoma for any images, from the command line."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.special import expit

from melanoma_utils.archives import Source
from melanoma_utils.calibration import apply_calibration, read_calibration
from melanoma_utils.competition import METADATA_COLUMNS, encode_metadata, read_table
from melanoma_utils.evaluation import check_prevalence
from melanoma_utils.experiment import check_evaluated
from melanoma_utils.files import check_writable, write_csv
from melanoma_utils.image_files import list_images
from melanoma_utils.images import load_at_sizes, read_image_size
from melanoma_utils.inference import Forward, Samples, pick_device, predict_logits
from melanoma_utils.models import LesionClassifier, load_checkpoint
from melanoma_utils.openvino_runtime import RUNTIMES, compile_openvino, is_openvino_wanted
from melanoma_utils.patient_table import describe_pictures
from melanoma_utils.stopping import stop_at_signals
from melanoma_utils.transforms import TTA_VIEWS

HEADER = "image_name,probability,"  # how a table of predictions begins
CHUNK = 256  # images decoded and predicted at a time


@dataclass(frozen=True)
class Ensemble:
    """Models that are asked together.

    Attributes:
        models: in evaluation mode; they want the same images.
        decode_size: side in pixels for which their training images were decoded, see `images.load_at_sizes`.
        forwards: what computes each model's logits, see `inference.predict_logits`.
    """

    models: list[LesionClassifier]
    decode_size: int
    forwards: tuple[Forward | None, ...] = ()

    def compile(self) -> "Ensemble":
        """Returns the ensemble with its models compiled by OpenVINO."""
        return replace(self, forwards=tuple(compile_openvino(model) for model in self.models))


def load_ensemble(path: str | Path) -> Ensemble:
    """Returns the models of a checkpoint, or of all `fold_*.safetensors` in a folder.

    Raises:
        FileNotFoundError: there is no such file, or no checkpoint in the folder.
        ValueError: a checkpoint is damaged, or the models want images of different size, shape or cleaning.
    """
    paths = sorted(Path(path).glob("fold_*.safetensors")) if Path(path).is_dir() else [Path(path)]
    if not paths:
        raise FileNotFoundError(f"{path} holds no fold_*.safetensors: give a checkpoint, or an experiment's folder")
    loaded = [load_checkpoint(checkpoint_path) for checkpoint_path in paths]
    wanted = {(m.config.image_size, m.config.resize_mode, tuple(m.config.clean_steps),
               config.get("store", {}).get("decode_size", m.config.image_size)) for m, config in loaded}
    if len(wanted) > 1:
        raise ValueError(f"the models in {path} want different images: {sorted(wanted)}; give one checkpoint")
    return Ensemble([model for model, _ in loaded], next(iter(wanted))[-1])


def predict_images(ensemble: Ensemble, images: Mapping[str, Source],
                   metadata_df: pd.DataFrame | None = None, *, tta_views: int = 4, device: str = "cpu",
                   n_jobs: int = -1, to_probs: Callable[[np.ndarray], np.ndarray] = expit,
                   log: Callable[[str], None] = lambda line: None) -> tuple[pd.DataFrame, dict[str, str]]:
    """Returns the probabilities of images, and why some could not be read.

    Args:
        ensemble: of `load_ensemble`.
        images: image_name -> image file.
        metadata_df: columns image_name, sex, age_approx (years), anatom_site_general_challenge, for models that use
            them; images without a row there, or without any table, count as unknown in all three.
        tta_views: 1, 2, 4 or 8 flips and turns averaged.
        device: "cpu" or "cuda".
        n_jobs: processes that decode; -1 is one a core.
        to_probs: what makes probabilities of logits, never falling, such as `calibration.apply_calibration`.
        log: called with a line after every chunk of images, and with one where files are as small as what the models
            look at, or smaller.

    Returns:
        (predictions_df, bad): columns image_name, probability (of the mean logit over the models), lowest, highest (of
        the single models); image_name -> reason.
    """
    names, models, config, logits, bad = list(images), ensemble.models, ensemble.models[0].config, [], {}
    n_small = 0
    forwards = ensemble.forwards or (None,) * len(models)
    how = [config.image_size], config.resize_mode, config.clean_steps, ensemble.decode_size
    for start in range(0, len(names), CHUNK):
        chunk = names[start:start + CHUNK]
        loaded, refused = _load_chunk({name: images[name] for name in chunk}, n_jobs, how)
        bad |= refused
        n_small += sum(side <= config.image_size for _, side in loaded.values())
        if loaded:
            samples = Samples(np.stack([image for image, _ in loaded.values()]), np.arange(len(loaded)),
                              _select_metadata(list(loaded), metadata_df) if config.use_metadata else None)
            logits.append(pd.DataFrame(
                {k: predict_logits(model, samples, tta_views=tta_views, device=device, forward=forward)
                 for k, (model, forward) in enumerate(zip(models, forwards, strict=True))}, index=list(loaded)))
        log(f"{start + len(chunk):,} of {len(names):,} images")
    if n_small:
        log(f"{n_small:,} of these have no more than the {config.image_size} × {config.image_size} pixels that the "
            "models look at: so small a file is less or more sharp than what they have learnt from, and the number "
            "less sure")
    logits_df = pd.concat(logits) if logits else pd.DataFrame(columns=range(len(models)), dtype=np.float32)
    return _to_predictions(logits_df, to_probs), bad


def _to_predictions(logits_df: pd.DataFrame, to_probs: Callable[[np.ndarray], np.ndarray]) -> pd.DataFrame:
    """Returns the table of `predict_images` of logits by image_name, a column a model."""
    values = logits_df.to_numpy(np.float64)  # (N, n_models)
    probs = to_probs(np.stack([values.mean(1), values.min(1), values.max(1)], axis=1))  # (N, 3)
    predictions_df = pd.DataFrame(probs, columns=["probability", "lowest", "highest"])
    predictions_df.insert(0, "image_name", logits_df.index)
    return predictions_df


def _load_chunk(images: Mapping[str, Source], n_jobs: int,
                how: Sequence[object]) -> tuple[dict[str, tuple[np.ndarray, int]], dict[str, str]]:
    """Returns what `_try_load` gives of each image that can be read, and why the others can't; n_jobs processes."""
    n_workers = n_jobs if len(images) > 8 else 1  # processes take longer to start than a few images to decode
    loaded = dict(zip(images, Parallel(n_workers)(delayed(_try_load)(source, *how) for source in images.values()),
                      strict=True))
    bad = {name: reason for name, reason in loaded.items() if isinstance(reason, str)}
    return {name: found for name, found in loaded.items() if name not in bad}, bad


def _try_load(path: Source, *how: object) -> tuple[np.ndarray, int] | str:
    """Returns an image as the models want it and the shorter side of its file in pixels, or why it can't be read."""
    try:
        return load_at_sizes(path, *how)[0], min(read_image_size(path))
    except (ValueError, FileNotFoundError) as error:
        return str(error)


def _select_metadata(names: Sequence[str], metadata_df: pd.DataFrame | None) -> np.ndarray:
    """Returns the (n, 12) metadata of the images named, unknown where nothing is known of one."""
    df = pd.DataFrame(columns=METADATA_COLUMNS) if metadata_df is None else metadata_df.set_index("image_name")
    return encode_metadata(df.reindex(index=names, columns=METADATA_COLUMNS).astype({"age_approx": float}))


def _read_to_probs(model: str | Path, prevalence: float | None) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what makes probabilities of logits: the calibration beside the model, without prevalence the sigmoid."""
    if prevalence is None:
        return expit
    check_prevalence(prevalence)
    folder = Path(model) if Path(model).is_dir() else Path(model).parent
    if (folder / "metrics.json").is_file():
        check_evaluated(folder)  # else the calibration would be that of other models
    return partial(apply_calibration, read_calibration(folder / "calibration.json"), prevalence=prevalence)


def _check_output(path: Path) -> None:
    """Raises OSError where no table can be written at path, or something else would be lost there: before hours of
    predicting, not after."""
    check_writable(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file but a device or a pipe: name a file, such as predictions.csv")
    if path.exists() and path.stat().st_size:
        with open(path, "rb") as file:
            if file.read(len(HEADER)) != HEADER.encode():
                raise FileExistsError(f"{path} exists and holds no predictions: name another file, nothing is replaced")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m melanoma_utils.predict", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="image files, folders, zip archives")
    parser.add_argument("--model", required=True, help="folder of an experiment, of an exported model, or a checkpoint")
    parser.add_argument("-o", "--output", default="predictions.csv", metavar="FILE")
    parser.add_argument("--metadata", metavar="FILE.csv", help="sex, age and site by image_name, as in test.csv")
    parser.add_argument("--prevalence", type=float, metavar="SHARE",
                        help="give calibrated probabilities for people among whose lesions this share are melanomas, "
                             "such as 0.0176; by the calibration.json beside the model")
    parser.add_argument("--tta-views", type=int, default=4, choices=TTA_VIEWS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runtime", default="auto", choices=RUNTIMES,
                        help="auto: OpenVINO for many images on a CPU, where it is installed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status: 1 where nothing, or not every image, could be predicted."""
    a = _parse(arguments)
    stop_at_signals()
    try:
        _check_output(Path(a.output))
        ensemble, images = load_ensemble(a.model), list_images(a.images, log=print)
        to_probs = _read_to_probs(a.model, a.prevalence)
        if a.metadata and not Path(a.metadata).is_file():
            raise FileNotFoundError(f"{a.metadata} does not exist")
        table_df = read_table(Path(a.metadata), ("image_name", *METADATA_COLUMNS), check_age=False) if a.metadata \
            else None
        metadata_df, problems = describe_pictures(list(images), table_df)
        if ensemble.models[0].config.use_metadata:
            print(*problems, sep="\n", end="\n" * bool(problems))
            n_unknown = metadata_df[list(METADATA_COLUMNS)].isna().all(axis=1).sum()
            print(f"sex, age and site count as unknown for {n_unknown:,} of {len(images):,} images"
                  + ("" if a.metadata else " (no --metadata)"))
        elif a.metadata:
            print(f"{a.metadata} changes nothing: this model looks at pictures alone")
        device = pick_device(a.device)
        if is_openvino_wanted(a.runtime, device, len(images)):
            ensemble = ensemble.compile()
        predictions_df, bad = predict_images(ensemble, images, metadata_df.reset_index(), tta_views=a.tta_views,
                                             device=device, to_probs=to_probs,
                                             log=lambda line: print(line, flush=True))
        if not predictions_df.empty:
            write_csv(a.output, predictions_df)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for reason in bad.values():
        print(f"not predicted: {reason}", file=sys.stderr)
    if predictions_df.empty:
        print(f"error: no image could be read, so {a.output} is not written", file=sys.stderr)
        return 1
    meaning = "not calibrated" if a.prevalence is None else \
        f"calibrated for a share of melanomas of {a.prevalence:.3g}"
    print(f"{a.output}: {len(predictions_df):,} images by {len(ensemble.models)} models; {meaning}, not a medical "
          "device")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
