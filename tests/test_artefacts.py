import pytest
import torch

from melanoma_utils.artefacts import add_artefacts, draw_frames


@pytest.fixture
def images():
    """200 even pictures of light skin, each of another shade."""
    return torch.linspace(0.5, 0.7, 200)[:, None, None, None].expand(-1, 3, 64, 64).contiguous()


def full(value):
    return torch.full((1, 1, 1, 1), value)


def test_without_a_share_nothing_is_drawn_and_nothing_changes(images):
    state = torch.get_rng_state()
    assert add_artefacts(images, 0.0) is images and torch.equal(torch.get_rng_state(), state)


def test_every_picture_gets_something_beside_its_middle_and_stays_a_picture(images):
    torch.manual_seed(0)
    before = images.clone()
    changed = add_artefacts(images, 1.0)
    assert torch.equal(images, before) and changed.shape == images.shape and changed.dtype == images.dtype
    assert changed.min() >= 0 and changed.max() <= 1
    is_touched = (changed != images).flatten(1).any(1).float().mean()
    assert is_touched > 0.9  # a wide frame may lie outside of the picture
    assert torch.equal(changed[..., 28:36, 28:36], images[..., 28:36, 28:36])  # where the lesion is


def test_half_of_what_is_drawn_are_frames_and_the_others_are_no_rarer_than_each_other(images):
    torch.manual_seed(0)
    changed = torch.cat([add_artefacts(images, 1.0) for _ in range(5)])
    corners = changed[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean(1)  # (N, 4)
    assert 0.3 < (corners < 0.4).all(1).float().mean() < 0.6  # frames that reach the corners, and dark bars
    is_coloured = (changed.amax(1) - changed.amin(1)).flatten(1).amax(1) > 0.01
    assert 0.08 < is_coloured.float().mean() < 0.2  # pen marks alone have a colour here


def test_about_the_wanted_share_is_changed_and_a_seed_repeats_it(images):
    torch.manual_seed(1)
    first = add_artefacts(images, 0.4)
    assert 0.25 < (first != images).flatten(1).any(1).float().mean() < 0.5
    torch.manual_seed(1)
    assert torch.equal(first, add_artefacts(images, 0.4))


def test_both_ways_are_equally_likely(images):
    torch.manual_seed(2)
    darkness = torch.cat([images - add_artefacts(images, 1.0) for _ in range(10)]).mean((0, 1))  # (H, W)
    sides = torch.stack([darkness[:8].mean(), darkness[-8:].mean(), darkness[:, :8].mean(), darkness[:, -8:].mean()])
    assert sides.max() < 1.2 * sides.min()


def test_a_frame_is_dark_outside_of_its_ellipse_alone():
    images = torch.full((2, 3, 101, 101), 0.8)
    framed = draw_frames(images, full(0.9), full(0.5), full(0.0), full(0.2), full(0.02), full(0.1))
    line = torch.linspace(-1, 1, 101)
    distance = ((line[None] / 0.9) ** 2 + ((line[:, None] - 0.2) / 0.5) ** 2).sqrt()
    assert (framed[:, :, distance < 0.98] == 0.8).all()
    assert torch.allclose(framed[:, :, distance > 1.02], torch.tensor(0.1))
