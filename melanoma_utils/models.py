"""Classifiers built from a backbone name; checkpoints from which they are rebuilt."""

import copy
import difflib
import importlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from melanoma_utils.competition import METADATA_FEATURES
from melanoma_utils.files import write_bytes
from melanoma_utils.transforms import normalize

LIBRARIES = ("pretrainedmodels", "torchvision", "timm")
LATE_RELU = ("densenet", "nasnet", "pnasnet", "xception")  # of pretrainedmodels: their heads begin with it
HEAD_NAMES = ("fc", "classifier", "last_linear", "head", "heads")


@dataclass(frozen=True)
class ModelConfig:
    """What a classifier is built from.

    Attributes:
        arch: "library/name" with library one of `LIBRARIES`, e.g. "torchvision/mobilenet_v2".
        weights: "none", "imagenet", or the path of a .safetensors or .pth file with the library's own key names.
        image_size: side of the images in pixels that the model is trained for.
        resize_mode, clean_steps: how images become square and are cleaned, see `images.load_at_sizes`.
        use_metadata: whether the logit of sex, age and site alone is added to that of the image.
        dropout: share of features dropped in training, 0..1 (1 excluded).
    """

    arch: str = "torchvision/mobilenet_v2"
    weights: str = "none"
    image_size: int = 224
    resize_mode: str = "squash"
    clean_steps: tuple[str, ...] = ()
    use_metadata: bool = False
    dropout: float = 0.2

    def __post_init__(self):
        if self.arch.partition("/")[0] not in LIBRARIES or not self.arch.partition("/")[2]:
            raise ValueError(f"ARCH {self.arch!r} is not 'library/name' with a library of {LIBRARIES}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"DROPOUT {self.dropout} is not in 0..1 (1 excluded)")


def describe_model(config: ModelConfig) -> dict:
    """Returns a model's configuration as JSON holds it, the weights by file name: no path of one machine."""
    return asdict(config) | {"weights": Path(config.weights).name}


class LesionClassifier(nn.Module):
    """A backbone and a linear head for the image's logit, to which that of the metadata may be added.

    It normalises by itself: images go in as (N, 3, H, W) RGB in 0..1.
    """

    def __init__(self, backbone: nn.Module, n_features: int, config: ModelConfig, mean, std, is_bgr: bool):
        super().__init__()
        self.backbone, self.config, self.is_bgr = backbone, config, is_bgr
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.metadata = None
        if config.use_metadata:
            self.metadata = nn.Linear(len(METADATA_FEATURES), 1).requires_grad_(False)  # metadata_logit.py sets it
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(n_features, 1)

    def forward(self, images: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Returns (N,) logits.

        Args:
            images: (N, 3, H, W) float32 RGB in 0..1.
            metadata: (N, 12) as of `competition.encode_metadata`; wanted only by a model that uses it.

        Raises:
            ValueError: the model uses metadata and none is given.
        """
        return self.score(self.dropout(self.embed(images)), metadata)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the backbone's (N, C) features of (N, 3, H, W) float32 RGB images in 0..1."""
        return self.backbone(self.standardize(images))

    def standardize(self, images: torch.Tensor) -> torch.Tensor:
        """Returns (N, 3, H, W) float32 RGB images in 0..1 as the backbone wants them."""
        return normalize(images.flip(1) if self.is_bgr else images, self.mean, self.std)

    def score(self, features: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Returns (N,) logits of (N, C) features and, for a model that uses it, (N, 12) metadata; raises like
        `forward`."""
        if self.metadata is not None and metadata is None:
            raise ValueError("this model was trained with metadata (USE_METADATA): give sex, age and site, or say "
                             "that they are unknown; there is no default")
        logits = self.head(features).squeeze(1).float()  # (N,)
        return logits if self.metadata is None else logits + self.metadata(metadata).squeeze(1).float()


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


def build_model(config: ModelConfig) -> LesionClassifier:
    """Returns a new classifier, its backbone initialised as config.weights says, its head at random.

    Raises:
        ValueError: the arch is unknown (suggests the nearest names) or the weights are of another network (names
            the differing keys).
        FileNotFoundError: the weights file does not exist, or ImageNet weights can't be downloaded (says which
            file to put where).
    """
    library, _, name = config.arch.partition("/")
    network, mean, std, is_bgr = _BUILDERS[library](name, config.image_size)
    if config.weights != "none":
        _load_backbone(network, _read_weights(config.arch, config.weights, network, config.image_size),
                       config)
    if library == "timm":
        network.reset_classifier(0)
        return LesionClassifier(network, network.head_hidden_size, config, mean, std, is_bgr)
    head_name, head = _find_head(network, config.arch)
    network.set_submodule(head_name, nn.Identity())
    for layer in network.get_submodule(head_name.partition(".")[0]).modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0  # ours, config.dropout, takes its place
    if library == "pretrainedmodels":
        network = PooledFeatures(network, name.startswith(LATE_RELU))
    return LesionClassifier(network, head.in_features, config, mean, std, is_bgr)


def _build_torchvision(name: str, image_size: int) -> tuple[nn.Module, tuple, tuple, bool]:
    torchvision_models = importlib.import_module("torchvision.models")
    names = torchvision_models.list_models(module=torchvision_models)
    _check_name("torchvision", name, names)
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return (torchvision_models.get_model(name, weights=None, **extra),
            (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False)  # ImageNet's mean and sd, as torchvision documents


def _build_timm(name: str, image_size: int) -> tuple[nn.Module, tuple, tuple, bool]:
    timm = importlib.import_module("timm")
    _check_name("timm", name.partition(".")[0], timm.list_models())
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
    _check_name("pretrainedmodels", name, pretrainedmodels.model_names)
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


def _check_name(library: str, name: str, names: list[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=4, cutoff=0.4)
        raise ValueError(f"ARCH '{library}/{name}' does not exist; nearest: "
                         + (", ".join(f"{library}/{n}" for n in near) or f"none of {len(names)} names"))


def _find_head(network: nn.Module, arch: str) -> tuple[str, nn.Linear]:
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not layers or layers[-1][0].partition(".")[0] not in HEAD_NAMES:
        raise ValueError(f"ARCH {arch!r} does not end in a linear layer: choose another, e.g. torchvision/mobilenet_v2")
    return layers[-1]


def _read_weights(arch: str, weights: str, network: nn.Module, image_size: int) -> Mapping[str, torch.Tensor]:
    if weights == "imagenet":
        return _download_weights(arch, network, image_size)
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"WEIGHTS {weights!r} is neither 'none' nor 'imagenet' nor a file that exists")
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


def _load_backbone(network: nn.Module, state: Mapping[str, torch.Tensor], config: ModelConfig) -> None:
    """Loads all but the head, strictly."""
    is_timm = config.arch.startswith("timm/")
    head_name = network.pretrained_cfg["classifier"] if is_timm else _find_head(network, config.arch)[0]
    head_names = (head_name,) if isinstance(head_name, str) else tuple(head_name)  # some timm networks have two
    wanted = {k: v for k, v in network.state_dict().items() if k.rpartition(".")[0] not in head_names}
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in wanted and k.partition(".")[0] not in HEAD_NAMES]
    other = [f"{k} {tuple(state[k].shape)} instead of {tuple(v.shape)}" for k, v in wanted.items()
             if k in state and state[k].shape != v.shape]
    if missing or extra or other:
        raise ValueError(f"WEIGHTS {config.weights} are not those of {config.arch}: {len(missing)} keys are missing "
                         f"{missing[:3]}, {len(extra)} are too many {extra[:3]}, {len(other)} have another shape "
                         f"{other[:3]}")
    network.load_state_dict({k: state[k].float() if state[k].is_floating_point() else state[k]
                             for k in wanted if k in state}, strict=False)


def save_checkpoint(path: str | Path, model: LesionClassifier, config: dict) -> None:
    """Writes a model as safetensors with its whole configuration inside.

    Args:
        path: target file, written whole or not at all.
        model: the classifier; its ModelConfig is added to `config` as "model".
        config: anything JSON can hold.
    """
    metadata = {"config": json.dumps({**config, "model": describe_model(model.config)}, sort_keys=True)}
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_bytes(path, safetensors.torch.save(state, metadata))


def read_checkpoint_config(path: str | Path) -> dict:
    """Returns the configuration in a checkpoint's header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no checkpoint of this project.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: run 03_train_fold first")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["config"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint of this project ({error})") from error


def load_checkpoint(path: str | Path) -> tuple[LesionClassifier, dict]:
    """Returns (model in evaluation mode, configuration), rebuilt from the file alone; raises like
    `read_checkpoint_config`."""
    config = read_checkpoint_config(path)
    model = build_model(ModelConfig(**{**config["model"], "weights": "none"}))
    try:
        model.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    model.config = ModelConfig(**config["model"])
    return model.eval(), config
