import pytest
import torch
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast

from melanoma_utils.transforms import (
    AugmentConfig,
    build_augmentation,
    change_light,
    disturb_images,
    make_tta_views,
    normalize,
    to_float,
    warp_images,
)


def test_to_float_scales_and_moves_the_channels(store):
    x = to_float(store.images[:4])
    assert x.shape == (4, 3, 32, 32) and 0 <= x.min() and x.max() <= 1
    assert x[2, 1, 5, 7].item() == pytest.approx(store.images[2, 5, 7, 1] / 255)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_normalize_by_channel():
    x = torch.ones(2, 3, 4, 4) * torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    y = normalize(x, torch.tensor([0.1, 0.0, 0.3]), torch.tensor([1.0, 0.1, 1.0]))
    assert torch.allclose(y.mean((0, 2, 3)), torch.tensor([0.0, 2.0, 0.0]))


def test_eight_views_are_all_flips_and_turns():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    views = {tuple(view.flatten().tolist()) for view in make_tta_views(x, 8)}
    turns = {tuple(torch.rot90(y, k, (2, 3)).flatten().tolist()) for y in (x, x.flip(3)) for k in range(4)}
    assert views == turns and len(views) == 8


def test_unknown_number_of_views_is_refused():
    with pytest.raises(ValueError, match=r"TTA_VIEWS 3 is not one of \(1, 2, 4, 8\)"):
        make_tta_views(torch.zeros(1, 3, 4, 4), 3)


NOTHING = {"flip": False, "rotation": 0, "shift": 0, "scale_min": 1, "scale_max": 1, "brightness": 0, "contrast": 0}


def test_augmentation_differs_by_image_and_repeats_by_seed():
    x = torch.rand(1, 3, 32, 32).repeat(4, 1, 1, 1)
    augment = build_augmentation(AugmentConfig())
    torch.manual_seed(5)
    first = augment(x)
    torch.manual_seed(5)
    assert torch.equal(first, augment(x)) and first.shape == x.shape
    assert all(not torch.allclose(first[0], first[i]) for i in (1, 2, 3))


def test_augmentation_off_changes_nothing():
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(build_augmentation(AugmentConfig(**NOTHING))(x), x)


def test_a_warp_turns_flips_zooms_and_shifts_about_the_middle():
    x = torch.rand(5, 3, 8, 8)
    matrices = torch.tensor([[[1, 0, 0], [0, 1, 0]], [[0, -1, 0], [1, 0, 0]], [[-1, 0, 0], [0, 1, 0]],
                             [[1, 0, 0.25], [0, 1, 0]], [[0.5, 0, 0], [0, 0.5, 0]]], dtype=torch.float32)
    same, turned, mirrored, shifted, zoomed = warp_images(x, matrices)
    assert torch.allclose(same, x[0], atol=1e-6) and torch.allclose(mirrored, x[2].flip(2), atol=1e-6)
    assert torch.allclose(turned, torch.rot90(x[1], 1, (1, 2)), atol=1e-6)
    assert torch.allclose(shifted, torch.cat([x[3, :, :, 1:], x[3, :, :, -1:]], 2), atol=1e-6)  # the edge mirrored
    middle = torch.nn.functional.interpolate(x[4:, :, 1:7, 1:7], scale_factor=2, mode="bilinear")[0, :, 2:-2, 2:-2]
    assert torch.allclose(zoomed, middle, atol=1e-6)


def test_light_is_changed_as_torchvision_does_it():
    x, brightness, contrast = torch.rand(3, 3, 16, 16) * 0.5 + 0.2, [0.8, 1.0, 1.1], [1.0, 0.7, 1.2]
    color = torch.tensor([[1, 1, 1], [0.9, 1, 1.1], [1, 1, 1]])
    changed = change_light(x, torch.tensor(brightness)[:, None], torch.tensor(contrast)[:, None], color)
    wanted = [adjust_contrast(adjust_brightness(*xb), c) for *xb, c in zip(x, brightness, contrast, strict=True)]
    assert torch.allclose(changed, torch.stack(wanted) * color[:, :, None, None], atol=1e-4)
    assert change_light(x, torch.full((3, 1), 9.0), torch.ones(3, 1), color).max() == 1


@pytest.mark.parametrize(("change", "x_limits", "y_limits"), [
    ({"rotation": 40}, (0.383, 0.5), (-0.321, 0.321)), ({"scale_min": 0.8, "scale_max": 1.5}, (0.4, 0.75), (0, 0)),
    ({"shift": 0.15}, (0.2, 0.8), (-0.3, 0.3)),
    ({"shift": 0.1, "scale_min": 1.25, "scale_max": 1.25}, (0.425, 0.825), (-0.2, 0.2))])
def test_what_is_drawn_reaches_its_limits_and_no_further(change, x_limits, y_limits):
    """Where a spot halfway to the right edge, (0.5, 0), goes when it is turned, zoomed or shifted 500 times."""
    images = torch.zeros(500, 3, 64, 64)
    images[:, :, 31:33, 47:49] = 1
    torch.manual_seed(0)
    light = build_augmentation(AugmentConfig(**NOTHING | change))(images).sum(1)
    line = (torch.arange(64) + 0.5) / 32 - 1
    for xs, limits in (((light.sum(1) @ line) / light.sum((1, 2)), x_limits),
                       ((light.sum(2) @ line) / light.sum((1, 2)), y_limits)):
        assert torch.stack(xs.aminmax()).tolist() == pytest.approx(limits, abs=0.02)


def test_flips_are_four_equally_often():
    x = torch.rand(1, 3, 16, 16).repeat(400, 1, 1, 1)
    flipped = build_augmentation(AugmentConfig(**NOTHING | {"flip": True}))(x)
    counts = [sum(torch.allclose(y, view[0], atol=1e-4) for y in flipped) for view in make_tta_views(x[:1], 4)]
    assert sum(counts) == 400 and min(counts) > 60


def test_brightness_and_contrast_reach_their_limits_and_no_further():
    images = torch.full((500, 3, 4, 4), 0.4)
    images[:, :, :2] = 0.6
    for name, mean, difference in (("brightness", (0.4, 0.6), (0.16, 0.24)), ("contrast", (0.5, 0.5), (0.16, 0.24))):
        changed = build_augmentation(AugmentConfig(**NOTHING | {name: 0.2}))(images)
        assert torch.stack(changed.mean((1, 2, 3)).aminmax()).tolist() == pytest.approx(mean, abs=0.002)
        differences = (changed[:, :, 0] - changed[:, :, 3]).mean((1, 2))
        assert torch.stack(differences.aminmax()).tolist() == pytest.approx(difference, abs=0.002)


def test_color_changes_each_channel_by_its_own_factor():
    x = torch.full((50, 3, 4, 4), 0.5)
    y = build_augmentation(AugmentConfig(**NOTHING, color=0.2))(x)
    factors = y[:, :, 0, 0] / 0.5  # (50, 3)
    assert torch.allclose(y, factors[:, :, None, None] * 0.5) and ((factors > 0.8) & (factors < 1.2)).all()
    assert (factors.std(0) > 0.05).all() and abs(torch.corrcoef(factors.T)[0, 1]) < 0.5


def test_disturbing_is_the_same_where_autocast_is_on():
    config, images = AugmentConfig(artefacts=1.0, sharpness=1.0), torch.rand(16, 3, 32, 32)
    torch.manual_seed(0)
    plain = disturb_images(images, config)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(disturb_images(images, config), plain)
    assert not torch.equal(plain, images) and disturb_images(images, AugmentConfig()) is images


@pytest.mark.parametrize(("name", "value"), [("color", 1.5), ("rotation", 181), ("shift", -0.1), ("brightness", 2),
                                             ("scale_max", 0.5), ("artefacts", 1.5), ("sharpness", -0.1)])
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name.upper()} {value} is not in"):
        AugmentConfig(**{name: value})
