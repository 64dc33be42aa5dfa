"""Optional cleaning of dermoscopy images: the dark frame, hairs, the colour of the light."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

# Chosen by looking at SIIM-ISIC and HAM10000 pictures and, for hairs, on drawn ones whose hairs are known.
FRAME_LEVEL = 0.4  # of the bright field's median brightness; corners under a frame lie below it and vignettes above
FRAME_SHARE = 0.002  # of the crop that may still be frame
MAX_CUT = 0.15  # of the bright field on each side; the square in a circle takes 0.146
HAIR_WIDTH, HAIR_LENGTH = 0.02, 0.1  # of the shorter side: a hair is narrower than the one and longer than the other
HAIR_CONTRAST = 14  # levels of red by which a hair is darker than what lies beside it
N_DIRECTIONS = 16  # 5 % of the drawn hairs' pixels are missed; 13 % with 12 directions, 24 % with 8


def clean_image(image: np.ndarray, steps: Sequence[str]) -> np.ndarray:
    """Returns an image after the CLEAN_STEPS named; without any, the image itself.

    Args:
        image: (H, W, 3) uint8 RGB.
        steps: names of CLEAN_STEPS, in their order.

    Raises:
        ValueError: a name is unknown, or they are in another order.
    """
    check_clean_steps(steps)
    for step in steps:
        image = CLEAN_STEPS[step](image)
    return image


def check_clean_steps(steps: Sequence[str]) -> None:
    """Raises ValueError if a name is not one of CLEAN_STEPS, or the names are not in that order, each once."""
    unknown = [step for step in steps if step not in CLEAN_STEPS]
    if unknown:
        raise ValueError(f"CLEAN_STEPS {unknown[0]!r} is not one of {tuple(CLEAN_STEPS)}")
    wanted = [step for step in CLEAN_STEPS if step in steps]
    if list(steps) != wanted:
        raise ValueError(f"CLEAN_STEPS {list(steps)} are always done in the order {wanted}: name them so")


def crop_dark_frame(image: np.ndarray) -> np.ndarray:
    """Returns the largest centred part of the bright field that holds nearly none of the dark frame around it.

    The centre and the proportions are those of the rows and columns where the field is at least half as wide as at its
    widest. The image comes back whole where no frame is found, or where the dark reaches further in than a round field
    leaves it: a lesion, a sticker.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    cell = max(1, round(min(image.shape[:2]) / 128))  # a coarse grid of about 128 cells, in which hairs vanish
    frame = _find_frame(np.asarray(Image.fromarray(image.max(2)).reduce(cell)))
    if not frame.any():
        return image
    widths = ((~frame).mean(axis) for axis in (1, 0))  # of the bright field, row by row and column by column
    rows, columns = (np.flatnonzero(width >= width.max() / 2) for width in widths)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    for cut in np.arange(0, MAX_CUT + 0.005, 0.01):
        y_cut, x_cut = round(cut * (bottom - top)), round(cut * (right - left))
        y, x = slice(top + y_cut, bottom - y_cut), slice(left + x_cut, right - x_cut)
        if frame[y, x].mean() <= FRAME_SHARE:
            return image[y.start * cell : y.stop * cell, x.start * cell : x.stop * cell]
    return image


def _find_frame(brightness: np.ndarray) -> np.ndarray:
    """Returns where the frame is (H, W) bool: dark and joined to a dark corner, if at least two corners are dark."""
    # Without the frame, which may be most of the picture; a field of less than a tenth of it is none, but a glare.
    bright = brightness[brightness >= np.percentile(brightness, 90) / 5]
    dark = brightness < FRAME_LEVEL * np.median(bright)
    dark = ndimage.binary_opening(np.pad(dark, 2, mode="edge"), np.ones((3, 3)))[2:-2, 2:-2]
    labels, _ = ndimage.label(dark)
    corners = labels[[0, 0, -1, -1], [0, -1, 0, -1]]
    # One dark corner may be a lesion that leaves the picture there.
    return np.isin(labels, corners[corners > 0]) & ((corners > 0).sum() >= 2)


def remove_hairs(image: np.ndarray) -> np.ndarray:
    """Returns the image with dark hairs (and other thin, long, dark lines) replaced by the colour beside them.

    In the manner of DullRazor (Lee et al. 1997, doi 10.1016/S0010-4825(97)00020-6): see `find_hairs`. What is put in
    their place is a Gaussian mean of the pixels without hair. Large images are searched, and the means taken, at about
    256 pixels a side: that is faster, and leaves more of a lesion's network alone.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    scale = max(1, round(min(image.shape[:2]) / 256))
    small = np.asarray(Image.fromarray(image).reduce(scale))
    hairs, sigma = find_hairs(small), HAIR_WIDTH * min(small.shape[:2]) / 2
    if not hairs.any():
        return image
    bare = np.dstack([np.where(hairs[..., None], 0, small), ~hairs]).astype(np.float32)  # (H, W, 4)
    bare = ndimage.gaussian_filter(bare, sigma, axes=(0, 1))
    hairs &= bare[..., 3] > 1e-3  # a thicket without any bare skin nearby stays
    colour = (bare[..., :3] / np.maximum(bare[..., 3:], 1e-3)).round().astype(np.uint8)
    hairs, colour = (large.repeat(scale, 0).repeat(scale, 1)[: len(image), : image.shape[1]]
                     for large in (hairs, colour))
    return np.where(hairs[..., None], colour, image)


def find_hairs(image: np.ndarray) -> np.ndarray:
    """Returns where dark hairs are, (H, W) bool.

    A closing by a line fills a hair in every direction but the hair's own, and a dot in all of them. What the best of
    the short closings fills and the worst of those twice and a half as long leaves is therefore a line. Lines are kept
    where they are long and thin as a whole, and dropped where they lie too close together, as in a pigment network.
    Only red is looked at: vessels and most of the pigment show less in it than hairs do.

    Args:
        image: (H, W, 3) uint8 RGB; meant for about 256 pixels a side.
    """
    red, side = image[..., 0], min(image.shape[:2])
    filled, kept = red, np.full_like(red, 255)
    for angle in np.arange(N_DIRECTIONS) * np.pi / N_DIRECTIONS:
        filled = np.maximum(filled, _close_along(red, angle, HAIR_WIDTH * side))
        kept = np.minimum(kept, _close_along(red, angle, HAIR_LENGTH / 2 * side))
    lines = filled.astype(np.int16) - kept > HAIR_CONTRAST
    window = max(3, round(4 * HAIR_WIDTH * side))
    crowded = ndimage.uniform_filter(lines.astype(np.float32), window) > 0.6
    lines &= ~ndimage.maximum_filter(crowded, window)
    labels, n_lines = ndimage.label(lines, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=n_lines + 1)[1:]
    boxes = [(y.stop - y.start, x.stop - x.start) for y, x in ndimage.find_objects(labels)]
    extents = np.hypot(*np.array(boxes).reshape(-1, 2).T)  # (n_lines,) pixels
    is_hair = (extents > HAIR_LENGTH * side) & (extents**2 > 8 * areas)
    return ndimage.binary_dilation(np.append(False, is_hair)[labels], np.ones((3, 3)), max(1, round(side / 256)))


def _close_along(grey: np.ndarray, angle: float, length: float) -> np.ndarray:
    """Returns the morphological closing (H, W) of a grey image by a line of so many pixels at an angle in radians."""
    reach = max(1, round(length / 2))
    steps = range(-reach, reach + 1)
    offsets = {(round(step * np.sin(angle)), round(step * np.cos(angle))) for step in steps}
    padded = np.pad(grey, 2 * reach, mode="edge")
    return _combine(_combine(padded, offsets, reach, np.maximum), offsets, reach, np.minimum)


def _combine(grey: np.ndarray, offsets: set[tuple[int, int]], reach: int, choose: Callable) -> np.ndarray:
    """Returns `choose` over the pixels at the offsets from each pixel; the image is `reach` narrower on each side."""
    height, width = (side - 2 * reach for side in grey.shape)
    result = grey[reach : reach + height, reach : reach + width].copy()
    for y, x in offsets:
        choose(result, grey[reach + y : reach + y + height, reach + x : reach + x + width], out=result)
    return result


def shades_of_gray(image: np.ndarray, power: float = 6) -> np.ndarray:
    """Returns the image as under white light, as bright on average as before (but for what is clipped at 255).

    The light's colour is the Minkowski norm of each channel: the mean for power 1 (grey world), the brightest value
    for infinity (max-RGB); 6 did best in Finlayson & Trezzi 2004, "Shades of Gray and Colour Constancy", Proc. 12th
    Color Imaging Conference, pp. 37-41. An image with a wholly black channel comes back as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        power: of the norm, at least 1.

    Raises:
        ValueError: the power is below 1.
    """
    if not power >= 1:
        raise ValueError(f"power {power} is below 1: 1 is grey world, 6 the paper's choice")
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in image.transpose(2, 0, 1)], 1)
    peak, levels = image.max((0, 1)), np.arange(256)[:, None]  # (3,) and (256, 1)
    if peak.min() == 0:
        return image
    share = counts / counts.sum(0)  # (256, 3)
    light = peak * (share * np.minimum(levels / peak, 1) ** power).sum(0) ** (1 / power)  # (3,); no power underflows
    gains = (share * levels).sum() / (share * levels / light).sum() / light
    table = (levels * gains).clip(0, 255).round().astype(np.uint8)  # (256, 3)
    return table[image, [0, 1, 2]]


CLEAN_STEPS = {"crop_frame": crop_dark_frame, "remove_hairs": remove_hairs, "shades_of_gray": shades_of_gray}
