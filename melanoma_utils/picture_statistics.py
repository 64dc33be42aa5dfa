"""Statistics of a picture by which dermoscopy can be told from other pictures; no network is asked."""

import numpy as np
from PIL import Image
from scipy import ndimage

from melanoma_utils.cleaning import crop_dark_frame

SIZE = 128  # side in pixels at which all is measured, and also that of the smallest pictures that were at hand
QUANTILES = (2, 10, 25, 50, 75, 90, 98)  # per cent
GRADIENT_QUANTILES = (50, 75, 90, 97)
MIN_FIELD = 0.2  # of the picture, a round field of six tenths of its width; of half of it the AUC falls to 0.85
STRIP_LEVEL, STRIP_CHROMA = 185, 24  # lighter and greyer than skin in nearly all pictures that were at hand
MAX_STRIP = 0.25  # of the side: what is wider is no ruler
N_LEVELS = 4  # of the gradients' pyramid: SIZE, SIZE / 2, …
RING_EDGES = ((0, 0.35), (0.35, 0.7), (0.7, 1), (1.15, 2))  # distance from the centre; 1 is the middle of an edge
SHARPNESS = tuple(f"gradient{level}_{q}" for level in range(N_LEVELS) for q in GRADIENT_QUANTILES)


def cut_frame(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns a picture (h, w, 3) without dark frame and light strips, and which share of it the frame leaves, 0..1.

    A dermatoscope's round field is rare in the collections at hand and common elsewhere, like a ruler along an edge:
    cut, they weigh nothing. A dark edge that takes less than a twentieth stays, and so does one that leaves less than
    MIN_FIELD. Of large pictures rows and columns are left out first, so that at least 4 * SIZE stay: 24 megapixels take
    milliseconds.

    Args:
        picture: (H, W, 3) uint8 RGB.
    """
    down, right = (max(1, side // (4 * SIZE)) for side in picture.shape[:2])
    small = np.ascontiguousarray(picture[::down, ::right])
    cropped = crop_dark_frame(small)
    share = cropped.size / small.size
    return _cut_strips(cropped if MIN_FIELD <= share < 0.95 else small), share


def _cut_strips(picture: np.ndarray) -> np.ndarray:
    """Returns a picture (h, w, 3) without light grey strips along its edges, such as a ruler with its marks."""
    darkest = picture.min(2)
    chroma = picture.max(2) - darkest
    kept = []
    for axis in (1, 0):  # rows, columns
        is_strip = (np.median(darkest, axis) >= STRIP_LEVEL) & (np.median(chroma, axis) <= STRIP_CHROMA)
        n = len(is_strip)
        widths = [int(np.argmin(np.append(line, False))) for line in (is_strip, is_strip[::-1])]
        start, end = (width if width <= MAX_STRIP * n else 0 for width in widths)
        kept.append(slice(start, n - end))
    return picture[tuple(kept)]


def shrink_picture(picture: np.ndarray) -> np.ndarray:
    """Returns a picture of any size as `cut_frame` leaves it, squashed to (SIZE, SIZE, 3) uint8.

    Args:
        picture: (H, W, 3) uint8 RGB.
    """
    return squash_picture(cut_frame(picture)[0])


def squash_picture(picture: np.ndarray) -> np.ndarray:
    """Returns a picture (H, W, 3) uint8 squashed to (SIZE, SIZE, 3)."""
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def measure_statistics(image: np.ndarray) -> dict[str, float]:
    """Returns what a shrunken picture's colours, their layout, its edges and its darkest spot measure, by name.

    Args:
        image: (SIZE, SIZE, 3) uint8 RGB, of `shrink_picture`.
    """
    values = image.astype(np.float32)
    half = values.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))  # (SIZE / 2, SIZE / 2, 3)
    measured = _measure_colours(half / 255) | _measure_absorption(half) | _measure_edges(values.mean(2) / 255)
    return {name: float(value) for name, value in (measured | {"contrast": _measure_contrast(half)}).items()}


def _measure_colours(x: np.ndarray) -> dict[str, float]:
    """Returns how light, red, yellow and colourful (H, W, 3) values of 0..1 are, and where."""
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    chroma = x.max(2) - x.min(2)
    channels = {"light": x.mean(2), "red": red - green, "yellow": (red + green) / 2 - blue, "chroma": chroma}
    measured = {"black": (x.max(2) < 0.12).mean(), "white": (x.min(2) > 0.93).mean(),
                "cool": (blue > red + 0.02).mean(), "green": (green > red + 0.01).mean(),
                "vivid": (chroma > 0.5).mean(), "grey": (chroma < 0.04).mean(), "violet": (blue > green + 0.02).mean()}
    axis = np.linspace(-1, 1, len(x))
    distance = np.hypot(axis[:, None], axis)  # (H, W)
    middle = len(x) // 2
    for name, channel in channels.items():
        for q, value in zip(QUANTILES, np.percentile(channel, QUANTILES), strict=True):
            measured[f"{name}_{q}"] = value
        if name == "chroma":
            continue
        for ring, (low, high) in enumerate(RING_EDGES):
            inside = channel[(distance >= low) & (distance < high)]
            measured |= {f"{name}_ring{ring}": inside.mean(), f"{name}_ring{ring}_sd": inside.std()}
        measured[f"{name}_top"] = abs(channel[:middle].mean() - channel[middle:].mean())
        measured[f"{name}_left"] = abs(channel[:, :middle].mean() - channel[:, middle:].mean())
    return measured


def _measure_absorption(half: np.ndarray) -> dict[str, float]:
    """Returns how absorbance varies over (H, W, 3) values of 0..255: on skin along two pigments, melanin and blood."""
    absorbance = -np.log((half.reshape(-1, 3) + 8) / 263)
    spread, directions = np.linalg.eigh(np.cov(absorbance.T))  # (3,) ascending, (3, 3) in columns
    main = directions[:, 2] * np.sign(directions[:, 2].sum())
    return {f"spread_{i}": np.log(max(value, 0) + 1e-5) for i, value in enumerate(spread)} | \
        {f"main_{name}": value for name, value in zip("rgb", main, strict=True)}


def _measure_edges(light: np.ndarray) -> dict[str, float]:
    """Returns how strong gradients of (H, W) values of 0..1 are at N_LEVELS scales, and how many follow the axes."""
    measured = {}
    for level in range(N_LEVELS):
        across, down = np.diff(light, axis=1)[:-1], np.diff(light, axis=0)[:, :-1]
        power = across**2 + down**2
        strength, total = np.sqrt(power), power.sum() + 1e-6
        for q, value in zip(GRADIENT_QUANTILES, np.percentile(strength, GRADIENT_QUANTILES), strict=True):
            measured[f"gradient{level}_{q}"] = np.log(value + 2e-3)
        cos = (across**2 - down**2) / (power + 1e-12)  # of twice the direction's angle
        measured[f"axes{level}"] = (power * (2 * cos**2 - 1)).sum() / total
        measured[f"slope{level}"] = abs((power * cos).sum()) / total
        measured[f"flat{level}"] = (strength < 0.004).mean()
        light = light.reshape(len(light) // 2, 2, -1, 2).mean((1, 3))
    return measured


def _measure_contrast(half: np.ndarray) -> float:
    """Returns how much more than the skin around it the darkest spot of (H, W, 3) values of 0..255 absorbs.

    Thin hairs are filled, a lens's black surround is left out, and a slope of the light, fitted to the lighter part, is
    taken off. 0 where hardly anything is in view.
    """
    absorbance = -np.log((half[..., 1:].mean(2) + 8) / 263)  # green and blue: where melanin and blood absorb
    in_view = ndimage.binary_erosion(half.max(2) > 50, iterations=2, border_value=1)
    if in_view.mean() < 0.1:
        return 0.0
    weight = ndimage.gaussian_filter(in_view.astype(np.float32), 1.5)  # so that nothing out of view is smoothed in
    smooth = ndimage.gaussian_filter(ndimage.grey_opening(absorbance, 3) * in_view, 1.5)[in_view] / weight[in_view]
    y, x = np.nonzero(in_view)
    plane = np.stack([np.ones(len(x)), x / len(half), y / len(half)], 1)  # (n, 3)
    excess, lighter = smooth, np.ones(len(x), bool)
    for _ in range(3):
        slope = np.linalg.lstsq(plane[lighter], smooth[lighter], rcond=None)[0]
        excess = smooth - plane @ slope
        lighter = excess <= np.percentile(excess, 60)
    return float(np.percentile(excess, 99.5) - np.median(excess))
