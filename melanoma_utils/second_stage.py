"""The second stage: a logistic regression on features of an image, fitted by patient-grouped folds, kept as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from melanoma_utils.files import read_json, write_json


@dataclass(frozen=True)
class SecondStage:
    """A fitted logistic regression: logit = intercept + sum(coef * (feature - mean) / scale).

    Attributes:
        features: names of the n_features columns that it reads.
        mean, scale: (n_features,) of the rows that it was fitted on; the scale of a constant feature is 1.
        coef: (n_features,) for standardised features, so that they can be compared.
        intercept: in logits.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coef: tuple[float, ...]
    intercept: float


def fit_second_stage(features_df: pd.DataFrame, targets: np.ndarray, c: float = 1.0) -> SecondStage:
    """Returns the regression fitted on these rows.

    Args:
        features_df: (N, n_features) finite features.
        targets: (N,) 0 or 1, in the order of the rows.
        c: scikit-learn's C; smaller shrinks more.

    Raises:
        ValueError: a feature is not finite, or there is one class only.
    """
    targets = np.asarray(targets)
    if len(np.unique(targets)) != 2:
        raise ValueError(f"a second stage needs both classes, met only target {np.unique(targets)}")
    x = _read_features(features_df, features_df.columns)  # (N, n_features)
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    model = LogisticRegression(C=c, max_iter=1000).fit((x - mean) / scale, targets)
    return SecondStage(tuple(features_df.columns), *(tuple(map(float, v)) for v in (mean, scale, model.coef_[0])),
                       float(model.intercept_[0]))


def predict_second_stage(stages: Sequence[SecondStage], features_df: pd.DataFrame) -> np.ndarray:
    """Returns (N,) logits: the mean of those of the stages, which are one, or those of all folds for new patients.

    Args:
        stages: fitted regressions.
        features_df: (N, …) table that holds their features.

    Raises:
        ValueError: there is no stage, or a feature is missing or not finite.
    """
    if not stages:
        raise ValueError("there is no second stage to predict with")
    logits = [(_read_features(features_df, s.features) - s.mean) / s.scale @ np.array(s.coef) + s.intercept
              for s in stages]
    return np.mean(logits, axis=0)  # (N,)


def predict_out_of_fold(features_df: pd.DataFrame, oof_df: pd.DataFrame,
                        c: float = 1.0) -> tuple[pd.Series, list[SecondStage]]:
    """Returns the out-of-fold logits by image_name, in the features' order, and the regressions in the folds' order.

    The regression that scores a fold has been fitted on all others, without a row of its patients. Where features come
    from networks' out-of-fold scores, the networks that scored the others have seen that fold's labels (as in any
    stacking).

    Args:
        features_df: (N, n_features) by image_name, as of `patient_context.make_features`.
        oof_df: (N, …) table of the same images with the columns image_name, patient_id, target and fold.
        c: see `fit_second_stage`.

    Raises:
        ValueError: other images, a patient in two folds, fewer than two folds, a feature that is not finite, or one
            class only in the folds that are left.
    """
    if set(features_df.index) != set(oof_df["image_name"]) or len(features_df) != len(oof_df):
        raise ValueError(f"the features of {len(features_df)} images and the folds of {len(oof_df)} are not of the "
                         "same ones")
    n_folds_of_patient = oof_df.groupby("patient_id")["fold"].nunique()
    if (n_folds_of_patient > 1).any():
        raise ValueError(f"{int((n_folds_of_patient > 1).sum())} patients are in more than one fold, first "
                         f"{n_folds_of_patient.idxmax()}: the second stage wants folds by patient")
    if oof_df["fold"].nunique() < 2:
        raise ValueError(f"only fold {oof_df['fold'].iloc[0]} is there: the second stage wants at least two")
    rows_df = oof_df.set_index("image_name").loc[features_df.index]
    logits, stages = pd.Series(np.nan, features_df.index, name="logit"), []
    for fold in sorted(rows_df["fold"].unique()):
        is_valid = (rows_df["fold"] == fold).to_numpy()
        stages.append(fit_second_stage(features_df[~is_valid], rows_df["target"][~is_valid], c))
        logits[is_valid] = predict_second_stage(stages[-1:], features_df[is_valid])
    return logits, stages


def write_second_stages(path: str | Path, stages: Sequence[SecondStage], **more: object) -> None:
    """Writes regressions as JSON, whole or not at all; before them what else is given, of JSON's types."""
    write_json(path, more | {"stages": [asdict(stage) for stage in stages]})


def read_second_stages(path: str | Path) -> list[SecondStage]:
    """Returns the regressions of a file of `write_second_stages`, to the last digit.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such JSON.
    """
    try:
        return [SecondStage(**{key: tuple(value) if isinstance(value, list) else value for key, value in stage.items()})
                for stage in read_json(path)["stages"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no second stages ({error}): run the notebook that wrote it again") from error


def describe_coefficients(stages: Sequence[SecondStage]) -> pd.DataFrame:
    """Returns what each feature adds to the logit, a standard deviation more of it: index feature; columns value (mean
    over the regressions), low, high (the least and the most), largest mean first, whatever its sign."""
    coef_df = pd.DataFrame([stage.coef for stage in stages], columns=list(stages[0].features))
    df = pd.DataFrame({"value": coef_df.mean(), "low": coef_df.min(), "high": coef_df.max()}).rename_axis("feature")
    return df.loc[df["value"].abs().sort_values(ascending=False, kind="stable").index]


def _read_features(features_df: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Returns (N, n_features) float64, or raises ValueError."""
    missing = [name for name in names if name not in features_df]
    if missing:
        raise ValueError(f"the feature {missing[0]!r} is missing ({len(missing)} of {len(names)} are); met "
                         f"{list(features_df.columns)}")
    x = features_df[list(names)].to_numpy(np.float64)
    if not np.isfinite(x).all():
        name = names[int(np.flatnonzero(~np.isfinite(x).all(0))[0])]
        raise ValueError(f"the feature {name!r} is not finite in {int((~np.isfinite(features_df[name])).sum())} of "
                         f"{len(x)} rows")
    return x
