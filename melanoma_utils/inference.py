"""Logits of a model for images in a store, with test-time augmentation."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.fx.experimental.optimization import fuse

from melanoma_utils.competition import encode_metadata
from melanoma_utils.image_store import ImageStore
from melanoma_utils.models import LesionClassifier
from melanoma_utils.transforms import make_tta_views, to_float

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PREDICTED = 64  # images predicted at a time: more are no faster
Forward = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


def pick_device(device: str = "auto") -> str:
    """Returns the torch device to use; "auto" is "cuda" where there is one, else "cpu".

    Raises:
        ValueError: torch knows no such device, or does not see it.
    """
    has_gpu = torch.cuda.device_count() > 0  # is_available would keep notebook_launcher from forking afterwards
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    if device.startswith("cuda") and not has_gpu:
        raise ValueError(f"DEVICE {device!r} is wanted but torch sees no GPU: say DEVICE='auto' or 'cpu'")
    try:
        number = torch.device(device).index or 0
        if not device.startswith("cuda"):  # which would keep notebook_launcher from forking
            torch.empty(0, device=device)
        elif number >= torch.cuda.device_count():
            raise RuntimeError(f"torch sees {torch.cuda.device_count()} GPUs, from cuda:0 on")
    except (RuntimeError, AssertionError, ImportError) as error:  # torch's, by the kind of device
        why = str(error).splitlines()[0]
        raise ValueError(f"DEVICE {device!r} can't be used here: say DEVICE='auto' or 'cpu' ({why})") from error
    return device


def autocast(device: str, precision: str) -> AbstractContextManager:
    """Returns the context in which a forward pass runs in one of `PRECISIONS`.

    Raises:
        ValueError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"PRECISION {precision!r} is not one of {tuple(PRECISIONS)}")
    return torch.autocast(torch.device(device).type, PRECISIONS[precision], enabled=precision != "fp32")


@dataclass(frozen=True)
class Samples:
    """The images of a table, ready to be batched.

    Attributes:
        images: (N, H, W, 3) uint8 RGB, the whole store.
        rows: (n,) rows of `images`.
        metadata: (n, 12) float32 as of `competition.encode_metadata`, or None for a model without metadata.
        targets: (n,) float32, 0 or 1, or between for pseudo-labels; None where nobody knows them.
        diagnoses: (n,) int64 as of `objective.encode_diagnoses`, or None where they are not wanted.
    """

    images: np.ndarray
    rows: np.ndarray
    metadata: np.ndarray | None = None
    targets: np.ndarray | None = None
    diagnoses: np.ndarray | None = None


def select_samples(store: ImageStore, df: pd.DataFrame, use_metadata: bool) -> Samples:
    """Returns the samples of a table's rows in their order; raises KeyError where an image is not in the store."""
    return Samples(store.images, store.find_rows(df["image_name"]), encode_metadata(df) if use_metadata else None,
                   df["target"].to_numpy(np.float32) if "target" in df else None)


def predict_logits(model: LesionClassifier, samples: Samples, *, tta_views: int = 1, batch_size: int = PREDICTED,
                   device: str = "cpu", precision: str = "fp32", forward: Forward | None = None,
                   log: Callable[[str], None] = lambda line: None) -> np.ndarray:
    """Returns (n,) float32 logits, each the mean over the views of an image.

    Args:
        model: the classifier; put into evaluation mode.
        samples: what to predict.
        tta_views: 1, 2, 4 or 8 views, see `transforms.make_tta_views`.
        batch_size: images a batch, with all their views.
        device: "cpu" or "cuda".
        precision: one of `PRECISIONS`.
        forward: what computes the model's logits of images and metadata, such as `openvino_runtime.compile_openvino`
            of it; none = the model.
        log: called with a line at about every fifth of a long way.

    Raises:
        ValueError: the images are of another size than the model's, metadata are wanted and absent, or a logit is
            not finite.
    """
    if samples.images.shape[1] != model.config.image_size:
        raise ValueError(f"the images are {samples.images.shape[1]} px wide, the model was trained for "
                         f"{model.config.image_size}")
    if forward is None:
        forward = fuse_batch_norm(model.eval()).to(device, memory_format=torch.channels_last)
    n, logits = len(samples.rows), np.empty(len(samples.rows), np.float32)
    n_batches = -(-n // batch_size)
    with torch.inference_mode(), autocast(device, precision):
        for i in range(n_batches):
            part = slice(i * batch_size, (i + 1) * batch_size)
            x = to_float(samples.images[samples.rows[part]], device)  # (B, 3, H, W)
            m = None if samples.metadata is None else torch.from_numpy(samples.metadata[part]).to(device)
            views = [forward(view, m) for view in make_tta_views(x, tta_views)]
            logits[part] = torch.stack(views).mean(0).cpu().numpy()  # (B,)
            if n_batches >= 20 and (i + 1) * 5 // n_batches > i * 5 // n_batches:
                log(f"{min((i + 1) * batch_size, n):,} of {n:,} images")
    if not np.isfinite(logits).all():
        raise ValueError(f"{int((~np.isfinite(logits)).sum())} of {n} logits are not finite: the training went wrong "
                         "(lower LR)")
    return logits


def fuse_batch_norm(model: LesionClassifier) -> LesionClassifier:
    """Returns a copy for inference whose backbone has its batch norms folded into the convolutions before them.

    The logits stay the same up to rounding; a CPU answers up to twice as fast. A backbone that torch.fx can't trace
    stays as it is.
    """
    fused = copy.deepcopy(model)
    try:
        fused.backbone = fuse(fused.backbone)
    except (torch.fx.proxy.TraceError, TypeError, NameError, RuntimeError, AssertionError):
        pass
    return fused
