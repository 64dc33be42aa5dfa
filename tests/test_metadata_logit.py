"""What sex, age and site add, and what it means not to know them."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from melanoma_utils.competition import encode_metadata
from melanoma_utils.inference import Samples
from melanoma_utils.metadata_logit import fit_metadata
from melanoma_utils.models import ModelConfig, build_model


def draw_table(n=4000):
    """Returns people of whom the old have more melanomas; 1 % lack sex and age, and none of those has one."""
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"sex": rng.choice(["female", "male"], n), "age_approx": rng.integers(4, 18, n) * 5.0,
                       "anatom_site_general_challenge": rng.choice(["torso", "head/neck", None], n)})
    df["target"] = (rng.random(n) < expit(-5 + 0.06 * df["age_approx"] + (df["sex"] == "male"))).astype(int)
    lacking = df.index[df["target"] == 0][:n // 100]
    df.loc[lacking, ["sex", "age_approx"]] = [None, np.nan]
    return df


def fit(df, metadata_df=None):
    """Returns a function that gives the metadata's logits of a table."""
    model = build_model(ModelConfig("timm/test_resnet", image_size=32, use_metadata=True))
    samples = Samples(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(len(df), np.int64), encode_metadata(df),
                      df["target"].to_numpy(np.float32))
    fit_metadata(model, samples, metadata_df)
    weight, bias = model.metadata.weight.numpy()[0], model.metadata.bias.numpy()[0]
    return lambda table_df: encode_metadata(table_df) @ weight + bias


@pytest.mark.parametrize("columns", [["sex"], ["age_approx"], ["anatom_site_general_challenge"]])
def test_hiding_a_value_leaves_the_expected_number_of_melanomas(columns):
    df = draw_table()
    known_df = df[df[columns].notna().all(axis=1)]
    ask = fit(df)
    hidden_df = known_df.assign(**dict.fromkeys(columns, np.nan if columns == ["age_approx"] else None))
    assert expit(ask(hidden_df)).mean() == pytest.approx(expit(ask(known_df)).mean(), abs=1e-3)


def test_a_stranger_counts_as_the_average_and_not_as_those_who_lack_values():
    df = draw_table()
    stranger_df = df.iloc[:1].assign(sex=None, age_approx=np.nan, anatom_site_general_challenge=None)
    assert expit(fit(df)(stranger_df)[0]) == pytest.approx(df["target"].mean(), rel=0.2)
    plain = LogisticRegression(max_iter=1000).fit(encode_metadata(df), df["target"])
    assert plain.predict_proba(encode_metadata(stranger_df))[0, 1] < 0.25 * df["target"].mean()  # what that would say


def test_who_is_known_is_scored_by_the_regression():
    df = draw_table()
    known_df = df.dropna()
    plain = LogisticRegression(max_iter=1000).fit(encode_metadata(df), df["target"])
    assert fit(df)(known_df) == pytest.approx(plain.decision_function(encode_metadata(known_df)), abs=1e-5)


def test_other_rows_give_the_weights_and_the_samples_the_level():
    df = draw_table()
    few_df = df[df["target"] == 1].head(50).assign(target=[0, 1] * 25)
    logits = fit(few_df, df)(few_df)
    assert logits.mean() == pytest.approx(0, abs=1e-5)  # half of the samples
    assert np.diff(logits) == pytest.approx(np.diff(fit(df)(few_df)), abs=1e-5)


def test_a_column_without_any_value_is_no_error():
    df = draw_table().assign(anatom_site_general_challenge=None, sex="female")
    hidden_df = df.assign(sex=None)
    ask = fit(df)
    assert ask(hidden_df)[-5:] == pytest.approx(ask(df)[-5:], abs=1e-5)  # all are female: to say so tells nothing
