import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import run_pipeline

from melanoma_utils.comparison import (
    compare_experiments,
    find_experiments,
    find_parameter_differences,
    summarize_experiments,
)
from melanoma_utils.files import read_json, write_json


@pytest.fixture
def output_dir(finished, tmp_path):
    """The finished experiment, a copy whose scores know the truth, and one of other images."""
    folder = tmp_path / "output"
    for name in ("tiny", "oracle", "elsewhere"):
        shutil.copytree(finished[0] / "output" / "tiny", folder / name)
    for fold in range(2):
        oracle_path, elsewhere_path = (folder / name / f"oof_fold_{fold}.csv" for name in ("oracle", "elsewhere"))
        df = pd.read_csv(oracle_path)
        oracle_df = df.assign(logit=df["target"] + df["logit"] / 1000).sample(frac=1, random_state=0)
        oracle_df.to_csv(oracle_path, index=False)
        df.assign(image_name="x" + df["image_name"]).to_csv(elsewhere_path, index=False)
    parameters = read_json(folder / "oracle" / "parameters.json")
    del parameters["N_EXTERNAL"]
    write_json(folder / "oracle" / "parameters.json", parameters | {"LR": 0.5})
    (folder / "unfinished").mkdir()
    return folder


def test_evaluated_experiments_are_found(output_dir):
    assert find_experiments(output_dir) == ["elsewhere", "oracle", "tiny"] and find_experiments(output_dir / "no") == []
    write_json(output_dir / "unfinished" / "metrics.json", {"oof_auc": 0.5, "blend_of": ["tiny", "oracle"]})
    shutil.copy(output_dir / "oracle" / "fold_0.safetensors", output_dir / "oracle" / "fold_1.safetensors")  # another
    (output_dir / "elsewhere" / "oof_fold_0.csv").unlink()  # being trained again
    assert find_experiments(output_dir) == ["tiny"]


def test_an_experiment_is_summed_up_from_its_files(output_dir):
    row = summarize_experiments(output_dir, ["tiny"]).loc["tiny"]
    metrics, timing = (read_json(output_dir / "tiny" / f"{name}.json") for name in ("metrics", "timing"))
    history_df = pd.concat([pd.read_csv(output_dir / "tiny" / f"history_fold_{fold}.csv") for fold in range(2)])
    seconds = timing["train_fold_0_seconds"] + timing["train_fold_1_seconds"]
    assert row["oof_auc"] == metrics["oof_auc"] and row["train_seconds"] == pytest.approx(seconds)
    assert row["images_per_second"] == pytest.approx(history_df["n_images"].sum() / seconds)
    assert pd.isna(row["external_auc"]) and row["n_folds"] == 2
    with pytest.raises(FileNotFoundError, match="unfinished is not evaluated as it is trained now: run 04"):
        summarize_experiments(output_dir, ["unfinished"])
    with pytest.raises(FileNotFoundError, match=r"no experiment 'nobody' in .*; there are: elsewhere, oracle, tiny"):
        compare_experiments(output_dir, ["oracle"], "nobody")


def test_only_differing_parameters_are_listed(output_dir):
    df = find_parameter_differences(output_dir, ["tiny", "oracle"])
    assert df.to_dict("index") == {"LR": {"tiny": "0.002", "oracle": "0.5"},
                                   "N_EXTERNAL": {"tiny": "0", "oracle": "–"}}
    assert find_parameter_differences(output_dir, ["tiny", "elsewhere"]).empty


def test_differences_are_paired_by_name_and_put_into_words(output_dir):
    df = compare_experiments(output_dir, ["tiny", "oracle", "elsewhere"], "tiny", n_resamples=200)
    assert df["verdict"].to_dict() == {"oracle": "better", "elsewhere": "nothing to compare"}
    assert df.loc["oracle", "difference"] == pytest.approx(
        1 - read_json(output_dir / "tiny" / "metrics.json")["oof_auc"])
    assert compare_experiments(output_dir, ["tiny"], "oracle", n_resamples=200).loc["tiny", "verdict"] == "worse"
    shutil.copytree(output_dir / "tiny", output_dir / "again")
    again = compare_experiments(output_dir, ["again"], "tiny", n_resamples=50).loc["again"]
    assert (again["difference"], again["delong_p"], again["verdict"]) == (0, 1, "below noise")
    assert df.loc["oracle", "delong_p"] < 0.05 and np.isnan(df.loc["elsewhere", "delong_p"])


def test_an_experiment_that_knows_patients_is_never_called_better(output_dir):
    path = output_dir / "oracle" / "folds.csv"
    folds_df = pd.read_csv(path)
    folds_df.assign(fold=np.arange(len(folds_df)) % 2).to_csv(path, index=False)
    assert compare_experiments(output_dir, ["oracle"], "tiny", n_resamples=50).loc["oracle", "verdict"] == "leaks"
    assert compare_experiments(output_dir, ["tiny"], "oracle", n_resamples=50).loc["tiny", "verdict"] == "leaks"
    leaks = summarize_experiments(output_dir, ["tiny", "oracle"])["patient_leak"]
    assert leaks["tiny"] == 0 and leaks["oracle"] > 0.5


def test_a_blend_is_no_experiment_to_compare(output_dir):
    write_json(output_dir / "unfinished" / "metrics.json", {"oof_auc": 0.5, "blend_of": ["tiny", "oracle"]})
    with pytest.raises(FileNotFoundError, match="unfinished holds no trained experiment but what 12_blend"):
        compare_experiments(output_dir, ["unfinished"], "tiny")


def test_targets_that_disagree_are_an_error(output_dir):
    path = output_dir / "oracle" / "oof_fold_0.csv"
    df = pd.read_csv(path)
    df.assign(target=1 - df["target"]).to_csv(path, index=False)
    with pytest.raises(ValueError, match="oracle and tiny disagree about the target of SYN_"):
        compare_experiments(output_dir, ["oracle"], "tiny")


def test_the_notebook_compares_all_experiments(output_dir, tmp_path):
    shutil.copy(output_dir / "tiny" / "folds.csv", output_dir / "unfinished")
    process = run_pipeline("--notebook", "11_compare_experiments", "-r", "OUTPUT_DIR", output_dir, "-r", "REFERENCE",
                           "tiny", "--runs-dir", tmp_path / "runs", parameters=None)
    df = pd.read_csv(output_dir / "comparison.csv", index_col="experiment")
    assert list(df.index) == ["elsewhere", "oracle", "tiny"] and df.loc["oracle", "verdict"] == "better"
    assert "oracle: better (against tiny): +" in process.stdout and process.stderr == ""
    assert "left out, not evaluated as they are trained now: unfinished (run 04" in process.stdout
    assert np.isfinite(df["oof_auc"]).all()
