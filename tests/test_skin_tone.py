import numpy as np
import pytest

from melanoma_utils import skin_tone
from melanoma_utils.skin_tone import convert_to_lab, measure_ita, name_tones


@pytest.mark.parametrize(("rgb", "lab"), [  # as colour science tables give them, D65
    ((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20)),
    ((0, 0, 255), (32.30, 79.19, -107.86)), ((119, 119, 119), (50.03, 0, 0))])
def test_lab_of_known_colours(rgb, lab):
    assert convert_to_lab(np.array([rgb], np.uint8))[0] == pytest.approx(lab, abs=0.05)


def paint(rgb, size=64):
    return np.full((size, size, 3), rgb, np.uint8)


def test_lighter_skin_has_a_larger_angle():
    angles = measure_ita(np.stack([paint(rgb) for rgb in ((250, 225, 205), (224, 172, 138), (141, 85, 52),
                                                           (80, 50, 35))]))
    assert (np.diff(angles) < 0).all()
    assert name_tones(angles).tolist() == ["very light", "light", "brown", "dark"]


def test_the_angle_is_that_of_its_formula():
    lightness, _, yellow = convert_to_lab(np.array([224, 172, 138], np.uint8))
    wanted = np.degrees(np.arctan((lightness - 50) / yellow))
    assert measure_ita(paint((224, 172, 138))[None])[0] == pytest.approx(wanted)


def test_lesion_hairs_and_dark_frame_do_not_count():
    skin = paint((224, 172, 138))
    image = skin.copy()
    image[12:-12, 12:-12] = (60, 30, 20)  # the lesion
    image[:, 30] = 0  # a hair
    image[:6] = image[:, :6] = 0  # the frame
    assert measure_ita(image[None])[0] == pytest.approx(measure_ita(skin[None])[0])
    assert np.isnan(measure_ita(paint((10, 10, 10))[None])[0])


def test_it_moves_with_the_light_as_its_text_says():
    image = paint((224, 172, 138))
    assert measure_ita((image * 0.8).astype(np.uint8)[None])[0] < measure_ita(image[None])[0] - 10


def test_chunks_and_sizes_do_not_matter(monkeypatch):
    images = np.random.default_rng(0).integers(100, 256, (7, 32, 32, 3), np.uint8)
    whole = measure_ita(images)
    monkeypatch.setattr(skin_tone, "CHUNK", 3)
    assert (measure_ita(images) == whole).all() and measure_ita(images[:0]).shape == (0,)
    assert measure_ita(paint((224, 172, 138), 224)[None]) == pytest.approx(measure_ita(paint((224, 172, 138), 8)[None]))


def test_classes_end_where_they_should():
    names = name_tones([-40, -30, -29, 10, 28, 41, 55, 55.1, np.nan])
    assert names.tolist()[:8] == ["dark", "dark", "brown", "brown", "tan", "intermediate", "light", "very light"]
    assert names.isna().tolist() == [False] * 8 + [True] and names.cat.categories[0] == "dark"
