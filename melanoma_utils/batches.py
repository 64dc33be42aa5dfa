"""The batches of an epoch: read, brought to the device, augmented there; on a GPU while it still trains."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from melanoma_utils.inference import Samples

AHEAD_BATCHES, AHEAD_PIXELS = 4, 2**24  # at most so many are augmented in one call on a GPU, or one batch


def make_batches(samples: Samples, parts: Sequence[np.ndarray], device: torch.device,
                  prepare: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """Yields the images of each part, prepared, with their metadata, targets and diagnoses, on the device.

    On a GPU several parts are prepared in one call, for it is the calls that take time there: in a CUDA stream of their
    own, and always one group ahead of the training.

    Args:
        samples: what to train on.
        parts: the samples of each batch, the first part as large as any.
        device: where the model is.
        prepare: makes of (N, H, W, 3) uint8 images what the model is given, on the device; N is a batch's or more.
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
