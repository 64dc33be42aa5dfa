import numpy as np
import pytest
from PIL import Image, ImageDraw

from melanoma_utils.cleaning import CLEAN_STEPS, clean_image, crop_dark_frame, remove_hairs, shades_of_gray

SKIN, LESION = (205, 160, 140), (110, 65, 50)


def draw_lesion(size=256, lines=(), dots=(), rings=(), n_columns=None):
    """Skin with a little noise and a round lesion; dark lines (x, y, x, y) of 3 pixels, dark dots and rings (x, y)."""
    picture = Image.new("RGB", (n_columns or size, size), SKIN)
    draw = ImageDraw.Draw(picture)
    draw.circle((size // 2, size // 2), size // 5, fill=LESION)
    for line in lines:
        draw.line(line, fill=(45, 30, 25), width=3)
    for dot in dots:
        draw.circle(dot, 3, fill=(45, 30, 25))
    for ring in rings:
        draw.circle(ring, 6, outline=(45, 30, 25), width=2)
    noise = np.random.default_rng(0).normal(0, 2, (size, n_columns or size, 1))
    return (np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)


def add_frame(image, radius, centre=(0.5, 0.5)):
    """The image where it lies in a circle (radius and centre in shares of the sides' lengths), else nearly black."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(x - centre[1] * width, y - centre[0] * height) < radius * min(height, width)
    return np.where(inside[..., None], image, image // 16)


DOTS = [(x, y) for x in range(85, 175, 12) for y in range(85, 175, 12)]
LINES = [(10, 20, 240, 90), (60, 250, 200, 5), (0, 200, 250, 180), (30, 0, 30, 255)]


@pytest.mark.parametrize("size", [256, 512, 1000])
def test_hairs_are_gone_and_the_rest_stays(size):
    bare = draw_lesion(size)
    cover = Image.new("L", (size, size))
    for line in LINES:
        ImageDraw.Draw(cover).line([round(value * size / 256) for value in line], fill=255, width=3 * size // 256)
    hairs = np.asarray(cover) > 0
    cleaned = remove_hairs(np.where(hairs[..., None], np.uint8(40), bare)).astype(int)
    error = np.abs(cleaned - bare).mean(2)
    assert error[hairs].mean() < 12 and (error[hairs] > 40).mean() < 0.08  # it was 40 to 100 before
    assert error[~hairs].mean() < 1 and (error[~hairs] > 20).mean() < 0.01


def test_a_picture_without_hairs_stays():
    image = draw_lesion()
    assert np.array_equal(remove_hairs(image), image)


def test_globules_short_streaks_and_a_network_stay():
    streaks = [(110, 256, 150, 256), (362, 256, 402, 256), (256, 110, 256, 150)]
    for image in (draw_lesion(dots=DOTS), draw_lesion(rings=DOTS), draw_lesion(512, lines=streaks)):
        assert (remove_hairs(image) != image).any(2).mean() < 0.002


def test_a_hair_into_a_network_does_not_take_the_network_along():
    network = [line for i in range(92, 166, 7) for line in ((i, 90, i, 166), (90, i, 166, i))]
    image = draw_lesion(lines=[*network, (0, 128, 100, 128)])
    changed = (remove_hairs(image) != image).any(2)
    assert changed[128, :60].all() and changed[:, 85:].mean() < 0.01


def test_a_hair_across_globules_takes_only_what_is_near_it():
    dotted, hairy = draw_lesion(dots=DOTS), draw_lesion(dots=DOTS, lines=[(0, 128, 255, 128)])
    cleaned = remove_hairs(hairy)
    assert (cleaned != hairy)[128, :60].all() and np.array_equal(cleaned[:112], dotted[:112])
    assert np.abs(cleaned.astype(int) - dotted).mean() < 0.6 < np.abs(hairy.astype(int) - dotted).mean()


@pytest.mark.parametrize(("n_columns", "radius"), [(256, 0.36), (256, 0.5), (256, 0.6), (340, 0.6)])
def test_a_round_frame_is_cropped_and_the_lesion_kept(n_columns, radius):
    bare = draw_lesion(n_columns=n_columns)
    image = add_frame(bare, radius)
    cropped = crop_dark_frame(image)
    assert (cropped.max(2) < 30).mean() < 0.005 < 0.02 < (image.max(2) < 30).mean()
    assert cropped.size > 0.5 * (image.max(2) >= 30).sum() * 3
    assert (cropped[..., 0] < 130).sum() == pytest.approx((bare[..., 0] < 130).sum(), rel=0.02)


def test_black_bars_are_cropped_and_nothing_more():
    image = draw_lesion()
    padded = np.pad(image, ((0, 0), (60, 24), (0, 0)))
    cropped = crop_dark_frame(padded)
    assert cropped.shape[0] == 256 and 250 <= cropped.shape[1] <= 260 and (cropped.max(2) == 0).mean() < 0.02


def test_an_image_without_a_frame_stays_whole():
    hairy = draw_lesion(lines=[*LINES, (0, 0, 30, 30), (255, 0, 225, 30)])
    vignette = hairy * np.linspace(0.45, 0.8, 256)[:, None, None]
    for image in (draw_lesion(), hairy, vignette.astype(np.uint8), np.zeros((64, 64, 3), np.uint8)):
        assert np.array_equal(crop_dark_frame(image), image)


@pytest.mark.parametrize("side", [6, 60])
def test_a_glare_in_a_dark_picture_is_no_field(side):
    image = np.full((256, 256, 3), 40, np.uint8)
    image[100:100 + side, 120:120 + side] = 250
    assert np.array_equal(crop_dark_frame(image), image)


@pytest.mark.parametrize("radius", [30, 80])
@pytest.mark.parametrize("centre", [(128, 128), (0, 128), (5, 5), (128, 255)])
def test_a_black_lesion_is_no_frame_even_at_the_border_or_in_a_corner(centre, radius):
    picture = Image.fromarray(draw_lesion())
    ImageDraw.Draw(picture).circle(centre, radius, fill=(15, 12, 20))
    assert crop_dark_frame(np.asarray(picture)).shape == (256, 256, 3)


def test_dark_that_reaches_deep_into_the_image_is_left_alone():
    image = draw_lesion()
    image[:120] = 8  # a wide black bar is cut off ...
    assert crop_dark_frame(image).shape[0] < 140
    image = draw_lesion()
    image[:80, :80] = image[-80:, -80:] = 8  # ... but corners like these belong to no round field
    assert crop_dark_frame(image).shape == (256, 256, 3)


@pytest.mark.parametrize("power", [1, 6, 1000, np.inf])
def test_a_grey_picture_under_coloured_light_becomes_grey_and_as_bright(power):
    grey = np.random.default_rng(0).integers(20, 200, (64, 64, 1))
    lit = (grey * [1.0, 0.7, 0.5]).round().astype(np.uint8)
    cleaned = shades_of_gray(lit, power).astype(int)
    assert np.abs(cleaned - cleaned.mean(2, keepdims=True)).max() <= 2
    assert cleaned.mean() == pytest.approx(lit.mean(), abs=0.5)


def test_power_one_is_grey_world_and_infinity_max_rgb():
    image = draw_lesion()
    means = shades_of_gray(image, 1).mean((0, 1))
    assert np.ptp(means) < 0.7 < 20 < np.ptp(image.mean((0, 1)))
    peaks = shades_of_gray(image, np.inf).max((0, 1))
    assert np.ptp(peaks.astype(int)) <= 1 < np.ptp(image.max((0, 1)).astype(int))


@pytest.mark.parametrize("power", [0, 0.5, -1, np.nan])
def test_a_power_below_one_is_refused(power):
    with pytest.raises(ValueError, match="is below 1"):
        shades_of_gray(draw_lesion(), power)


def test_grey_and_black_images_keep_their_colours():
    grey = np.random.default_rng(0).integers(0, 256, (32, 48, 1), dtype=np.uint8).repeat(3, 2)
    assert np.abs(shades_of_gray(grey).astype(int) - grey).max() <= 1
    black, no_blue = np.zeros((32, 32, 3), np.uint8), grey * np.array([1, 1, 0], np.uint8)
    assert np.array_equal(shades_of_gray(black), black) and np.array_equal(shades_of_gray(no_blue), no_blue)


@pytest.mark.parametrize("step", CLEAN_STEPS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (8, 8), (33, 300), (500, 131)])
def test_every_step_takes_every_shape_and_leaves_its_input_alone(step, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for image in (noise, np.full_like(noise, 255)):
        before = image.copy()
        cleaned = clean_image(image, [step])
        assert cleaned.dtype == np.uint8 and cleaned.ndim == 3 and cleaned.shape[2] == 3 and cleaned.size
        assert np.array_equal(image, before)
        assert cleaned.shape == image.shape or step == "crop_frame"


def test_the_steps_run_in_one_order_and_none_changes_nothing():
    image = add_frame((draw_lesion(lines=LINES) * [1, 0.9, 0.7]).astype(np.uint8), 0.55)
    wanted = shades_of_gray(remove_hairs(crop_dark_frame(image)))
    assert np.array_equal(clean_image(image, list(CLEAN_STEPS)), wanted)
    for steps in (list(CLEAN_STEPS)[::-1], ["crop_frame", "crop_frame"]):
        with pytest.raises(ValueError, match="are always done in the order"):
            clean_image(image, steps)
    assert not np.array_equal(remove_hairs(shades_of_gray(image)), wanted)
    assert clean_image(image, []) is image


def test_an_unknown_step_is_refused_even_after_a_known_one():
    with pytest.raises(ValueError, match=r"CLEAN_STEPS 'blur' is not one of \('crop_frame', 'remove_hairs', 'shades"):
        clean_image(draw_lesion(), ["remove_hairs", "blur"])
