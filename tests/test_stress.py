"""Changed images: nothing at strength 0, more the higher it is, the same for the same seed."""

import numpy as np
import pytest

from melanoma_utils.stress import STRESSES, StressedImages, check_stress, stress_images

RISING = {"brightness": (0.1, 0.3, 0.6), "blur": (1.5, 4, 8), "jpeg": (20, 70, 95), "rotation": (2, 5, 10),
          "frame": (10, 30, 50), "hair": (5, 20, 80)}


@pytest.fixture(scope="module")
def images(store):
    """Six drawn lesions, 32 px."""
    return np.asarray(store.images[:6])


def measure_change(images, kind, strength):
    """Returns the mean absolute change in grey levels, (N,)."""
    changed = stress_images(images, kind, strength)
    return np.abs(changed.astype(float) - images).mean((1, 2, 3))


@pytest.mark.parametrize("kind", STRESSES)
def test_strength_0_leaves_every_byte(images, kind):
    assert stress_images(images, kind, 0).tobytes() == images.tobytes()


@pytest.mark.parametrize("kind", STRESSES)
def test_more_strength_changes_more_and_the_images_given_stay(images, kind):
    before = images.copy()
    changes = np.array([measure_change(images, kind, strength) for strength in (0, *RISING[kind])])  # (4, N)
    assert (np.diff(changes, axis=0) > 0).all() and np.array_equal(images, before)
    changed = stress_images(images, kind, RISING[kind][0])
    assert changed.dtype == np.uint8 and changed.shape == images.shape


def test_less_light_is_darker_and_more_is_lighter(images):
    means = [stress_images(images, "brightness", strength).mean() for strength in (-1, -0.5, 0, 0.5, 1)]
    assert means == sorted(means) and means[0] == 0 and means[1] == pytest.approx(means[2] / 2, abs=0.5)


def test_blur_takes_detail_and_keeps_the_light(images):
    detail = [np.abs(np.diff(stress_images(images, "blur", strength).astype(float), axis=2)).mean()
              for strength in (0, 1, 3, 10, 20)]
    assert detail == sorted(detail, reverse=True)
    assert stress_images(images, "blur", 10).mean() == pytest.approx(images.mean(), abs=3)


def test_the_same_share_of_the_side_blurs_a_larger_image_as_much(images):
    large = images.repeat(4, 1).repeat(4, 2)
    small, shrunk = stress_images(images, "blur", 8), stress_images(large, "blur", 8)[:, 2::4, 2::4]
    assert np.abs(small.astype(float) - shrunk).mean() < 2


def test_quarter_turns_are_exact_and_corners_are_not_black(images):
    for degrees, turns in ((90, 1), (180, 2), (-90, -1)):
        turned = stress_images(images, "rotation", degrees).astype(int)
        assert np.abs(turned - np.rot90(images, turns, (1, 2))).max() <= 1
    bright = np.full_like(images, 200)
    assert stress_images(bright, "rotation", 45).min() >= 199


def test_a_frame_reaches_from_the_corners_as_far_as_it_is_told(images):
    bright = np.full_like(images, 200)
    corners, half = (stress_images(bright, "frame", strength)[0, ..., 0] for strength in (10, 50))
    side = len(corners)
    for framed, radius in ((corners, 0.9 * 2**0.5), (half, 0.5 * 2**0.5)):
        y, x = np.mgrid[-1:1:side * 1j, -1:1:side * 1j]
        distance = np.hypot(y, x) / radius
        assert (framed[distance > 1.05] < 10).all() and (framed[distance < 0.95] == 200).all()


def test_hairs_are_dark_and_further_ones_come_on_top(images):
    bright = np.full_like(images, 200)
    few, many = (stress_images(bright, "hair", n)[..., 0].astype(int) for n in (5, 40))
    assert (many <= few).all() and few.max() == 200 and many.mean() < few.mean() - 10
    assert 0.02 < (few < 190).mean() < 0.5 and many.min() >= 33


def test_the_seed_decides_and_nothing_else(images):
    first = stress_images(images, "hair", 20, [7] * len(images))
    assert np.array_equal(first, stress_images(images, "hair", 20, [7] * len(images)))
    assert not np.array_equal(first, stress_images(images, "hair", 20, [8] * len(images)))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    stress_images(images, "hair", 20)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("kind", STRESSES)
def test_images_are_changed_as_they_are_read_whatever_the_batch(store, kind):
    stressed, rows = StressedImages(store.images, kind, RISING[kind][1], seed=3), np.array([4, 0, 9])
    assert stressed.shape == store.images.shape
    together, single = stressed[rows], np.concatenate([stressed[rows[i:i + 1]] for i in range(3)])
    assert np.array_equal(together, single) and not np.array_equal(together, store.images[rows])
    other = StressedImages(store.images, kind, RISING[kind][1], seed=4)[rows]
    assert np.array_equal(together, other) == (kind != "hair")


def test_only_the_images_asked_for_are_touched():
    class Watched:
        shape, asked = (1000, 8, 8, 3), []

        def __getitem__(self, rows):
            self.asked.append(rows.tolist())
            return np.zeros((len(rows), 8, 8, 3), np.uint8)

    stressed = StressedImages(Watched(), "brightness", 0.5)
    assert stressed[np.array([5, 3])].shape == (2, 8, 8, 3) and Watched.asked == [[5, 3]]
    assert stressed[np.array([], int)].shape == (0, 8, 8, 3)


@pytest.mark.parametrize(("kind", "strength", "message"), [
    ("fog", 1, r"the stress 'fog' is not one of \('brightness', 'blur'"),
    ("brightness", 1.5, r"the strength 1.5 of brightness is not in -1..1 \(share of the light"),
    ("blur", -1, "the strength -1 of blur is not in 0..20"),
    ("blur", float("nan"), "the strength nan of blur is not in 0..20"),
    ("jpeg", 100, r"the strength 100 of jpeg is not in 0..99 \(100 − JPEG quality\)"),
    ("jpeg", 50.5, "the strength 50.5 of jpeg is not a whole number"),
    ("rotation", 200, r"the strength 200 of rotation is not in -180..180 \(degrees\)"),
    ("hair", 2.5, r"the strength 2.5 of hair is not a whole number \(dark hairs\)"),
    ("hair", 101, "the strength 101 of hair is not in 0..100"),
])
def test_what_is_wrong_is_named(images, kind, strength, message):
    for call in (lambda: check_stress(kind, strength), lambda: stress_images(images, kind, strength),
                 lambda: StressedImages(images, kind, strength)):
        with pytest.raises(ValueError, match=message):
            call()
