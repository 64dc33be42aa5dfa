"""Whether a picture can be assessed at all, and if not, why not.

What it asks: is the picture large enough, does a dark frame leave enough of it, was it taken with a dermoscope, is it
sharp, is there anything on the skin? Whether several lesions are in it is not asked: by such statistics a second lesion
can't be told from hairs, rulers and the mottling of skin (`15_input_gate` fits and measures the gate).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from melanoma_utils.files import read_json, write_json
from melanoma_utils.picture_statistics import MIN_FIELD, cut_frame, measure_statistics, squash_picture

CLIP = 4.0  # standard deviations beyond which a statistic counts no more


@dataclass(frozen=True)
class Score:
    """A weighted sum of statistics and their squares, each in standard deviations from the mean: high is good.

    Attributes:
        names: of the statistics, see `picture_statistics.measure_statistics`.
        means, sds: of the statistics among good pictures.
        weights, square_weights: of each.
        threshold: a lower score is objected to.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]
    weights: tuple[float, ...]
    square_weights: tuple[float, ...]
    threshold: float


@dataclass(frozen=True)
class Gate:
    """What a picture must fulfil; plain numbers.

    Attributes:
        min_side: shortest side in pixels.
        dermoscopy: how much it looks like a dermoscopy picture.
        sharpness: how sharp it is.
        min_contrast: how much more than the skin around it something must absorb, in units of absorbance (natural log).
    """

    min_side: int
    dermoscopy: Score
    sharpness: Score
    min_contrast: float


def read_gate(path: str | Path) -> Gate:
    """Returns the gate of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no gate's.
    """
    stored = read_json(path)
    try:
        scores = {name: Score(**{key: tuple(value) if isinstance(value, list) else float(value)
                                 for key, value in stored[name].items()}) for name in ("dermoscopy", "sharpness")}
        return Gate(int(stored["min_side"]), **scores, min_contrast=float(stored["min_contrast"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} holds no input gate ({error!r}): notebook 15_input_gate writes one") from error


def write_gate(path: str | Path, gate: Gate) -> None:
    """Writes a gate as JSON, whole or not at all."""
    write_json(path, asdict(gate))


def compute_scores(score: Score, values: np.ndarray) -> np.ndarray:
    """Returns (N,) scores.

    Args:
        score: the weights.
        values: (N, len(score.names)), the statistics in that order.
    """
    z = np.clip((np.asarray(values) - score.means) / score.sds, -CLIP, CLIP)  # (N, F)
    return z @ np.array(score.weights) + z**2 @ np.array(score.square_weights)


def find_objections(picture: np.ndarray, gate: Gate) -> tuple[str, ...]:
    """Returns why a picture can't be assessed, a short sentence each; empty if it can.

    Args:
        picture: (H, W, 3) uint8 RGB, upright, as uploaded, of any size.
        gate: of `read_gate`.

    Raises:
        ValueError: the picture is no such array.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"a picture of shape {picture.shape} and type {picture.dtype}: wanted (H, W, 3) uint8")
    height, width = picture.shape[:2]
    if min(height, width) < gate.min_side:
        return (f"it is only {width} × {height} pixels, and either side must have at least {gate.min_side}",)
    field, share = cut_frame(picture)
    if share < MIN_FIELD:
        return ("its dark frame takes up most of it: cut it off, and give what is left",)
    return judge_statistics(measure_statistics(squash_picture(field)), gate)


def judge_statistics(statistics: Mapping[str, float], gate: Gate) -> tuple[str, ...]:
    """Returns the objections to a picture of enough pixels, see `find_objections`.

    Sharpness and contrast mean something in dermoscopy alone: of other pictures it is said only that they are none.

    Args:
        statistics: of `picture_statistics.measure_statistics`.
        gate: of `read_gate`.
    """
    def is_low(score: Score) -> bool:
        """Returns whether the statistics score below the threshold."""
        return compute_scores(score, [[statistics[name] for name in score.names]])[0] < score.threshold

    if is_low(gate.dermoscopy):
        return ("it does not look like a picture taken with a dermoscope",)
    found = {"it is blurred": is_low(gate.sharpness),
             "no lesion is to be seen": statistics["contrast"] < gate.min_contrast}
    return tuple(sentence for sentence, is_so in found.items() if is_so)
