import json

import pytest
import safetensors.torch
import torch

from melanoma_utils.models import ModelConfig, build_model, load_checkpoint, read_checkpoint_config, save_checkpoint

ARCHS = ("torchvision/mobilenet_v2", "timm/test_resnet", "timm/test_vit")
LARGE_ARCHS = ("pretrainedmodels/se_resnext50_32x4d", "torchvision/resnext50_32x4d")


@pytest.mark.parametrize("arch", ARCHS + LARGE_ARCHS)
def test_saved_and_loaded_gives_identical_logits(arch, tmp_path):
    model = build_model(ModelConfig(arch, image_size=160 if "vit" in arch else 48, use_metadata=True)).eval()
    images, metadata = torch.rand(2, 3, model.config.image_size, model.config.image_size), torch.rand(2, 12)
    save_checkpoint(tmp_path / "a.safetensors", model, {"fold": 3})
    loaded, config = load_checkpoint(tmp_path / "a.safetensors")
    logits = model(images, metadata)
    assert torch.equal(logits, loaded(images, metadata)) and logits.shape == (2,)
    assert config["fold"] == 3 and config["model"]["arch"] == arch


def test_a_transformer_takes_the_size_it_is_built_for():
    for size in (96, 160):
        model = build_model(ModelConfig("timm/test_vit", image_size=size)).eval()
        assert model(torch.rand(1, 3, size, size)).shape == (1,)


def test_dropout_is_the_only_one_before_the_head():
    model = build_model(ModelConfig(ARCHS[0], dropout=0.0)).train()
    head_dropouts = [layer.p for layer in model.backbone.classifier.modules() if isinstance(layer, torch.nn.Dropout)]
    assert head_dropouts == [0.0]


@pytest.mark.parametrize("arch", [ARCHS[1], "pretrainedmodels/resnext101_32x4d"])
def test_two_built_models_share_no_parameter(arch):
    first, second = build_model(ModelConfig(arch)), build_model(ModelConfig(arch))
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}


def test_the_same_bytes_for_the_same_model(tmp_path):
    model = build_model(ModelConfig(ARCHS[1]))
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, model, {"x": 1, "y": [1, 2]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("n_bytes", [0, 5, 100, 5000])
def test_a_checkpoint_cut_short_is_refused(tmp_path, n_bytes):
    save_checkpoint(tmp_path / "a", build_model(ModelConfig(ARCHS[1])), {})
    (tmp_path / "cut").write_bytes((tmp_path / "a").read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match="cut is damaged or no checkpoint"):
        load_checkpoint(tmp_path / "cut")


@pytest.mark.parametrize("position", [-1, -3000])
def test_an_altered_checkpoint_is_refused(tmp_path, position):
    save_checkpoint(tmp_path / "a", build_model(ModelConfig(ARCHS[1])), {})
    content = bytearray((tmp_path / "a").read_bytes())
    content[position] ^= 1
    (tmp_path / "altered").write_bytes(content)
    with pytest.raises(ValueError, match="altered is damaged: its weights are not those that were saved"):
        load_checkpoint(tmp_path / "altered")


def test_a_checkpoint_of_a_version_that_kept_no_checksum_is_read(tmp_path):
    model = build_model(ModelConfig(ARCHS[1]))
    save_checkpoint(tmp_path / "a", model, {})
    config = {k: v for k, v in read_checkpoint_config(tmp_path / "a").items() if k != "tensors_sha256"}
    safetensors.torch.save_file(safetensors.torch.load_file(tmp_path / "a"), tmp_path / "older",
                                {"config": json.dumps(config)})
    assert torch.equal(load_checkpoint(tmp_path / "older")[0].head.weight, model.head.weight)


def test_weights_are_no_checkpoint(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="no checkpoint of this project"):
        load_checkpoint(tmp_path / "weights.safetensors")


def test_a_model_with_metadata_has_no_default_for_them():
    model = build_model(ModelConfig(ARCHS[1], use_metadata=True))
    with pytest.raises(ValueError, match="give sex, age and site"):
        model(torch.rand(2, 3, 32, 32))


def test_metadata_change_the_logit():
    model = build_model(ModelConfig(ARCHS[1], use_metadata=True)).eval()
    images = torch.rand(1, 3, 32, 32)
    assert model(images, torch.zeros(1, 12)) != model(images, torch.ones(1, 12))
