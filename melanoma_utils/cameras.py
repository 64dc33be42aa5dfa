"""Pictures as another camera, another light or another program that stores them would have made them."""

import torch
from kornia.enhance import jpeg_codec_differentiable

# limits of the factors of exposure, contrast and saturation, and of red, green and blue
LOWEST = (0.7, 0.7, 0.5, 0.92, 0.92, 0.92)
HIGHEST = (1.25, 1.3, 1.5, 1.08, 1.08, 1.08)
GRAY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
MAX_NOISE = 0.03  # standard deviation of a pixel, in 0..1
JPEG_QUALITY = (50.0, 97.0)


def change_camera(images: torch.Tensor, share: float) -> torch.Tensor:
    """Returns images of which about a share has the colours and the noise of another camera.

    Exposure, contrast, saturation and tint are multiplied by factors drawn evenly between `LOWEST` and `HIGHEST`, the
    standard deviation of the noise is drawn from 0..`MAX_NOISE`. It draws from torch's global random generator on the
    images' device.

    Args:
        images: (N, 3, H, W) in 0..1.
        share: 0..1.
    """
    if not share:
        return images
    images = images.clone(memory_format=torch.channels_last)
    is_changed = torch.rand(len(images), device=images.device) < share
    changed = images[is_changed].permute(0, 2, 3, 1)  # (n, H, W, 3)
    lowest, highest, gray = (torch.tensor(values, device=images.device) for values in (LOWEST, HIGHEST, GRAY))
    draws = torch.rand(len(changed), 1, 1, len(LOWEST) + 1, device=images.device)
    exposure, contrast, saturation, tint = torch.lerp(lowest, highest, draws[..., 1:]).split([1, 1, 1, 3], 3)
    mean = changed.mean((1, 2), keepdim=True) @ gray[:, None]  # (n, 1, 1, 1)
    mix = saturation * torch.eye(3, device=images.device) + (1 - saturation) * gray[:, None]  # (n, 1, 3, 3)
    gain = exposure * tint  # (n, 1, 1, 3)
    noise = torch.randn_like(changed) * (MAX_NOISE * draws[..., :1])
    changed = changed @ (mix * contrast * gain) + (1 - contrast) * mean * gain + noise
    images[is_changed] = changed.clamp(0, 1).permute(0, 3, 1, 2)
    return images


def compress(images: torch.Tensor, share: float) -> torch.Tensor:
    """Returns images of which about a share has lost what JPEG drops at a quality of 50 to 97.

    It draws from torch's global random generator on the images' device.

    Args:
        images: (N, 3, H, W) in 0..1.
        share: 0..1.
    """
    if not share:
        return images
    images = images.clone(memory_format=torch.channels_last)
    is_compressed = torch.rand(len(images), device=images.device) < share
    if is_compressed.any():
        quality = torch.empty(int(is_compressed.sum()), device=images.device).uniform_(*JPEG_QUALITY)
        images[is_compressed] = jpeg_codec_differentiable(images[is_compressed], quality)
    return images
