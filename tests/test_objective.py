from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from melanoma_utils.models import ModelConfig, build_model
from melanoma_utils.objective import CLASSES, Objective, encode_diagnoses
from melanoma_utils.train_config import TrainConfig
from melanoma_utils.training import train_fold

CONFIG = TrainConfig(model=ModelConfig("timm/test_resnet", image_size=32), n_epochs=1, batch_size=16)
NAMES = ["nevus", "solar lentigo", "seborrheic keratosis", "melanoma", "unknown", None]


def quiet(line):
    """Takes a line and does nothing."""


def test_diagnoses_are_classes_where_they_are_known_and_no_melanoma():
    codes = encode_diagnoses(pd.DataFrame({"diagnosis": NAMES}))
    keratosis = CLASSES.index("benign keratosis")
    assert codes.tolist() == [CLASSES.index("nevus"), keratosis, keratosis, -1, -1, -1]


def test_the_loss_is_that_of_all_classes_at_once():
    """-log P(class), melanoma among them; of an image of unknown diagnosis only that it is no melanoma counts."""
    torch.manual_seed(0)
    objective = Objective(build_model(replace(CONFIG.model, dropout=0.0)), "diagnosis").eval()
    images, targets = torch.rand(6, 3, 32, 32), torch.tensor([0.0, 0, 0, 1, 0, 0])
    diagnoses = torch.from_numpy(encode_diagnoses(pd.DataFrame({"diagnosis": NAMES})))
    with torch.no_grad():
        features = objective.model.embed(images)
        melanoma = objective.model(images).sigmoid()  # (6,)
        others = objective.classes(features).softmax(1) * (1 - melanoma)[:, None]  # (6, 7), beside melanoma adds to 1
        probs = [others[0, diagnoses[0]], others[1, diagnoses[1]], others[2, diagnoses[2]], melanoma[3],
                 1 - melanoma[4], 1 - melanoma[5]]
        loss = objective(images, None, targets, diagnoses)
    assert loss.item() == pytest.approx(-np.mean([p.log().item() for p in probs]), rel=1e-5)


def test_the_target_melanoma_is_plain_binary_cross_entropy_also_of_soft_targets():
    objective = Objective(build_model(CONFIG.model)).eval()
    images, targets = torch.rand(4, 3, 32, 32), torch.tensor([0.0, 1, 0.3, 0.9])
    with torch.no_grad():
        expected = nn.functional.binary_cross_entropy(objective.model(images).sigmoid(), targets)
        assert objective(images, None, targets).item() == pytest.approx(expected.item(), rel=1e-5)


def test_other_diagnoses_change_what_is_learnt(store, folds_df, tmp_path):
    models = [train_fold(store, folds_df, 0, replace(CONFIG, target=target), tmp_path / target, log=quiet)[0]
              for target in ("melanoma", "diagnosis")]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()  # the classes stay behind
    assert not torch.equal(models[0].head.weight, models[1].head.weight)


def test_too_few_diagnoses_are_refused(store, folds_df, tmp_path):
    with pytest.raises(ValueError, match=r"name less than two of the diagnoses .*: say TARGET 'melanoma'"):
        train_fold(store, folds_df.assign(diagnosis="unknown"), 0, replace(CONFIG, target="diagnosis"),
                   tmp_path / "p.pt", log=quiet)
