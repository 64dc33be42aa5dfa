"""The layer of a network that is explained: the last one that returns a map of the image."""

import copy
import math
import re
from functools import partial

import torch
from torch import nn

from melanoma_utils.models import LesionClassifier

MIN_SIDE = 4  # of the map wanted, in places; a coarser one can't tell a lesion from what is around it
ATTENTION = re.compile("att(entio)?n", re.IGNORECASE)


def find_map_layer(model: LesionClassifier, images: torch.Tensor) -> str:
    """Returns the name in model.backbone of the layer that is explained: the last one that returns a map of the image
    on which the logit depends.

    It is found by sending an image through, not by name, so that it holds for any backbone: a map is (N, C, h, h),
    (N, h, h, C), or tokens (N, T, C), h * h of them row by row after any class tokens. A transformer that answers by
    its class token alone is explained by the tokens that its last attention reads. Inside an attention, where heads
    look like channels, nothing is looked for. Where the last map has fewer than `MIN_SIDE` places a side, as in small
    images, an earlier one is taken that has as many.

    Args:
        model: the classifier.
        images: (N, 3, H, H) float32 RGB in 0..1 on the model's device; one is enough.

    Raises:
        ValueError: there is no such layer.
    """
    backbone, outputs = (model := copy.deepcopy(model).eval()).backbone, {}
    inside = {id(part) for module in backbone.modules() if ATTENTION.search(type(module).__name__)
              for part in module.modules()}
    for name, module in backbone.named_modules():
        if id(module) not in inside:
            module.register_forward_hook(partial(_remember_map, outputs, name, len(images)))
    with torch.enable_grad():
        features = model.embed(images.clone().requires_grad_())  # (N, C)
        # unequal weights: the plain sum of what a layer norm returns depends on nothing
        value = (features * torch.linspace(-1, 1, features.shape[1], device=features.device)).sum()
        gradients = torch.autograd.grad(value, list(outputs.values()), allow_unused=True) if outputs else ()
    sides = {name: to_grid(output).shape[-1] for name, output in outputs.items()}
    names = [name for name, gradient in zip(outputs, gradients, strict=True)
             if gradient is not None and to_grid(gradient).any()]
    fine = [name for name in names if sides[name] >= MIN_SIDE and not _is_in_a_coarser(name, sides, backbone)]
    if not names:
        raise ValueError(f"ARCH {model.config.arch!r} can't be explained: no layer of it returns a map of the image, "
                         "(N, C, h, h) or tokens on a square grid, on which the logit depends; one that can: "
                         "torchvision/mobilenet_v2")
    return (fine or names)[-1]


def to_grid(x: torch.Tensor) -> torch.Tensor | None:
    """Returns a map of any layout of `find_map_layer` as (N, C, h, h), without class tokens; None if it is none."""
    if x.ndim == 4 and x.shape[2] == x.shape[3] > 1:
        return x
    if x.ndim == 4 and x.shape[1] == x.shape[2] > 1:
        return x.permute(0, 3, 1, 2)
    side = math.isqrt(x.shape[1]) if x.ndim == 3 else 0
    return x[:, -side * side:].transpose(1, 2).unflatten(2, (side, side)) if side > 1 else None


def from_grid(grid: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Returns x, a map of any layout, with `to_grid` of it replaced by grid."""
    if x.ndim == 3:
        tokens = grid.flatten(2).transpose(1, 2)  # (N, C, h, h) -> (N, h * h, C)
        return torch.cat([x[:, :-tokens.shape[1]], tokens], 1)
    return grid if grid.shape == x.shape else grid.permute(0, 2, 3, 1)


def _is_in_a_coarser(name: str, sides: dict[str, int], backbone: nn.Module) -> bool:
    """Returns whether a layer lies in a block that returns a coarser map: what goes past it there would be missed."""
    parts = name.split(".")
    blocks = [".".join(parts[:n]) for n in range(1, len(parts))]
    return any(sides.get(block, sides[name]) < sides[name] for block in blocks
               if not isinstance(backbone.get_submodule(block), nn.Sequential))


def _remember_map(outputs: dict, name: str, n_images: int, module: nn.Module, args: tuple, output: object) -> None:
    """Keeps a layer's output where it is a map, in the order of the last calls."""
    outputs.pop(name, None)
    is_tensor = isinstance(output, torch.Tensor) and output.requires_grad  # no position's code, which is no image's map
    if is_tensor and len(output) == n_images and to_grid(output) is not None:
        outputs[name] = output
