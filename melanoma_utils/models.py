"""Classifiers built from a backbone name; checkpoints from which they are rebuilt."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from melanoma_utils.backbones import Backbone, build_backbone
from melanoma_utils.competition import METADATA_FEATURES
from melanoma_utils.files import write_bytes
from melanoma_utils.transforms import normalize


@dataclass(frozen=True)
class ModelConfig:
    """What a classifier is built from.

    Attributes:
        arch: "library/name" with library one of `backbones.LIBRARIES`, e.g. "torchvision/mobilenet_v2".
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
        if not 0 <= self.dropout < 1:
            raise ValueError(f"DROPOUT {self.dropout} is not in 0..1 (1 excluded)")


def describe_model(config: ModelConfig) -> dict:
    """Returns a model's configuration as JSON holds it, the weights by file name: no path of one machine."""
    return asdict(config) | {"weights": Path(config.weights).name}


class LesionClassifier(nn.Module):
    """A backbone and a linear head for the image's logit, to which that of the metadata may be added.

    It normalises by itself: images go in as (N, 3, H, W) RGB in 0..1.
    """

    def __init__(self, backbone: Backbone, config: ModelConfig):
        super().__init__()
        self.backbone, self.config, self.is_bgr = backbone.network, config, backbone.is_bgr
        self.register_buffer("mean", torch.tensor(backbone.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(backbone.std, dtype=torch.float32))
        self.metadata = None
        if config.use_metadata:
            self.metadata = nn.Linear(len(METADATA_FEATURES), 1).requires_grad_(False)  # metadata_logit.py sets it
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(backbone.n_features, 1)

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


def build_model(config: ModelConfig) -> LesionClassifier:
    """Returns a new classifier, its backbone initialised as config.weights says, its head at random; raises like
    `backbones.build_backbone`."""
    return LesionClassifier(build_backbone(config.arch, config.weights, config.image_size), config)


def save_checkpoint(path: str | Path, model: LesionClassifier, config: dict) -> None:
    """Writes a model as safetensors with its whole configuration inside.

    Args:
        path: target file, written whole or not at all.
        model: the classifier; its ModelConfig is added to `config` as "model", a checksum as "tensors_sha256".
        config: anything JSON can hold.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    config = {**config, "model": describe_model(model.config), "tensors_sha256": _hash_tensors(state)}
    # one entry alone: safetensors writes several in an order that changes from file to file
    write_bytes(path, safetensors.torch.save(state, {"config": json.dumps(config, sort_keys=True)}))


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
    wanted = config.get("tensors_sha256")  # an earlier version wrote none
    model = build_model(ModelConfig(**{**config["model"], "weights": "none"}))
    try:
        state = safetensors.torch.load_file(path)
        if wanted and _hash_tensors(state) != wanted:
            raise ValueError(f"{path} is damaged: its weights are not those that were saved")
        model.load_state_dict(state)
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    model.config = ModelConfig(**config["model"])
    return model.eval(), config


def _hash_tensors(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}".encode())
        digest.update(state[name].contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
