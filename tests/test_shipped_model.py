"""The model in Streamlit/model, as it is shipped."""

import json

import numpy as np
import pandas as pd
import pytest
import safetensors
from conftest import ROOT
from PIL import Image
from sklearn.metrics import roc_auc_score

from melanoma_utils.competition import METADATA_COLUMNS, encode_metadata, find_images, read_test, read_train
from melanoma_utils.drawing import draw_image
from melanoma_utils.files import read_json
from melanoma_utils.folds import create_folds
from melanoma_utils.inference import Samples, predict_logits, select_samples
from melanoma_utils.models import load_checkpoint
from melanoma_utils.predict import load_ensemble, predict_images
from melanoma_utils.store_building import build_store
from melanoma_utils.stress import stress_images
from melanoma_utils.synthetic import SyntheticConfig, make_latents

MODEL = ROOT / "Streamlit" / "model"
CHECKPOINTS = sorted(MODEL.glob("fold_*.safetensors"))


def test_it_is_small_and_in_half_precision():
    assert len(CHECKPOINTS) == len(read_json(MODEL / "metrics.json")["folds"])
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 25e6
    for path in CHECKPOINTS:
        with safetensors.safe_open(path, "pt") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            assert {kind for name, kind in kinds.items() if "num_batches" not in name} == {"F16"}
            assert file.get_slice("head.weight").get_shape()[0] == 1  # and not ImageNet's 1000


def test_it_tells_nothing_of_the_machine_that_trained_it_and_names_no_image():
    for path in set(MODEL.iterdir()) - set(CHECKPOINTS):
        assert not any(word in path.read_text() for word in ("/work", "/home", "/root", "/tmp", "ISIC_"))
    for path in CHECKPOINTS:
        with safetensors.safe_open(path, "pt") as file:
            assert "/" not in json.loads(file.metadata()["config"])["model"]["weights"]


def test_the_card_tells_figures_data_and_limits():
    card, metrics = (MODEL / "README.md").read_text(), read_json(MODEL / "metrics.json")
    assert f"ROC AUC {metrics['oof_auc']:.3f}" in card and f"{metrics['external_auc']:.3f}" in card
    assert all(words in card for words in ("Not a medical device", "must not", "CC BY-NC 4.0", "siim-isic-subset",
                                           "ham10000"))
    assert not metrics["is_synthetic"]


def test_it_answers(data_dir):
    images = find_images(data_dir, "test", read_test(data_dir)["image_name"][:3])
    predictions_df, bad = predict_images(load_ensemble(MODEL), images, tta_views=1, n_jobs=1)
    assert not bad and predictions_df["probability"].between(0, 1).all()
    assert (predictions_df["lowest"] < predictions_df["highest"]).all()


@pytest.mark.parametrize("reach", [12, 29, 40])  # 29: a circle that touches the edges
def test_a_dark_round_frame_hardly_moves_the_number(reach):
    latents = make_latents(SyntheticConfig(n_train_patients=8, seed=31)).to_dict("records")[:24]
    pictures = np.stack([np.asarray(Image.fromarray(draw_image(latent, 224)[0]).resize((224, 224)))
                         for latent in latents])
    models = [load_checkpoint(path)[0] for path in CHECKPOINTS]
    logits = [[predict_logits(model, Samples(images, np.arange(24), encode_metadata(unknown_df(24))), tta_views=1)
               for model in models] for images in (pictures, stress_images(pictures, "frame", reach))]
    assert abs(np.mean(logits[1]) - np.mean(logits[0])) < 0.7  # 1.0 to 2.4 in networks trained without ARTEFACTS


def unknown_df(n):
    return pd.DataFrame(np.nan, range(n), list(METADATA_COLUMNS))


@pytest.mark.real
@pytest.mark.slow
def test_each_model_ranks_the_fold_that_it_has_not_seen_as_in_training(real_dir, tmp_path):
    """Trained and shipped weights differ in precision only, and the folds can be made again from the tables."""
    subset, metrics = real_dir / "siim-isic-subset", read_json(MODEL / "metrics.json")
    parameters = read_json(MODEL / "parameters.json")
    df = create_folds(read_train(subset), parameters["N_FOLDS"], seed=parameters["FOLD_SEED"])
    store = build_store(find_images(subset, "train", df["image_name"]), tmp_path, parameters["IMAGE_SIZE"])
    df["logit"] = np.nan
    for fold in metrics["folds"]:
        model, _ = load_checkpoint(MODEL / f"fold_{fold}.safetensors")
        rows = df["fold"] == fold
        df.loc[rows, "logit"] = predict_logits(model, select_samples(store, df[rows], model.config.use_metadata),
                                               tta_views=parameters["TTA_VIEWS"])
    single_auc = 0.8967  # as in the out-of-fold tables of their trainings; metrics tell all trainings' mean
    assert roc_auc_score(df["target"], df["logit"]) == pytest.approx(single_auc, abs=0.001)
