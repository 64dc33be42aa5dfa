import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from melanoma_utils.experiment import checkpoint_path, describe_training
from melanoma_utils.files import read_json, write_csv, write_json
from melanoma_utils.folds import create_folds, write_folds
from melanoma_utils.model_card import build_card, tell_half_precision, write_card
from melanoma_utils.models import ModelConfig, build_model, save_checkpoint
from melanoma_utils.near_duplicates import PAIR_COLUMNS
from melanoma_utils.operating_points import compute_operating_points
from melanoma_utils.subgroups import compute_subgroups
from melanoma_utils.train_config import TrainConfig
from melanoma_utils.transforms import AugmentConfig

CONFIG = TrainConfig(model=ModelConfig("timm/test_resnet", image_size=32), n_epochs=1, lr=0.0125)


def tell_areas(**values):
    """Returns what metrics.json holds of areas: value, low and high of each."""
    return {f"{name}{end}": value + more for name, value in values.items()
            for end, more in (("", 0), ("_low", -0.05), ("_high", 0.05))}


@pytest.fixture
def folder(store, folds_df, tmp_path):
    """An evaluated experiment of three folds on the drawn competition, its networks untrained, its figures made up."""
    write_folds(tmp_path / "folds.csv", folds_df)
    for fold in range(3):
        description = describe_training(CONFIG, fold, tmp_path / "folds.csv", store, 2)
        save_checkpoint(checkpoint_path(tmp_path, fold), build_model(CONFIG.model),
                        {k: v for k, v in description.items() if k != "model"})
    oof_df = folds_df.assign(logit=np.linspace(-1, 1, len(folds_df)))
    points_df = compute_operating_points(oof_df["target"], oof_df["logit"], oof_df["patient_id"], 0.0176,
                                         n_resamples=40)
    subgroups_df = compute_subgroups(oof_df.assign(tone="dark"), {"sex": "sex", "tone": "skin tone (ITA, a proxy)"},
                                     0.0, n_resamples=40)
    write_csv(tmp_path / "subgroups.csv", subgroups_df)
    write_csv(tmp_path / "context.csv", pd.DataFrame().reset_index())  # as 04 leaves it without a second stage
    row = {"brier": 0.2, "brier_skill": 0.1, "ece": 0.1, "mean_prob": 0.3}
    write_json(tmp_path / "metrics.json", {
        **tell_areas(oof_auc=0.8125, pr_auc=0.6, pr_auc_at_prevalence=0.1, partial_auc=0.1),
        "fold_auc": [0.75, 0.8, 0.85], "fold_auc_mean": 0.8, "fold_auc_sd": 0.05, "folds": [0, 1, 2], "n_folds": 3,
        "n_images": len(oof_df), "n_melanomas": int(oof_df["target"].sum()), "n_patients": 24, "is_synthetic": True,
        "source": "synthetic competition", "prevalence": 0.0176, "subgroup_threshold": 0.0,
        "operating_points": json.loads(points_df.to_json(orient="records")),
        "calibration": {"method": "platt", "why_not": "", "among_images": {"before": row, "platt": row},
                        "at_prevalence": {"before": row, "platt": row}}})
    write_json(tmp_path / "parameters.json", {"N_EPOCHS": 1, "N_RESAMPLES": 2000, "EXPERIMENT": tmp_path.name})
    return tmp_path


def change_metrics(folder, **values):
    write_json(folder / "metrics.json", read_json(folder / "metrics.json") | values)


def test_it_holds_the_run_s_figures_parameters_and_data(folder, data_dir):
    card = write_card(folder, [data_dir / "train.csv"])
    assert (folder / "model_card.md").read_text(encoding="utf-8") == card and not set("{}") & set(card)
    assert "ROC AUC 0.812" in card and "0.762–0.863" in card and "0.800 ± 0.050" in card and "24 patients" in card
    assert "`N_EPOCHS` 1" in card and "2,000 resamples of whole patients" in card and "torch 2." in card
    for path in (data_dir / "train.csv", folder / "folds.csv"):
        assert f"| `{path.name}` | {hashlib.sha256(path.read_bytes()).hexdigest()} |" in card
    assert "No patient is in two folds." in card and "| platt | 0.2000 |" in card and "too few" in card
    assert "Not measured: that wants two trained folds" in card


def test_synthetic_data_are_called_so_loudly_and_real_ones_have_other_words(folder):
    drawn = build_card(folder)
    assert "DRAWN PICTURES, NOT SKIN" in drawn.splitlines()[0]
    assert drawn.index("HAS SEEN DRAWN PICTURES ONLY") < drawn.index("Not a medical device")
    assert "figures here are about DRAWN" in drawn.partition("## Quantitative analyses")[2] and "0.77" not in drawn
    change_metrics(folder, is_synthetic=False, source="siim-isic-subset")
    real = build_card(folder)
    assert "DRAWN" not in real and "drawn" not in real and "siim-isic-subset: " in real
    for card in (drawn, real):
        assert all(words in card for words in ("Not a medical device", "must not decide", "Low is not benign",
                                               "CC BY-NC 4.0", "chosen on folds like these", "basal cell carcinoma"))
    assert "frames give their origin away" in real and "AUC of 0.77" in real


def test_what_the_data_hardly_hold_is_counted(folder, folds_df):
    rows_df = folds_df.assign(anatom_site_general_challenge="torso", diagnosis="nevus", target=0)
    rows_df.loc[:3, "anatom_site_general_challenge"] = "palms/soles"
    rows_df.loc[:1, "target"] = 1
    rows_df.loc[4, "anatom_site_general_challenge"] = "oral/genital"
    rows_df.loc[5:7, "diagnosis"] = ["basal cell carcinoma", "actinic keratosis", "basal cell carcinoma"]
    rows_df.loc[rows_df.groupby("fold").tail(1).index, "target"] = 1
    rows_df.to_csv(folder / "folds.csv", index=False)
    card = build_card(folder)
    assert "palms and soles, 4 images, 2 of them melanomas" in card
    assert "genital sites, 1 image, 0 of them melanomas" in card
    assert f"moves as well, {len(folds_df)} images" in card and "amelanotic" in card and "nails" in card
    assert "marked as one of these: 3 images." in card and "| basal cell carcinoma | 2 |" in card
    rows_df[["image_name", "patient_id", "target", "fold"]].to_csv(folder / "folds.csv", index=False)
    assert "palms and soles, nobody knows" in build_card(folder)


def test_it_tells_what_is_put_over_the_training_pictures_and_who_teaches(folder, store):
    config = replace(CONFIG, distill_from=("first", "second"), distill_share=0.6,
                     augment=AugmentConfig(artefacts=0.5, sharpness=0.25))
    description = describe_training(config, 0, folder / "folds.csv", store, 2)
    save_checkpoint(checkpoint_path(folder, 0), build_model(CONFIG.model),
                    {k: v for k, v in description.items() if k != "model"})
    training = " ".join(build_card(folder).partition("## Training data")[2].split())
    assert "on 50% of the pictures, melanomas or not, a dark frame, bars, a ruler or a pen mark is added" in training
    assert "25% are made sharper or coarser; 60% of each target is what the networks of first, second" in training


def test_it_tells_which_fold_more_picks_the_epoch(folder, store):
    assert "picked the epoch" not in build_card(folder)
    for steered in ({"early_stopping_patience": 2}, {"scheduler": "plateau"}):
        description = describe_training(replace(CONFIG, **steered), 0, folder / "folds.csv", store, 2)
        save_checkpoint(checkpoint_path(folder, 0), build_model(CONFIG.model),
                        {k: v for k, v in description.items() if k != "model"})
        assert "without one more fold of the competition's images, whose AUC picked the epoch" in build_card(folder)


def test_the_parameters_of_the_evaluation_go_before_those_of_the_training(folder):
    card = build_card(folder, how={"N_RESAMPLES": 300, "PREVALENCE": 0.05})
    assert "300 resamples of whole patients" in card and "`PREVALENCE` 0.05" in card and "`N_RESAMPLES` 300" in card


def test_pictures_that_are_there_twice_are_counted(folder, folds_df):
    assert "Whether a picture is among them twice, nobody has searched." in build_card(folder)
    names = folds_df["image_name"].tolist()
    pairs_df = pd.DataFrame([(names[0], "train", names[1], "train", 0, "copy"),
                             (names[2], "train", names[3], "train", 18, "alike"),
                             (names[4], "train", "test_1", "test", 0, "copy"),
                             ("dropped", "train", names[5], "train", 2, "listed")], columns=PAIR_COLUMNS)
    write_csv(folder / "duplicate_pairs.csv", pairs_df)
    assert "1 pair of them show the same picture twice, as far as names and lists tell (" in build_card(folder)
    write_csv(folder / "duplicate_pairs.csv", pairs_df.iloc[1:])
    assert "No picture is among them twice" in build_card(folder)


def test_external_images_are_told_apart(folder, folds_df, store):
    external_df = folds_df.assign(source="external", image_name="x" + folds_df["image_name"])
    write_csv(folder / "folds.csv", pd.concat([folds_df, external_df]))
    identity = store.identity | {"external": store.identity | {"source": "ham10000/images"}}
    description = describe_training(CONFIG, 0, folder / "folds.csv", type(store)(store.images, store.rows, identity), 2)
    save_checkpoint(checkpoint_path(folder, 0), build_model(CONFIG.model), description)
    change_metrics(folder, n_external_images=len(external_df), **tell_areas(external_auc=0.7))
    card = build_card(folder)
    assert f"On {len(external_df)} external images, out of fold as well: 0.700 (0.650–0.750)." in card
    assert "(`ham10000/images`) of 24 lesions" in card and "| diagnosis | competition | external |" in card
    assert "No patient is in two folds." in card


def test_other_diagnoses_and_the_saliency_are_told_where_they_are_measured(folder):
    assert "Not melanoma is not benign" not in build_card(folder) and "Grad-CAM" not in build_card(folder)
    change_metrics(folder, saliency_outside=0.25, area_outside=0.75, diagnoses=[
        {"diagnosis": "actinic keratosis", "n": 3, "n_groups": 2, "share_suspicious": None, "share_low": None,
         "share_high": None, "median_logit": None, "note": "too few"}])
    card = build_card(folder)
    assert "### Not melanoma is not benign" in card and "| actinic keratosis | – | – | 3 | 2 | too few | – |" in card
    assert "25% of the saliency (Grad-CAM) lies outside it" in card


def test_what_the_other_images_add_is_told_and_whether_the_submission_uses_it(folder):
    names = ("auc", "low", "high", "gain", "gain_low", "gain_high", "added", "added_low", "added_high")
    write_csv(folder / "context.csv", pd.DataFrame([{"step": "+ context", **dict.fromkeys(names, 0.1),
                                                     "verdict": "better"}]))
    assert "| + context | 0.100 (0.100–0.100) |" in build_card(folder) and "networks' alone." in build_card(folder)
    change_metrics(folder, context={"wanted": "auto", "used": "lesion", "why": "it gains"})
    assert 'blends them with the second stage "lesion".' in build_card(folder)


def test_leaking_folds_and_missing_ones_are_not_passed_over(folder, folds_df):
    leaking_df = create_folds(folds_df.drop(columns=["fold", "source"]), 3, strategy="image")
    write_csv(folder / "folds.csv", leaking_df)
    assert "**LEAK: in the worst fold" in build_card(folder)
    checkpoint_path(folder, 2).unlink()
    change_metrics(folder, folds=[0], fold_auc=[0.75], fold_auc_sd=None)
    card = build_card(folder)
    assert "Only 1 of 3 folds are trained" in card and "Mean of the folds 0.800." in card


def test_an_experiment_run_by_hand_has_the_parameters_of_its_checkpoints(folder):
    (folder / "parameters.json").unlink()
    card = build_card(folder)
    assert "`LR` 0.0125" in card and "`ARCH` \"timm/test_resnet\"" in card and "`TTA_VIEWS` 2" in card
    assert "intervals over resamples of whole patients" in card


def test_the_card_of_rounded_weights_says_so_before_anything_else(folder):
    card = build_card(folder)
    rounded = tell_half_precision(card)
    assert rounded.splitlines()[0] == card.splitlines()[0] and rounded.splitlines()[2].startswith("**Half precision.**")
    assert rounded.endswith(card.partition("\n")[2])


def test_what_is_not_evaluated_has_no_card(folder):
    (folder / "context.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no context\.csv: run 04_evaluate_oof"):
        write_card(folder)
    (folder / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no metrics\.json"):
        build_card(folder)
    assert not (folder / "model_card.md").exists()
