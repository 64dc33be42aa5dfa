"""One epoch, by one process or by all that train a fold together."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch import nn

from melanoma_utils.inference import PREDICTED, Samples, autocast, predict_logits
from melanoma_utils.models import LesionClassifier
from melanoma_utils.objective import Objective
from melanoma_utils.transforms import resize_batch, to_float


def build_accelerator(device: str) -> Accelerator:
    """Returns Hugging Face Accelerate's view of the processes that train together: those that torchrun, `accelerate
    launch` or notebook_launcher has started, else this one alone.

    Args:
        device: "cpu" or "cuda"; several processes share the GPUs of each machine among them.

    Raises:
        ValueError: it is another device, such as one GPU by number.
    """
    if "WORLD_SIZE" not in os.environ:
        AcceleratorState._reset_state(reset_partial_state=True)  # else the first call decides for all later ones
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")  # `autocast` sees to that
    if accelerator.device.type != device:
        raise ValueError(f"DEVICE {device!r} is wanted and training would be on {accelerator.device}: say 'cpu', "
                         "'cuda', or choose GPUs with CUDA_VISIBLE_DEVICES")
    return accelerator


def predict_together(model: LesionClassifier, samples: Samples, accelerator: Accelerator, batch_size: int,
                     **options: object) -> np.ndarray:
    """Returns `inference.predict_logits` of all samples in every process, each having predicted its share.

    Args:
        model: the classifier.
        samples: what to predict.
        accelerator: of the processes.
        batch_size: images trained on at a time; no more than these, and than `inference.PREDICTED`, are predicted at
            a time.
        **options: further ones of predict_logits.

    Raises:
        ValueError: see `inference.predict_logits`.
        MemoryError: a batch does not fit; tells which BATCH_SIZE to try.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    own = replace(samples, rows=samples.rows[rank::world],
                  metadata=None if samples.metadata is None else samples.metadata[rank::world])
    logits = np.zeros(-(-len(samples.rows) // world), np.float32)  # as long in every process
    batch_size = min(batch_size, PREDICTED)  # what fitted with gradients fits without
    with _advise_batch_size(batch_size):
        logits[:len(own.rows)] = predict_logits(model, own, batch_size=batch_size, device=str(accelerator.device),
                                                **options)
    gathered = accelerator.gather(torch.from_numpy(logits).to(accelerator.device))  # (world * m,)
    return gathered.reshape(world, -1).T.flatten()[:len(samples.rows)].cpu().numpy()  # back in order


def build_scaler(device: str, precision: str) -> torch.amp.GradScaler:
    """Returns what keeps small gradients from vanishing in "fp16"; in any other precision it does nothing.

    It begins with 2^10 and learns its scale: a step whose gradients overflow is left out, and the scale halved.
    """
    return torch.amp.GradScaler(torch.device(device).type, init_scale=2.0**10, enabled=precision == "fp16")


def train_epoch(objective: Objective, samples: Samples, optimizer: torch.optim.Optimizer, order: np.ndarray, *,
                n_batches: int, image_size: int, augment: Callable[[torch.Tensor], torch.Tensor],
                accelerator: Accelerator, scaler: torch.amp.GradScaler, after_step: Callable[[], None] = lambda: None,
                precision: str = "fp32") -> float:
    """Trains one pass and returns the mean loss.

    Args:
        objective: the classifier with its loss, prepared by the accelerator.
        samples: what to train on.
        optimizer: of the objective's parameters.
        order: (n,) the samples to train on, in order.
        n_batches: number of steps; the batches, of all processes together, are of equal size but for one image.
        image_size: side in pixels to which the images are brought before all else.
        augment: changes a batch of (B, 3, H, W) images in 0..1.
        accelerator: of the processes, each of which takes its share of every batch.
        scaler: of `build_scaler`.
        after_step: called after each step that was not left out, e.g. a scheduler's.
        precision: one of `inference.PRECISIONS`.

    Raises:
        ValueError: the loss or the gradient is not finite.
        MemoryError: a batch does not fit; tells which BATCH_SIZE to try.
    """
    objective.train()
    device, rank, world = str(accelerator.device), accelerator.process_index, accelerator.num_processes
    total = 0.0
    for step, part in enumerate(np.array_split(order, n_batches)):
        own = part[rank::world]
        with _advise_batch_size(len(part)):
            images = to_float(samples.images[samples.rows[own]], device)  # (B, 3, H, W)
            images = augment(resize_batch(images, image_size))
            metadata, targets, diagnoses = (None if values is None else torch.from_numpy(values[own]).to(device)
                                            for values in (samples.metadata, samples.targets, samples.diagnoses))
            with autocast(device, precision):
                loss = objective(images, metadata, targets, diagnoses) * (len(own) * world / len(part))
            mean_loss = accelerator.reduce(loss.detach(), "mean").item()  # over the batch of all processes
            _check_finite("loss", mean_loss, optimizer, f"step {step + 1} of {n_batches}")
            is_done = _take_step(loss, objective, optimizer, accelerator, scaler, f"step {step + 1} of {n_batches}")
        if is_done:
            after_step()
        total += mean_loss * len(part)
    if world > 1:  # each process has counted the batch norms' mean and variance over its own images
        for buffer in objective.buffers():
            broadcast(buffer, from_process=0)
    return total / len(order)


def _take_step(loss: torch.Tensor, objective: Objective, optimizer: torch.optim.Optimizer, accelerator: Accelerator,
               scaler: torch.amp.GradScaler, step: str) -> bool:
    """Changes the parameters by the gradient of a loss; returns whether it did, or the scaler left it out."""
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(scaler.scale(loss))
    scaler.unscale_(optimizer)
    norm = nn.utils.get_total_norm([p.grad for p in objective.parameters() if p.grad is not None]).item()
    scale = scaler.get_scale()
    if scale <= 1:  # with a larger one it is left to the scaler
        _check_finite("gradient", norm, optimizer, step)
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= scale


def _check_finite(name: str, value: float, optimizer: torch.optim.Optimizer, step: str) -> None:
    if not math.isfinite(value):
        raise ValueError(f"the {name} is {value} in {step}: lower LR {optimizer.param_groups[0]['lr']:.2g}, or use "
                         "PRECISION='fp32'")


@contextmanager
def _advise_batch_size(batch_size: int) -> Iterator[None]:
    """Turns torch's errors about memory into one that says what to try."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise MemoryError(f"{batch_size} images at a time do not fit into memory: try "
                          + f"BATCH_SIZE {batch_size // 2} or " * (batch_size >= 4) + "a smaller IMAGE_SIZE") from error
