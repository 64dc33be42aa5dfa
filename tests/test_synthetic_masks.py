"""Masks of drawn lesions lie on the lesions of the images as the pipeline reads them."""

import shutil

import numpy as np
import pytest

from melanoma_utils.competition import find_images, read_train
from melanoma_utils.files import read_json, write_json
from melanoma_utils.images import load_resized
from melanoma_utils.synthetic_masks import draw_masks


@pytest.mark.parametrize("resize_mode", ["squash", "crop", "pad"])
def test_masks_lie_on_the_lesions(data_dir, resize_mode):
    names = read_train(data_dir)["image_name"][:12]
    paths = find_images(data_dir, "train", names)
    masks = draw_masks(data_dir, names, 32, resize_mode)
    assert masks.shape == (12, 32, 32) and masks.dtype == bool and masks.any((1, 2)).all()
    for name, mask in zip(names, masks, strict=True):
        image = load_resized(paths[name], 32, resize_mode).mean(2)  # (32, 32)
        around = ~mask & (image > 40)  # without dark corners and bars
        assert image[mask].mean() < image[around].mean()


def test_masks_follow_the_names(data_dir):
    names = list(read_train(data_dir)["image_name"][:3])
    assert np.array_equal(draw_masks(data_dir, names[::-1], 32), draw_masks(data_dir, names, 32)[::-1])


def test_what_was_not_drawn_has_no_mask(data_dir, tmp_path):
    with pytest.raises(KeyError, match=r"1 images are not in .*such as ISIC_1"):
        draw_masks(data_dir, ["ISIC_1"], 32)
    with pytest.raises(FileNotFoundError, match="only of drawn images it is known where the lesion lies"):
        draw_masks(tmp_path, [], 32)
    with pytest.raises(ValueError, match="RESIZE_MODE 'stretch'"):
        draw_masks(data_dir, [], 32, "stretch")


def test_another_versions_drawings_are_refused(data_dir, tmp_path):
    shutil.copy(data_dir / "synthetic.json", tmp_path)
    write_json(tmp_path / "synthetic.json", read_json(data_dir / "synthetic.json") | {"drawing_version": 0})
    with pytest.raises(ValueError, match="drawn by version 0, this is 1"):
        draw_masks(tmp_path, [], 32)
