"""Draws one synthetic dermoscopy picture."""

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

MELANIN = np.array([0.55, 1.05, 1.6], np.float32)  # absorbance per unit of pigment in R, G, B
BLOOD = np.array([0.12, 1.0, 0.75], np.float32)
VEIL, REGRESSION = np.array([0.36, 0.4, 0.48], np.float32), np.array([0.9, 0.76, 0.72], np.float32)  # RGB, 0..1
DARK_HAIR, FAIR_HAIR = (0.13, 0.09, 0.07), (0.75, 0.62, 0.42)
SIGNS = ("asymmetry", "border", "variety", "dark", "veil", "regression", "red", "dots", "irregular", "size")


def draw_image(latent: Mapping, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the dermoscopy picture of one row of make_latents and where its lesion lies.

    Args:
        latent: draw_seed, atypia, each of STYLES and copy_of; a near copy shows a narrower crop of the same picture.
        image_size: longest side in pixels (of the uncropped picture).

    Returns:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, True on the lesion where the lens shows it.
    """
    # A stream each: another atypia leaves the skin and what lies over the lesion as they are.
    rng, skin_rng, lens_rng = np.random.default_rng(int(latent["draw_seed"])).spawn(3)
    width, height = image_size, round(image_size * rng.choice([3 / 4, 2 / 3, 1.0], p=[0.7, 0.18, 0.12]))
    signs = _draw_signs(latent["atypia"], rng)
    x, y, radius = _place_lesion((height, width), 0.7 * latent["mole_size"] + 2.4 * signs["size"], rng)
    depth = _draw_depth(x, y, radius, signs, rng)
    inside = 1 / (1 + np.exp(np.clip(-depth / rng.uniform(0.05, 0.16), -30, 30)))  # (H, W), 0..1
    colour = draw_skin((height, width), latent["skin"], skin_rng)  # (H, W, 3)
    pigment = _draw_melanin(x, y, radius, depth, latent, signs, rng)
    colour = _paint_lesion(colour, depth, inside, pigment, radius, latent["hue"], signs, rng)
    colour, view = _apply_lens(_draw_overlays(colour, lens_rng), lens_rng)
    image, mask = (colour * 255).round().astype(np.uint8), (inside > 0.5) & (view > 0.5)
    if latent["copy_of"]:
        top, left = max(height // 20, 1), max(width // 20, 1)
        image, mask = image[top:-top, left:-left], mask[top:-top, left:-left]
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def _draw_signs(atypia: float, rng: np.random.Generator) -> dict[str, float]:
    """Returns how strongly each of SIGNS shows, 0..1: the atypia with a little noise of its own for each."""
    noisy = atypia + 0.35 * rng.normal(size=len(SIGNS))
    return dict(zip(SIGNS, 1 / (1 + np.exp(-0.95 * (noisy - 1.3))), strict=True))


def _draw_noise(shape: tuple[int, int], cell: float, rng: np.random.Generator, n_octaves: int = 1) -> np.ndarray:
    """Returns smooth noise (H, W) float32 of about unit variance, `cell` pixels wide, each further octave half that."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(n_octaves):
        size = max(cell / 2**octave, 1)
        grid = rng.normal(0, 1.35 * 0.6**octave, (math.ceil(height / size) + 1, math.ceil(width / size) + 1))
        box = (0, 0, width / size, height / size)
        total += np.asarray(Image.fromarray(grid.astype(np.float32)).resize((width, height), Image.BICUBIC, box=box))
    return total / np.float32(math.sqrt(sum(0.36**octave for octave in range(n_octaves))))


def _place_lesion(
    shape: tuple[int, int], size: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns x and y (H, W) in pixels from a lesion's centre, turned and stretched so that it is round; its radius."""
    height, width = shape
    radius = min(height, width) * float(np.clip(0.16 * math.exp(0.28 * size), 0.08, 0.42))
    x = np.arange(width, dtype=np.float32)[None] - width * (0.5 + np.clip(rng.normal(0, 0.05), -0.12, 0.12))
    y = np.arange(height, dtype=np.float32)[:, None] - height * (0.5 + np.clip(rng.normal(0, 0.05), -0.12, 0.12))
    angle, stretch = rng.uniform(0, math.pi), np.float32(math.exp(rng.uniform(0, 0.22)))
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return (x * cos + y * sin) / stretch, (y * cos - x * sin) * stretch, radius


def _draw_depth(x: np.ndarray, y: np.ndarray, radius: float, signs: Mapping, rng: np.random.Generator) -> np.ndarray:
    """Returns how deep in the lesion each pixel lies (H, W): about 1 in the middle, 0 on the border, less outside."""
    depth = 1 - np.sqrt(x**2 + y**2) / radius
    depth += (0.08 + 0.19 * signs["asymmetry"]) * _draw_noise(x.shape, 1.1 * radius, rng)
    return depth + (0.05 + 0.15 * signs["border"]) * _draw_noise(x.shape, max(0.35 * radius, 4), rng, 3)


def _draw_pattern(x: np.ndarray, y: np.ndarray, irregular: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a fine pattern (H, W), about -1..1: three waves make a lattice of globules, noise bends and fades it."""
    period = rng.uniform(0.019, 0.03) * max(x.shape)
    bend = period * (0.45 + 0.45 * irregular)
    u, v = (axis + bend * _draw_noise(x.shape, 3 * period, rng, 2) for axis in (x, y))
    lattice = np.zeros_like(x)
    for angle in rng.uniform(0, math.pi) + np.arange(3) * math.pi / 3:
        wave = np.array([math.cos(angle), math.sin(angle)], np.float32) * np.float32(2 * math.pi / period)
        lattice += np.cos(u * wave[0] + v * wave[1]) / 2
    return lattice * np.clip(0.6 + 0.6 * _draw_noise(x.shape, 4 * period, rng), 0, 2)


def draw_skin(shape: tuple[int, int], tone: float, rng: np.random.Generator) -> np.ndarray:
    """Returns bare skin (H, W, 3) float32, reflectance 0..1: tone, freckles, mottled blood, light, fine grain."""
    melanin = 0.14 * math.exp(0.7 * tone) * (1 + 0.08 * _draw_noise(shape, 40, rng, 3))
    freckles = np.clip(_draw_noise(shape, 10, rng, 3) - 1, 0, 1.5) ** 2
    melanin += 0.22 * max(rng.uniform(-2, 1), 0) ** 2 * freckles
    blood = 1 + rng.uniform(0.03, 0.22) * _draw_noise(shape, 16, rng, 4)
    blood = rng.uniform(0.04, 0.3) * np.clip(blood, 0, None)
    light = rng.uniform(0.84, 1.04) * (1 + 0.04 * _draw_noise(shape, max(shape) / 2, rng))
    light += 0.012 * _draw_noise(shape, 2.5, rng) + 0.008 * rng.normal(size=shape).astype(np.float32)
    cast = np.array([0.96, 0.9, 0.88], np.float32) * np.exp(rng.normal(0, [0.03, 0.03, 0.07])).astype(np.float32)
    return light[..., None] * cast * np.exp(-melanin[..., None] * MELANIN - blood[..., None] * BLOOD)


def _draw_melanin(x, y, radius: float, depth: np.ndarray, latent: Mapping, signs: Mapping, rng) -> np.ndarray:
    """Returns the lesion's pigment (H, W), about 0.1 (tan) to 2.6 (black): zones, a network or globules, dots."""
    zones = _draw_noise(depth.shape, max(0.7 * radius, 6), rng, 4) * (0.1 + 0.42 * signs["variety"])
    # Globules are dark on the lattice of the pattern, a network is dark between: the style turns one into the other.
    pattern = math.tanh(1.5 * latent["pattern"]) * _draw_pattern(x, y, signs["irregular"], rng)
    amount = 0.34 * math.exp(0.2 * latent["pigment"]) + 0.75 * signs["dark"]
    amount = amount + rng.uniform(-0.1, 0.4) * np.clip(depth, -0.3, 1)
    dots = _draw_dots(depth, round(40 * signs["dots"] * rng.uniform(0.3, 1)), rng)
    return np.clip(amount * (1 + zones + 0.35 * pattern), 0.06, 2.6) + 0.7 * dots


def _draw_dots(depth: np.ndarray, n_dots: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the cover (H, W), 0..1, of n_dots irregular dots scattered over the outer half of the lesion."""
    places = np.argwhere((depth > 0.02) & (depth < 0.55))[:, ::-1]  # (n, 2) as x, y
    if not len(places):
        return np.zeros_like(depth)
    sizes = rng.uniform(0.5, 1.6, (n_dots, 1)) * max(depth.shape) / 224
    canvas = Image.new("L", (2 * depth.shape[1], 2 * depth.shape[0]))
    for place, size in zip(rng.choice(places, n_dots), sizes, strict=True):
        ImageDraw.Draw(canvas).ellipse([*(2 * (place - size)), *(2 * (place + size))], fill=255)
    return np.asarray(canvas.reduce(2), np.float32) / 255


def _paint_lesion(skin, depth, inside, pigment, radius: float, hue: float, signs: Mapping, rng) -> np.ndarray:
    """Returns the skin (H, W, 3) under the lesion's pigment and blood, then blue-grey veil and white regression."""
    blotch = max(0.7 * radius, 6)
    blood = 0.12 + np.clip(_draw_noise(depth.shape, blotch, rng, 3), 0, 2) * 0.55 * signs["red"]
    absorption = MELANIN * np.exp(np.float32(0.22 * hue) * np.array([1, 0.1, -0.5], np.float32))
    colour = skin * np.exp(-(inside * pigment)[..., None] * absorption - (inside * blood)[..., None] * BLOOD)
    for paint, strength in ((VEIL, 0.8 * signs["veil"] ** 2), (REGRESSION, 0.65 * signs["regression"] ** 2)):
        cover = np.clip(depth * 4, 0, 1) * strength * np.clip(_draw_noise(depth.shape, blotch, rng, 4) * 0.6, 0, 1)
        colour += cover[..., None] * (paint * skin.mean() * 1.3 - colour)
    return colour


def _draw_overlays(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the picture (H, W, 3) with hairs, a ruler and gel bubbles over it, now and then."""
    shape, layers = colour.shape[:2], []
    if rng.random() < 0.45:
        paint = DARK_HAIR if rng.random() < 0.75 else FAIR_HAIR
        layers.append((draw_hairs(shape, 1 + int(rng.exponential(9)), rng), paint))
    if rng.random() < 0.3:
        layers.append((_draw_ruler(shape, rng), (0.16, 0.14, 0.16)))
    if rng.random() < 0.2:
        layers.append((_draw_bubbles(shape, rng), (1.0, 0.97, 0.94)))
    for cover, paint in layers:
        colour = colour + cover[..., None] * (np.array(paint, np.float32) - colour)
    return colour


def _draw_lines(shape: tuple[int, int], lines: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Returns the cover (H, W), 0..1, of smooth-edged lines (n_lines, n_points, 2) as x, y in pixels."""
    canvas = Image.new("L", (3 * shape[1], 3 * shape[0]))
    for line, width in zip(3 * lines, np.maximum(np.round(3 * widths), 1).astype(int), strict=True):
        ImageDraw.Draw(canvas).line([tuple(point) for point in line], fill=255, width=int(width), joint="curve")
    return np.asarray(canvas.reduce(3), np.float32) / 255


def draw_hairs(shape: tuple[int, int], n_hairs: int, rng: np.random.Generator,
               n_shown: int | None = None) -> np.ndarray:
    """Returns the cover (H, W), 0..1, of curved hairs that roughly share a direction.

    Args:
        shape: (H, W) in pixels.
        n_hairs: how many are laid.
        rng: random generator.
        n_shown: draw only the first so many of them; the same rng shows the same ones, and more for more. None: all.
    """
    diagonal = math.hypot(*shape)
    along = rng.uniform(0, math.pi) + rng.normal(0, 0.45, n_hairs)
    direction = np.stack([np.cos(along), np.sin(along)], 1)  # (n, 2)
    middle = rng.uniform(0, 1, (n_hairs, 2)) * [shape[1], shape[0]]
    half = diagonal * rng.uniform(0.1, 0.5, (n_hairs, 1))
    bow = direction[:, ::-1] * [-1, 1] * half * rng.normal(0, 0.2, (n_hairs, 1))
    t = np.linspace(-1, 1, 16)[None, :, None]
    lines = middle[:, None] + t * (direction * half)[:, None] + (t**2 - 0.5) * bow[:, None]  # (n, 16, 2)
    opacity, widths = rng.uniform(0.6, 0.95), rng.uniform(0.4, 1.3, n_hairs) * max(shape) / 224
    return opacity * _draw_lines(shape, lines[:n_shown], widths[:n_shown])


def _draw_ruler(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Returns the cover (H, W) of ruler ticks along a line near one side; every fifth tick is longer."""
    angle = rng.choice([0.5, 0.0, 1.0]) * math.pi + rng.normal(0, 0.12)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = along[::-1] * [-1, 1] * rng.choice([-1, 1])
    size = np.array([shape[1], shape[0]])
    middle = size / 2 + across * np.abs(across @ size) * rng.uniform(0.33, 0.44)
    ticks = np.arange(-15, 16)
    feet = middle + along * (ticks * rng.uniform(0.035, 0.06) * max(shape))[:, None]  # (31, 2)
    heads = feet + across * (np.where(ticks % 5 == 0, 0.045, 0.022) * max(shape))[:, None]
    widths = np.full(len(ticks), 0.6 * max(shape) / 224)
    return rng.uniform(0.5, 0.9) * _draw_lines(shape, np.stack([feet, heads], 1), widths)


def _draw_bubbles(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Returns the cover (H, W) of a few gel bubbles, each a faint ring with a bright spot."""
    n_bubbles, turn = rng.integers(1, 5), np.linspace(0, 2 * math.pi, 24)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)  # (24, 2)
    sizes = rng.uniform(0.006, 0.04, (n_bubbles, 1, 1)) * max(shape)
    middles = rng.uniform(0, 1, (n_bubbles, 1, 2)) * [shape[1], shape[0]]
    rings = _draw_lines(shape, middles + sizes * circle, np.full(n_bubbles, 0.8))
    spots = _draw_lines(shape, middles - 0.45 * sizes + 0.12 * sizes * circle, 0.12 * sizes[:, 0, 0])
    return np.maximum(0.35 * rings, 0.8 * spots)


def _apply_lens(colour: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns the picture, 0..1, under a vignette, and the field of view (H, W), 0..1: some have dark corners."""
    height, width = colour.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    distance = np.hypot(x * width, y * height).astype(np.float32) / math.hypot(width, height)  # 1 in the corners
    shade = 1 - rng.uniform(0, 0.3) * distance**3
    reach = rng.uniform(0.78, 0.97) if rng.random() < 0.25 else 2.0
    view = np.clip((reach - distance) * 60, 0, 1)
    return np.clip(colour * (shade * (0.03 + 0.97 * view))[..., None], 0, 1), view
