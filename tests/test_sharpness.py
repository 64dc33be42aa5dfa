import pytest
import torch

from melanoma_utils.sharpness import change_sharpness


@pytest.fixture
def images():
    """64 pictures of smooth shapes and fine lines, between 0.25 and 0.75."""
    y, x = torch.meshgrid(torch.linspace(0, 20, 48), torch.linspace(0, 7, 48), indexing="ij")
    pattern = 0.5 + 0.15 * torch.sin(y * torch.arange(1, 65)[:, None, None] / 16) + 0.1 * torch.sign(torch.sin(9 * x))
    return pattern[:, None].expand(-1, 3, -1, -1).contiguous()


def measure_edges(images):
    """Returns (N,) the mean step from a pixel to the next."""
    return images.diff(dim=-1).abs().mean((1, 2, 3))


def test_without_a_share_nothing_is_drawn_and_nothing_changes(images):
    state = torch.get_rng_state()
    assert change_sharpness(images, 0.0) is images and torch.equal(torch.get_rng_state(), state)


def test_pictures_become_sharper_and_coarser_and_stay_pictures(images):
    torch.manual_seed(0)
    ratios = []
    for _ in range(8):
        changed = change_sharpness(images, 1.0)
        assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
        assert (changed.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().max() < 0.02  # as light as before
        ratios.append(measure_edges(changed) / measure_edges(images))
    ratios = torch.stack(ratios)
    assert 0.15 < (ratios > 1.02).float().mean() < 0.55 and (ratios < 0.98).float().mean() > 0.4
    assert ratios.max() > 1.3 and ratios.min() < 0.7


def test_about_the_wanted_share_is_changed_and_a_seed_repeats_it(images):
    torch.manual_seed(1)
    n_changed = sum(int((change_sharpness(images, 0.5) != images).flatten(1).any(1).sum()) for _ in range(20))
    assert 0.35 < n_changed / (20 * len(images)) < 0.65
    torch.manual_seed(2)
    first = change_sharpness(images, 0.7)
    torch.manual_seed(2)
    assert torch.equal(first, change_sharpness(images, 0.7))
    assert change_sharpness(images[:3], 1.0).shape == images[:3].shape  # fewer than groups
