"""One epoch, by one process or by all that train a fold together."""

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch import nn

from melanoma_utils.batches import make_batches
from melanoma_utils.inference import PREDICTED, Samples, autocast, predict_logits
from melanoma_utils.models import LesionClassifier
from melanoma_utils.objective import Objective
from melanoma_utils.transforms import resize_batch, to_float

NO_MEMORY = "can't allocate memory|CUDA error: out of memory|STATUS_ALLOC_FAILED"  # where it is no OutOfMemoryError
N_UNREAD = 8  # steps on a GPU after which losses are read


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
    with advise_batch_size(batch_size):
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
        ValueError: the loss or the gradient is not finite; the parameters have taken that step, and on a GPU up to
            N_UNREAD more.
        MemoryError: a batch does not fit; tells which BATCH_SIZE to try.
    """
    objective.train()
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes
    parts = np.array_split(order, n_batches)
    record = _Record(n_batches, optimizer, n_unread=1 if device.type == "cpu" else N_UNREAD)
    batches = make_batches(samples, [part[rank::world] for part in parts], device,
                            lambda images: augment(resize_batch(to_float(images, str(device)), image_size)))
    with closing(batches), advise_batch_size(len(parts[0])):
        for part, (images, *values) in zip(parts, batches, strict=True):
            with autocast(str(device), precision):
                loss = objective(images, *values) * (len(images) * world / len(part))
            norm, is_done = _take_step(loss, objective, optimizer, accelerator, scaler)
            record.add(accelerator.reduce(loss.detach(), "mean"), norm)  # over the batch of all processes
            if is_done:
                after_step()
        losses = record.read()
    if world > 1:  # each process has counted the batch norms' mean and variance over its own images
        for buffer in objective.buffers():
            broadcast(buffer, from_process=0)
    return sum(loss * len(part) for loss, part in zip(losses, parts, strict=True)) / len(order)


class _Record:
    """The loss and the gradient's norm of each step, left on the device and read a few steps at a time: a processor
    that reads them waits for the GPU, which then waits for it.

    Args:
        n_batches: steps of the epoch.
        optimizer: whose learning rate an error tells.
        n_unread: steps after which they are read.
    """

    def __init__(self, n_batches: int, optimizer: torch.optim.Optimizer, n_unread: int):
        self.n_batches, self.optimizer, self.n_unread = n_batches, optimizer, n_unread
        self.losses: list[float] = []
        self.unread: list[tuple[torch.Tensor, float]] = []  # (2,) loss and norm; the learning rate before the step

    def add(self, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Adds a step; raises like `read`."""
        self.unread.append((torch.stack([loss, norm]), self.optimizer.param_groups[0]["lr"]))
        if len(self.unread) >= self.n_unread:
            self.read()

    def read(self) -> list[float]:
        """Returns all losses so far; raises ValueError for the first step whose loss or gradient is not finite."""
        if self.unread:
            pairs, rates = zip(*self.unread, strict=True)
            self.unread.clear()
            for (loss, norm), lr in zip(torch.stack(pairs).tolist(), rates, strict=True):
                self.losses.append(loss)
                for name, value in {"loss": loss, "gradient": norm}.items():
                    if not math.isfinite(value):
                        raise ValueError(f"the {name} is {value} in step {len(self.losses)} of {self.n_batches}: lower "
                                         f"LR {lr:.2g}, or use PRECISION='fp32'")
        return self.losses


def _take_step(loss: torch.Tensor, objective: Objective, optimizer: torch.optim.Optimizer, accelerator: Accelerator,
               scaler: torch.amp.GradScaler) -> tuple[torch.Tensor, bool]:
    """Changes the parameters by the gradient of a loss, unless the scaler leaves it out; returns the gradient's norm,
    0 where that is left to the scaler, and whether the parameters were changed."""
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(scaler.scale(loss))
    scaler.unscale_(optimizer)
    norm = nn.utils.get_total_norm([p.grad for p in objective.parameters() if p.grad is not None])
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return norm if scale <= 1 else torch.zeros_like(norm), scaler.get_scale() >= scale


def advise_batch_size(batch_size: int) -> AbstractContextManager:
    """Returns `tell_no_memory` for so many images at a time, which says what to try."""
    return tell_no_memory(f"{batch_size} images at a time do not fit into memory: try "
                          + f"BATCH_SIZE {batch_size // 2} or " * (batch_size >= 4) + "a smaller IMAGE_SIZE")


@contextmanager
def tell_no_memory(text: str) -> Iterator[None]:
    """Turns torch's errors about memory into a MemoryError with a text of ours."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not re.search(NO_MEMORY, str(error)):
            raise
        raise MemoryError(text) from error
