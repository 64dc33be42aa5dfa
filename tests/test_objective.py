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
from melanoma_utils.transforms import AugmentConfig, resize_batch

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


def test_a_teacher_moves_the_target_by_its_share():
    torch.manual_seed(0)
    teacher = build_model(replace(CONFIG.model, image_size=48)).eval()  # it sees the same picture, larger
    model = build_model(replace(CONFIG.model, dropout=0.0)).eval()
    images, targets = torch.rand(4, 3, 32, 32), torch.tensor([0.0, 1, 0, 1])
    with torch.no_grad():
        said, logits = teacher(resize_batch(images, 48)).sigmoid(), model(images)
        for share in (0.0, 0.25, 1.0):
            loss = Objective(model, teachers=[teacher], distill_share=share)(images, None, targets)
            expected = nn.functional.binary_cross_entropy_with_logits(logits, (1 - share) * targets + share * said)
            assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("augment", [AugmentConfig(sharpness=1.0), AugmentConfig(artefacts=1.0)])
def test_a_teacher_is_asked_about_the_picture_before_it_is_disturbed(monkeypatch, augment):
    seen = []
    model, teacher = (build_model(replace(CONFIG.model, dropout=0.0)).eval() for _ in range(2))
    for name, of_two in (("teacher", teacher), ("model", model)):
        standardize = of_two.standardize
        monkeypatch.setattr(of_two, "standardize", lambda x, name=name, standardize=standardize: (
            seen.append((name, x.clone())), standardize(x))[1])
    images = torch.rand(8, 3, 32, 32)
    Objective(model, teachers=[teacher], distill_share=0.5, augment=augment)(images, None, torch.zeros(8))
    (first, asked), (second, trained) = seen
    assert (first, second) == ("teacher", "model") and torch.equal(asked, images) and not torch.equal(trained, images)


def test_a_teacher_is_not_trained():
    model, teacher = (build_model(CONFIG.model) for _ in range(2))
    objective = Objective(model, teachers=[teacher.eval()], distill_share=0.5)
    objective.train()(torch.rand(4, 3, 32, 32), None, torch.zeros(4)).backward()
    assert not teacher.training and all(p.grad is None for p in teacher.parameters())
    assert {id(p) for p in objective.parameters()} == {id(p) for p in model.parameters()}
