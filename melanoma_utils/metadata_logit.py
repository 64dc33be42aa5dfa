"""The metadata's logit: a logistic regression of sex, age and site, fixed before the network trains."""

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from melanoma_utils.competition import METADATA_FEATURES, encode_metadata
from melanoma_utils.inference import Samples
from melanoma_utils.models import LesionClassifier


def fit_metadata(model: LesionClassifier, samples: Samples, metadata_df: pd.DataFrame | None = None) -> None:
    """Sets a model's metadata layer to the logistic regression of the targets on the metadata of the samples.

    The layer stays so, and the network learns what the image adds to that logit. What is unknown counts as much as
    leaves the expected number of melanomas as it is when it is hidden from all who have it. The few rows that lack a
    value would say otherwise: of the competition's 33,126 none of the 65 without sex and age is a melanoma, but who
    does not tell an app their age is as old as others are.

    Args:
        model: one that uses metadata.
        samples: images of the competition to train on.
        metadata_df: rows to fit on instead, with target and the metadata's columns, of people that the model may know;
            their share of melanomas is moved to that of the samples.
    """
    features, targets = (samples.metadata, samples.targets) if metadata_df is None else \
        (encode_metadata(metadata_df), metadata_df["target"].to_numpy())
    regression = LogisticRegression(max_iter=1000).fit(features, targets)
    weight, bias = regression.coef_[0].astype(np.float64), float(regression.intercept_[0])
    weight = _weigh_unknown(weight, bias, features)
    if metadata_df is not None:
        bias += logit(samples.targets.mean()) - (samples.metadata @ weight + bias).mean()
    model.metadata.load_state_dict({"weight": torch.from_numpy(weight[None]), "bias": torch.tensor([bias])})  # (1, 12)


def _weigh_unknown(weight: np.ndarray, bias: float, features: np.ndarray) -> np.ndarray:
    """Returns (12,) weights with those of the unknown values set by the rows of (N, 12) features that have one."""
    weight = weight.copy()
    for field in ("site", "sex", "age"):
        columns = [i for i, name in enumerate(METADATA_FEATURES) if name.startswith(field)]
        unknown = METADATA_FEATURES.index(f"{field}=unknown")
        known = features[:, unknown] == 0
        if not known.any():
            continue
        logits = features[known] @ weight + bias  # (n,)
        parts = features[known][:, columns] @ weight[columns]  # (n,) what the value adds
        weight[unknown] = brentq(
            lambda w, logits=logits, parts=parts: expit(logits - parts + w).mean() - expit(logits).mean(),
            parts.min() - 1, parts.max() + 1)  # between the least and the most that a value adds
    return weight
