import copy

import pytest
import torch
from torch import nn

from melanoma_utils.freezing import BATCH_NORM, fold_batch_norms, freeze_layers
from melanoma_utils.models import ModelConfig, build_model


def make_backbone(arch="torchvision/mobilenet_v2"):
    """A backbone whose batch norms are not the identity."""
    torch.manual_seed(0)
    backbone = build_model(ModelConfig(arch, image_size=32)).backbone
    for module in backbone.modules():
        if isinstance(module, BATCH_NORM):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return backbone.eval()


@pytest.mark.parametrize("arch", ["torchvision/mobilenet_v2", "timm/resnet10t", "timm/tf_efficientnet_lite0",
                                  "pretrainedmodels/se_resnext50_32x4d"])
def test_folded_batch_norms_give_the_same_features_and_gradients(arch):
    backbone = make_backbone(arch)
    plain, images = copy.deepcopy(backbone), torch.rand(2, 3, 32, 32)
    folded = fold_batch_norms(backbone, [m for m in backbone.modules() if isinstance(m, BATCH_NORM)])
    assert not any("batch_norm" in event.key for event in profile(folded, images))
    weights = torch.randn_like(plain(images))
    for network in (plain, folded):
        (network(images) * weights).sum().backward()
    torch.testing.assert_close(folded(images), plain(images), rtol=1e-4, atol=1e-5)
    for mine, reference in zip(backbone.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-3, atol=1e-4)


def profile(network, images):
    """The operators that a forward pass calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        network(images)
    return profiler.key_averages()


def test_batch_norms_that_learn_are_not_folded():
    backbone = make_backbone()
    frozen = freeze_layers(backbone, 9)
    folded = fold_batch_norms(backbone, frozen).train()
    for module in frozen:
        module.eval()
    before = [module.running_mean.clone() for module in backbone.modules() if isinstance(module, BATCH_NORM)]
    folded(torch.rand(4, 3, 32, 32))
    after = [module.running_mean for module in backbone.modules() if isinstance(module, BATCH_NORM)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True] * 9 + [False] * 43


def test_the_first_layers_have_no_gradients():
    backbone = make_backbone()
    assert len(freeze_layers(backbone, 9)) == 9
    is_trained = {name.split(".")[1]: p.requires_grad for name, p in backbone.named_parameters()}
    assert is_trained == {str(i): i > 3 for i in range(19)}


def test_nothing_frozen_is_the_backbone_itself():
    backbone = make_backbone()
    assert freeze_layers(backbone, 0) == [] and all(p.requires_grad for p in backbone.parameters())
    assert fold_batch_norms(backbone, []) is backbone


def test_at_least_one_convolution_is_trained():
    with pytest.raises(ValueError, match="N_FROZEN_LAYERS 52: the network has 52 convolutions, and at least one"):
        freeze_layers(make_backbone(), 52)


@pytest.mark.parametrize(("n_layers", "frozen"), [(0, set()), (1, {"cls_token", "patch_embed", "pos_embed"})])
def test_what_holds_parameters_of_its_own_freezes_none_inside_it(n_layers, frozen):
    """A transformer's class token and positions are the network's own; all its blocks are inside that."""
    backbone = build_model(ModelConfig("timm/test_vit", image_size=32)).backbone
    backbone.patch_embed.proj = nn.Sequential(backbone.patch_embed.proj, nn.Conv2d(64, 64, 1))
    freeze_layers(backbone, n_layers)
    assert {name.partition(".")[0] for name, p in backbone.named_parameters() if not p.requires_grad} == frozen
