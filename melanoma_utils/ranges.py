"""Which values the notebooks' parameters may have, so that none fails in 04 after a night of training."""

from collections.abc import Mapping

from melanoma_utils import calibration, context_choice
from melanoma_utils.bootstrap import MIN_RESAMPLES
from melanoma_utils.competition import IMAGE_FORMATS
from melanoma_utils.evaluation import check_prevalence
from melanoma_utils.folds import FOLD_STRATEGIES
from melanoma_utils.images import check_resize
from melanoma_utils.inference import pick_device
from melanoma_utils.openvino_runtime import RUNTIMES, is_openvino_wanted
from melanoma_utils.store_building import MIN_SIZE, ON_BAD_IMAGE
from melanoma_utils.train_config import make_config
from melanoma_utils.transforms import check_tta_views

CHOICES = {"IMAGE_FORMAT": IMAGE_FORMATS, "FOLD_STRATEGY": FOLD_STRATEGIES, "ON_BAD_IMAGE": ON_BAD_IMAGE,
           "CALIBRATION": calibration.METHODS, "CONTEXT": context_choice.CHOICES, "RUNTIME": RUNTIMES,
           "DEVICE": ("auto", "cpu", "cuda")}  # of several GPUs CUDA_VISIBLE_DEVICES chooses
LOWEST = {"IMAGE_SIZE": MIN_SIZE, "N_FOLDS": 2, "N_RESAMPLES": MIN_RESAMPLES, "N_PROCESSES": 1}


def check_ranges(parameters: Mapping[str, object]) -> None:
    """Raises ValueError where a parameter of the notebooks 01 to 05 has a value that it can't have.

    Args:
        parameters: all of these notebooks', of the right types.
    """
    for name, choices in CHOICES.items():
        if parameters[name] not in choices:
            raise ValueError(f"{name} {parameters[name]!r} is not one of {choices}")
    for name in LOWEST:
        check_lowest(name, parameters[name])
    for size in parameters["MORE_IMAGE_SIZES"]:
        if type(size) is not int or size < MIN_SIZE:
            raise ValueError(f"MORE_IMAGE_SIZES {size!r} is no whole number of at least {MIN_SIZE}")
    for name in ("SENSITIVITIES", "SUBGROUP_SENSITIVITY"):
        for value in parameters[name] if isinstance(parameters[name], list) else [parameters[name]]:
            check_share(name, value)
    check_prevalence(parameters["PREVALENCE"])
    check_resize(parameters["RESIZE_MODE"], parameters["CLEAN_STEPS"])
    check_tta_views(parameters["TTA_VIEWS"])
    if parameters["RUNTIME"] == "openvino":
        try:
            is_openvino_wanted("openvino", pick_device(parameters["DEVICE"]), 0, parameters["PRECISION"])
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from error
    make_config(parameters)


def check_lowest(name: str, value: float) -> None:
    """Raises ValueError where a parameter out of `LOWEST` is below what is wanted."""
    if value < LOWEST[name]:
        raise ValueError(f"{name} {value} is too small: wanted at least {LOWEST[name]}")


def check_share(name: str, value: object) -> None:
    """Raises ValueError where a parameter is no share above 0 and at most 1."""
    if not isinstance(value, float | int) or not 0 < value <= 1:
        raise ValueError(f"{name} {value!r} is not in 0..1 (without 0): it is a share, such as 0.95")
