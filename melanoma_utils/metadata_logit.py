"""The metadata's logit: a logistic regression of sex, age and site, fixed before the network trains."""

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from melanoma_utils.competition import encode_metadata
from melanoma_utils.inference import Samples
from melanoma_utils.models import LesionClassifier


def fit_metadata(model: LesionClassifier, samples: Samples, more_df: pd.DataFrame | None = None) -> None:
    """Sets a model's metadata layer to the logistic regression of the targets on the samples' metadata.

    The layer stays so, and the network learns what the image adds to that logit. Where there are rows without images
    too they join the regression, and its intercept is set to what fits the samples, among which melanomas may be
    rarer or more frequent: their mean probability becomes the share of melanomas.
    """
    metadata, targets = samples.metadata, samples.targets
    if more_df is not None:
        metadata = np.concatenate([metadata, encode_metadata(more_df)])
        targets = np.concatenate([targets, more_df["target"].to_numpy(np.float32)])
    regression = LogisticRegression(max_iter=1000).fit(metadata, targets)
    if more_df is not None:
        logits = regression.decision_function(samples.metadata)
        regression.intercept_ += brentq(lambda shift: expit(logits + shift).mean() - samples.targets.mean(), -50, 50)
    state = {"weight": regression.coef_, "bias": regression.intercept_}  # (1, 12), (1,)
    model.metadata.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
