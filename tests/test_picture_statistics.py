import numpy as np
import pytest
from PIL import Image

from melanoma_utils.drawing import draw_image, draw_skin
from melanoma_utils.picture_statistics import SHARPNESS, SIZE, measure_statistics, shrink_picture
from melanoma_utils.synthetic import SyntheticConfig, make_latents


@pytest.fixture(scope="module")
def lesion():
    latents_df = make_latents(SyntheticConfig(n_train_patients=4, seed=3))
    return draw_image(latents_df.iloc[0], 448)[0]


def measure(picture):
    return measure_statistics(shrink_picture(picture))


@pytest.mark.parametrize("shape", [(1, 1), (64, 500), (512, 512), (1000, 3000), (5000, 40)])
def test_any_size_is_shrunken_and_gives_finite_numbers(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert shrink_picture(picture).shape == (SIZE, SIZE, 3)
    values = measure(picture)
    assert set(SHARPNESS) < set(values) and np.isfinite(list(values.values())).all()


@pytest.mark.parametrize("value", [0, 255])
def test_a_blank_picture_gives_finite_numbers(value):
    values = measure(np.full((200, 200, 3), value, np.uint8))
    assert np.isfinite(list(values.values())).all() and values["contrast"] == 0
    assert values["flat0"] == 1 and values["grey"] == 1


def test_the_size_of_a_picture_hardly_matters(lesion):
    large = np.asarray(Image.fromarray(lesion).resize((4 * lesion.shape[1], 4 * lesion.shape[0])))
    one, other = measure(lesion), measure(large)
    assert max(abs(one[name] - other[name]) for name in ("light_50", "red_50", "chroma_90", "contrast")) < 0.03


def test_turning_moves_no_colours(lesion):
    one, other = measure(lesion), measure(lesion[::-1, ::-1])
    assert all(one[name] == pytest.approx(other[name], abs=0.01) for name in one if "_ring" in name)


def test_the_shares_of_colours_are_shares():
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture[:, : SIZE // 4] = (0, 0, 255)
    picture[:, SIZE // 2 :] = 255
    values = measure(picture)
    assert values["cool"] == pytest.approx(0.25) and values["black"] == pytest.approx(0.25)
    assert values["white"] == pytest.approx(0.5) and values["vivid"] == pytest.approx(0.25)
    assert values["light_left"] > 0.5 and values["light_top"] == pytest.approx(0, abs=1e-6)


def test_lines_along_the_axes_are_told_from_slanted_ones():
    x = np.arange(SIZE)
    upright = np.broadcast_to(np.where(x % 16 < 8, 40, 200)[None, :, None], (SIZE, SIZE, 3)).astype(np.uint8)
    slanted = np.where((x[:, None] + x) % 16 < 8, 40, 200)[..., None].repeat(3, 2).astype(np.uint8)
    assert measure(upright)["axes0"] > 0.9 and measure(slanted)["axes0"] < 0


def test_contrast_is_a_spots_and_not_hairs_light_or_a_dark_frame():
    rng = np.random.default_rng(1)
    skin = (255 * draw_skin((SIZE, SIZE), 0.0, rng).clip(0, 1)).astype(np.uint8)
    spot, hairs, framed = skin.copy(), skin.copy(), skin.copy()
    spot[50:75, 50:75] = 0.5 * spot[50:75, 50:75]
    hairs[:, 40:42] = hairs[90:92] = 30
    y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    framed[np.hypot(x, y) > SIZE / 2] = 0
    lit = (skin * np.linspace(1, 0.7, SIZE)[:, None]).astype(np.uint8)
    bare = measure(skin)["contrast"]
    assert measure(spot)["contrast"] > 0.5 > 5 * bare
    assert max(measure(picture)["contrast"] for picture in (hairs, framed, lit)) < bare + 0.08
