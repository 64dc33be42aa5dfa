"""Pictures made as sharp or as coarse as another camera, another program or a smaller file would have them."""

import torch
from kornia.filters import gaussian_blur2d
from torch.nn.functional import interpolate

N_GROUPS = 8  # of a batch, each changed in its own way
MIN_SIDE = 0.35  # share of the side that is left of a picture made small


def change_sharpness(images: torch.Tensor, share: float) -> torch.Tensor:
    """Returns images of which about a share is made small and as large again, blurred, or sharpened.

    It draws from torch's global random generator, one draw for each eighth of the batch: which of the three, equally
    often, and how much (0.35 to 1 of the side; a Gaussian of 0.5 to 1.5 pixels; 0.3 to 1.5 times what this takes away
    added instead).

    Args:
        images: (N, 3, H, W) in 0..1, H = W at least 8.
        share: 0..1.
    """
    if not share:
        return images
    groups = [_change(group, *torch.rand(3).tolist(), share) for group in images.tensor_split(N_GROUPS) if len(group)]
    return torch.cat(groups).contiguous(memory_format=torch.channels_last)


def _change(images: torch.Tensor, kind: float, much: float, more: float, share: float) -> torch.Tensor:
    if kind >= share:
        return images
    if kind < share / 3:
        side = images.shape[-1]
        small = interpolate(images, size=round(side * (MIN_SIDE + (1 - MIN_SIDE) * much)), mode="bilinear",
                            antialias=True)
        return interpolate(small, size=side, mode="bicubic" if more < 0.5 else "bilinear").clamp(0, 1)
    blurred = gaussian_blur2d(images, 7, (0.5 + much, 0.5 + much))
    return blurred if kind < 2 * share / 3 else (images + (0.3 + 1.2 * more) * (images - blurred)).clamp(0, 1)
