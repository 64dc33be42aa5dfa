"""The metadata's logit: a logistic regression of sex, age and site, fixed before the network trains."""

import pandas as pd
import torch
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from melanoma_utils.competition import encode_metadata
from melanoma_utils.inference import Samples
from melanoma_utils.models import LesionClassifier


def fit_metadata(model: LesionClassifier, samples: Samples, metadata_df: pd.DataFrame | None = None) -> None:
    """Sets a model's metadata layer to the logistic regression of the targets on the metadata of the samples.

    The layer stays so, and the network learns what the image adds to that logit.

    Args:
        model: one that uses metadata.
        samples: images of the competition to train on.
        metadata_df: rows to fit on instead, with target and the metadata's columns, of people that the model may know;
            their share of melanomas is moved to that of the samples.
    """
    if metadata_df is None:
        regression = LogisticRegression(max_iter=1000).fit(samples.metadata, samples.targets)
    else:
        regression = LogisticRegression(max_iter=1000).fit(encode_metadata(metadata_df), metadata_df["target"])
        regression.intercept_ += logit(samples.targets.mean()) - regression.decision_function(samples.metadata).mean()
    state = {"weight": regression.coef_, "bias": regression.intercept_}  # (1, 12), (1,)
    model.metadata.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
