"""A proxy for the tone of the skin around a lesion, which depends on the light as well."""

import numpy as np
import pandas as pd
import torch
from kornia.color import rgb_to_lab

RIM_SHARE = 1 / 8  # of the side: the width of the border that is looked at
MIN_LIGHTNESS = 15  # L* below which a pixel counts as the dark frame or a hair; the darkest skin has 20
MIN_PIXELS = 0.2  # share of the border that must be left
CHUNK = 256  # images at a time
# Chardon et al. 1991 (doi 10.1111/j.1467-2494.1991.tb00561.x), Del Bino & Bernerd 2013 (doi 10.1111/bjd.12529).
TONES = {"dark": -30, "brown": 10, "tan": 28, "intermediate": 41, "light": 55, "very light": np.inf}  # ITA up to


def measure_ita(images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Returns (N,) individual typology angles in degrees, from the borders of images: the lighter, the larger.

    ITA = arctan((L* - 50) / b*) (Chardon et al. 1991), of the border's median L* and b*, without what is too dark to be
    skin. It was defined for a colorimeter on the skin. Here camera, light and white balance are unknown, and a large
    lesion, a ruler or a bandage may lie on the border: a proxy, known to depend on the light (Benčević et al. 2025,
    arXiv 2504.04494), used on ISIC images by Kinyanjui et al. 2020 (doi 10.1007/978-3-030-59725-2_31). It is no
    Fitzpatrick type, and says nothing about one person.

    Args:
        images: (M, H, W, 3) uint8 RGB, an array or a store's memory-mapped images.
        rows: (N,) which of them; None: all.

    Returns:
        Degrees, -180 to 180 (beyond ±90 where the light makes skin bluish); NaN where nearly all of the border is dark.
    """
    rows = np.arange(images.shape[0]) if rows is None else np.asarray(rows)
    angles = [_measure_chunk(np.asarray(images[rows[start:start + CHUNK]])) for start in range(0, len(rows), CHUNK)]
    return np.concatenate(angles) if angles else np.zeros(0)


def _measure_chunk(images: np.ndarray) -> np.ndarray:
    rim = max(1, round(RIM_SHARE * images.shape[1]))
    step = max(1, images.shape[1] // 64)  # about 64 pixels a side are enough for a median
    strips = [images[:, :rim:step, ::step], images[:, -rim::step, ::step], images[:, rim:-rim:step, :rim:step],
              images[:, rim:-rim:step, -rim::step]]
    pixels = np.concatenate([strip.reshape(len(images), -1, 3) for strip in strips], axis=1)  # (N, n, 3)
    lightness, _, yellow = np.moveaxis(convert_to_lab(pixels), -1, 0)  # (N, n) each
    is_skin = lightness >= MIN_LIGHTNESS
    is_enough = is_skin.mean(1) >= MIN_PIXELS
    angles = np.full(len(images), np.nan)
    medians = [np.nanmedian(np.where(is_skin, values, np.nan)[is_enough], axis=1) for values in (lightness, yellow)]
    angles[is_enough] = np.degrees(np.arctan2(medians[0] - 50, medians[1]))
    return angles


def convert_to_lab(pixels: np.ndarray) -> np.ndarray:
    """Returns (…, 3) CIE L*a*b* (D65) of (…, 3) uint8 sRGB pixels."""
    channels = torch.from_numpy(np.ascontiguousarray(pixels)).reshape(1, -1, 1, 3).permute(0, 3, 1, 2)  # (1, 3, n, 1)
    return rgb_to_lab(channels.float() / 255).permute(0, 2, 3, 1).numpy().reshape(pixels.shape)


def name_tones(angles: np.ndarray) -> pd.Series:
    """Returns the classes of ITA degrees, `TONES`, as ordered categories; missing where the angle is."""
    edges = [-np.inf, *TONES.values()]
    return pd.Series(pd.cut(np.asarray(angles, dtype=float), edges, labels=list(TONES)))
