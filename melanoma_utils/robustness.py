"""Out-of-fold scores of changed images: what a change costs an experiment."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from melanoma_utils.evaluation import compute_auc_difference, compute_auc_interval
from melanoma_utils.experiment import checkpoint_path
from melanoma_utils.image_store import ImageStore, JoinedImages, check_made_alike
from melanoma_utils.inference import fuse_batch_norm, predict_logits, select_samples
from melanoma_utils.models import load_checkpoint
from melanoma_utils.operating_points import find_threshold
from melanoma_utils.stress import STRESSES, StressedImages

Images = np.ndarray | JoinedImages | StressedImages


def sample_by_class(oof_df: pd.DataFrame, max_images: int, seed: int = 0) -> pd.DataFrame:
    """Returns at most max_images rows drawn at random, in their order: half of either class, where there are so many.

    An AUC, a sensitivity and a specificity do not depend on how many there are of a class; their intervals do.

    Args:
        oof_df: (N, …) table with the column target.
        max_images: how many at most, at least 2; 0 for all.
        seed: of the draw.

    Raises:
        ValueError: max_images is 1 or below 0.
    """
    if max_images < 0 or max_images == 1:
        raise ValueError(f"MAX_IMAGES {max_images} is too small: wanted 0 (all) or at least 2")
    if not max_images or len(oof_df) <= max_images:
        return oof_df.reset_index(drop=True)
    n_melanomas = int(oof_df["target"].sum())
    n_melanomas = min(n_melanomas, max(max_images // 2, max_images - (len(oof_df) - n_melanomas)))
    n_of = {1: n_melanomas, 0: max_images - n_melanomas}
    drawn = [df.sample(n_of[target], random_state=seed) for target, df in oof_df.groupby("target")]
    return pd.concat(drawn).sort_index().reset_index(drop=True)


def predict_variants(experiment_dir: str | Path, store: ImageStore, oof_df: pd.DataFrame,
                     variants: Mapping[float, Images], *, half_weights: bool = False,
                     device: str = "cpu") -> pd.DataFrame:
    """Returns the logit of each image in each variant, by the model that has not seen its patient, as 03 computes it.

    One model and one batch of images are held at a time.

    Args:
        experiment_dir: the experiment's folder.
        store: the training images.
        oof_df: (N, …) rows of folds.csv to predict, with their metadata.
        variants: name, such as a strength, -> images in the store's order.
        half_weights: round the weights to half precision, as `export` does.
        device: "cpu" or "cuda".

    Returns:
        Index image_name in the order of oof_df, a column a variant.

    Raises:
        ValueError: the images of the store were made in another way than those that the models were trained on, or
            the experiment is a committee.
        FileNotFoundError: a fold is not trained.
        KeyError: an image is not in the store.
    """
    logits_df = pd.DataFrame(index=pd.Index(oof_df["image_name"]), columns=list(variants), dtype=np.float32)
    for fold, df in oof_df.groupby("fold"):
        model, config = load_checkpoint(checkpoint_path(experiment_dir, fold))
        if "committee" in config:
            raise ValueError(f"{experiment_dir} is a committee: its out-of-fold logits are those of more networks than "
                             f"it holds; ask about one of its members, {', '.join(dict.fromkeys(config['committee']))}")
        check_made_alike(config["store"], store.identity)
        model = model.half().float() if half_weights else model
        samples = select_samples(store, df, model.config.use_metadata)
        forward = fuse_batch_norm(model).to(device, memory_format=torch.channels_last)
        for name, images in variants.items():
            logits_df.loc[df["image_name"], name] = predict_logits(
                model, replace(samples, images=images), tta_views=config["tta_views"], device=device,
                forward=forward)
    return logits_df


def summarize_stress(oof_df: pd.DataFrame, logits_df: pd.DataFrame, kind: str, sensitivity: float = 0.95, *,
                     n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Returns what a kind of stress does, a row a strength, beside the unchanged images (strength 0).

    Args:
        oof_df: (N, …) table with the columns image_name, patient_id, target.
        logits_df: of the same images, index image_name, a column a strength, 0 among them.
        kind: name of one of STRESSES.
        sensitivity: share of the melanomas that the threshold finds in the unchanged images.
        n_resamples, seed: of the bootstrap, see `evaluation.compute_auc_difference`.

    Returns:
        Ascending strength; columns kind, unit, strength, auc, auc_low, auc_high, difference (to the unchanged images'
        AUC, paired), difference_low, difference_high, verdict ("unchanged", "better", "worse", "below noise"),
        shift_melanoma, shift_benign (mean change of the logit), sensitivity, specificity (at the threshold of the
        unchanged images).

    Raises:
        ValueError: see `operating_points.find_threshold` and `evaluation.compute_auc_difference`.
        KeyError: an image, or strength 0, is not in logits_df.
    """
    targets, patients = oof_df["target"].to_numpy(), oof_df["patient_id"].to_numpy()
    logits_df, how = logits_df.loc[oof_df["image_name"]], {"n_resamples": n_resamples, "seed": seed}
    unchanged = logits_df[0].to_numpy()
    threshold, rows = find_threshold(targets, unchanged, sensitivity), []
    for strength in sorted(logits_df):
        logits = logits_df[strength].to_numpy()
        auc = compute_auc_interval(targets, logits, patients, **how)
        gain = compute_auc_difference(targets, logits, unchanged, patients, **how)
        verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "below noise"
        shift, is_above = logits - unchanged, logits >= threshold
        rows.append({
            "kind": kind, "unit": STRESSES[kind].unit, "strength": strength, "auc": auc.auc, "auc_low": auc.low,
            "auc_high": auc.high, "difference": gain.auc, "difference_low": gain.low, "difference_high": gain.high,
            "verdict": verdict if strength else "unchanged",
            "shift_melanoma": shift[targets == 1].mean(), "shift_benign": shift[targets == 0].mean(),
            "sensitivity": is_above[targets == 1].mean(), "specificity": 1 - is_above[targets == 0].mean()})
    return pd.DataFrame(rows)
