"""Saliency lies where the evidence is known to be, for any kind of network, and the network stays as it was."""

import copy

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from torch import nn

from melanoma_utils import saliency_plots
from melanoma_utils.backbones import Backbone
from melanoma_utils.drawing import draw_image
from melanoma_utils.explain import (
    compute_grad_cam,
    explain_images,
    explain_out_of_fold,
    measure_saliency_outside,
    overlay_saliency,
    stretch_saliency,
)
from melanoma_utils.map_layers import find_map_layer
from melanoma_utils.models import LesionClassifier, ModelConfig, build_model
from melanoma_utils.predict import Ensemble
from melanoma_utils.synthetic import STYLES
from melanoma_utils.transforms import to_float

SIZE = 32
# arch, image size, the layer that is explained; at small sizes an earlier one, where the last map has few places
FAMILIES = [("torchvision/mobilenet_v2", 128, "features"), ("torchvision/mobilenet_v2", 64, "features.13"),
            ("torchvision/resnet18", 64, "layer3"), ("timm/resnet10t", 48, "layer2"),
            ("timm/test_resnet", 64, "layer3"),
            ("timm/test_vit", 160, "blocks.5.norm1"),  # the class token answers
            ("timm/test_vit2", 64, "norm")]  # the mean of all tokens answers
LARGE_FAMILIES = [("torchvision/efficientnet_b0", 64, "features.5"), ("torchvision/convnext_tiny", 64, "features.6.0"),
                  ("torchvision/densenet121", 64, "features.transition3.conv"), ("torchvision/resnet50", 64, "layer3"),
                  ("torchvision/vit_b_16", 224, "encoder.layers.encoder_layer_11.ln_1"),
                  ("torchvision/swin_t", 128, "permute"), ("timm/swin_tiny_patch4_window7_224", 128, "norm"),
                  ("timm/tf_efficientnet_b0", 64, "blocks.4"), ("timm/vit_tiny_patch16_224", 64, "blocks.11.norm1"),
                  ("timm/deit_tiny_distilled_patch16_224", 64, "blocks.11.norm1"),  # two class tokens
                  ("pretrainedmodels/se_resnext50_32x4d", 64, "network.layer3")]


def mark_slow(families):
    return [pytest.param(*values, marks=pytest.mark.slow) for values in families]


def make_bright_model(sign=1.0, threshold=0.8):
    """Returns a classifier whose logit is sign times the share of the image that is brighter than the threshold."""
    brightness = nn.Conv2d(3, 1, 1)
    brightness.weight.data.fill_(1 / 3)
    brightness.bias.data.fill_(-threshold)
    backbone = nn.Sequential(brightness, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = LesionClassifier(Backbone(backbone, 1, (0, 0, 0), (1, 1, 1), is_bgr=False),
                             ModelConfig("timm/none", image_size=SIZE))
    model.head.weight.data.fill_(sign)
    return model.eval()


@pytest.fixture
def squares():
    """Two dark images with a bright square each, and where it lies."""
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[0, 4:12, 6:14] = masks[1, 20:30, 18:28] = True
    images = np.where(masks[..., None], 255, 40).repeat(3, -1).astype(np.uint8)
    return images, masks


def draw_noise(n, size):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(("arch", "size", "layer"), FAMILIES + mark_slow(LARGE_FAMILIES))
def test_every_family_is_explained_and_left_as_it_was(arch, size, layer):
    torch.manual_seed(0)
    model = build_model(ModelConfig(arch, image_size=size, use_metadata=True)).train()
    model.head.eval()  # modes of its own
    model(torch.rand(4, 3, size, size), torch.rand(4, 12))  # batch norms that are not the identity
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    images = draw_noise(3, size)
    saliency = explain_images([model], images)
    assert saliency.shape == (3, size, size) and saliency.dtype == np.float32
    assert saliency.min() >= 0 and set(saliency.max((1, 2))) <= {0, 1}
    assert np.ptp(compute_grad_cam(model, images), (1, 2)).min() > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad == (not name.startswith("metadata"))
               for name, p in model.named_parameters())
    assert find_map_layer(model.eval(), to_float(images[:1])) == layer
    assert not any(module._forward_hooks for module in model.modules())


def test_saliency_lies_on_the_square_that_decides(squares):
    images, masks = squares
    saliency = explain_images([make_bright_model()], images)
    assert saliency == pytest.approx(masks.astype(np.float32), abs=1e-6)
    assert measure_saliency_outside(saliency, masks).tolist() == pytest.approx([0, 0])
    elsewhere = masks[::-1]  # had the lesion lain there, the model would have looked past it
    assert measure_saliency_outside(saliency, elsewhere).tolist() == pytest.approx([1, 1])


def test_what_speaks_against_melanoma_is_cut_off(squares):
    images, masks = squares
    against = make_bright_model(-1)
    assert (explain_images([against], images) == 0).all()
    assert (compute_grad_cam(against, images) < 0).tolist() == masks.tolist()


def test_a_model_that_ignores_the_image_has_no_saliency(squares):
    model = make_bright_model(0)
    assert (explain_images([model], squares[0]) == 0).all()


@pytest.mark.parametrize(("arch", "size"), [("timm/test_resnet", 64), ("timm/test_vit2", 64),
                                            ("timm/test_mambaout", 96)])
def test_evidence_is_where_the_image_changed(arch, size):
    torch.manual_seed(0)  # channels first, tokens, channels last: rows stay rows, columns columns
    model, plain = build_model(ModelConfig(arch, image_size=size)), draw_noise(1, size)
    quarter = size // 4
    changed = plain.copy()
    changed[:, :quarter, -quarter:] = 255
    difference = np.abs(compute_grad_cam(model, changed) - compute_grad_cam(model, plain))[0]  # (H, W)
    corners = [difference[y, x].mean() for y in (slice(quarter), slice(-quarter, None))
               for x in (slice(quarter), slice(-quarter, None))]
    assert np.argmax(corners) == 1


def test_the_evidence_adds_up_to_the_logit():
    torch.manual_seed(0)
    model = build_model(ModelConfig("timm/test_resnet", image_size=128)).eval()  # 4 x 4 places, then mean and head
    images, weights = draw_noise(2, 128), model.head.weight[0]
    with torch.no_grad():
        by_hand = torch.einsum("nchw,c->nhw", model.backbone.forward_features(model.standardize(to_float(images))),
                               weights) / 16
        logits = model(to_float(images)) - model.head.bias
        large = nn.functional.interpolate(by_hand[:, None], (128, 128), mode="bilinear")[:, 0]  # (N, H, W)
    assert torch.allclose(by_hand.sum((1, 2)), logits, atol=1e-5)
    assert compute_grad_cam(model, images) == pytest.approx(large.numpy(), abs=1e-5)


def test_an_ensembles_map_is_the_mean_of_its_models(squares):
    images, _ = squares
    models = [make_bright_model(1), make_bright_model(3, threshold=0.1)]
    ensemble = Ensemble(models, SIZE)
    mean = (compute_grad_cam(models[0], images) + compute_grad_cam(models[1], images)) / 2
    expected = mean / mean.max((1, 2), keepdims=True)
    assert explain_images(ensemble.models, images) == pytest.approx(expected, abs=1e-6)
    both = explain_images([make_bright_model(1), make_bright_model(-1)], images)  # one for, one as much against
    assert (both == 0).all()


def test_each_image_is_explained_by_the_model_of_its_fold(squares):
    images, _ = squares
    models, folds = {0: make_bright_model(1), 2: make_bright_model(-1)}, np.array([2, 0] * len(images))[:len(images)]
    saliency = explain_out_of_fold(models, images, folds)
    for i, fold in enumerate(folds):
        assert saliency[i] == pytest.approx(explain_images([models[fold]], images[[i]])[0], abs=1e-6)
    assert saliency[folds == 0].any() and not np.array_equal(saliency, explain_images([models[0]], images))
    with pytest.raises(KeyError):
        explain_out_of_fold(models, images, folds + 1)


def test_metadata_play_no_part(squares):
    images, _ = squares
    model = make_bright_model()
    plain = explain_images([model], images)
    model.metadata = nn.Linear(12, 1)
    assert np.array_equal(explain_images([model], images), plain)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_batch_size_does_not_matter(batch_size):
    torch.manual_seed(0)
    model, images = build_model(ModelConfig("timm/test_vit", image_size=64)), draw_noise(5, 64)
    expected = pytest.approx(compute_grad_cam(model, images), abs=1e-6)
    assert compute_grad_cam(model, images, batch_size=batch_size) == expected


def test_frozen_layers_are_explained_too(squares):
    model = make_bright_model().requires_grad_(False)
    assert explain_images([model], squares[0]).max() == 1


@pytest.mark.gpu
@pytest.mark.parametrize("arch", ["torchvision/mobilenet_v2", "timm/test_vit"])
def test_a_gpu_gives_the_same(arch):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model, images = build_model(ModelConfig(arch, image_size=128)), draw_noise(3, 128)
    on_gpu = compute_grad_cam(model, images, device="cuda")
    assert on_gpu == pytest.approx(compute_grad_cam(model, images), rel=0.01, abs=1e-4 * np.abs(on_gpu).max())
    assert next(model.parameters()).device.type == "cpu"


class OneVector(nn.Module):
    """A backbone that never has a map: the image as one vector."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * SIZE * SIZE, 8)

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_a_network_without_a_map_is_refused(squares):
    model = LesionClassifier(Backbone(OneVector(), 8, (0, 0, 0), (1, 1, 1), is_bgr=False),
                             ModelConfig("timm/mlp", image_size=SIZE))
    with pytest.raises(ValueError, match=r"ARCH 'timm/mlp' can't be explained: no layer .*torchvision/mobilenet_v2"):
        explain_images([model], squares[0])


@pytest.mark.parametrize("images", [np.zeros((2, 48, 48, 3), np.uint8), np.zeros((SIZE, SIZE, 3), np.uint8),
                                    np.zeros((1, SIZE, SIZE, 3), np.float32), np.zeros((0, SIZE, SIZE, 3), np.uint8)])
def test_other_images_are_refused(images):
    with pytest.raises(ValueError, match=r"the images are \(.*the model was trained for \(N, 32, 32, 3\) uint8"):
        explain_images([make_bright_model()], images)


def test_no_models_are_refused(squares):
    with pytest.raises(ValueError, match="there are no models"):
        explain_images([], squares[0])


def test_weights_that_are_not_finite_are_told(squares):
    model = make_bright_model(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        explain_images([model], squares[0])


def test_share_outside_at_its_limits(squares):
    _, masks = squares
    assert measure_saliency_outside(masks * 0.3, masks).tolist() == [0, 0]
    assert measure_saliency_outside(~masks * 0.3, masks).tolist() == [1, 1]
    uniform = measure_saliency_outside(np.full(masks.shape, 0.7, np.float32), masks)
    assert uniform == pytest.approx((~masks).mean((1, 2)), abs=1e-6)
    assert uniform[0] == pytest.approx(1 - 64 / SIZE**2)
    assert np.isnan(measure_saliency_outside(np.zeros(masks.shape), masks)).all()
    assert measure_saliency_outside(np.ones(masks.shape), np.zeros_like(masks)).tolist() == [1, 1]


@pytest.mark.parametrize(("change", "message"), [
    (lambda saliency, masks: (saliency[:1], masks), r"wanted \(N, H, W\) both"),
    (lambda saliency, masks: (saliency[0], masks[0]), r"wanted \(N, H, W\) both"),
    (lambda saliency, masks: (saliency, masks.astype(int)), "int64: .*the masks bool"),
    (lambda saliency, masks: (saliency - 0.5, masks), "runs from -0.5 to 0.5: wanted finite values, at least 0"),
    (lambda saliency, masks: (saliency * np.nan, masks), "runs from nan")])
def test_share_outside_refuses_other_arrays(squares, change, message):
    with pytest.raises(ValueError, match=message):
        measure_saliency_outside(*change(squares[1].astype(float), squares[1]))


def test_overlay_shows_the_image_where_nothing_is_salient(squares):
    image, saliency = squares[0][0], squares[1][0].astype(np.float32)
    assert np.array_equal(overlay_saliency(image, saliency, 0), image)
    over = overlay_saliency(image, saliency, 1)
    assert over.dtype == np.uint8 and over.shape == image.shape
    assert np.array_equal(over[saliency == 0], image[saliency == 0])
    assert (over[saliency == 1] == [253, 231, 37]).all()  # the end of viridis
    half = overlay_saliency(image, saliency, 0.5)[5, 7]
    assert half == pytest.approx([254, 243, 146], abs=1)


def test_app_and_notebook_have_the_same_colors():
    steps = np.linspace(0, 1, 256, dtype=np.float32)[None]
    black = np.zeros((1, 256, 3), np.uint8)
    ours = overlay_saliency(black, steps, 1) / np.maximum(steps, 1 / 255)[..., None]
    wanted = 255 * colormaps[saliency_plots.SALIENCY_COLORS](steps)[..., :3]
    assert ours[:, 64:] == pytest.approx(wanted[:, 64:], abs=8)  # ours has 17 steps, straight lines between


@pytest.mark.parametrize(("image", "saliency", "opacity"), [
    (np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4)), 0.5), (np.zeros((8, 8, 3), np.float32), np.zeros((8, 8)), 0.5),
    (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), 1.1), (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 2), 0.5),
    (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), np.nan), 0.5)])
def test_overlay_refuses_what_does_not_fit(image, saliency, opacity):
    with pytest.raises(ValueError, match="wanted"):
        overlay_saliency(image, saliency, opacity)


def draw_lesions(n, size, seed):
    """Returns images (n, size, size, 3), masks and targets of drawn lesions, every other one a plain melanoma."""
    rng, images, masks = np.random.default_rng(seed), [], []
    for i in range(n):
        styles = dict(zip(STYLES, rng.normal(size=len(STYLES)), strict=True))
        image, mask = draw_image({"atypia": 4 * (i % 2) - 1, "draw_seed": int(rng.integers(2**62)), "copy_of": "",
                                  **styles}, 96)
        images.append(np.asarray(Image.fromarray(image).resize((size, size))))
        masks.append(np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)))
    return np.stack(images), np.stack(masks), np.arange(n) % 2


def train_quickly(model, images, targets, n_epochs, lr=0.003):
    optimizer = torch.optim.AdamW(model.train().parameters(), lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, n_epochs * -(-len(images) // 24))
    x, y = to_float(images), torch.tensor(targets, dtype=torch.float32)
    for _ in range(n_epochs):
        for part in torch.randperm(len(x)).split(24):
            optimizer.zero_grad()
            logits = model(x[part].flip(2 + int(part[0]) % 2))
            nn.functional.binary_cross_entropy_with_logits(logits, y[part]).backward()
            optimizer.step()
            scheduler.step()
    return model.eval()


def test_on_drawn_lesions_saliency_is_more_on_the_lesion_than_chance():
    torch.manual_seed(0)
    images, masks, targets = draw_lesions(200, 64, seed=0)
    model = train_quickly(build_model(ModelConfig("timm/test_resnet", image_size=64)), images[:160], targets[:160], 8)
    saliency = explain_images([model], images[160:])[targets[160:] == 1]  # (20, 64, 64)
    masks = masks[160:][targets[160:] == 1]
    outside, uniform = measure_saliency_outside(saliency, masks), (~masks).mean((1, 2))
    assert np.isfinite(outside).mean() >= 0.9
    assert np.nanmean(outside) < uniform.mean() - 0.1
    assert (outside < uniform).mean() >= 0.75


def test_saliency_of_a_squashed_image_lies_over_its_frame():
    saliency = np.zeros((8, 8), np.float32)
    saliency[:4, 6:] = 1  # the upper right
    stretched = stretch_saliency(saliency, (40, 120))
    assert stretched.shape == (40, 120) and stretched.dtype == np.float32
    assert stretched.min() == 0 and stretched.max() == 1
    assert stretched[5, 115] == 1 and stretched[35, 115] == 0 and stretched[5, 20] == 0
    np.testing.assert_array_equal(stretch_saliency(saliency, (8, 8)), saliency)
