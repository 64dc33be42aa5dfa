"""Saliency: where in an image the evidence for melanoma lies, by Grad-CAM."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import nn

from melanoma_utils.map_layers import find_map_layer, from_grid, to_grid
from melanoma_utils.models import LesionClassifier
from melanoma_utils.transforms import to_float

# Viridis, which the colour-blind can read: dark blue is little, yellow is much; RGB, 0..255, in equal steps.
COLORS = np.array([(68, 1, 84), (72, 24, 106), (71, 45, 123), (66, 64, 134), (59, 82, 139), (51, 99, 141),
                   (44, 114, 142), (38, 130, 142), (33, 145, 140), (31, 160, 136), (40, 174, 128), (63, 188, 115),
                   (94, 201, 98), (132, 212, 75), (173, 220, 48), (216, 226, 25), (253, 231, 37)], np.float32)


def explain_images(models: Sequence[LesionClassifier], images: np.ndarray, *, batch_size: int = 32,
                   device: str = "cpu") -> np.ndarray:
    """Returns (N, H, W) float32 saliency in 0..1: where each image shows what raises the models' mean logit.

    1 is the place that speaks most for melanoma among all places of that image, 0.5 one that says half as much. It is
    scaled for each image by itself: it tells neither how probable a melanoma is, nor can it be compared between images.
    What speaks against melanoma is cut off and is 0 like what says nothing. An image that is 0 everywhere has no place
    that speaks for melanoma (or models that ignore the image). Metadata play no part. A map has as few places as the
    layer of `map_layers.find_map_layer` (7 x 7 for most networks at 224 px), drawn large: a region, not a border.

    Args:
        models: the classifier in a list, or the models of an ensemble (`predict.Ensemble.models`).
        images: (N, H, W, 3) uint8 RGB of the models' size.
        batch_size: images a batch.
        device: "cpu" or "cuda"; what works there is a copy, the models stay as and where they are.

    Raises:
        ValueError: there are no models; or see `compute_grad_cam`.
    """
    if not models:
        raise ValueError("there are no models: give at least one")
    evidence = np.mean([compute_grad_cam(model, images, batch_size=batch_size, device=device) for model in models], 0)
    evidence = evidence.clip(0)  # (N, H, W)
    most = evidence.max((1, 2), keepdims=True)
    return np.divide(evidence, most, out=np.zeros_like(evidence), where=most > 0)


def explain_out_of_fold(models: Mapping[int, LesionClassifier], images: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Returns the saliency of `explain_images`, each image explained by the model of its own fold.

    Args:
        models: fold -> the model that has not seen it.
        images: (N, H, W, 3) uint8 RGB of the models' size.
        folds: (N,) the folds of the images.

    Raises:
        KeyError: a fold has no model.
        ValueError: see `compute_grad_cam`.
    """
    folds, saliency = np.asarray(folds), np.zeros(images.shape[:3], np.float32)
    for fold in np.unique(folds):
        saliency[folds == fold] = explain_images([models[fold]], images[folds == fold])
    return saliency


def compute_grad_cam(model: LesionClassifier, images: np.ndarray, *, batch_size: int = 32,
                     device: str = "cpu") -> np.ndarray:
    """Returns (N, H, W) float32 evidence by Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), before it is cut off.

    Positive raises the image's logit, negative lowers it. Where the network averages its last map and has nothing but
    the linear head behind it, the sum over that map's places is the logit but for the head's bias.

    Args:
        model, images, batch_size, device: see `explain_images`.

    Raises:
        ValueError: the images are no (N, H, W, 3) uint8 array of the model's size, the arch has no map to explain, or
            the evidence is not finite.
    """
    size = model.config.image_size
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
        raise ValueError(f"the images are {images.shape} {images.dtype}, the model was trained for (N, {size}, {size}, "
                         "3) uint8")
    model = copy.deepcopy(model).eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    layer = model.backbone.get_submodule(find_map_layer(model, to_float(images[:1], device)))
    grid = nn.Identity()  # whatever the layer's layout, captum sees (N, C, h, w) here
    layer.register_forward_hook(lambda module, args, output: from_grid(grid(to_grid(output)), output))
    grad_cam = LayerGradCam(lambda x: model.head(model.embed(x)).squeeze(1), grid)
    evidence = np.empty(images.shape[:3], np.float32)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        x = grad_cam.attribute(to_float(images[part], device))  # (B, 1, h, w)
        x = nn.functional.interpolate(x, images.shape[1:3], mode="bilinear", align_corners=False)
        evidence[part] = x.squeeze(1).detach().cpu().numpy()
    if not np.isfinite(evidence).all():
        raise ValueError("the evidence is not finite: the training went wrong (lower LR)")
    return evidence


def measure_saliency_outside(saliency: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns (N,) the share of each saliency map that lies outside the lesion, 0..1.

    Compare it with the share of the area outside, `(~masks).mean((1, 2))`: that is what a map without any knowledge,
    the same everywhere, has. A network that looks at rulers or dark corners has more. A map that is 0 everywhere has
    no share: NaN.

    Args:
        saliency: (N, H, W), at least 0, as of `explain_images`.
        masks: (N, H, W) bool, True on the lesion.

    Raises:
        ValueError: the shapes differ, the masks are not bool, or a value is negative or not finite.
    """
    if saliency.shape != masks.shape or saliency.ndim != 3 or masks.dtype != bool:
        raise ValueError(f"saliency {saliency.shape} and masks {masks.shape} {masks.dtype}: wanted (N, H, W) both, the "
                         "masks bool")
    if not (np.isfinite(saliency).all() and (saliency >= 0).all()):
        raise ValueError(f"saliency runs from {saliency.min()} to {saliency.max()}: wanted finite values, at least 0")
    total, outside = (x.sum((1, 2), dtype=np.float64) for x in (saliency, saliency * ~masks))  # (N,)
    return np.divide(outside, total, out=np.full(len(total), np.nan), where=total > 0)


def overlay_saliency(image: np.ndarray, saliency: np.ndarray, opacity: float = 0.7) -> np.ndarray:
    """Returns the image under its saliency: (H, W, 3) uint8 RGB, dark blue for little to yellow for much.

    Args:
        image: (H, W, 3) uint8 RGB.
        saliency: (H, W) in 0..1, as of `explain_images`; where it is 0 the image shows as it is.
        opacity: how much of the image the colour hides where saliency is 1, 0..1; 0 gives the image.

    Raises:
        ValueError: the shapes do not fit, or a value is outside 0..1.
    """
    if image.shape != (*saliency.shape, 3) or image.dtype != np.uint8:
        raise ValueError(f"image {image.shape} {image.dtype} and saliency {saliency.shape}: wanted (H, W, 3) uint8 and "
                         "(H, W)")
    if not (0 <= opacity <= 1 and (saliency >= 0).all() and (saliency <= 1).all()):
        raise ValueError(f"opacity {opacity} and saliency {saliency.min()} to {saliency.max()}: wanted 0..1 both")
    colors = np.stack([np.interp(saliency, np.linspace(0, 1, len(COLORS)), x) for x in COLORS.T], -1)  # (H, W, 3)
    cover = opacity * saliency[..., None]
    return (image * (1 - cover) + colors * cover).round().astype(np.uint8)


def stretch_saliency(saliency: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns saliency of a squashed image over the whole frame that it was made of, (H, W) float32 in 0..1.

    Args:
        saliency: (S, S) in 0..1, as of `explain_images`.
        shape: height and width of the frame in pixels.
    """
    stretched = Image.fromarray(np.asarray(saliency, np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(stretched).clip(0, 1)
