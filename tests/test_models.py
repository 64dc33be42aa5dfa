import pytest
import safetensors.torch
import torch
import torchvision

from melanoma_utils.models import ModelConfig, build_model, load_checkpoint, save_checkpoint

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


@pytest.mark.parametrize("size", [64, 97, 224])
def test_any_input_size(size):
    for arch in ("pretrainedmodels/se_resnext50_32x4d", "torchvision/mobilenet_v2"):
        assert build_model(ModelConfig(arch)).eval()(torch.rand(1, 3, size, size)).shape == (1,)


def test_features_end_with_the_relu_of_the_network_s_own_head():
    features = build_model(ModelConfig("pretrainedmodels/densenet121")).eval().embed(torch.rand(1, 3, 64, 64))
    assert features.min() >= 0 and features.max() > 0


def test_an_arch_without_feature_maps_is_refused():
    with pytest.raises(ValueError, match=r"'pretrainedmodels/vgg16_bn' wants images of one size .*: choose torch"):
        build_model(ModelConfig("pretrainedmodels/vgg16_bn"))


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


@pytest.mark.parametrize(("arch", "hint"), [("timm/resnet10", "timm/resnet10t"),
                                            ("torchvision/mobilenetv2", "torchvision/mobilenet_v2"),
                                            ("pretrainedmodels/se_resnext50", "se_resnext50_32x4d")])
def test_unknown_arch_suggests_the_nearest_names(arch, hint):
    with pytest.raises(ValueError, match=f"ARCH '{arch}' does not exist; nearest: .*{hint}"):
        build_model(ModelConfig(arch))


def test_unknown_library_is_refused():
    with pytest.raises(ValueError, match="ARCH 'resnet18' is not 'library/name'"):
        ModelConfig("resnet18")


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_local_weights_are_loaded(tmp_path, ending):
    network = torchvision.models.mobilenet_v2(num_classes=1000)
    path = tmp_path / f"weights.{ending}"
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    safetensors.torch.save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    model = build_model(ModelConfig(ARCHS[0], str(path)))
    loaded = model.backbone.features[3].conv[0][0].weight
    assert torch.equal(loaded, network.features[3].conv[0][0].weight.half().float())


def test_weights_of_another_network_are_refused_with_the_keys(tmp_path):
    path = tmp_path / "resnet.safetensors"
    safetensors.torch.save_file(torchvision.models.resnet18().state_dict(), path)
    with pytest.raises(ValueError, match=r"not those of torchvision/mobilenet_v2: \d+ keys are missing \['features"):
        build_model(ModelConfig(ARCHS[0], str(path)))


def test_absent_weights_say_what_is_wanted():
    with pytest.raises(FileNotFoundError, match=r"WEIGHTS 'nowhere\.pth' is neither"):
        build_model(ModelConfig(ARCHS[0], "nowhere.pth"))


@pytest.mark.parametrize("arch", [ARCHS[0], "pretrainedmodels/se_resnext50_32x4d"])
def test_imagenet_weights_without_network_say_which_file_to_put_where(arch, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    wanted = rf"put the file of http.*\.pth at {tmp_path}.*give its path as WEIGHTS"
    with pytest.raises(FileNotFoundError, match=wanted):
        build_model(ModelConfig(arch, "imagenet"))


class Hostile:
    def __reduce__(self):
        return print, ("unpickled!",)


def test_a_pickle_is_not_opened(tmp_path, capsys):
    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        build_model(ModelConfig(ARCHS[0], str(tmp_path / "hostile.pth")))
    assert "unpickled!" not in capsys.readouterr().out


@pytest.mark.parametrize("n_bytes", [0, 5, 100, 5000])
def test_a_checkpoint_cut_short_is_refused(tmp_path, n_bytes):
    save_checkpoint(tmp_path / "a", build_model(ModelConfig(ARCHS[1])), {})
    (tmp_path / "cut").write_bytes((tmp_path / "a").read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match="cut is damaged or no checkpoint"):
        load_checkpoint(tmp_path / "cut")


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


@pytest.mark.real
def test_the_real_imagenet_weights_fit(real_dir):
    path = real_dir.parent / "weights" / "mobilenet_v2_imagenet_fp16.safetensors"
    stored = safetensors.torch.load_file(path)["features.0.0.weight"].float()
    assert torch.equal(build_model(ModelConfig(ARCHS[0], str(path))).backbone.features[0][0].weight, stored)
