"""Where the lesions of a drawn competition lie."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_utils.drawing import draw_image
from melanoma_utils.files import read_json
from melanoma_utils.images import check_resize, make_square
from melanoma_utils.synthetic import DRAWING_VERSION, SyntheticConfig, make_latents


def draw_masks(data_dir: str | Path, image_names: Sequence[str], image_size: int,
               resize_mode: str = "squash") -> np.ndarray:
    """Returns (N, image_size, image_size) bool, True on the lesion: the images are drawn once more for it.

    Args:
        data_dir: folder of a drawn competition, see `synthetic.draw_competition`.
        image_names: of either split.
        image_size: side of the masks in pixels.
        resize_mode: how the images became square, see `images.load_at_sizes`.

    Raises:
        FileNotFoundError: the folder holds no drawn competition.
        KeyError: an image is not one of it.
        ValueError: it was drawn by another version, or resize_mode is unknown.
    """
    check_resize(resize_mode)
    marker_path = Path(data_dir) / "synthetic.json"
    if not marker_path.is_file():
        raise FileNotFoundError(f"{marker_path} does not exist: only of drawn images it is known where the lesion lies")
    stamp = read_json(marker_path)
    version = stamp.pop("drawing_version")
    if version != DRAWING_VERSION:
        raise ValueError(f"{data_dir} was drawn by version {version}, this is {DRAWING_VERSION}: draw it anew")
    config = SyntheticConfig(**stamp)
    latents_df = make_latents(config).set_index("image_name")
    unknown = [name for name in image_names if name not in latents_df.index]
    if unknown:
        raise KeyError(f"{len(unknown)} images are not in {data_dir}, such as {unknown[0]}")
    latents = latents_df.loc[list(image_names)].to_dict("records")
    masks = [draw_image(latent, config.image_size)[1] for latent in latents]  # (H, W) each
    grey = [make_square(Image.fromarray(255 * mask.astype(np.uint8)), image_size, resize_mode) for mask in masks]
    return np.stack([np.asarray(image) > 127 for image in grey])  # (N, S, S)
