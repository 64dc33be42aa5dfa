"""One epoch, by one process or by all that train a fold together."""

import functools
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
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

NO_MEMORY = "can't allocate memory|CUDA error: out of memory|STATUS_ALLOC_FAILED"  # where it is no OutOfMemoryError
N_UNREAD = 8  # steps on a GPU after which losses are read
AHEAD_BATCHES, AHEAD_PIXELS = 4, 2**24  # at most these are augmented in one call on a GPU, or one batch


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
    batches = _make_batches(samples, [part[rank::world] for part in parts], device,
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


def _make_batches(samples: Samples, parts: Sequence[np.ndarray], device: torch.device,
                  prepare: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """Yields the images of each part, prepared, with their metadata, targets and diagnoses, on the device.

    On a GPU several parts are prepared in one call, for it is the calls that take time there: in a CUDA stream of their
    own, and always one group ahead of the training.
    """
    if device.type == "cpu":
        for part in parts:
            images, *values = _read(samples, part)
            yield prepare(images), *values
        return
    training = torch.cuda.current_stream(device)
    groups = _group_parts(parts, math.prod(samples.images.shape[1:3]))
    prepared = _prepare_groups(samples, groups, device, prepare)
    for (group, tensors, is_ready), _ in itertools.pairwise(itertools.chain(prepared, [None])):
        training.wait_event(is_ready)
        for tensor in tensors:
            if tensor is not None:
                tensor.record_stream(training)  # its memory is not taken again before training is done with it
        yield from _split_group(tensors, group)


def _prepare_groups(samples: Samples, groups: Sequence[Sequence[np.ndarray]], device: torch.device,
                    prepare: Callable[[torch.Tensor], torch.Tensor]
                    ) -> Iterator[tuple[Sequence[np.ndarray], tuple[torch.Tensor | None, ...], torch.cuda.Event]]:
    """Yields each group of parts, its tensors on a GPU, and what tells that they are there; a thread reads ahead."""
    stream = _get_side_stream(device)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(_read_pinned, samples, np.concatenate(groups[0]), device)
        for group, following in itertools.zip_longest(groups, groups[1:]):
            images, *values = ahead.result()
            if following is not None:
                ahead = pool.submit(_read_pinned, samples, np.concatenate(following), device)
            with torch.cuda.stream(stream):
                tensors = prepare(images), *(v if v is None else v.to(device, non_blocking=True) for v in values)
                is_ready = torch.cuda.Event()
                is_ready.record()
            yield group, tensors, is_ready


def _group_parts(parts: Sequence[np.ndarray], n_pixels: int) -> list[Sequence[np.ndarray]]:
    """Returns the parts in groups of `AHEAD_BATCHES` and `AHEAD_PIXELS` at most, or one by one.

    Args:
        parts: samples of each batch.
        n_pixels: of an image.
    """
    n = max(1, min(AHEAD_BATCHES, AHEAD_PIXELS // (len(parts[0]) * n_pixels)))
    return [parts[i:i + n] for i in range(0, len(parts), n)]


def _split_group(tensors: Sequence[torch.Tensor | None], group: Sequence[np.ndarray]
                 ) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """Yields views of a group's tensors, the rows of each of its parts."""
    sizes = [len(part) for part in group]
    return zip(*([None] * len(sizes) if tensor is None else tensor.split(sizes) for tensor in tensors), strict=True)


@functools.cache
def _get_side_stream(device: torch.device) -> torch.cuda.Stream:
    """Returns the same stream for each epoch: what was allocated on another one would not be used again."""
    return torch.cuda.Stream(device)


def _read(samples: Samples, part: np.ndarray) -> tuple[torch.Tensor | None, ...]:
    """Returns the (B, H, W, 3) uint8 images of a part, and its metadata, targets and diagnoses."""
    arrays = [samples.images[samples.rows[part]], *(values if values is None else values[part] for values in (
        samples.metadata, samples.targets, samples.diagnoses))]
    return tuple(values if values is None else torch.from_numpy(values) for values in arrays)


def _read_pinned(samples: Samples, part: np.ndarray, device: torch.device) -> tuple[torch.Tensor | None, ...]:
    """Does `_read` into memory from which a GPU copies by itself."""
    with torch.cuda.device(device):  # a thread begins with the first GPU
        return tuple(values if values is None else values.pin_memory() for values in _read(samples, part))


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
