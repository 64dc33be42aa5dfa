import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from melanoma_utils import openvino_runtime
from melanoma_utils.inference import Samples, predict_logits
from melanoma_utils.models import ModelConfig, build_model
from melanoma_utils.openvino_runtime import compile_openvino, is_openvino_wanted
from melanoma_utils.predict import main


@pytest.mark.parametrize("use_metadata", [False, True])
def test_the_logits_are_those_of_torch_for_any_number_of_images(store, use_metadata):
    pytest.importorskip("openvino", reason="OpenVINO, an optional extra, is not installed")
    torch.manual_seed(0)
    model = build_model(ModelConfig("timm/test_resnet", image_size=32, use_metadata=use_metadata)).eval()
    metadata = np.eye(12, dtype=np.float32)[:9] if use_metadata else None
    samples = Samples(store.images, np.arange(9), metadata)
    expected, forward = predict_logits(model, samples, tta_views=8), compile_openvino(model)
    for batch_size in (1, 4, 9):
        logits = predict_logits(model, samples, tta_views=8, batch_size=batch_size, forward=forward)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert expected.std() > 0


def test_predictions_are_the_same_with_either_runtime(finished, data_dir, tmp_path):
    pytest.importorskip("openvino", reason="OpenVINO, an optional extra, is not installed")
    tables = []
    for runtime in ("torch", "openvino"):
        out = tmp_path / f"{runtime}.csv"
        assert main([str(data_dir / "jpeg" / "test"), "--model", str(finished[0] / "output" / "tiny"), "-o", str(out),
                     "--runtime", runtime]) == 0
        tables.append(pd.read_csv(out))
    pd.testing.assert_frame_equal(*tables, atol=1e-5)


def test_auto_takes_it_where_it_is_worth_it(monkeypatch):
    monkeypatch.setattr(openvino_runtime.importlib.util, "find_spec", lambda name: object())
    assert is_openvino_wanted("auto", "cpu", 10_000) and not is_openvino_wanted("auto", "cpu", 1)
    assert not is_openvino_wanted("auto", "cuda", 10_000) and is_openvino_wanted("openvino", "cpu", 1)
    with pytest.raises(ValueError, match="predicts on a CPU in fp32, not on cuda"):
        is_openvino_wanted("openvino", "cuda", 1)
    with pytest.raises(ValueError, match="RUNTIME 'onnx' is not one of"):
        is_openvino_wanted("onnx", "cpu", 1)


def test_where_it_is_not_installed_torch_is_taken_or_one_line_says_how_to_get_it(monkeypatch, data_dir, finished,
                                                                                 tmp_path, capsys):
    monkeypatch.setattr(openvino_runtime.importlib.util, "find_spec", lambda name: None)
    assert not is_openvino_wanted("auto", "cpu", 10_000)
    arguments = [str(data_dir / "jpeg" / "test"), "--model", str(finished[0] / "output" / "tiny"), "-o",
                 str(tmp_path / "out.csv"), "--runtime", "openvino"]
    assert main(arguments) == 1 and not (tmp_path / "out.csv").exists()
    said = capsys.readouterr().err
    assert "error: RUNTIME 'openvino' is not installed: pip install -e '.[openvino]'" in said
    assert "openvino = [" in (ROOT / "pyproject.toml").read_text()
