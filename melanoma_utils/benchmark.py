"""Measuring one way of doing a thing beside another, in one run: on a shared machine only ratios hold."""

import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader, Dataset

from melanoma_utils.drawing import draw_image
from melanoma_utils.files import write_bytes
from melanoma_utils.memory import keep_freed_memory
from melanoma_utils.models import ModelConfig, build_model
from melanoma_utils.synthetic import SyntheticConfig, make_latents
from melanoma_utils.train_config import OPTIMIZERS

PHOTOGRAPH_SIZE = (6000, 4000)  # width, height in pixels of most of the competition's originals


def compare_rates(what: str, ours: Callable[[], object], reference: Callable[[], object], n_items: int, unit: str,
                  reference_name: str, n_repeats: int = 3) -> dict:
    """Returns a row, and prints it as a line: how many items a second two ways do, run in turn.

    Args:
        what: the thing that is measured.
        ours, reference: two ways, each doing n_items items a call.
        n_items: items a call.
        unit: of the rates, e.g. "images/s".
        reference_name: what the reference is.
        n_repeats: calls of each; the median of their rates counts.

    Returns:
        what, unit, ours, reference, ratio (ours / reference: above 1 is faster), reference_name.
    """
    rates = {ours: [], reference: []}
    for _ in range(n_repeats):
        for way, of_way in rates.items():
            start = time.perf_counter()
            way()
            of_way.append(n_items / (time.perf_counter() - start))
    return make_row(what, unit, median(rates[ours]), median(rates[reference]), reference_name)


def make_row(what: str, unit: str, ours: float, reference: float, reference_name: str) -> dict:
    """Prints two figures and their ratio, ours / reference, as a line; returns the row of `compare_rates`."""
    row = {"what": what, "unit": unit, "ours": ours, "reference": reference, "ratio": ours / reference,
           "reference_name": reference_name}
    print(f"{what}: {format_figure(ours)} {unit}, {reference_name}: {format_figure(reference)}; "
          f"ratio {format_figure(row['ratio'])}", flush=True)
    return row


def format_figure(value: float) -> str:
    """Returns a figure with two digits behind the point, as a power of ten where these would be 0.00."""
    return f"{value:,.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:.1e}"


def measure_peak_memory(function: Callable, *arguments: object, **options: object) -> float:
    """Returns the largest resident memory in MiB of a fresh process that calls a function of a module, looked at
    every hundredth of a second."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_call_and_measure, function, arguments, options).result()


def _call_and_measure(function: Callable, arguments: Sequence[object], options: dict) -> float:
    process, is_done, sizes = psutil.Process(), threading.Event(), []

    def watch() -> None:
        """Notes the size until it is done."""
        while not is_done.wait(0.01):
            sizes.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = function(*arguments, **options)
        sizes.append(process.memory_info().rss)  # a result counts, however quickly it came
        del result
    finally:
        is_done.set()
        watcher.join()
    return max(sizes) / 2**20


def load_fully_decoded(path: str | Path, image_size: int) -> np.ndarray:
    """Returns a JPEG file as (image_size, image_size, 3) uint8 RGB the original's way, all pixels decoded, then
    resized bilinearly, but upright."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(upright.resize((image_size, image_size), Image.Resampling.BILINEAR))


def load_in_workers(paths: Sequence[str | Path], image_size: int, batch_size: int = 8, n_workers: int = 4) -> int:
    """Reads JPEG files the original's way, a PyTorch DataLoader whose workers decode them with Pillow; returns how many
    images came out as (B, 3, H, W) float32 batches.

    Args:
        paths: the files.
        image_size: side of the images in pixels.
        batch_size, n_workers: the original's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores, as it was
        loader = DataLoader(_JpegDataset(paths, image_size), batch_size, num_workers=n_workers)
        return sum(len(batch) for batch in loader)


class _JpegDataset(Dataset):
    def __init__(self, paths: Sequence[str | Path], image_size: int):
        self.paths, self.image_size = paths, image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        pixels = load_fully_decoded(self.paths[i], self.image_size)  # (H, W, 3)
        return torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))


def train_bare(model: nn.Module, images: torch.Tensor, targets: torch.Tensor, n_steps: int) -> None:
    """Trains a model on one batch that lies in memory already: the rate that no training loop can exceed.

    Args:
        model: gives (B,) logits of (B, 3, H, W) images, on their device.
        images: (B, 3, H, W).
        targets: (B,) float32.
        n_steps: number of steps.
    """
    model.train()
    optimizer = OPTIMIZERS["adamw"](model.parameters(), lr=1e-6)
    for _ in range(n_steps):
        loss = nn.functional.binary_cross_entropy_with_logits(model(images), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    loss.item()  # waits for a GPU


def measure_training_rate(config: ModelConfig, batch_size: int, n_steps: int, is_memory_kept: bool) -> float:
    """Returns at how many images a second a fresh process does `train_bare` on the CPU, keeping the memory that it
    frees (`memory.keep_freed_memory`) or not."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure_training, config, batch_size, n_steps, is_memory_kept).result()


def _measure_training(config: ModelConfig, batch_size: int, n_steps: int, is_memory_kept: bool) -> float:
    if is_memory_kept:
        keep_freed_memory()
    model = build_model(config).to(memory_format=torch.channels_last)
    images = torch.rand(batch_size, 3, config.image_size, config.image_size).to(memory_format=torch.channels_last)
    train_bare(model, images, torch.zeros(batch_size), n_steps=2)  # what only the first steps do is not counted
    start = time.perf_counter()
    train_bare(model, images, torch.zeros(batch_size), n_steps)
    return batch_size * n_steps / (time.perf_counter() - start)


def draw_photographs(out_dir: str | Path, n_images: int) -> list[Path]:
    """Writes drawn lesions as JPEG files as large as the competition's originals, where they are not there yet.

    They are drawn at a quarter of that size and enlarged, with the noise of a camera, so that a decoder has as much
    to do as with a photograph.
    """
    paths = [Path(out_dir) / f"photograph_{i}.jpg" for i in range(n_images)]
    latents = make_latents(SyntheticConfig(n_train_patients=n_images, n_test_patients=1)).to_dict("records")
    for i, path in enumerate(paths):
        if not path.is_file():
            small = Image.fromarray(draw_image(latents[i], PHOTOGRAPH_SIZE[0] // 4)[0])
            noise = np.random.default_rng(i).normal(0, 3, (*PHOTOGRAPH_SIZE[::-1], 3)).astype(np.float32)
            pixels = np.asarray(small.resize(PHOTOGRAPH_SIZE, Image.Resampling.BICUBIC)) + noise
            write_jpegs(out_dir, {path.stem: pixels.clip(0, 255).astype(np.uint8)})
    return paths


def write_jpegs(out_dir: str | Path, images: Mapping[str, np.ndarray]) -> list[Path]:
    """Writes (H, W, 3) uint8 RGB images as out_dir/<name>.jpg, quality 90; returns
    their paths."""
    paths = [Path(out_dir) / f"{name}.jpg" for name in images]
    for path, image in zip(paths, images.values(), strict=True):
        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        write_bytes(path, buffer.getvalue())
    return paths
