import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import place, run_pipeline
from sklearn.metrics import roc_auc_score

from melanoma_utils.blending import blend_oof, blend_scores, blend_test, check_blend
from melanoma_utils.files import read_json, write_json


def test_the_mean_and_the_rank_mean():
    scores = np.array([[0.0, 100.0], [1.0, 300.0], [2.0, 200.0]])
    assert blend_scores(scores).tolist() == [50, 150.5, 101]
    ranked = blend_scores(scores, "rank")
    assert ranked[0] < ranked[1] == ranked[2] and np.isfinite(ranked).all()
    np.testing.assert_allclose(ranked, blend_scores(np.exp(scores / 100), "rank"))  # only the order counts
    with pytest.raises(ValueError, match="METHOD 'median' is not one of"):
        blend_scores(scores, "median")
    with pytest.raises(ValueError, match="1 of 6 scores are not finite"):
        blend_scores(np.where(scores == 2, np.nan, scores))


@pytest.fixture
def output_dir(finished, tmp_path):
    """Two experiments on the same folds, the second with its scores shuffled a little and its rows reversed."""
    for name in ("first", "second"):
        shutil.copytree(finished[0] / "output" / "tiny", tmp_path / "output" / name)
    rng = np.random.default_rng(0)
    for path in (tmp_path / "output" / "second").glob("*_fold_?.csv"):
        df = pd.read_csv(path)
        if "logit" in df:
            df.assign(logit=df["logit"] + rng.normal(0, 0.5, len(df))).iloc[::-1].to_csv(path, index=False)
    return tmp_path / "output"


def test_scores_are_joined_by_name(output_dir):
    tables = {names: blend_oof(output_dir, names).set_index("image_name")["logit"]
              for names in (("first",), ("second",), ("first", "second"))}
    wanted = (tables["first",] + tables["second",]) / 2
    pd.testing.assert_series_equal(tables["first", "second"], wanted.loc[tables["first", "second"].index])
    test = [blend_test(output_dir, names).set_index("image_name")["logit"] for names in (["first"], ["second"],
                                                                                         ["first", "second"])]
    pd.testing.assert_series_equal(test[2], (test[0] + test[1]) / 2)


def test_experiments_on_other_images_are_not_blended(output_dir):
    path = output_dir / "second" / "oof_fold_0.csv"
    df = pd.read_csv(path)
    pd.concat([df, df.iloc[:2]]).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"second/oof_fold_0\.csv: 2 images are predicted twice, first SYN_"):
        blend_oof(output_dir, ["first", "second"])
    df.assign(image_name="x" + df["image_name"]).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"second and first differ in \d+ images or targets"):
        blend_oof(output_dir, ["first", "second"])
    (output_dir / "second" / "test_fold_1.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_fold_1\.csv does not exist: run 05_predict_test"):
        blend_test(output_dir, ["first", "second"])


def test_the_notebook_blends_and_submits(output_dir, data_dir, tmp_path):
    flags = ["--notebook", "12_blend_experiments", *place(tmp_path, data_dir), "-p", "EXPERIMENTS"]
    process = run_pipeline(*flags, "['first', 'second']", parameters=None)
    metrics = read_json(output_dir / "blend" / "metrics.json")
    oof_df = pd.read_csv(output_dir / "blend" / "oof.csv")
    assert metrics["oof_auc"] == pytest.approx(roc_auc_score(oof_df["target"], oof_df["logit"]))
    assert "blend above first: " in process.stdout and process.stderr == ""
    submission_df = pd.read_csv(tmp_path / "submissions" / "blend.csv")
    assert len(submission_df) == 24 and submission_df["target"].between(0, 1).all()
    process = run_pipeline(*flags, "['first']", parameters=None, check=False)
    assert process.returncode == 1 and "are not two or more" in process.stderr
    with pytest.raises(ValueError, match="'first' is another one's folder"):
        check_blend(output_dir, "first", ["second", "third"])
    write_json(output_dir / "table" / "metrics.json", {"ablation": []})
    with pytest.raises(ValueError, match="'table' is another one's folder"):
        check_blend(output_dir, "table", ["first", "second"])
    with pytest.raises(FileNotFoundError, match=r"there is no experiment 'thrid' in .*; there are: first, second"):
        check_blend(output_dir, "blend", ["first", "thrid"])
