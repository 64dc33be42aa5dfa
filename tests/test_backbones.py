import pytest
import safetensors.torch
import timm
import torch
import torchvision

from melanoma_utils.backbones import IMAGENET, build_backbone, check_arch

MOBILENET = "torchvision/mobilenet_v2"
SE_RESNEXT = "pretrainedmodels/se_resnext50_32x4d"


@pytest.mark.parametrize("size", [64, 97, 224])
def test_any_input_size(size):
    for arch in (SE_RESNEXT, MOBILENET):
        backbone = build_backbone(arch, "none", 224)
        assert backbone.network.eval()(torch.rand(1, 3, size, size)).shape == (1, backbone.n_features)


def test_features_end_with_the_relu_of_the_network_s_own_head():
    network = build_backbone("pretrainedmodels/densenet121", "none", 64).network.eval()
    features = network(torch.rand(1, 3, 64, 64))
    assert features.min() >= 0 and features.max() > 0


def test_an_arch_without_feature_maps_is_refused():
    with pytest.raises(ValueError, match=r"'pretrainedmodels/vgg16_bn' wants images of one size .*: choose torch"):
        build_backbone("pretrainedmodels/vgg16_bn", "none", 64)


@pytest.mark.parametrize(("arch", "hint"), [("timm/resnet10", "timm/resnet10t"),
                                            ("torchvision/mobilenetv2", "torchvision/mobilenet_v2"),
                                            ("timm/resnet18.a1_in1kk", "timm/resnet18.a1_in1k"),
                                            ("pretrainedmodels/se_resnext50", "se_resnext50_32x4d")])
def test_unknown_arch_suggests_the_nearest_names(arch, hint):
    with pytest.raises(ValueError, match=f"ARCH '{arch}' does not exist; nearest: .*{hint}"):
        build_backbone(arch, "none", 64)


def test_a_name_without_its_library_is_refused_with_those_that_have_it():
    with pytest.raises(ValueError, match=r"'resnet18' is not 'library/name' .*; nearest: .*torchvision/resnet18"):
        check_arch("resnet18")
    for arch in ("keras/resnet18", "timm/", "efficientnet-b0/"):
        with pytest.raises(ValueError, match=rf"ARCH '{arch}' is not 'library/name'"):
            check_arch(arch)


def test_a_tag_of_timm_names_a_network():
    check_arch("timm/tf_efficientnet_b4.ns_jft_in1k")


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_local_weights_are_loaded(tmp_path, ending):
    network = torchvision.models.mobilenet_v2(num_classes=1000)
    path = tmp_path / f"weights.{ending}"
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    safetensors.torch.save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    loaded = build_backbone(MOBILENET, str(path), 64).network.features[3].conv[0][0].weight
    assert torch.equal(loaded, network.features[3].conv[0][0].weight.half().float())


def test_weights_of_another_network_are_refused_with_the_keys(tmp_path):
    path = tmp_path / "resnet.safetensors"
    safetensors.torch.save_file(torchvision.models.resnet18().state_dict(), path)
    with pytest.raises(ValueError, match=r"not those of torchvision/mobilenet_v2: \d+ keys are missing \['features"):
        build_backbone(MOBILENET, str(path), 64)


@pytest.mark.parametrize("arch", ["torchvision/googlenet", "timm/deit_tiny_distilled_patch16_224"])
def test_weights_with_a_second_head_fit(arch, tmp_path):
    library, name = arch.split("/")
    network = torchvision.models.googlenet(init_weights=False) if library == "torchvision" else timm.create_model(name)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "whole.safetensors")
    backbone = build_backbone(arch, str(tmp_path / "whole.safetensors"), 224)
    assert backbone.n_features in (1024, 192)
    if library == "torchvision":  # what it gives by itself, of images that it normalises by itself
        images = torch.rand(2, 3, 224, 224)
        network.fc, network.transform_input = torch.nn.Identity(), True
        imagenet = [torch.tensor(values)[:, None, None] for values in IMAGENET]
        wanted = network.eval()((images - imagenet[0]) / imagenet[1])
        ours = backbone.network.eval()((images - backbone.mean[0]) / backbone.std[0])
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-5)


def test_a_transformer_of_torchvision_is_built_for_the_images_or_refused():
    backbone = build_backbone("torchvision/vit_b_32", "none", 64)
    assert backbone.network(torch.zeros(1, 3, 64, 64)).shape == (1, backbone.n_features)
    with pytest.raises(ValueError, match="'torchvision/vit_b_32' can't be built for IMAGE_SIZE 50"):
        build_backbone("torchvision/vit_b_32", "none", 50)


def test_absent_weights_say_what_is_wanted():
    with pytest.raises(FileNotFoundError, match=r"WEIGHTS 'nowhere\.pth' is neither"):
        build_backbone(MOBILENET, "nowhere.pth", 64)


@pytest.mark.parametrize("arch", [MOBILENET, SE_RESNEXT])
def test_imagenet_weights_without_network_say_which_file_to_put_where(arch, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    wanted = rf"put the file of http.*\.pth at {tmp_path}.*give its path as WEIGHTS"
    with pytest.raises(FileNotFoundError, match=wanted):
        build_backbone(arch, "imagenet", 64)


class Hostile:
    def __reduce__(self):
        return print, ("unpickled!",)


def test_a_pickle_is_not_opened(tmp_path, capsys):
    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        build_backbone(MOBILENET, str(tmp_path / "hostile.pth"), 64)
    assert "unpickled!" not in capsys.readouterr().out


@pytest.mark.real
def test_the_real_imagenet_weights_fit(real_dir):
    path = real_dir.parent / "weights" / "mobilenet_v2_imagenet_fp16.safetensors"
    stored = safetensors.torch.load_file(path)["features.0.0.weight"].float()
    assert torch.equal(build_backbone(MOBILENET, str(path), 64).network.features[0][0].weight, stored)
