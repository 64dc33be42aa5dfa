import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import place, run_pipeline
from PIL import Image

from melanoma_utils.decoys import DECOYS, draw_decoy
from melanoma_utils.drawing import draw_image
from melanoma_utils.gate_fitting import (
    PARTS,
    blur_picture,
    compare_methods,
    fit_gate,
    judge_pictures,
    measure_pictures,
    measure_rates,
    split_groups,
)
from melanoma_utils.input_gate import read_gate
from melanoma_utils.synthetic import SyntheticConfig, make_latents


@pytest.fixture(scope="module")
def pictures_df():
    """48 drawn lesions, the same blurred, and 48 drawn pictures of other things, in three parts."""
    latents = make_latents(SyntheticConfig(n_train_patients=8, n_test_patients=1, seed=9)).to_dict("records")[:48]
    lesions = [draw_image(latent, 128)[0] for latent in latents]
    groups = {"dermoscopy": lesions, "blurred": [blur_picture(image, 3) for image in lesions],
              "other": [draw_decoy(kind, seed, 128) for seed in range(4) for kind in DECOYS]}
    parts = np.array(PARTS)[np.repeat([0, 1, 2], 16)]
    return pd.concat([measure_pictures(images).assign(kind=kind, source=kind, part=parts)
                      for kind, images in groups.items()], ignore_index=True)


def test_groups_stay_together_and_parts_have_their_shares():
    groups = [f"patient {i // 3}" for i in range(3000)]
    parts = split_groups(groups, (0.5, 0.25, 0.25), seed=1)
    of_group = pd.Series(parts).groupby(groups).nunique()
    assert (of_group == 1).all()
    assert [np.mean(parts == part) for part in PARTS] == pytest.approx([0.5, 0.25, 0.25], abs=0.01)
    assert (parts == split_groups(groups, (0.5, 0.25, 0.25), seed=1)).all()
    assert (parts != split_groups(groups, (0.5, 0.25, 0.25), seed=2)).any()
    assert set(split_groups(list("abcdefghij"), (0.6, 0, 0.4))) == {"fit", "test"}


def test_a_fitted_gate_tells_what_it_was_not_fitted_on(pictures_df):
    gate = fit_gate(pictures_df, 64, dermoscopy_refused=0.0, contrast_refused=0.0)
    test_df = pictures_df[pictures_df["part"] == "test"]
    objections = pd.Series(judge_pictures(test_df, gate), index=test_df.index)
    assert (objections[test_df["kind"] == "dermoscopy"] == "").sum() >= 11  # of 16; thresholds set on 16 others
    assert (objections[test_df["kind"] == "other"] != "").sum() >= 13
    assert (objections[test_df["kind"] == "blurred"].str.contains("blurred")).sum() >= 13
    assert gate.min_side == 64


def test_thresholds_do_what_is_asked_of_them(pictures_df):
    held_df = pictures_df[(pictures_df["part"] == "threshold") & (pictures_df["kind"] == "dermoscopy")]
    for share, wanted in ((0.0, 0), (0.5, 8)):
        gate = fit_gate(pictures_df, 64, dermoscopy_refused=share, contrast_refused=0.0)
        found = judge_pictures(held_df, gate)
        assert sum("dermoscope" in objection for objection in found) == wanted


def test_a_missing_kind_is_named(pictures_df):
    without_df = pictures_df[(pictures_df["kind"] != "blurred") | (pictures_df["part"] != "threshold")]
    with pytest.raises(ValueError, match="no picture of blurred in the part 'threshold'"):
        fit_gate(without_df, 64)


def test_methods_are_compared_on_the_part_that_none_has_seen(pictures_df):
    table = compare_methods(pictures_df, 0.1)
    assert list(table.index) == ["distance", "logistic", "logistic with squares"] and list(table) == ["other"]
    assert table.to_numpy().min() >= 0 and table.loc["logistic with squares", "other"] <= 0.2
    changed_df = pictures_df.copy()
    changed_df.loc[(changed_df["part"] == "test") & (changed_df["kind"] == "dermoscopy"), "light_50"] = 9.0
    pd.testing.assert_frame_equal(compare_methods(changed_df, 0.1), table)


def test_rates_are_counted_by_kind_and_source():
    df = pd.DataFrame({"kind": ["other"] * 4 + ["dermoscopy"] * 2, "source": list("aabbcc")}, index=range(5, 11))
    rates_df = measure_rates(df, ["x", "", "x", "x", "", ""]).set_index("source")
    assert rates_df["n"].to_dict() == {"a": 2, "b": 2, "c": 2}
    assert rates_df["refused"].to_dict() == {"a": 1, "b": 2, "c": 0}
    assert rates_df.loc["a", ["low", "high"]].tolist() == pytest.approx([0.0945, 0.9055], abs=1e-4)  # Wilson's by hand


def test_blur_takes_edges_away():
    image = np.full((256, 256, 3), 140, np.uint8)  # not so dark that it is a frame
    image[:, 128:] = 255
    assert len(np.unique(blur_picture(image, 3))) > 8 > len(np.unique(blur_picture(image, 0)))


def test_the_notebook_writes_a_gate_and_its_rates(data_dir, tmp_path):
    (tmp_path / "others" / "plots").mkdir(parents=True)
    (tmp_path / "others" / "screens").mkdir()
    for folder, kind in (("plots", "plot"), ("screens", "screen")):
        for seed in range(5):
            Image.fromarray(draw_decoy(kind, seed + 500)).save(tmp_path / "others" / folder / f"{seed}.png")
    numbers = {"MAX_IMAGES": 60, "N_DRAWN": 8, "N_DECOYS": 4, "N_BLURRED": 24}
    flags = [flag for name, value in numbers.items() for flag in ("-p", name, value)]
    run_pipeline("--notebook", "15_input_gate", *place(tmp_path, data_dir)[:-3], "-r", "NEGATIVES_DIR",
                 tmp_path / "others", *flags, parameters=None)
    out_dir = tmp_path / "output" / "input_gate"
    assert read_gate(out_dir / "gate.json").min_side == 64
    rates_df = pd.read_csv(out_dir / "rates.csv")
    assert {"dermoscopy", "other", "blurred", "no lesion", "several lesions"} <= set(rates_df["kind"])
    assert rates_df.eval("low <= share <= high").all()
    outputs = [output for cell in nbformat.read(tmp_path / "runs" / "15_input_gate.ipynb", 4).cells
               for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not [output for output in outputs if output.get("name") == "stderr"]
