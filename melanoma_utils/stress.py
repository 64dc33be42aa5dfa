"""Images changed as cameras, files and skin change them, by a named kind and a strength."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import rotate
from PIL import Image

from melanoma_utils.artefacts import draw_frames
from melanoma_utils.drawing import DARK_HAIR, draw_hairs
from melanoma_utils.image_store import JoinedImages
from melanoma_utils.transforms import to_float

MAX_HAIRS = 100


def stress_images(images: np.ndarray, kind: str, strength: float, seeds: Sequence | None = None) -> np.ndarray:
    """Returns images changed by one of STRESSES; at strength 0 the images themselves.

    Args:
        images: (N, H, W, 3) uint8 RGB, H = W.
        kind: name of one of STRESSES.
        strength: how much, in the unit and between the limits that STRESSES names.
        seeds: (N,) whole numbers >= 0, or tuples of them, one an image: which hairs it gets; None: 0, 1, …. The same
            seed gives the same hairs, and further ones at a higher strength.

    Raises:
        ValueError: the kind is unknown, or the strength out of range or no whole number where one is wanted.
    """
    check_stress(kind, strength)
    if strength == 0 or not len(images):
        return images
    return STRESSES[kind].change(images, strength, range(len(images)) if seeds is None else seeds)


def check_stress(kind: str, strength: float) -> None:
    """Raises ValueError if a kind is not one of STRESSES, or a strength is not one that it can have."""
    if kind not in STRESSES:
        raise ValueError(f"the stress {kind!r} is not one of {tuple(STRESSES)}")
    stress = STRESSES[kind]
    if not stress.low <= strength <= stress.high:
        raise ValueError(f"the strength {strength} of {kind} is not in {stress.low:g}..{stress.high:g} ({stress.unit})")
    if stress.is_whole and strength != round(strength):
        raise ValueError(f"the strength {strength} of {kind} is not a whole number ({stress.unit})")


class StressedImages:
    """Images that are changed when they are read, so that no more than a batch is held; see `stress_images`.

    Attributes:
        images: (N, H, W, 3) uint8, such as a store's.
        kind, strength: of the change.
        seed: of the hairs; with an image's row it decides which it gets.
        shape: of the images.
    """

    def __init__(self, images: np.ndarray | JoinedImages, kind: str, strength: float, seed: int = 0):
        check_stress(kind, strength)
        self.images, self.kind, self.strength, self.seed = images, kind, strength, seed
        self.shape = images.shape

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        seeds = [(self.seed, int(row)) for row in rows]
        return stress_images(np.asarray(self.images[rows]), self.kind, self.strength, seeds)


def _change_brightness(images: np.ndarray, strength: float, seeds: Sequence) -> np.ndarray:
    table = (np.arange(256) * (1 + strength)).clip(0, 255).round().astype(np.uint8)
    return table[images]


def _blur(images: np.ndarray, strength: float, seeds: Sequence) -> np.ndarray:
    sigma = strength / 100 * images.shape[1]  # pixels
    reach = math.ceil(4 * sigma)
    return _to_uint8(gaussian_blur2d(to_float(images), 2 * reach + 1, (sigma, sigma)))


def _compress(images: np.ndarray, strength: float, seeds: Sequence) -> np.ndarray:
    return np.stack([_reload_jpeg(image, 100 - int(strength)) for image in images])


def _reload_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _rotate(images: np.ndarray, strength: float, seeds: Sequence) -> np.ndarray:
    angles = torch.full((len(images),), float(strength))
    return _to_uint8(rotate(to_float(images), angles, padding_mode="reflection"))  # mirrored: no black corners


def _add_hairs(images: np.ndarray, strength: float, seeds: Sequence) -> np.ndarray:
    covers = [draw_hairs(images.shape[1:3], MAX_HAIRS, np.random.default_rng(seed), int(strength)) for seed in seeds]
    covers = np.stack(covers)[..., None]  # (N, H, W, 1)
    return (images + covers * (255 * np.array(DARK_HAIR, np.float32) - images)).round().astype(np.uint8)


def _add_frames(images: np.ndarray, strength: float, seeds: Sequence) -> np.ndarray:
    radius = math.sqrt(2) * (1 - strength / 100)  # of half the side
    center, softness, level, radius = (torch.full((1, 1, 1, 1), x) for x in (0.0, 0.03, 0.03, radius))
    return _to_uint8(draw_frames(to_float(images), radius, radius, center, center, softness, level))


def _to_uint8(images: torch.Tensor) -> np.ndarray:
    """Returns (N, 3, H, W) images in 0..1 as (N, H, W, 3) uint8."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


@dataclass(frozen=True)
class Stress:
    """A kind of change.

    Attributes:
        change: of (N, H, W, 3) uint8 images, a strength other than 0, and seeds.
        low, high: limits of the strength.
        unit: of the strength.
        is_whole: whether it must be a whole number.
    """

    change: Callable[[np.ndarray, float, Sequence], np.ndarray]
    low: float
    high: float
    unit: str
    is_whole: bool = False


STRESSES = {
    "brightness": Stress(_change_brightness, -1, 1, "share of the light added or taken"),
    "blur": Stress(_blur, 0, 20, "sigma, % of the image's side"),
    "jpeg": Stress(_compress, 0, 99, "100 − JPEG quality", is_whole=True),
    "rotation": Stress(_rotate, -180, 180, "degrees"),
    "frame": Stress(_add_frames, 0, 80, "% from corner to middle"),
    "hair": Stress(_add_hairs, 0, MAX_HAIRS, "dark hairs", is_whole=True),
}
