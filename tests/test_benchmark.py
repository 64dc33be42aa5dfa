import numpy as np
import pandas as pd
import pytest
from conftest import run_pipeline
from PIL import Image

from melanoma_utils import benchmark
from melanoma_utils.benchmark import compare_rates, draw_photographs, load_fully_decoded, measure_peak_memory
from melanoma_utils.images import load_resized
from melanoma_utils.pipeline import main


def test_rates_are_items_a_second_and_the_ways_take_turns(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def way(name, seconds):
        def call():
            calls.append(name)
            clock[0] += seconds

        return call

    row = compare_rates("a thing", way("ours", 0.5), way("reference", 2.0), 10, "images/s", "the plain way")
    assert calls == ["ours", "reference"] * 3
    assert row == {"what": "a thing", "unit": "images/s", "ours": 20.0, "reference": 5.0, "ratio": 4.0,
                   "reference_name": "the plain way"}


def test_a_row_is_told_with_figures_that_are_not_rounded_to_nothing(capsys):
    row = benchmark.make_row("largest difference", "logits", 1.2e-6, 1e-4, "allowed")
    assert row["ratio"] == pytest.approx(0.012)
    assert capsys.readouterr().out == "largest difference: 1.2e-06 logits, allowed: 1.0e-04; ratio 0.01\n"
    assert [benchmark.format_figure(value) for value in (0, 0.005, 1234.5)] == ["0.00", "0.01", "1,234.50"]


def test_both_ways_see_a_turned_photograph_upright(tmp_path):
    exif, pixels = Image.Exif(), np.zeros((40, 60, 3), np.uint8)
    exif[0x0112], pixels[:, :20] = 6, 255  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    difference = load_fully_decoded(tmp_path / "a.jpg", 20).astype(float) - load_resized(tmp_path / "a.jpg", 20)
    assert np.abs(difference).mean() < 5


def test_peak_memory_sees_what_a_function_held_for_a_while():
    small, large = (measure_peak_memory(np.ones, (n, 2**20)) for n in (1, 60))  # float64: 8 and 480 MiB
    assert 300 < large - small < 700


def test_photographs_are_large_and_drawn_once(tmp_path):
    path, = draw_photographs(tmp_path, 1)
    with Image.open(path) as image:
        assert image.size == (6000, 4000)
    assert np.abs(load_resized(path, 224) - load_fully_decoded(path, 224).astype(float)).mean() < 0.5
    changed = path.stat().st_mtime_ns
    assert draw_photographs(tmp_path, 1) == [path] and path.stat().st_mtime_ns == changed


@pytest.mark.slow
def test_the_benchmark_notebook_runs_alone(tmp_path):
    small = [v for name, value in {"N_IMAGES": 8, "N_PHOTOGRAPHS": 1, "N_REPEATS": 1, "IMAGE_SIZE": 64,
                                                   "ARCH": "timm/test_resnet", "N_FROZEN_LAYERS": 1}.items()
             for v in ("-p", name, value)]
    process = run_pipeline("--notebook", "10_benchmark", *small, "-r", "INPUT_DIR", tmp_path / "input", "-r",
                           "OUTPUT_DIR", tmp_path / "output", "--runs-dir", tmp_path / "runs", parameters=None)
    df = pd.read_csv(tmp_path / "output" / "benchmark.csv")
    assert len(df) >= 12 and df["ratio"].gt(0).all() and process.stderr == ""
    assert df["what"].str.endswith("freed memory kept").sum() == 1
    assert df.loc[df["reference_name"] == "allowed", "ours"].lt(1e-4).all()
    np.testing.assert_allclose(df["ratio"], df["ours"] / df["reference"])
    assert (tmp_path / "runs" / "10_benchmark.ipynb").is_file()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--notebook", "10_bench"], "there is no notebook '10_bench'; there are 01_resize_images"),
    (["--notebook", "10_benchmark", "-p", "N_FOTOS", "3"], "no notebook knows the parameter N_FOTOS"),
])
def test_a_wrong_notebook_or_parameter_is_named(capsys, tmp_path, arguments, message):
    assert main([*arguments, "--runs-dir", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
