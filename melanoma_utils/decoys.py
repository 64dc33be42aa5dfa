"""Draws pictures that no dermoscope took: documents, screens, plots, landscapes, tissue, patterns."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WORDS = ("melanoma", "of", "the", "skin", "report", "patient", "and", "lesion", "in", "was", "seen", "on", "a", "date",
         "total", "invoice", "table", "figure", "with", "for", "123", "2020", "page", "open", "file", "save", "edit")


def draw_decoy(kind: str, seed: int, size: int = 256) -> np.ndarray:
    """Returns one picture (size, size, 3) uint8 RGB; the same seed gives the same picture.

    Args:
        kind: one of `DECOYS`.
        seed: at least 0.
        size: side in pixels.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in DECOYS:
        raise ValueError(f"there is no decoy {kind!r}; there are {', '.join(DECOYS)}")
    image = DECOYS[kind](np.random.default_rng([seed, list(DECOYS).index(kind)]), size)
    return np.asarray(image if isinstance(image, Image.Image) else Image.fromarray(image.clip(0, 255).astype(np.uint8)))


def _pick_colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> tuple[int, ...]:
    return tuple(int(value) for value in rng.integers(low, high, 3))


def _draw_clouds(rng: np.random.Generator, size: int, cell: int) -> np.ndarray:
    """Returns smooth noise (size, size), 0..1."""
    grid = Image.fromarray(rng.integers(0, 256, (size // cell + 2,) * 2, np.uint8))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255


def _draw_blank(rng: np.random.Generator, size: int) -> np.ndarray:
    base = rng.choice([0, 255, rng.integers(256)]) if rng.random() < 0.5 else _pick_colour(rng)
    return np.full((size, size, 3), base) + rng.normal(0, rng.uniform(0, 3), (size, size, 1))


def _draw_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    shape = (size, size, rng.choice([1, 3]))
    return np.broadcast_to(rng.normal(rng.uniform(60, 200), rng.uniform(20, 90), shape), (size, size, 3))


def _draw_gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * math.pi)
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2)
    share = (np.hypot(x, y) if rng.random() < 0.5 else x * math.cos(angle) + y * math.sin(angle) + 1)[..., None] / 2
    return np.array(_pick_colour(rng)) * (1 - share) + np.array(_pick_colour(rng)) * share


def _draw_stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    angle, period = rng.uniform(0, math.pi), rng.uniform(4, size / 4)
    x, y = np.meshgrid(*[np.arange(size)] * 2)
    wave = np.sin(2 * math.pi / period * (x * math.cos(angle) + y * math.sin(angle)))
    share = ((wave > 0) if rng.random() < 0.5 else (wave + 1) / 2)[..., None]
    return np.array(_pick_colour(rng)) * (1 - share) + np.array(_pick_colour(rng)) * share


def _draw_checkerboard(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.indices((size, size)) // rng.integers(6, 48)
    return np.where(((x + y) % 2)[..., None] == 0, _pick_colour(rng, 0, 120), _pick_colour(rng, 130, 256))


def _write_lines(draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[int, ...], height: int, fill) -> None:
    """Writes lines of words into a box (left, top, right, bottom)."""
    font = ImageFont.load_default(height)
    for y in range(box[1], box[3] - height, round(1.5 * height)):
        words = " ".join(rng.choice(WORDS, max(1, round(rng.uniform(0.5, 1) * (box[2] - box[0]) / height / 3.2))))
        draw.text((box[0], y), words, fill, font)


def _draw_document(rng: np.random.Generator, size: int) -> Image.Image:
    image = Image.new("RGB", (size, size), _pick_colour(rng, 225, 256))
    margin = rng.integers(5, size // 8)
    _write_lines(ImageDraw.Draw(image), rng, (margin, margin, size - margin, size - margin), int(rng.integers(6, 22)),
                 _pick_colour(rng, 0, 80))
    return image.rotate(rng.normal(0, 3), fillcolor=_pick_colour(rng)) if rng.random() < 0.4 else image


def _draw_screen(rng: np.random.Generator, size: int) -> Image.Image:
    is_dark = rng.random() < 0.4
    image = Image.new("RGB", (size, size), _pick_colour(rng, *((10, 60) if is_dark else (200, 256))))
    draw, bar, side = ImageDraw.Draw(image), int(rng.integers(10, 30)), int(rng.integers(0, size // 3))
    ink = _pick_colour(rng, *((180, 256) if is_dark else (0, 90)))
    _write_lines(draw, rng, (side + 8, bar + 8, size - 8, size - 8), int(rng.integers(7, 13)), ink)
    draw.rectangle((0, 0, size, bar), _pick_colour(rng))
    draw.rectangle((0, bar, side, size), _pick_colour(rng))
    for _ in range(rng.integers(1, 7)):
        x, y, w, h = rng.integers(0, size, 2).tolist() + rng.integers(10, size // 3, 2).tolist()
        draw.rounded_rectangle((x, y, x + w, y + h), 4, _pick_colour(rng), ink)
    return image


def _draw_plot(rng: np.random.Generator, size: int) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    draw, m, n = ImageDraw.Draw(image), size // 8, int(rng.integers(5, 40))
    draw.rectangle((m, m, size - m, size - m), outline="black")
    x, ys = np.linspace(m, size - m, n), np.clip(rng.normal(0, size / 12, (3, n)).cumsum(1) + size / 2, m, size - m)
    for y in ys[:rng.integers(1, 4)]:
        colour, style = _pick_colour(rng, 0, 220), rng.integers(3)
        for a, b, c, d in zip(x, y, x[1:], y[1:], strict=False):
            if style == 0:
                draw.line((a, b, c, d), colour, 2)
            elif style == 1:
                draw.rectangle((a, b, a + 0.7 * (c - a), size - m), colour)
            else:
                draw.ellipse((a - 3, b - 3, a + 3, b + 3), colour)
    _write_lines(draw, rng, (m, 2, size - m, m), 9, "black")
    return image


def _draw_landscape(rng: np.random.Generator, size: int) -> np.ndarray:
    top, bottom = np.array(_pick_colour(rng, 60, 256)), np.array(_pick_colour(rng, 90, 256))
    image = np.linspace(top, bottom, size)[:, None] * np.ones((1, size, 1))  # the sky
    for layer in range(rng.integers(2, 5)):
        ridge = size * (0.35 + 0.15 * layer) + size * 0.25 * (_draw_clouds(rng, size, size // 4)[0] - 0.5)
        ground = np.array(_pick_colour(rng, 10, 170)) * (0.6 + 0.8 * _draw_clouds(rng, size, 4)[..., None])
        image = np.where((np.arange(size)[:, None] > ridge)[..., None], ground, image)
    return image


def _draw_tissue(rng: np.random.Generator, size: int) -> Image.Image:
    """Stained tissue under a microscope: pink or brown, full of dark nuclei, with white gaps."""
    stain, nucleus = ((225, 150, 190), (95, 50, 130)) if rng.random() < 0.7 else ((215, 190, 165), (90, 95, 140))
    cover = _draw_clouds(rng, size, int(rng.integers(8, 40)))[..., None]
    base = np.array(stain) * (1 - 0.35 * cover) + rng.normal(0, 12, 3)
    base = np.where(_draw_clouds(rng, size, int(rng.integers(16, 64)))[..., None] > 0.75, 240, base)
    image = Image.fromarray(base.clip(0, 255).astype(np.uint8))
    draw, radius = ImageDraw.Draw(image), rng.uniform(2, 8)
    for x, y in rng.uniform(0, size, (round(rng.uniform(0.1, 0.5) * size**2 / radius**2 / 3), 2)):
        w, h = radius * rng.uniform(0.6, 1.3, 2)
        draw.ellipse((x - w, y - h, x + w, y + h), tuple(int(c + rng.normal(0, 15)) for c in nucleus))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))


def _draw_shapes(rng: np.random.Generator, size: int) -> Image.Image:
    image = Image.new("RGB", (size, size), _pick_colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 25)):
        (x, y), (w, h) = rng.uniform(0, size, 2), rng.uniform(size / 20, size / 2, 2)
        shape = (draw.ellipse, draw.rectangle)[rng.integers(2)]
        shape((x - w / 2, y - h / 2, x + w / 2, y + h / 2), _pick_colour(rng))
    return image


def _draw_night(rng: np.random.Generator, size: int) -> Image.Image:
    image = Image.new("RGB", (size, size), _pick_colour(rng, 0, 30))
    draw = ImageDraw.Draw(image)
    for x, y in rng.uniform(0, size, (rng.integers(3, 80), 2)):
        radius = rng.exponential(size / 50) + 1
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), _pick_colour(rng, 80, 256))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 4)))


DECOYS = {"blank": _draw_blank, "noise": _draw_noise, "gradient": _draw_gradient, "stripes": _draw_stripes,
          "checkerboard": _draw_checkerboard, "document": _draw_document, "screen": _draw_screen, "plot": _draw_plot,
          "landscape": _draw_landscape, "tissue": _draw_tissue, "shapes": _draw_shapes, "night": _draw_night}
