"""From logits that rank to probabilities for people: fitted, stored as JSON, applied at any prevalence."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from melanoma_utils.bootstrap import check_scores
from melanoma_utils.evaluation import check_prevalence
from melanoma_utils.files import read_json, write_json

METHODS = ("platt", "isotonic")


@dataclass(frozen=True)
class Calibration:
    """A fitted calibrator; it never turns the ranking round.

    Attributes:
        method: one of `METHODS`.
        share: of melanomas among the images that it was fitted on; what it gives without a prevalence holds there.
        n_images: number of these images.
        scale, shift: of "platt": probability = sigmoid(scale * logit + shift); 1 / scale is the temperature.
        logits, probs: of "isotonic": the corners of a rising line, level beyond its ends.
    """

    method: str
    share: float
    n_images: int
    scale: float = 0.0
    shift: float = 0.0
    logits: tuple[float, ...] = ()
    probs: tuple[float, ...] = ()


def fit_calibration(targets: np.ndarray, logits: np.ndarray, method: str = "platt") -> Calibration:
    """Returns a calibrator fitted on logits of images that their model has not seen.

    "platt" is temperature scaling with a shift (Platt 1999, with his targets a little inside 0 and 1, so that classes
    that do not overlap give no infinite scale; the temperature: Guo et al. 2017, arXiv 1706.04599). "isotonic" takes
    any rising curve (Zadrozny & Elkan 2002, doi 10.1145/775047.775151), wants about a thousand images and more, and is
    kept inside 1 / (N + 2) and 1 - 1 / (N + 2): nobody is told 0 or 100 %.

    Args:
        targets: (N,) 0 or 1.
        logits: (N,) out of fold.
        method: one of `METHODS`.

    Raises:
        ValueError: the method is unknown, or as `bootstrap.check_scores`.
    """
    if method not in METHODS:
        raise ValueError(f"CALIBRATION {method!r} is not one of {METHODS}")
    targets, logits, _ = check_scores(targets, logits, np.arange(len(targets)))
    known = {"method": method, "share": float(targets.mean()), "n_images": len(targets)}
    if method == "platt":
        return Calibration(**known, **_fit_platt(targets, logits))
    margin = 1 / (len(targets) + 2)
    curve = IsotonicRegression(y_min=margin, y_max=1 - margin, out_of_bounds="clip").fit(logits, targets)
    return Calibration(**known, logits=tuple(map(float, curve.X_thresholds_)),
                       probs=tuple(map(float, curve.y_thresholds_)))


def _fit_platt(targets: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    n_melanomas, mean, sd = targets.sum(), logits.mean(), logits.std()
    wanted = np.where(targets == 1, (n_melanomas + 1) / (n_melanomas + 2), 1 / (len(targets) - n_melanomas + 2))
    is_flat = sd <= 1e-9 * max(1, abs(mean))  # the mean of equal numbers is rarely just that number
    x = np.zeros(len(logits)) if is_flat else (logits - mean) / sd

    def measure_loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the mean cross-entropy at (scale, shift) of x and its gradient."""
        z = parameters[0] * x + parameters[1]
        error = (expit(z) - wanted) / len(x)
        return float((np.logaddexp(0, z) - wanted * z).mean()), np.array([error @ x, error.sum()])

    result = minimize(measure_loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)],
                      options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000})
    scale = 0.0 if is_flat else float(result.x[0] / sd)
    return {"scale": scale, "shift": float(result.x[1] - scale * mean)}


def apply_calibration(calibration: Calibration, logits: np.ndarray, prevalence: float | None = None) -> np.ndarray:
    """Returns (N,) probabilities for people among whom melanomas have a prevalence.

    Args:
        calibration: of `fit_calibration` or `read_calibration`.
        logits: (N,) of the same models as those that it was fitted on, or of their mean.
        prevalence: between 0 and 1; None: the share in the data that it was fitted on.

    Raises:
        ValueError: a logit is not finite, or the prevalence is not between 0 and 1.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise ValueError(f"{int((~np.isfinite(logits)).sum())} of {logits.size} logits are not finite")
    probs = expit(calibration.scale * logits + calibration.shift) if calibration.method == "platt" else \
        np.interp(logits, calibration.logits, calibration.probs)
    return probs if prevalence is None else shift_prior(probs, calibration.share, prevalence)


def shift_prior(probs: np.ndarray, share: float, prevalence: float) -> np.ndarray:
    """Returns probabilities that hold at one share of melanomas as they are at another.

    The odds are multiplied by the ratio of the two shares' odds (Saerens et al. 2002, doi 10.1162/089976602753284446).
    That is right where melanomas look alike in both, and benign lesions too; only their numbers differ.

    Args:
        probs: (N,) probabilities, 0..1.
        share, prevalence: where they hold, and where they shall; each between 0 and 1.

    Raises:
        ValueError: one of these is not between 0 and 1.
    """
    check_prevalence(prevalence)
    check_prevalence(share)
    melanoma, benign = probs * prevalence / share, (1 - probs) * (1 - prevalence) / (1 - share)
    return melanoma / (melanoma + benign)


def cross_fit(targets: np.ndarray, logits: np.ndarray, patient_ids: np.ndarray, method: str = "platt",
              prevalence: float | None = None, *, n_splits: int = 5, seed: int = 0) -> np.ndarray:
    """Returns (N,) probabilities, each from a calibrator fitted on other patients' images.

    Args:
        targets, logits, method: see `fit_calibration`.
        patient_ids: (N,) labels of the patients.
        prevalence: see `apply_calibration`.
        n_splits: parts into which the patients are dealt, fewer where fewer patients have melanomas.
        seed: of the dealing.

    Raises:
        ValueError: see `fit_calibration`, `bootstrap.check_scores`; or see `explain_no_cross_fit`.
    """
    targets, logits, patients = check_scores(targets, logits, patient_ids)
    reason = explain_no_cross_fit(targets, patients)
    if reason:
        raise ValueError(reason)
    parts = _deal_patients(targets, patients, n_splits, np.random.default_rng(seed))
    probs = np.empty(len(targets))
    for part in np.unique(parts):
        is_out = parts == part
        calibration = fit_calibration(targets[~is_out], logits[~is_out], method)
        probs[is_out] = apply_calibration(calibration, logits[is_out], prevalence)
    return probs


def explain_no_cross_fit(targets: np.ndarray, patient_ids: np.ndarray) -> str:
    """Returns why these images can't be calibrated by cross-fitting, "" where they can."""
    targets, patient_ids = np.asarray(targets), np.asarray(patient_ids)
    for what, target in (("melanomas", 1), ("benign images", 0)):
        n = len(np.unique(patient_ids[targets == target]))
        if n < 2:
            return f"calibration by cross-fitting wants {what} of two patients at least, met {n}"
    return ""


def _deal_patients(targets: np.ndarray, patients: np.ndarray, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """Returns (N,) the part of each image: the patients dealt like cards, so that no part holds all of a class."""
    n_melanomas, n_benign = (np.bincount(patients[targets == target], minlength=patients.max() + 1)
                             for target in (1, 0))
    n_splits = min(n_splits, int((n_melanomas > 0).sum()), int((n_benign > 0).sum()))
    has_both = (n_melanomas > 0) & (n_benign > 0)
    part = np.empty(len(has_both), dtype=int)
    for members, start in ((has_both, 0), (n_benign == 0, has_both.sum()), (n_melanomas == 0, has_both.sum())):
        part[rng.permutation(np.flatnonzero(members))] = (start + np.arange(members.sum())) % n_splits
    return part[patients]


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Writes a calibrator as JSON, whole or not at all."""
    write_json(path, asdict(calibration))


def read_calibration(path: str | Path) -> Calibration:
    """Returns a calibrator as `write_calibration` wrote it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or its method unknown.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: run 04_evaluate_oof for this experiment")
    values = read_json(path)
    if values.get("method") not in METHODS or set(values) != set(Calibration.__dataclass_fields__):
        raise ValueError(f"{path} holds {sorted(values)} of the method {values.get('method')!r}, wanted "
                         f"{sorted(Calibration.__dataclass_fields__)} of one of {METHODS}: run 04_evaluate_oof again")
    try:
        numbers = [np.array(values[key], float) for key in ("share", "scale", "shift", "logits", "probs")]
        share, scale, _, logits, probs = numbers
        is_sound = all(np.isfinite(number).all() for number in numbers) and 0 < share < 1 and scale >= 0 \
            and logits.shape == probs.shape and (np.diff(probs) >= 0).all() and (np.diff(logits) >= 0).all()
    except (TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise ValueError(f"{path} holds no calibration, but values that are no rising curve of finite numbers: run "
                         "04_evaluate_oof again")
    return Calibration(**values | {key: tuple(values[key]) for key in ("logits", "probs")})
