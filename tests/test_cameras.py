import io

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image, to_tensor

from melanoma_utils import cameras
from melanoma_utils.cameras import change_camera, compress


@pytest.fixture
def images():
    """64 pictures of smooth shapes in three colours, between 0.3 and 0.7."""
    y, x = torch.meshgrid(torch.linspace(0, 20, 48), torch.linspace(0, 7, 48), indexing="ij")
    pattern = torch.stack([torch.sin(y), torch.sin(x), torch.cos(x + y)])
    return (0.5 + 0.2 * pattern).expand(64, -1, -1, -1).contiguous()


def measure_colour(images):
    """Returns (N,) the mean distance between a pixel's largest and smallest channel."""
    return (images.amax(1) - images.amin(1)).mean((1, 2))


def store(image, quality):
    """Returns what a JPEG file keeps of a (3, H, W) image."""
    file = io.BytesIO()
    to_pil_image(image).save(file, "JPEG", quality=quality)
    return to_tensor(Image.open(file))


@pytest.mark.parametrize("change", [change_camera, compress])
def test_without_a_share_nothing_is_drawn_and_nothing_changes(change, images):
    state = torch.get_rng_state()
    assert change(images, 0.0) is images and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("change", [change_camera, compress])
def test_about_the_wanted_share_is_changed_and_a_seed_repeats_it(change, images):
    torch.manual_seed(1)
    before, first = images.clone(), change(images, 0.4)
    assert torch.equal(images, before) and first.shape == images.shape and first.dtype == images.dtype
    assert first.min() >= 0 and first.max() <= 1
    changed = torch.cat([first, *(change(images, 0.4) for _ in range(9))])
    assert 0.33 < ((changed - images[:1]).abs() > 1e-5).flatten(1).any(1).float().mean() < 0.47
    torch.manual_seed(1)
    assert torch.equal(first, change(images, 0.4))


def test_a_camera_is_brighter_or_darker_more_or_less_colourful_and_tinted_each_by_itself(images):
    torch.manual_seed(2)
    changed = change_camera(images, 1.0)
    light = changed.mean((1, 2, 3)) / images.mean((1, 2, 3))
    colour = measure_colour(changed) / measure_colour(images) / light
    tint = changed.mean((2, 3)) / images.mean((2, 3))  # (N, 3)
    for factor, low, high in ((light, 0.75, 1.2), (colour, 0.6, 1.5), (tint[:, 0] / tint[:, 2], 0.9, 1.1)):
        assert factor.min() < low and factor.max() > high
        assert 0.3 < (factor < 1).float().mean() < 0.7
    assert abs(torch.corrcoef(torch.stack([light, colour]))[0, 1]) < 0.4


def test_noise_differs_from_pixel_to_pixel_and_from_picture_to_picture():
    torch.manual_seed(3)
    noise = change_camera(torch.full((200, 3, 16, 16), 0.5), 1.0).std((2, 3)).mean(1)  # (N,)
    assert noise.min() < 0.005 and 0.025 < noise.max() < 0.035


def test_compression_is_much_as_a_jpeg_file_of_that_quality(images, monkeypatch):
    torch.manual_seed(4)
    fine = (images + 0.01 * torch.randn_like(images)).clamp(0, 1)
    for quality in (50, 75, 97):
        monkeypatch.setattr(cameras, "JPEG_QUALITY", (quality, quality))
        files = torch.stack([store(image, quality) for image in fine])
        lost, lost_by_files = compress(fine, 1.0) - fine, files - fine
        assert lost.std().item() == pytest.approx(lost_by_files.std().item(), rel=0.3)
        assert torch.corrcoef(torch.stack([lost.flatten(), lost_by_files.flatten()]))[0, 1] > 0.6
