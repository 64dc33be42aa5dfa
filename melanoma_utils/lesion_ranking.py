"""The lesions of one person ranked: by score, and by how unlike the others each looks."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from melanoma_utils.patient_context import compute_embedding_context, compute_logit_context, select_features

MIN_LESIONS = 3  # two are equally far from each other: neither is the odd one


def rank_lesions(names: Sequence[str], logits: np.ndarray, embeddings: np.ndarray) -> pd.DataFrame:
    """Returns how each lesion compares with the others of the same person, most suspicious first.

    The features are those of `patient_context`, of the kind "lesion" alone: nothing that tells how many pictures were
    taken, or when.

    Args:
        names: of the N images, all of one person.
        logits: (N, n_models), see `assessment.Answer`.
        embeddings: (n_models, N, C), see `assessment.Answer`.

    Returns:
        By image_name, in falling order of the logit: logit (mean over the models), rank (1 = highest logit; equal ones
        share the mean of their ranks), logit_z, logit_difference (to the median), duckling_z and duckling_difference
        (means over the models of the two features of that name: the ugly-duckling score), is_odd (the most unlike one
        of three or more, unless all look alike).

    Raises:
        ValueError: a name is repeated, or a logit or embedding is not finite.
    """
    df = pd.DataFrame({"image_name": names, "patient_id": "one", "logit": np.mean(logits, axis=1, dtype=np.float64)})
    by_model = [compute_embedding_context(df, pd.DataFrame(of_model, names)) for of_model in embeddings]
    duckling = sum(by_model) / len(by_model)
    features = select_features(pd.concat([compute_logit_context(df), duckling], axis=1))
    rank = len(df) * (1 - features["logit_rank"]) + 0.5  # logit_rank is (rank from below - 0.5) / N
    score = features["duckling_z"]
    is_odd = (score == score.max()) & (score > 0) & (len(df) >= MIN_LESIONS)
    ranked = df.set_index("image_name")[["logit"]].join(features.drop(columns="logit_rank"))
    ranked.insert(1, "rank", rank.round(6))
    return ranked.assign(is_odd=is_odd).sort_values("logit", ascending=False, kind="stable")


def score_lesions(names: Sequence[str], logits: np.ndarray, embeddings: np.ndarray,
                  to_probs: Callable[[np.ndarray], np.ndarray], threshold: float) -> pd.DataFrame:
    """Returns the table of `rank_lesions`, led by what an ensemble says of each lesion alone.

    Args:
        names, logits, embeddings: see `rank_lesions`.
        to_probs: what makes probabilities of logits of any shape, never falling.
        threshold: mean logit at or above which a lesion is called suspicious.

    Returns:
        Columns probability (of the mean logit), lowest, highest (of the single models), is_suspicious, then those of
        `rank_lesions`.

    Raises:
        ValueError: see `rank_lesions`.
    """
    ranked = rank_lesions(names, logits, embeddings)
    by_name = pd.DataFrame(np.asarray(logits, dtype=np.float64), names).loc[ranked.index]
    said = pd.DataFrame({"probability": to_probs(ranked["logit"].to_numpy()),
                         "lowest": to_probs(by_name.min(axis=1).to_numpy()),
                         "highest": to_probs(by_name.max(axis=1).to_numpy()),
                         "is_suspicious": ranked["logit"] >= threshold}, ranked.index)
    return said.join(ranked)
