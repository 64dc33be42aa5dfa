import numpy as np
import pytest
import torch
from torch import nn

from melanoma_utils.competition import read_train
from melanoma_utils.inference import Samples, fuse_batch_norm, pick_device, predict_logits, select_samples
from melanoma_utils.models import ModelConfig, build_model


class MeanRed(nn.Module):
    """A backbone with one feature, the mean of the red channel of the left half."""

    def forward(self, x):
        return x[:, :1, :, : x.shape[3] // 2].mean((2, 3))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(ModelConfig("timm/test_resnet", image_size=32))


def test_a_constant_model_gives_the_constant_under_every_tta(model, store):
    model.head.weight.data.zero_()
    model.head.bias.data.fill_(0.25)
    samples = Samples(store.images, np.arange(7))
    for views in (1, 2, 4, 8):
        assert predict_logits(model, samples, tta_views=views).tolist() == [0.25] * 7


def test_tta_is_the_mean_over_the_views(model, store):
    model.backbone = MeanRed()
    model.head = nn.Linear(1, 1)
    samples = Samples(store.images, np.array([3]))
    mirrored = Samples(np.ascontiguousarray(store.images[:, :, ::-1]), np.array([3]))
    both = (predict_logits(model, samples) + predict_logits(model, mirrored)) / 2
    assert predict_logits(model, samples, tta_views=2) == pytest.approx(both, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_batch_size_does_not_matter(model, store, batch_size):
    samples = Samples(store.images, np.arange(9))
    expected = pytest.approx(predict_logits(model, samples), abs=1e-5)
    assert predict_logits(model, samples, batch_size=batch_size) == expected


def test_predictions_follow_the_rows(model, store):
    forward = predict_logits(model, Samples(store.images, np.arange(5)))
    assert predict_logits(model, Samples(store.images, np.arange(5)[::-1])) == pytest.approx(forward[::-1], abs=1e-5)


@pytest.mark.parametrize("arch", ["torchvision/mobilenet_v2", "timm/test_resnet", "timm/test_vit"])
def test_folding_batch_norms_keeps_the_logits(arch):
    size = 160 if "vit" in arch else 32
    model = build_model(ModelConfig(arch, image_size=size)).train()
    model(torch.rand(8, 3, size, size))  # batch norms that are not the identity
    images = torch.rand(4, 3, size, size)
    assert torch.allclose(model.eval()(images), fuse_batch_norm(model)(images), atol=1e-5)


def test_a_store_of_another_size_is_refused(model, store):
    model = build_model(ModelConfig("timm/test_resnet", image_size=64))
    with pytest.raises(ValueError, match="the images are 32 px wide, the model was trained for 64"):
        predict_logits(model, Samples(store.images, np.arange(2)))


def test_logits_that_are_not_finite_are_refused(model, store):
    model.head.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="2 of 2 logits are not finite"):
        predict_logits(model, Samples(store.images, np.arange(2)))


def test_samples_carry_metadata_only_when_wanted(store, data_dir):
    df = read_train(data_dir).head(3)
    assert select_samples(store, df, False).metadata is None
    samples = select_samples(store, df, True)
    assert samples.metadata.shape == (3, 12) and samples.targets.tolist() == df["target"].tolist()


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device("auto") == "cpu"
    with pytest.raises(ValueError, match="DEVICE 'cuda' is wanted but torch sees no GPU"):
        pick_device("cuda")
    for device in ("gpu", "xpu", "hpu"):
        with pytest.raises(ValueError, match=f"DEVICE '{device}' can't be used here"):
            pick_device(device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == "cuda:1"
    with pytest.raises(ValueError, match=r"DEVICE 'cuda:2' can't be used here.*torch sees 2 GPUs, from cuda:0 on"):
        pick_device("cuda:2")


def test_unknown_precision_is_refused(model, store):
    with pytest.raises(ValueError, match="PRECISION 'fp8' is not one of"):
        predict_logits(model, Samples(store.images, np.arange(2)), precision="fp8")
