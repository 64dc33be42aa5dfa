import numpy as np
import pytest

from melanoma_utils.decoys import DECOYS, draw_decoy


@pytest.mark.parametrize("kind", DECOYS)
def test_a_seed_gives_a_picture_and_another_seed_another(kind):
    image = draw_decoy(kind, 1, 96)
    assert image.shape == (96, 96, 3) and image.dtype == np.uint8
    assert (image == draw_decoy(kind, 1, 96)).all()
    assert any((image != draw_decoy(kind, seed, 96)).any() for seed in (2, 3, 4))


def test_kinds_differ():
    assert len({draw_decoy(kind, 0, 64).tobytes() for kind in DECOYS}) == len(DECOYS)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="there is no decoy 'dog'; there are blank, noise"):
        draw_decoy("dog", 0)
