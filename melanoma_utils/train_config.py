"""The configuration of a training, checked."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

import torch

from melanoma_utils.backbones import check_arch
from melanoma_utils.inference import PRECISIONS
from melanoma_utils.models import ModelConfig
from melanoma_utils.objective import TARGETS
from melanoma_utils.transforms import AugmentConfig

# Fused ones step all parameters in one call; torch's fused SGD takes up an unwritten momentum if step 1 overflows.
OPTIMIZERS = {"adam": partial(torch.optim.Adam, fused=True), "adamw": partial(torch.optim.AdamW, fused=True),
              "sgd": partial(torch.optim.SGD, momentum=0.9)}
SCHEDULERS = ("one_cycle", "cosine", "plateau", "none")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what training gives.

    Attributes:
        model, augment: see `ModelConfig` and `AugmentConfig`.
        target: "melanoma", or "diagnosis" to learn the other diagnoses as well, see `objective.Objective`.
        n_epochs: passes over the training images.
        batch_size: images a step (at most: the batches of an epoch are made equally large).
        lr: highest learning rate.
        optimizer: "adam", "adamw" or "sgd" (momentum 0.9).
        weight_decay: of the optimizer.
        scheduler: "one_cycle" and "cosine" change the rate every step, "plateau" divides it by 5 at the third
            epoch without a better AUC and keeps the best epoch, "none" keeps it.
        early_stopping_patience: stop after so many epochs without a better AUC and keep the best epoch; 0 = off.
        n_external: external images drawn anew each epoch, half of them melanomas as far as there are so many; 0 = all.
        start_from: name of the experiment whose models the training begins with; "" = none.
        metadata_from: name of the folder on whose train.csv the metadata's logit is fitted, see
            `fold_training.run_fold`; "" = the images trained on.
        teachers: names of the experiments whose predictions label the test images, see
            `pseudo_labels.read_pseudo_labels`; none = the test images are not trained on.
        n_pseudo: test images drawn anew each epoch; 0 = all.
        distill_from: names of the experiments whose models of the same fold are imitated, see `objective.Objective`.
        distill_share: how much of a target is theirs, 0..1; the rest is the label.
        start_image_size: side in pixels of the images in the first epochs; it grows over two thirds of them to that of
            the model, see `size_of_epoch`; 0 = always that of the model.
        freeze_batch_norm: keep the batch norms' mean and variance as the weights brought them.
        n_frozen_layers: keep so many of the first convolutions as the weights brought them, with their batch norms.
        n_averaged_epochs: the model is the mean of the weights after each of so many last epochs (Izmailov et al. 2018,
            arXiv 1803.05407); 0 = the last epoch's. Makes sense with scheduler "none".
        precision: one of `inference.PRECISIONS`.
        seed: of weights, order and augmentation.

    Raises:
        ValueError: a value is out of its range, or two contradict each other; names the parameter, the value and the
            range.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    target: str = "melanoma"
    n_epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    scheduler: str = "one_cycle"
    early_stopping_patience: int = 0
    n_external: int = 0
    start_from: str = ""
    metadata_from: str = ""
    teachers: tuple[str, ...] = ()
    n_pseudo: int = 0
    distill_from: tuple[str, ...] = ()
    distill_share: float = 0.5
    start_image_size: int = 0
    freeze_batch_norm: bool = False
    n_frozen_layers: int = 0
    n_averaged_epochs: int = 0
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self):
        if self.metadata_from and not self.model.use_metadata:
            raise ValueError(f"METADATA_FROM is {self.metadata_from!r}, but USE_METADATA is off")
        for name, low in {"n_epochs": 1, "batch_size": 2, "early_stopping_patience": 0, "n_external": 0,
                          "n_pseudo": 0, "start_image_size": 0, "n_frozen_layers": 0, "n_averaged_epochs": 0,
                          "seed": 0}.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name.upper()} {getattr(self, name)} is too small: wanted at least {low}")
        if not 0 < self.lr < 10 or not 0 <= self.weight_decay < 1:
            raise ValueError(f"LR {self.lr} is not in 0..10 or WEIGHT_DECAY {self.weight_decay} not in 0..1")
        if not 0 <= self.distill_share <= 1:
            raise ValueError(f"DISTILL_SHARE {self.distill_share} is not in 0..1")
        if self.distill_share != TrainConfig.distill_share and not self.distill_from:
            raise ValueError(f"DISTILL_SHARE is {self.distill_share}, but DISTILL_FROM names no experiments to imitate")
        if self.start_image_size and not 16 <= self.start_image_size <= self.model.image_size:
            raise ValueError(f"START_IMAGE_SIZE {self.start_image_size} is neither 0 (off) nor in 16..IMAGE_SIZE "
                             f"({self.model.image_size})")
        if self.has_monitor and (self.start_from or self.teachers or self.distill_from or self.metadata_from):
            raise ValueError("SCHEDULER 'plateau' and EARLY_STOPPING_PATIENCE watch a fold that START_FROM's models, "
                             "TEACHERS or DISTILL_FROM's models were trained on, or METADATA_FROM's table holds: leave "
                             "out the one or the other")
        if self.n_averaged_epochs > self.n_epochs or (self.n_averaged_epochs and self.has_monitor):
            raise ValueError(f"N_AVERAGED_EPOCHS {self.n_averaged_epochs} is more than N_EPOCHS {self.n_epochs}, or an "
                             "AUC picks the best epoch (SCHEDULER 'plateau', EARLY_STOPPING_PATIENCE): leave out the "
                             "one or the other")
        if self.n_pseudo and not self.teachers:
            raise ValueError(f"N_PSEUDO is {self.n_pseudo}, but TEACHERS names no experiments that label test images")
        for name, choices in {"target": TARGETS, "optimizer": tuple(OPTIMIZERS), "scheduler": SCHEDULERS,
                              "precision": tuple(PRECISIONS)}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name.upper()} {getattr(self, name)!r} is not one of {choices}")

    @property
    def has_monitor(self) -> bool:
        """Whether an AUC steers the training; it is then taken on a fold that is neither trained on nor scored."""
        return self.scheduler == "plateau" or self.early_stopping_patience > 0

    def size_of_epoch(self, epoch: int) -> int:
        """Returns the side in pixels of the images trained on in an epoch (from 1), while it grows in steps of 16."""
        last = self.model.image_size
        if not self.start_image_size or epoch > self.n_epochs * 2 / 3:
            return last
        size = self.start_image_size + (last - self.start_image_size) * (epoch - 1) / (self.n_epochs * 2 / 3)
        return min(last, max(self.start_image_size, 16 * round(size / 16)))


def make_config(parameters: Mapping[str, object]) -> TrainConfig:
    """Returns the configuration of notebook parameters such as N_EPOCHS, each named like its attribute; what they lack
    is at its default, what else they hold is left out. Raises like `TrainConfig` and `backbones.check_arch`."""
    parameters = {**parameters, **{name: Path(str(parameters.get(name, ""))).name
                                   for name in ("START_FROM", "METADATA_FROM")}}
    parts = {cls: {f.name: tuple(value) if isinstance(value := parameters[f.name.upper()], list) else value
                   for f in fields(cls) if f.name.upper() in parameters}
             for cls in (ModelConfig, AugmentConfig, TrainConfig)}
    check_arch(parts[ModelConfig].get("arch", ModelConfig.arch))
    return TrainConfig(model=ModelConfig(**parts[ModelConfig]), augment=AugmentConfig(**parts[AugmentConfig]),
                       **parts[TrainConfig])


def fill_defaults(description: dict) -> dict:
    """Returns a stored description of a training with the parameters that came later at their defaults.

    Such a default changes nothing, so that what an earlier version has trained stays valid.

    Args:
        description: JSON with "model" and "train", as of `experiment.describe_training`; other keys stay as they are.
    """
    config = fill_config(description["train"] | {"model": description["model"]})
    return description | {"model": config.pop("model"), "train": config}


def fill_config(config: dict) -> dict:
    """Returns a stored TrainConfig as a dictionary of JSON types, with what came later at its default."""
    defaults = asdict(TrainConfig())
    parts = {part: defaults[part] | config[part] for part in ("model", "augment")}
    return json.loads(json.dumps(defaults | config | parts))
