"""Normalise, augment, views for test-time augmentation: the only place where these exist."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from melanoma_utils.artefacts import add_artefacts
from melanoma_utils.sharpness import change_sharpness

TTA_VIEWS = (1, 2, 4, 8)


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training images, drawn anew for each image; 0 (1 for the scales) switches one off.

    Attributes:
        flip: flip left-right and up-down, each for half of the images.
        rotation: rotate by up to so many degrees either way, 0..180.
        shift: shift by up to this share of the image side, 0..0.5.
        scale_min, scale_max: zoom by a factor between these, 0.25..4; above 1 crops.
        brightness: multiply by 1 +- up to this, 0..1.
        contrast: the same for the distance from the image's mean grey, 0..1.
        color: the same for red, green and blue, each by its own factor, 0..1.
        artefacts: share of the images on which something is drawn that says nothing of the lesion, 0..1, see
            `artefacts.add_artefacts`.
        sharpness: share of the images made sharper or coarser, 0..1, see `sharpness.change_sharpness`.
    """

    flip: bool = True
    rotation: float = 180.0
    shift: float = 0.05
    scale_min: float = 0.9
    scale_max: float = 1.3
    brightness: float = 0.2
    contrast: float = 0.2
    color: float = 0.0
    artefacts: float = 0.0
    sharpness: float = 0.0

    def __post_init__(self):
        limits = {"rotation": (0, 180), "shift": (0, 0.5), "scale_min": (0.25, 4), "scale_max": (self.scale_min, 4),
                  "brightness": (0, 1), "contrast": (0, 1), "color": (0, 1),
                  "artefacts": (0, 1), "sharpness": (0, 1)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name.upper()} {getattr(self, name)} is not in {low}..{high}")


def to_float(images: np.ndarray | torch.Tensor, device: str = "cpu") -> torch.Tensor:
    """Returns (N, 3, H, W) float32 images in 0..1, channels last in memory, on the device.

    Args:
        images: (N, H, W, 3) uint8 RGB; from a tensor in pinned memory they go to a GPU without anybody waiting.
        device: where the result lies.
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.require(images, requirements=["C", "W"]))  # copies only a read-only array
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255  # (N, 3, H, W), memory stays NHWC


def resize_batch(images: torch.Tensor, size: int) -> torch.Tensor:
    """Returns (N, 3, H, W) images at size x size pixels, averaged where they shrink; as they are if they have it."""
    if images.shape[-1] == size:
        return images
    images = nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return images.contiguous(memory_format=torch.channels_last)


def normalize(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Returns (images - mean) / std by channel: (N, 3, H, W) in 0..1 with (3,) mean and std."""
    return (images - mean[:, None, None]) / std[:, None, None]


def build_augmentation(config: AugmentConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns a function that changes each of (N, 3, H, W) images in 0..1, H = W, at random, on their device, in all
    but what `disturb_images` does.

    It draws on the processor, from torch's global random generator: seed that to repeat a draw. All moves are one warp
    and all light and colour one product and sum, so that a GPU has little to do for it.
    """
    is_moved = config.flip or config.rotation or config.shift or (config.scale_min, config.scale_max) != (1, 1)
    is_lit = config.brightness or config.contrast or config.color

    def augment(images: torch.Tensor) -> torch.Tensor:
        """Returns (N, 3, H, W) changed images in 0..1."""
        if is_moved:
            images = warp_images(images, _draw_moves(len(images), config))
        if is_lit:
            images = change_light(images, *_draw_lights(len(images), config))
        return images.contiguous(memory_format=torch.channels_last)

    return augment


def warp_images(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Returns images moved, each by its own affine matrix; beyond their edges they are mirrored.

    Args:
        images: (N, 3, H, W).
        matrices: (N, 2, 3): where a point of the result, (x, y, 1), lies in the image, both -1..1 from edge to edge.
    """
    x, y = (torch.arange(1, 2 * n, 2, device=images.device) / n - 1 for n in (images.shape[3], images.shape[2]))
    by_x, by_y, start = matrices.to(images.device, non_blocking=True)[:, None, None].unbind(-1)  # (N, 1, 1, 2) each
    grid = by_x * x[:, None] + (by_y * y[:, None, None] + start)  # (N, H, W, 2)
    return nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def change_light(images: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor,
                 color: torch.Tensor) -> torch.Tensor:
    """Returns images in 0..1 that are brighter or darker, of more or less contrast, of another colour.

    Args:
        images: (N, 3, H, W) in 0..1.
        brightness: (N, 1) by which all is multiplied.
        contrast: (N, 1) by which the distance from the image's mean grey is multiplied.
        color: (N, 3) by which red, green and blue are multiplied.
    """
    factors = torch.cat([color * brightness * contrast, color * brightness * (1 - contrast)], 1)  # (N, 6)
    scale, share = factors.to(images.device, non_blocking=True)[:, :, None, None].split(3, 1)
    red, green, blue = images.mean((2, 3), keepdim=True).split(1, 1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601, as in Pillow
    return torch.addcmul(share * grey, images, scale).clamp_(0, 1)


def _draw_moves(n: int, config: AugmentConfig) -> torch.Tensor:
    """Returns (n, 2, 3) matrices for `warp_images`: zoomed, turned, shifted, and flipped or not."""
    zoom, turn = _draw(n, config.scale_min, config.scale_max), _draw(n, -config.rotation, config.rotation).deg2rad()
    cos, sin = turn.cos() / zoom, turn.sin() / zoom
    matrices = torch.stack([cos, -sin, sin, cos], 1).reshape(n, 2, 2)
    if config.flip:
        matrices = matrices * (2 * torch.randint(2, (n, 2, 1)) - 1)
    shift = _draw((n, 2, 1), -2 * config.shift, 2 * config.shift)  # a side is 2 long
    return torch.cat([matrices, matrices @ shift], 2)


def _draw_lights(n: int, config: AugmentConfig) -> list[torch.Tensor]:
    """Returns brightness, contrast and color for `change_light`."""
    return [_draw((n, channels), 1 - much, 1 + much)
            for much, channels in ((config.brightness, 1), (config.contrast, 1), (config.color, 3))]


def _draw(shape: int | tuple[int, ...], low: float, high: float) -> torch.Tensor:
    return torch.empty(shape).uniform_(low, high)


def disturb_images(images: torch.Tensor, config: AugmentConfig) -> torch.Tensor:
    """Returns (N, 3, H, W) images in 0..1 with artefacts, and as sharp or coarse as other pictures, at random.

    Teachers are asked about the images as they were before. It computes in float32, also where autocast is on.
    """
    with torch.autocast(images.device.type, enabled=False):
        return change_sharpness(add_artefacts(images, config.artefacts), config.sharpness)


def check_tta_views(n_views: int) -> None:
    """Raises ValueError unless n_views is 1, 2, 4 or 8."""
    if n_views not in TTA_VIEWS:
        raise ValueError(f"TTA_VIEWS {n_views} is not one of {TTA_VIEWS}")


def make_tta_views(images: torch.Tensor, n_views: int) -> list[torch.Tensor]:
    """Returns the first n_views of the eight flips and quarter turns of (N, 3, H, W) images, H = W.

    1 is the image itself, 2 adds its mirror image, 4 both upside down, 8 all four transposed.

    Raises:
        ValueError: n_views is not 1, 2, 4 or 8.
    """
    check_tta_views(n_views)
    views = [images, images.flip(3), images.flip(2), images.flip((2, 3))]
    views += [view.transpose(2, 3).contiguous(memory_format=torch.channels_last) for view in views if n_views == 8]
    return views[:n_views]
