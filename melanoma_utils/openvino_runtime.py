"""A classifier compiled by OpenVINO: the same logits on a CPU in a fraction of the time; an optional extra."""

import importlib.util
import warnings
from collections.abc import Callable

import numpy as np
import torch

from melanoma_utils.competition import METADATA_FEATURES
from melanoma_utils.models import LesionClassifier

RUNTIMES = ("auto", "torch", "openvino")
WORTH_IMAGES = 200  # compiling takes about as long as PyTorch takes for so many images


def is_openvino_wanted(runtime: str, device: str, n_images: int, precision: str = "fp32") -> bool:
    """Returns whether OpenVINO is to predict: "auto" takes it on a CPU, where it is installed and the images are worth
    the seconds that compiling takes.

    Raises:
        ValueError: the runtime is unknown, or "openvino" on a GPU or in another precision.
        ModuleNotFoundError: "openvino" is wanted and not installed; tells how to get it.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"RUNTIME {runtime!r} is not one of {RUNTIMES}")
    is_installed = importlib.util.find_spec("openvino") is not None
    if runtime == "auto":
        return is_installed and (device, precision) == ("cpu", "fp32") and n_images >= WORTH_IMAGES
    if runtime == "openvino" and (device, precision) != ("cpu", "fp32"):
        raise ValueError(f"RUNTIME 'openvino' predicts on a CPU in fp32, not on {device} in {precision}: say RUNTIME "
                         "'torch'")
    if runtime == "openvino" and not is_installed:
        raise ModuleNotFoundError("RUNTIME 'openvino' is not installed: pip install -e '.[openvino]', or say 'torch'")
    return runtime == "openvino"


def compile_openvino(model: LesionClassifier) -> Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]:
    """Returns a function of (B, 3, H, W) images and (B, 12) metadata, or None, that gives the model's (B,) logits.

    It computes in single precision: OpenVINO's own choice differs by up to 7e-4. Any number of images may come at a
    time.

    Raises:
        ValueError: OpenVINO can't convert the network.
    """
    openvino = importlib.import_module("openvino")
    size, example = model.config.image_size, [torch.zeros(2, 3, model.config.image_size, model.config.image_size)]
    if model.config.use_metadata:
        example.append(torch.zeros(2, len(METADATA_FEATURES)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit's, that it is deprecated: it is OpenVINO's way in
        try:
            converted = openvino.convert_model(model.cpu().eval(), example_input=tuple(example))
        except Exception as error:
            raise ValueError(f"OpenVINO can't convert {model.config.arch}: say 'torch' as the runtime") from error
    shapes = [[-1, 3, size, size], [-1, len(METADATA_FEATURES)]][:len(example)]
    converted.reshape({i: openvino.PartialShape(shape) for i, shape in enumerate(shapes)})
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def forward(images: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Returns (B,) logits."""
        given = [np.ascontiguousarray(x.numpy()) for x in (images, metadata)[:len(example)]]  # torch's threads for a
        return torch.from_numpy(np.array(compiled(given)[0]))  # copy would spin on beside OpenVINO's: half the speed

    return forward
