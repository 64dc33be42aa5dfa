from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from melanoma_utils import experiment, fold_predictions
from melanoma_utils.competition import read_test
from melanoma_utils.experiment import checkpoint_path, describe_training, find_trained_folds, is_trained, save_fold
from melanoma_utils.fold_predictions import predict_test_fold, read_fold_predictions, read_oof
from melanoma_utils.folds import write_folds
from melanoma_utils.models import ModelConfig, build_model, save_checkpoint
from melanoma_utils.train_config import TrainConfig

CONFIG = TrainConfig(model=ModelConfig("timm/test_resnet", image_size=32), n_epochs=1)


@pytest.fixture
def folder(store, folds_df, tmp_path):
    """An experiment with two of three folds finished; its models are untrained."""
    write_folds(tmp_path / "folds.csv", folds_df)
    for fold in (0, 2):
        oof_df = folds_df[folds_df["fold"] == fold][["image_name", "patient_id", "target", "fold"]]
        description = describe_training(CONFIG, fold, tmp_path / "folds.csv", store, 1)
        save_fold(tmp_path, description, build_model(CONFIG.model), pd.DataFrame({"epoch": [1]}),
                  oof_df.assign(logit=np.arange(len(oof_df), dtype=np.float32)), oof_df[:0])
    return tmp_path


def test_a_finished_fold_is_known_and_another_one_is_not(folder, store):
    assert is_trained(folder, describe_training(CONFIG, 0, folder / "folds.csv", store, 1))
    assert not is_trained(folder, describe_training(CONFIG, 1, folder / "folds.csv", store, 1))


@pytest.mark.parametrize(("change", "named"), [
    ({"lr": 0.5}, r"train\.lr is 0\.001, wanted 0\.5"),
    ({"model": replace(CONFIG.model, dropout=0.5)}, r"model\.dropout is 0\.2, wanted 0\.5"),
])
def test_a_fold_trained_otherwise_is_refused_with_the_difference(folder, store, change, named):
    with pytest.raises(ValueError, match=f"fold_0.safetensors was trained otherwise .{named}"):
        is_trained(folder, describe_training(replace(CONFIG, **change), 0, folder / "folds.csv", store, 1))


def test_a_fold_of_a_version_that_knew_fewer_parameters_stays_valid(folder, store, monkeypatch):
    read = experiment.read_checkpoint_config

    def read_older(path):
        config = read(path)
        del config["train"]["n_external"], config["model"]["clean_steps"], config["train"]["augment"]["flip"]
        return config

    monkeypatch.setattr(experiment, "read_checkpoint_config", read_older)
    assert is_trained(folder, describe_training(CONFIG, 0, folder / "folds.csv", store, 1))
    with pytest.raises(ValueError, match=r"train\.n_external is 0, wanted 8"):
        is_trained(folder, describe_training(replace(CONFIG, n_external=8), 0, folder / "folds.csv", store, 1))


def test_a_fold_trained_on_other_folds_is_refused(folder, store, folds_df):
    folds_df.assign(fold=0).to_csv(folder / "folds.csv", index=False)
    with pytest.raises(ValueError, match="folds_sha256"):
        is_trained(folder, describe_training(CONFIG, 0, folder / "folds.csv", store, 1))


def test_somebody_s_own_scores_in_the_table_are_not_ours(folder, folds_df):
    oof_df = read_oof(folder, folds_df.assign(logit=99.0), [0, 2])
    assert oof_df["logit"].max() < 99 and "logit_x" not in oof_df


def test_missing_folds_are_named(folder):
    assert find_trained_folds(folder, require_all=False) == [0, 2]
    with pytest.raises(FileNotFoundError, match="2 of 3 folds are trained, fold 1 not"):
        find_trained_folds(folder, require_all=True)
    for fold in (0, 2):
        checkpoint_path(folder, fold).unlink()
    with pytest.raises(FileNotFoundError, match="0 of 3 folds are trained"):
        find_trained_folds(folder, require_all=False)


def test_models_of_other_folds_than_the_table_says_are_refused(folder, folds_df):
    folds_df.assign(fold=(folds_df["fold"] + 1) % 3).to_csv(folder / "folds.csv", index=False)
    with pytest.raises(ValueError, match=r"fold 0 in .* was trained on other folds"):
        find_trained_folds(folder, require_all=False)


def test_folds_trained_by_two_recipes_are_no_one_experiment(folder, store):
    description = describe_training(replace(CONFIG, lr=0.5), 2, folder / "folds.csv", store, 1)
    save_checkpoint(checkpoint_path(folder, 2), build_model(CONFIG.model),
                    {k: v for k, v in description.items() if k != "model"})
    with pytest.raises(ValueError, match=r"fold 2 in .* was not trained as fold 0, .*\(train.lr is 0.5, wanted "):
        find_trained_folds(folder, require_all=False)


@pytest.mark.parametrize("name", ["oof_fold_0.csv", "history_fold_0.csv", "fold_0.safetensors"])
def test_a_fold_that_lost_a_file_is_not_finished(folder, store, name):
    (folder / name).unlink()
    assert not is_trained(folder, describe_training(CONFIG, 0, folder / "folds.csv", store, 1))


def test_other_weights_under_the_same_name_are_noticed(folder, store, tmp_path):
    path, descriptions = tmp_path / "model.safetensors", []
    for content in (b"first", b"other"):
        path.write_bytes(content)
        config = replace(CONFIG, model=replace(CONFIG.model, weights=str(path)))
        descriptions.append(describe_training(config, 0, folder / "folds.csv", store, 1))
    assert descriptions[0] != descriptions[1] and descriptions[0]["model"]["weights"] == "model.safetensors"


def test_oof_is_joined_by_name_not_by_row(folder, folds_df):
    path = folder / "oof_fold_0.csv"
    oof_df = pd.read_csv(path)
    oof_df.sample(frac=1, random_state=0).to_csv(path, index=False)
    joined = read_oof(folder, folds_df, [0, 2]).set_index("image_name")["logit"]
    assert joined[oof_df["image_name"]].tolist() == oof_df["logit"].tolist()


@pytest.mark.parametrize(("change", "message"), [
    (lambda df: df.iloc[1:], r"do not match folds\.csv for 1 images"),
    (lambda df: df.assign(fold=1), r"do not match folds\.csv"),
    (lambda df: df.assign(image_name=["x", *df["image_name"][1:]]), r"do not match folds\.csv for 2 images"),
    (lambda df: pd.concat([df, df.iloc[:1]]), r"oof_fold_0\.csv: 1 images are predicted twice, first SYN_"),
    (lambda df: df.assign(logit=[np.inf, *df["logit"][1:]]), r"oof_fold_0\.csv: 1 logits are not finite, first SYN_"),
    (lambda df: df.drop(columns="logit"), r"oof_fold_0\.csv: column 'logit' is missing"),
])
def test_predictions_that_do_not_match_the_folds_are_refused(folder, folds_df, change, message):
    path = folder / "oof_fold_0.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(ValueError, match=message):
        read_oof(folder, folds_df, [0, 2])


def test_an_image_that_two_folds_predict_is_refused(folder):
    df, other_df = (pd.read_csv(folder / f"oof_fold_{fold}.csv") for fold in (0, 2))
    pd.concat([df, other_df.iloc[:3]]).to_csv(folder / "oof_fold_0.csv", index=False)
    with pytest.raises(ValueError, match="3 images are predicted twice, first SYN_"):
        read_fold_predictions(folder, [0, 2])


def test_test_predictions_are_kept_and_follow_the_checkpoint(folder, test_store, data_dir, monkeypatch):
    test_df = read_test(data_dir)
    first = predict_test_fold(folder, 0, test_store, test_df, tta_views=1)
    predict, calls = fold_predictions.predict_logits, []

    def count(*arguments, **options):
        calls.append(1)
        return predict(*arguments, **options)

    monkeypatch.setattr(fold_predictions, "predict_logits", count)
    again = predict_test_fold(folder, 0, test_store, test_df, tta_views=1)
    assert not calls and again.equals(first)
    checkpoint_path(folder, 0).write_bytes(checkpoint_path(folder, 2).read_bytes())
    other = predict_test_fold(folder, 0, test_store, test_df, tta_views=1)
    predict_test_fold(folder, 0, test_store, test_df.assign(sex="male"), tta_views=1)  # a corrected table
    assert len(calls) == 2 and other["logit"].tolist() != first["logit"].tolist()
