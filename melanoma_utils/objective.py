"""What a training minimises: the melanoma's loss, and that of the other diagnoses where they are known."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from melanoma_utils.freezing import fold_batch_norms
from melanoma_utils.models import LesionClassifier
from melanoma_utils.transforms import AugmentConfig, disturb_images, resize_batch

TARGETS = ("melanoma", "diagnosis")
# The classes of the ISIC 2019 challenge but melanoma, and names in the competition's train.csv that belong to them: the
# grouping with which the competition was won (Ha, Liu, Liu 2020, arXiv 2010.05351, section 2.2).
CLASSES = ("nevus", "basal cell carcinoma", "actinic keratosis", "benign keratosis", "dermatofibroma",
           "vascular lesion", "squamous cell carcinoma")
SAME_AS = {name: "benign keratosis" for name in ("seborrheic keratosis", "lichenoid keratosis", "solar lentigo",
                                                 "lentigo NOS")}


def encode_diagnoses(df: pd.DataFrame) -> np.ndarray:
    """Returns (n,) int64: the place in `CLASSES` of each row's diagnosis; -1 for melanoma and what is not known.

    Args:
        df: table with the column diagnosis.
    """
    codes = {name: code for code, name in enumerate(CLASSES)}
    return df["diagnosis"].replace(SAME_AS).map(codes).fillna(-1).to_numpy(np.int64)


class Objective(nn.Module):
    """A classifier with its loss, in one module.

    The loss is the binary cross-entropy of the melanoma's logit. With target "diagnosis" that of the other classes
    comes on top, for the images that are no melanoma and whose diagnosis is known: -log P(class) is
    -log P(no melanoma) - log P(class | no melanoma). So images of unknown diagnosis, four fifths of the competition's,
    teach what they can, and the melanoma's logit means the same with either target.

    With teachers the target of an image is in part what they say of the very same picture, before it is disturbed: the
    probability of their mean logit (knowledge distillation, Hinton et al. 2015, arXiv 1503.02531).
    """

    def __init__(self, model: LesionClassifier, target: str = "melanoma",
                 frozen_batch_norms: Sequence[nn.Module] = (), teachers: Sequence[LesionClassifier] = (),
                 distill_share: float = 0.0, augment: AugmentConfig | None = None):
        super().__init__()
        self.augment = augment or AugmentConfig()  # for `transforms.disturb_images`
        self.teachers, self.distill_share = tuple(teachers), distill_share  # a tuple: none of their parameters is ours
        self.model, self.frozen_batch_norms = model, list(frozen_batch_norms)
        self.backbone = fold_batch_norms(model.backbone, self.frozen_batch_norms)  # the same parameters
        self.classes = nn.Linear(model.head.in_features, len(CLASSES)) if target == "diagnosis" else None

    def train(self, mode: bool = True) -> "Objective":
        """Switches to training, or back; frozen batch norms keep the mean and variance that they came with."""
        super().train(mode)
        for module in self.frozen_batch_norms:
            module.eval()
        return self

    def forward(self, images: torch.Tensor, metadata: torch.Tensor | None, targets: torch.Tensor,
                diagnoses: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the mean loss, a scalar.

        Args:
            images, metadata: see `LesionClassifier.forward`.
            targets: (B,) float32, 0 or 1, or between for pseudo-labels.
            diagnoses: (B,) int64 of `encode_diagnoses`; used with target "diagnosis" only.

        Raises:
            ValueError: the model uses metadata and none is given.
        """
        if self.teachers:
            targets = (1 - self.distill_share) * targets + self.distill_share * self._ask_teachers(images, metadata)
        images = self.model.standardize(disturb_images(images, self.augment))
        features = self.model.dropout(self.backbone(images))  # (B, C)
        logits = self.model.score(features, metadata)  # (B,)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
        if self.classes is None:
            return loss
        return loss + nn.functional.cross_entropy(self.classes(features).float(), diagnoses, ignore_index=-1,
                                                  reduction="sum") / len(targets)

    @torch.no_grad()
    def _ask_teachers(self, images: torch.Tensor, metadata: torch.Tensor | None) -> torch.Tensor:
        """Returns the (B,) probabilities of the teachers' mean logit, each asked at its own image size."""
        logits = [teacher(resize_batch(images, teacher.config.image_size), metadata) for teacher in self.teachers]
        return torch.stack(logits).mean(0).sigmoid()
