import numpy as np
import pandas as pd
import pytest

from melanoma_utils.evaluation_tables import format_prob, tell_missed, tell_points, tell_subgroups
from melanoma_utils.operating_points import compute_operating_points, move_prevalence
from melanoma_utils.subgroups import compute_subgroups


@pytest.fixture(scope="module")
def scores_df():
    """200 images of 200 patients, a quarter melanomas with higher logits; five from another place."""
    rng = np.random.default_rng(0)
    target = (np.arange(200) % 4 == 0).astype(int)
    return pd.DataFrame({"target": target, "logit": rng.normal(2 * target, 1), "patient_id": np.arange(200),
                         "site": ["torso"] * 195 + ["palms/soles"] * 5})


def make_points(df, prevalence):
    return compute_operating_points(df["target"], df["logit"], df["patient_id"], prevalence, n_resamples=50)


def test_points_are_told_with_their_intervals(scores_df):
    points_df = make_points(scores_df, 0.02)
    table, point = tell_points(points_df), points_df.iloc[1]
    assert list(table) == ["90 %", "95 %", "98 %"] and len(table) == 5
    assert table.loc["melanomas found, %", "95 %"] == (
        f"{100 * point['sensitivity']:.0f} ({100 * point['sensitivity_low']:.0f} to "
        f"{100 * point['sensitivity_high']:.0f})")
    assert table.loc["melanomas missed in 1,000 lesions", "95 %"].startswith(f"{point['missed_per_1000']:.2f} (")


def test_what_moves_with_the_prevalence_is_told_without_intervals(scores_df):
    table = tell_points(move_prevalence(make_points(scores_df, 0.02), 0.2))
    assert "to" not in "".join(table.loc["melanomas among those called suspicious, %"])
    assert "to" in table.loc["melanomas found, %", "98 %"]


def test_an_unknown_value_is_a_dash(scores_df):
    points_df = move_prevalence(make_points(scores_df, 0.02), 0.2).assign(ppv=np.nan)
    assert tell_points(points_df).loc["melanomas among those called suspicious, %", "90 %"] == "–"


def test_subgroups_are_told_or_too_few(scores_df, tmp_path):
    df = compute_subgroups(scores_df, {"site": "site"}, 1.0, n_resamples=50)
    df.to_csv(tmp_path / "subgroups.csv", index=False)
    table = tell_subgroups(pd.read_csv(tmp_path / "subgroups.csv"))  # an empty note comes back as a missing one
    assert table.index.tolist() == ["site: torso", "site: palms/soles"]
    assert table.loc["site: palms/soles"].tolist() == ["1 of 5", "too few", "–"]
    assert table.loc["site: torso", "AUC"].startswith(f"{df['auc'][0]:.2f} (") and table.iloc[0, 0] == "49 of 195"


@pytest.mark.parametrize(("prob", "words"), [(0.0, "below 0.01 %"), (0.00012, "0.01 %"), (0.00123, "0.12 %"),
                                             (0.034, "3.4 %"), (0.5, "50 %"), (0.9512, "95.1 %"),
                                             (0.9995, "above 99.9 %"), (1.0, "above 99.9 %")])
def test_nobody_is_told_0_or_100_per_cent(prob, words):
    assert format_prob(prob) == words


def test_what_a_threshold_misses_is_never_nothing():
    assert [tell_missed(share) for share in (0.951, 0.9, 0.997, 1.0)] == [
        "4.9 of 100 melanomas", "10 of 100 melanomas", "fewer than 1 of 100 melanomas",
        "perhaps some melanomas, though none of those measured,"]
