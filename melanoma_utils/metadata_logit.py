"""The metadata's logit: a logistic regression of sex, age and site, fixed before the network trains."""

import torch
from sklearn.linear_model import LogisticRegression

from melanoma_utils.inference import Samples
from melanoma_utils.models import LesionClassifier


def fit_metadata(model: LesionClassifier, samples: Samples) -> None:
    """Sets a model's metadata layer to the logistic regression of the targets on the samples' metadata.

    The layer stays so, and the network learns what the image adds to that logit.
    """
    regression = LogisticRegression(max_iter=1000).fit(samples.metadata, samples.targets)
    state = {"weight": regression.coef_, "bias": regression.intercept_}  # (1, 12), (1,)
    model.metadata.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
