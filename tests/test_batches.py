import numpy as np
import pytest
import torch

from melanoma_utils import batches
from melanoma_utils.batches import make_batches
from melanoma_utils.inference import Samples


@pytest.mark.gpu
@pytest.mark.parametrize("n_parts", [1, 4, 100])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_gets_the_batches_that_a_processor_gets(store, n_parts, monkeypatch):
    monkeypatch.setattr(batches, "AHEAD_BATCHES", n_parts)
    samples = Samples(store.images, np.arange(20), np.random.default_rng(0).random((20, 12), dtype=np.float32),
                      np.arange(20, dtype=np.float32), None)
    parts = np.array_split(np.random.default_rng(0).permutation(20), 6)
    cpu, gpu = (make_batches(samples, parts, torch.device(device), lambda images, device=device:
                             (images.to(device, non_blocking=True).float() / 255 + 1) / 2)
                for device in ("cpu", "cuda"))
    seen = []
    for batch in gpu:
        torch.cuda._sleep(10**7)  # cycles, in which the next group is prepared and must not take this batch's memory
        seen.append([values if values is None else values.clone() for values in batch])
        del batch
    for ours, (*theirs, none) in zip(cpu, seen, strict=True):
        assert ours[3] is None is none
        assert all(torch.equal(a, b.cpu()) for a, b in zip(ours[:3], theirs, strict=True))


@pytest.mark.parametrize(("n_pixels", "sizes"), [(224**2, [4, 2]), (2048**2, [1] * 6), (10**9, [1] * 6)])
def test_parts_are_grouped_as_far_as_there_is_room_and_split_again(n_pixels, sizes):
    parts = np.array_split(np.random.default_rng(0).permutation(20), 6)
    groups = batches._group_parts(parts, n_pixels)
    assert [len(group) for group in groups] == sizes
    split = [batch for group in groups
             for batch in batches._split_group((torch.from_numpy(np.concatenate(group)), None), group)]
    assert [rows.tolist() for rows, _ in split] == [part.tolist() for part in parts]
    assert all(none is None for _, none in split)
