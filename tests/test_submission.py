import numpy as np
import pandas as pd
import pytest

from melanoma_utils.submission import average_logits, check_submission, write_submission


@pytest.fixture
def sample_df():
    return pd.DataFrame({"image_name": ["c", "a", "b"], "target": 0})


@pytest.fixture
def submission_df():
    return pd.DataFrame({"image_name": ["a", "b", "c"], "target": [0.1, 0.2, 0.3]})


def test_rows_take_the_order_of_the_sample(sample_df, submission_df, tmp_path):
    write_submission(tmp_path / "s.csv", submission_df, sample_df)
    assert (tmp_path / "s.csv").read_text() == "image_name,target\nc,0.3\na,0.1\nb,0.2\n"


@pytest.mark.parametrize(("change", "message"), [
    (lambda df: df.iloc[:2], "1 of 3 images have no prediction, first 'c'"),
    (lambda df: pd.concat([df, df.iloc[:1]]), "1 images are predicted twice, first 'a'"),
    (lambda df: pd.concat([df, pd.DataFrame({"image_name": ["d"], "target": [0.5]})]), "not in sample_submission"),
    (lambda df: df.assign(target=[0.1, np.nan, 0.3]), "1 predictions are not finite numbers, first 'b'"),
    (lambda df: df.assign(target=[0.1, np.inf, 0.3]), "not finite"),
    (lambda df: df.assign(target=["0.1", "x", "0.3"]), "not finite"),
    (lambda df: df.assign(target=[-0.1, 0.2, 1.3]), r"2 predictions are outside 0\.\.1"),
    (lambda df: df.assign(target=0.5), "all 3 predictions are 0.5"),
    (lambda df: df.rename(columns={"target": "prob"}), "lacks the column 'target'"),
])
def test_a_wrong_submission_is_refused_and_not_written(sample_df, submission_df, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_submission(tmp_path / "s.csv", change(submission_df), sample_df)
    assert not (tmp_path / "s.csv").exists()


def test_logits_are_averaged_by_name():
    first = pd.DataFrame({"image_name": ["a", "b"], "logit": [0.0, 2.0]})
    second = pd.DataFrame({"image_name": ["b", "a"], "logit": [0.0, 0.0]})
    df = average_logits([first, second]).set_index("image_name")["target"]
    assert df["a"] == 0.5 and df["b"] == pytest.approx(1 / (1 + np.exp(-1)))


def test_folds_that_predict_other_images_are_refused():
    first = pd.DataFrame({"image_name": ["a", "b"], "logit": [0.0, 2.0]})
    for other in (first.head(1), first.assign(image_name=["a", "c"])):
        with pytest.raises(ValueError, match="the folds predict other images"):
            average_logits([first, other])
    with pytest.raises(ValueError, match="there are no predictions"):
        average_logits([])


@pytest.mark.real
def test_a_submission_of_full_size(real_dir):
    sample_df = pd.read_csv(real_dir / "metadata" / "sample_submission.csv")
    shuffled = sample_df.sample(frac=1, random_state=0).assign(target=np.linspace(0, 1, len(sample_df)))
    assert check_submission(shuffled, sample_df)["image_name"].tolist() == sample_df["image_name"].tolist()
