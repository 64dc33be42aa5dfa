import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import place, run_pipeline

from melanoma_utils.committee import gather_committee, main
from melanoma_utils.experiment import (
    checkpoint_path,
    describe_training,
    find_evaluated_folds,
    find_trained_folds,
    save_fold,
)
from melanoma_utils.export import export_model
from melanoma_utils.files import read_json, write_json
from melanoma_utils.fold_predictions import match_oof, read_fold_predictions
from melanoma_utils.folds import write_folds
from melanoma_utils.models import ModelConfig, build_model, load_checkpoint
from melanoma_utils.predict import load_ensemble
from melanoma_utils.robustness import predict_variants
from melanoma_utils.train_config import TrainConfig

CONFIG = TrainConfig(model=ModelConfig("timm/test_resnet", image_size=32), n_epochs=1)


def make_member(folder, store, folds_df, config=CONFIG, folds=range(3)):
    """Makes an experiment of three folds with untrained networks, random logits and the rows of each file shuffled."""
    folder.mkdir()
    write_folds(folder / "folds.csv", folds_df)
    write_json(folder / "parameters.json", {"EXPERIMENT": folder.name, "IMAGE_SIZE": 32, "LR": config.lr})
    rng = np.random.default_rng(len(folder.name))
    for fold in folds:
        oof_df = folds_df[folds_df["fold"] == fold].sample(frac=1, random_state=0)
        oof_df = oof_df[["image_name", "patient_id", "target", "fold"]]
        description = describe_training(config, fold, folder / "folds.csv", store, 1)
        save_fold(folder, description, build_model(config.model), pd.DataFrame({"epoch": [1]}),
                  oof_df.assign(logit=rng.normal(size=len(oof_df)).astype(np.float32)), oof_df[:0])
    return folder


@pytest.fixture
def members(store, folds_df, tmp_path):
    """Two trainings: by another recipe each, on the same folds."""
    return [make_member(tmp_path / "one", store, folds_df),
            make_member(tmp_path / "another", store, folds_df, replace(CONFIG, lr=0.5, n_external=7))]


def read_logits(folder):
    return read_fold_predictions(folder, [0, 1, 2]).set_index("image_name")["logit"].sort_index()


def test_each_fold_has_its_member_s_network_and_the_mean_of_all_members_logits(members, tmp_path):
    one, another = members
    gather_committee(tmp_path / "all", [one, another, one])
    assert find_trained_folds(tmp_path / "all", require_all=True) == [0, 1, 2]
    for fold, member in enumerate((one, another, one)):
        (model, config), (wanted, _) = (load_checkpoint(checkpoint_path(d, fold)) for d in (tmp_path / "all", member))
        assert config["committee"] == ["one", "another", "one"] and config["fold"] == fold
        assert all(wanted.state_dict()[name].equal(value) for name, value in model.state_dict().items())
    wanted = (2 * read_logits(one) + read_logits(another)) / 3
    pd.testing.assert_series_equal(read_logits(tmp_path / "all"), wanted, check_exact=False)
    assert read_json(tmp_path / "all" / "parameters.json") == {
        "COMMITTEE": ["one", "another", "one"], "EXPERIMENT": "all", "IMAGE_SIZE": 32}  # the LR is not one for all


def test_a_committee_writes_over_nothing(members, tmp_path, capsys):
    one, another = members
    assert main([str(tmp_path / "all"), *map(str, [another, another, one])]) == 0
    assert "a network a fold of another, another, one; next: " in capsys.readouterr().out
    for folder in (one, tmp_path / "all", tmp_path):
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        with pytest.raises(ValueError, match="holds something already: give another folder"):
            gather_committee(folder, [one, another, one])
        assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_committee_that_lacks_a_fold_is_never_evaluated(members, tmp_path):
    gather_committee(tmp_path / "all", [*members, members[0]])
    checkpoint_path(tmp_path / "all", 2).unlink()
    with pytest.raises(FileNotFoundError, match="a committee that lacks the network of fold 2: delete it"):
        find_trained_folds(tmp_path / "all", require_all=False)


def test_a_damaged_member_leaves_nothing_behind(members, tmp_path):
    path = checkpoint_path(members[1], 1)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="damaged"):
        gather_committee(tmp_path / "all", [*members, members[0]])
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(("named", "message"), [
    (["one", "another"], "2 members named 2 times, wanted 3"),
    (["one", "one", "one"], "1 members named 3 times"),
    (["one", "larger", "one"], "larger and one differ in image_size"),
    (["one", "elsewhere", "one"], r"elsewhere and one differ in folds\.csv: "),
    (["one", "unfinished", "one"], r"unfinished 2 of 3 folds are trained, fold 2 not"),
    (["one", "twin/one", "one"], "two members have the same name"),
    (["one", "nobody", "one"], r"nobody is no trained experiment: it holds no folds\.csv"),
])
def test_members_that_do_not_go_together_are_refused_before_anything_is_written(members, store, folds_df, tmp_path,
                                                                                 named, message, capsys):
    larger = replace(CONFIG, model=replace(CONFIG.model, image_size=64))
    make_member(tmp_path / "larger", store, folds_df, larger)
    make_member(tmp_path / "elsewhere", store, folds_df.assign(fold=(folds_df["fold"] + 1) % 3))
    (tmp_path / "twin").mkdir()
    make_member(tmp_path / "twin" / "one", store, folds_df)
    make_member(tmp_path / "unfinished", store, folds_df, folds=range(2))
    assert main([str(tmp_path / "all"), *(str(tmp_path / name) for name in named)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(message, error) and not (tmp_path / "all").exists()


def test_a_committee_of_committees_and_a_stress_test_of_one_are_refused(members, store, folds_df, tmp_path):
    one, another = members
    gather_committee(tmp_path / "all", [one, another, one])
    with pytest.raises(ValueError, match="all is a committee itself: name its members"):
        gather_committee(tmp_path / "more", [one, tmp_path / "all", one])
    with pytest.raises(ValueError, match="ask about one of its members, one, another"):
        predict_variants(tmp_path / "all", store, folds_df, {0: store.images})


def test_a_second_stage_reads_the_mean_in_a_committee_and_the_single_logits_elsewhere(members, tmp_path):
    gather_committee(tmp_path / "all", [*members, members[0]])
    tables = [pd.DataFrame({"image_name": ["a", "b"], "logit": [1.0, 2.0]}),
              pd.DataFrame({"image_name": ["b", "a"], "logit": [4.0, -3.0]}),
              pd.DataFrame({"image_name": ["a", "b"], "logit": [5.0, 3.0]})]
    assert all(df is table for df, table in zip(match_oof(members[0], [0, 1, 2], tables), tables, strict=True))
    means = [df.set_index("image_name")["logit"].to_dict() for df in match_oof(tmp_path / "all", [0, 1, 2], tables)]
    assert means == [{"a": 1.0, "b": 3.0}] * 3


def test_two_trainings_are_evaluated_and_exported_as_one(finished, data_dir, tmp_path):
    output_dir = tmp_path / "output"
    for name in ("tiny", "tiny_2"):
        shutil.copytree(finished[0] / "output" / "tiny", output_dir / name)
    shutil.copytree(finished[0] / "output" / "stores", output_dir / "stores")
    gather_committee(output_dir / "both", [output_dir / "tiny", output_dir / "tiny_2"])
    paths = place(tmp_path, data_dir)[:-3]  # 04 knows no SUBMISSIONS_DIR
    run_pipeline("--notebook", "04_evaluate_oof", *paths, "-p", "EXPERIMENT", "both",
                 "-p", "IMAGE_SIZE", 32, "-p", "N_RESAMPLES", 100, parameters=None)
    assert find_evaluated_folds(output_dir / "both") == [0, 1]
    metrics = [read_json(output_dir / name / "metrics.json") for name in ("tiny", "both")]
    assert metrics[0]["oof_auc"] == pytest.approx(metrics[1]["oof_auc"])  # the same training twice
    card = (output_dir / "both" / "model_card.md").read_text()
    assert "- `tiny` (the network without fold 0), from " in card
    assert "- `tiny_2` (the network without fold 1), from " in card
    assert "**More networks than these were measured.**" in card and "**Single networks" not in card
    said = run_pipeline(*place(tmp_path, data_dir), "-p", "EXPERIMENT", "both", "--fresh", check=False)
    assert "error: the experiment 'both' is a committee of ['tiny', 'tiny_2'], which no training may" in said.stderr
    export_model(output_dir / "both", tmp_path / "model")
    assert len(load_ensemble(tmp_path / "model").models) == 2
