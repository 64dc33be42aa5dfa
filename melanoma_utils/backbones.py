"""Networks of torchvision, timm and pretrainedmodels by name, without their heads."""

import copy
import difflib
import importlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

LIBRARIES = ("pretrainedmodels", "torchvision", "timm")
LATE_RELU = ("densenet", "nasnet", "pnasnet", "xception")  # of pretrainedmodels: their heads begin with it
HEAD_NAMES = ("fc", "classifier", "last_linear", "head", "heads")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and sd by channel, as torchvision documents
INCEPTIONS = ("googlenet", "inception_v3")  # of torchvision: trained on -1..1 (what it calls transform_input)
AUXILIARY = ("aux1", "aux2", "AuxLogits")  # their further heads, in their files alone


@dataclass(frozen=True)
class Backbone:
    """A network without its head, and what it wants to see.

    Attributes:
        network: gives (N, n_features) features of (N, 3, H, W) normalised images.
        n_features: features an image.
        mean, std: per channel, in the network's own order, by which images in 0..1 are normalised.
        is_bgr: whether its channels are blue, green, red.
    """

    network: nn.Module
    n_features: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_bgr: bool


class PooledFeatures(nn.Module):
    """The feature maps of a pretrainedmodels network, averaged: any input size, no fixed 7x7 pooling.

    Args:
        network: with a method `features`, giving (N, C, h, w).
        has_late_relu: whether the network's own head begins with a ReLU.
    """

    def __init__(self, network: nn.Module, has_late_relu: bool = False):
        super().__init__()
        self.network, self.has_late_relu = network, has_late_relu

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns (N, C) features of (N, 3, H, W) normalised images."""
        maps = self.network.features(images)  # (N, C, h, w)
        return (maps.relu() if self.has_late_relu else maps).mean((2, 3))


def build_backbone(arch: str, weights: str, image_size: int) -> Backbone:
    """Returns a new network without its head.

    Args:
        arch: "library/name" with library one of `LIBRARIES`.
        weights: "none" (initialised at random), "imagenet", or the path of a .safetensors or .pth file with the
            library's own key names.
        image_size: side of the images in pixels, for transformers of a fixed size.

    Raises:
        ValueError: the arch is unknown (suggests the nearest names) or the weights are of another network (names
            the differing keys).
        FileNotFoundError: the weights file does not exist, or ImageNet weights can't be downloaded (says which
            file to put where).
    """
    check_arch(arch)
    library, _, name = arch.partition("/")
    network, mean, std, is_bgr = _BUILDERS[library](name, image_size)
    if weights != "none":
        _load_weights(network, _read_weights(arch, weights, network, image_size), arch, weights)
    if library == "timm":
        network.reset_classifier(0)
        return Backbone(network, network.head_hidden_size, mean, std, is_bgr)
    head_name, head = _find_head(network, arch)
    network.set_submodule(head_name, nn.Identity())
    for layer in network.get_submodule(head_name.partition(".")[0]).modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0  # the classifier's own takes its place
    if library == "pretrainedmodels":
        network = PooledFeatures(network, name.startswith(LATE_RELU))
    return Backbone(network, head.in_features, mean, std, is_bgr)


def check_arch(arch: str) -> None:
    """Looks a network up without building it.

    Raises:
        ValueError: it is not "library/name", or the library has no such name; suggests the nearest ones.
    """
    library, _, name = arch.partition("/")
    if library not in LIBRARIES or not name:
        near = [f"{known}/{n}" for known in LIBRARIES for n in _find_near(arch, known, n=1, cutoff=0.8)]
        raise ValueError(f"ARCH {arch!r} is not 'library/name' with a library of {LIBRARIES}"
                         + f"; nearest: {', '.join(near)}" * bool(near))
    if name not in _list_names(library):
        raise ValueError(f"ARCH {arch!r} does not exist; nearest: "
                         + (", ".join(f"{library}/{n}" for n in _find_near(name, library, n=4, cutoff=0.4)) or "none"))


def check_weights(weights: str) -> None:
    """Raises FileNotFoundError unless weights is "none", "imagenet" or a file."""
    if weights not in ("none", "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(f"WEIGHTS {weights!r} is neither 'none' nor 'imagenet' nor a file that exists")


def _list_names(library: str) -> list[str]:
    if library == "timm":
        timm = importlib.import_module("timm")
        return timm.list_models() + timm.list_pretrained()  # those have a tag, "name.tag"
    if library == "torchvision":
        models = importlib.import_module("torchvision.models")
        return models.list_models(module=models)
    return importlib.import_module("pretrainedmodels").model_names


def _find_near(name: str, library: str, n: int, cutoff: float) -> list[str]:
    return difflib.get_close_matches(name, _list_names(library), n=n, cutoff=cutoff)


def _build_torchvision(name: str, image_size: int) -> tuple[nn.Module, tuple, tuple, bool]:
    torchvision_models = importlib.import_module("torchvision.models")
    extra = {"aux_logits": False, "init_weights": True} if name in INCEPTIONS else {}
    if name.startswith("vit_"):
        extra = {"image_size": image_size}
    if name == "maxvit_t":
        extra = {"input_size": (image_size, image_size)}
    try:
        network = torchvision_models.get_model(name, weights=None, **extra)
    except (AssertionError, ValueError) as error:  # of the transformers
        raise ValueError(f"ARCH 'torchvision/{name}' can't be built for IMAGE_SIZE {image_size}: {error}") from error
    mean, std = ((0.5,) * 3,) * 2 if name in INCEPTIONS else IMAGENET
    return network, mean, std, False


def _build_timm(name: str, image_size: int) -> tuple[nn.Module, tuple, tuple, bool]:
    network = _create_timm(name, image_size, pretrained=False)
    return network, network.pretrained_cfg["mean"], network.pretrained_cfg["std"], False


def _create_timm(name: str, image_size: int, pretrained: bool) -> nn.Module:
    timm = importlib.import_module("timm")
    try:
        return timm.create_model(name, pretrained=pretrained, img_size=image_size)  # transformers have a fixed size
    except TypeError:
        return timm.create_model(name, pretrained=pretrained)


def _build_pretrainedmodels(name: str, image_size: int) -> tuple[nn.Module, tuple, tuple, bool]:
    pretrainedmodels = importlib.import_module("pretrainedmodels")
    if name.startswith(("alexnet", "vgg")):
        raise ValueError(f"ARCH 'pretrainedmodels/{name}' wants images of one size and has no feature maps: choose "
                         f"torchvision/{name}")
    # copied: the package's resnext101 models all share one set of layers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some it builds by torchvision's older parameters
        network = copy.deepcopy(pretrainedmodels.__dict__[name](num_classes=1000, pretrained=None))
    settings = pretrainedmodels.pretrained_settings[name]["imagenet"]
    most = settings["input_range"][1]  # some were trained on 0..255
    mean, std = ([value / most for value in settings[key]] for key in ("mean", "std"))
    return network, mean, std, settings["input_space"] == "BGR"


_BUILDERS = {"torchvision": _build_torchvision, "timm": _build_timm, "pretrainedmodels": _build_pretrainedmodels}


def _find_head(network: nn.Module, arch: str) -> tuple[str, nn.Linear]:
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not layers or layers[-1][0].partition(".")[0] not in HEAD_NAMES:
        raise ValueError(f"ARCH {arch!r} does not end in a linear layer: choose another, e.g. torchvision/mobilenet_v2")
    return layers[-1]


def _read_weights(arch: str, weights: str, network: nn.Module, image_size: int) -> Mapping[str, torch.Tensor]:
    if weights == "imagenet":
        return _download_weights(arch, network, image_size)
    check_weights(weights)
    path = Path(weights)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        raise ValueError(f"WEIGHTS {path} can't be read: {error}") from error
    except Exception as error:  # pickle.UnpicklingError, what weights_only=True refuses
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ValueError(f"WEIGHTS {path} holds more than tensors, or is damaged, and is not opened") from error
    return state.get("state_dict", state)


def _download_weights(arch: str, network: nn.Module, image_size: int) -> Mapping[str, torch.Tensor]:
    library, _, name = arch.partition("/")
    if library == "timm":
        try:
            return _create_timm(name, image_size, pretrained=True).state_dict()
        except (OSError, RuntimeError) as error:  # RuntimeError: timm has no weights for this name
            where = f"model.safetensors of {network.pretrained_cfg.get('hf_hub_id') or name} on the Hugging Face hub"
            raise FileNotFoundError(f"ImageNet weights of {arch} can't be downloaded ({error}): fetch {where} and "
                                    "give its path as WEIGHTS, or say WEIGHTS='none'") from error
    if library == "torchvision":
        url = importlib.import_module("torchvision.models").get_model_weights(name).DEFAULT.url
    else:
        url = importlib.import_module("pretrainedmodels").pretrained_settings[name]["imagenet"]["url"]
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, progress=False)
    except OSError as error:
        path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(url))
        raise FileNotFoundError(f"ImageNet weights of {arch} can't be downloaded ({error}): put the file of {url} at "
                                f"{path}, or give its path as WEIGHTS, or say WEIGHTS='none'") from error


def _load_weights(network: nn.Module, state: Mapping[str, torch.Tensor], arch: str, weights: str) -> None:
    """Loads all but the head, strictly."""
    is_timm = arch.startswith("timm/")
    head_name = network.pretrained_cfg["classifier"] if is_timm else _find_head(network, arch)[0]
    head_names = (head_name,) if isinstance(head_name, str) else tuple(head_name)  # some timm networks have two
    wanted = {k: v for k, v in network.state_dict().items() if k.rpartition(".")[0] not in head_names}
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in wanted and k.partition(".")[0] not in (*HEAD_NAMES, *AUXILIARY)
             and k.rpartition(".")[0] not in head_names]
    other = [f"{k} {tuple(state[k].shape)} instead of {tuple(v.shape)}" for k, v in wanted.items()
             if k in state and state[k].shape != v.shape]
    if missing or extra or other:
        raise ValueError(f"WEIGHTS {weights} are not those of {arch}: {len(missing)} keys are missing "
                         f"{missing[:3]}, {len(extra)} are too many {extra[:3]}, {len(other)} have another shape "
                         f"{other[:3]}")
    network.load_state_dict({k: state[k].float() if state[k].is_floating_point() else state[k]
                             for k in wanted if k in state}, strict=False)
