"""An image's score beside those of the patient's other images: a second stage, blended with the network by rank."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from melanoma_utils.ablation import compare_steps
from melanoma_utils.blending import blend_scores
from melanoma_utils.competition import METADATA_COLUMNS, METADATA_FEATURES
from melanoma_utils.patient_context import KINDS, make_features, select_features
from melanoma_utils.second_stage import SecondStage, predict_out_of_fold, predict_second_stage

OOF_COLUMNS = ("image_name", "patient_id", "target", "fold", "logit")


def add_context(oof_df: pd.DataFrame, metadata_df: pd.DataFrame, embeddings_df: pd.DataFrame | None = None,
                kinds: Sequence[str] = ("lesion",)) -> tuple[pd.DataFrame, list[SecondStage]]:
    """Returns the out-of-fold scores with the patient's other images in them, and the second stages of the folds.

    Args:
        oof_df: (N, …) table with the columns `OOF_COLUMNS`, folds by patient.
        metadata_df: (at least N, …) table with image_name and the columns sex, age_approx (years) and
            anatom_site_general_challenge, such as train.csv; rows without a logit are no matter.
        embeddings_df: (at least N, n_dimensions) by image_name, each of the model that gave the logit; None: none.
        kinds: of the features, out of `patient_context.KINDS`.

    Returns:
        The table in its order, with the columns `OOF_COLUMNS` (logit: the rank mean of the two others, as of
        `blending.blend_scores`), image_logit and stage_logit; and a regression a fold, in the folds' order.

    Raises:
        ValueError: an image has no row in metadata_df; or see `make_features` and `predict_out_of_fold`.
    """
    features_df = select_features(make_features(_join_metadata(oof_df, metadata_df), embeddings_df), tuple(kinds))
    stage_logits, stages = predict_out_of_fold(features_df, oof_df)
    return _blend(oof_df[list(OOF_COLUMNS)], stage_logits), stages


def predict_with_context(stages: Sequence[SecondStage], tables: Sequence[pd.DataFrame], metadata_df: pd.DataFrame,
                         embeddings: Sequence[pd.DataFrame] | None = None) -> pd.DataFrame:
    """Returns image_name, logit (blended), image_logit and stage_logit of new patients, such as those of the test set.

    Each fold's regression reads the logits (and embeddings) of that fold's network, as it did out of fold; the folds'
    logits are averaged, as the networks' are, and the two means blended by rank among these images.

    Args:
        stages: of `add_context`, a fold each.
        tables: image_name and logit by the network of each fold, in the same order.
        metadata_df: all these images, with patient_id, sex, age_approx and anatom_site_general_challenge.
        embeddings: by the network of each fold, see `add_context`; wanted where the stages were fitted with some.

    Raises:
        ValueError: the numbers of folds differ, or see `make_features` and `predict_second_stage`.
    """
    if not len(stages) == len(tables) == len(embeddings or tables):
        raise ValueError(f"{len(stages)} second stages, {len(tables)} tables of logits and "
                         f"{len(embeddings or tables)} of embeddings: wanted one of each a fold")
    logits = []
    for stage, table, embeddings_df in zip(stages, tables, embeddings or [None] * len(tables), strict=True):
        df = _join_metadata(table[["image_name", "logit"]], metadata_df, ("patient_id", *METADATA_COLUMNS))
        features_df = make_features(df, embeddings_df)
        logits.append(pd.Series(predict_second_stage([stage], features_df), features_df.index))
    image_logits = pd.concat([table.set_index("image_name")["logit"] for table in tables], axis=1).mean(axis=1)
    return _blend(image_logits.rename("logit").rename_axis("image_name").reset_index(),
                  pd.concat(logits, axis=1).mean(axis=1))


def ablate_context(oof_df: pd.DataFrame, metadata_df: pd.DataFrame, embeddings_df: pd.DataFrame | None = None, *,
                   n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Returns what each group of features adds to the image, as of `ablation.compare_steps`.

    The steps: "image" (the network alone), "+ metadata" (sex, age, site), "+ context" (the patient's other images, only
    what describes lesion or person), "+ collection" (how many pictures were taken when and of what, as well). All but
    the first are a second stage, out of fold, blended by rank with the image.

    Args:
        oof_df, metadata_df, embeddings_df: see `add_context`.
        n_resamples, seed: see `evaluation.compute_auc_interval`.

    Raises:
        ValueError: see `add_context` and `compare_steps`.
    """
    features_df = make_features(_join_metadata(oof_df, metadata_df), embeddings_df)
    columns = {"+ metadata": [*METADATA_FEATURES, "logit"], "+ context": list(select_features(features_df)),
               "+ collection": list(select_features(features_df, KINDS))}
    scores = {"image": oof_df["logit"].to_numpy(np.float64)}
    for name, names in columns.items():
        stage_logits, _ = predict_out_of_fold(features_df[names], oof_df)
        scores[name] = _blend(oof_df, stage_logits)["logit"].to_numpy()
    return compare_steps(oof_df["target"], scores, oof_df["patient_id"], n_resamples=n_resamples, seed=seed)


def _join_metadata(df: pd.DataFrame, metadata_df: pd.DataFrame,
                   columns: Sequence[str] = METADATA_COLUMNS) -> pd.DataFrame:
    """Returns the table with these columns out of metadata_df, joined by image_name, in the table's order."""
    missing = sorted(set(df["image_name"]) - set(metadata_df["image_name"]))
    if missing:
        raise ValueError(f"{len(missing)} of {len(df)} images have no row in the metadata, first {missing[0]}")
    kept = df[[column for column in df if column not in columns]]
    return kept.merge(metadata_df[["image_name", *columns]], on="image_name", how="left", validate="one_to_one")


def _blend(df: pd.DataFrame, stage_logits: pd.Series) -> pd.DataFrame:
    """Returns the table with its logit as image_logit, with stage_logit, and with their rank mean as logit."""
    df = df.assign(image_logit=df["logit"], stage_logit=stage_logits.loc[df["image_name"]].to_numpy())
    return df.assign(logit=blend_scores(df[["image_logit", "stage_logit"]].to_numpy(np.float64), "rank"))
