from dataclasses import asdict

import pytest
from conftest import ROOT

from melanoma_utils.models import ModelConfig
from melanoma_utils.parameters import read_notebook_defaults
from melanoma_utils.train_config import TrainConfig, make_config
from melanoma_utils.transforms import AugmentConfig


def test_a_config_is_made_of_all_parameters_of_the_notebook():
    """Each attribute has a parameter of its name, so that none is silently at its default."""
    parameters = read_notebook_defaults(ROOT / "notebooks" / "03_train_fold.ipynb")
    names = {name.upper() for cls in (ModelConfig, AugmentConfig, TrainConfig) for name in cls.__dataclass_fields__}
    assert names - {"MODEL", "AUGMENT"} <= set(parameters)
    config = make_config(parameters | {"LR": 0.5, "ARCH": "timm/resnet18", "FLIP": False, "TEACHERS": ["a", "b"],
                                       "START_FROM": "/somewhere/first"})
    assert (config.lr, config.model.arch, config.augment.flip) == (0.5, "timm/resnet18", False)
    assert config.teachers == ("a", "b") and config.start_from == "first"  # no path of one machine
    assert asdict(make_config({})) == asdict(TrainConfig())


def test_the_images_grow_to_their_size_over_two_thirds_of_the_epochs():
    config = TrainConfig(model=ModelConfig(image_size=128), n_epochs=9, start_image_size=64)
    assert [config.size_of_epoch(epoch) for epoch in range(1, 10)] == [64, 80, 80, 96, 112, 112, 128, 128, 128]
    config = TrainConfig(model=ModelConfig(image_size=50), n_epochs=2)
    assert [config.size_of_epoch(epoch) for epoch in (1, 2)] == [50, 50]
    with pytest.raises(ValueError, match=r"START_IMAGE_SIZE 64 is neither 0 \(off\) nor in 16..IMAGE_SIZE \(50\)"):
        TrainConfig(model=ModelConfig(image_size=50), start_image_size=64)


@pytest.mark.parametrize(("values", "message"), [
    ({"n_pseudo": 8}, "N_PSEUDO is 8, but TEACHERS names no experiments"),
    ({"metadata_from": "siim-isic"}, "METADATA_FROM is 'siim-isic', but USE_METADATA is off"),
    ({"early_stopping_patience": 2, "start_from": "first"}, "watch a fold that START_FROM's models"),
    ({"scheduler": "plateau", "teachers": ("a",)}, "watch a fold that START_FROM's models, TEACHERS or"),
    ({"early_stopping_patience": 2, "distill_from": ("a",)}, "TEACHERS or DISTILL_FROM's models were trained on"),
    ({"scheduler": "plateau", "metadata_from": "whole", "model": ModelConfig(use_metadata=True)},
     "or METADATA_FROM's table holds"),
    ({"distill_share": 0.9}, "DISTILL_SHARE is 0.9, but DISTILL_FROM names no experiments"),
    ({"distill_share": 1.5}, r"DISTILL_SHARE 1.5 is not in 0..1"),
])
def test_values_that_contradict_each_other_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)
