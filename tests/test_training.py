import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from melanoma_utils import epoch, training
from melanoma_utils.competition import METADATA_FEATURES, encode_metadata
from melanoma_utils.inference import Samples, predict_logits
from melanoma_utils.models import ModelConfig, build_model
from melanoma_utils.train_config import TrainConfig
from melanoma_utils.training import train_fold
from melanoma_utils.transforms import AugmentConfig

CONFIG = TrainConfig(model=ModelConfig("timm/test_resnet", image_size=32), n_epochs=3, batch_size=16)


def quiet(line):
    """Takes a line and does nothing."""


def states_equal(first, second):
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0] | states[1])


def test_eight_images_are_learnt_by_heart(store, folds_df, tmp_path):
    eight_df = folds_df.groupby(["target"]).head(4).assign(fold=0)
    other_df = folds_df[~folds_df["image_name"].isin(eight_df["image_name"])].assign(fold=1)
    df = pd.concat([eight_df, other_df])
    off = AugmentConfig(flip=False, rotation=0, shift=0, scale_min=1, scale_max=1, brightness=0, contrast=0)
    config = replace(CONFIG, n_epochs=60, batch_size=8, lr=0.01, augment=off)
    model, history_df, _ = train_fold(store, df, 1, config, tmp_path / "p.pt", log=quiet)
    logits = predict_logits(model, Samples(store.images, store.find_rows(eight_df["image_name"])))
    assert ((logits > 0) == eight_df["target"].to_numpy(bool)).all() and history_df["train_loss"].iloc[-1] < 0.1


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("scheduler", "n_averaged_epochs", "precision"), [
    ("one_cycle", 0, "fp32"), ("cosine", 0, "fp32"), ("plateau", 0, "fp32"), ("none", 3, "fp32"),
    ("one_cycle", 0, "fp16")])
def test_killed_in_an_epoch_it_continues_to_the_same_bits(store, folds_df, tmp_path, monkeypatch, scheduler,
                                                          n_averaged_epochs, precision):
    config = replace(CONFIG, scheduler=scheduler, early_stopping_patience=2 if scheduler == "plateau" else 0,
                     n_averaged_epochs=n_averaged_epochs, precision=precision)
    whole, whole_df, _ = train_fold(store, folds_df, 0, config, tmp_path / "whole.pt", log=quiet)
    train_epoch, calls = training.train_epoch, []

    def killed_epoch(*arguments, **options):
        loss = train_epoch(*arguments, **options)
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", killed_epoch)
        with pytest.raises(Killed):
            train_fold(store, folds_df, 0, config, tmp_path / "killed.pt", log=quiet)
    lines = []
    model, history_df, _ = train_fold(store, folds_df, 0, config, tmp_path / "killed.pt", log=lines.append)
    assert any("continues after epoch 1 of 3" in line for line in lines)
    assert states_equal(whole, model) and history_df.equals(whole_df)


def test_the_weights_of_the_last_epochs_are_averaged(store, folds_df, tmp_path):
    config = replace(CONFIG, scheduler="none", n_averaged_epochs=2)
    averaged, _, _ = train_fold(store, folds_df, 0, config, tmp_path / "a.pt", log=quiet)
    second, third = (train_fold(store, folds_df, 0, replace(CONFIG, scheduler="none", n_epochs=n), tmp_path / f"{n}.pt",
                                log=quiet)[0] for n in (2, 3))
    for mine, *both in zip(averaged.state_dict().values(), second.state_dict().values(), third.state_dict().values(),
                           strict=True):
        if mine.is_floating_point():
            torch.testing.assert_close(mine, torch.stack(both).mean(0))
    assert not states_equal(averaged, third)


def test_frozen_layers_stay_and_the_others_learn(store, folds_df, tmp_path):
    trained = []
    for n_epochs in (1, 2):
        config = replace(CONFIG, n_frozen_layers=1, n_epochs=n_epochs)
        trained.append(train_fold(store, folds_df, 0, config, tmp_path / f"{n_epochs}.pt", log=quiet)[0].state_dict())
    names = [name for name, values in trained[0].items() if values.is_floating_point()]
    same = {name for name in names if torch.equal(trained[0][name], trained[1][name])} - {"mean", "std"}
    first = next(name.rpartition(".")[0] for name in names if name.startswith("backbone."))
    assert f"{first}.weight" in same and "head.weight" not in same
    assert len(same) == 5  # of one convolution and its batch norm


def test_the_seed_decides_the_weights(store, folds_df, tmp_path):
    models = [train_fold(store, folds_df, 0, replace(CONFIG, n_epochs=1, seed=seed), tmp_path / f"{i}.pt", log=quiet)[0]
              for i, seed in enumerate((1, 1, 2))]
    assert states_equal(models[0], models[1]) and not states_equal(models[0], models[2])


def test_the_fold_left_out_is_not_trained_on(store, folds_df, tmp_path, monkeypatch):
    seen, train_epoch = [], training.train_epoch

    def watch(model, samples, *arguments, **options):
        seen.extend(samples.rows)
        return train_epoch(model, samples, *arguments, **options)

    monkeypatch.setattr(training, "train_epoch", watch)
    train_fold(store, folds_df, 2, replace(CONFIG, n_epochs=1), tmp_path / "p.pt", log=quiet)
    names = {name for name, row in store.rows.items() if row in set(seen)}
    assert names == set(folds_df[folds_df["fold"] != 2]["image_name"])


def test_a_monitored_training_watches_another_fold_than_it_scores(store, folds_df, tmp_path, monkeypatch):
    seen, train_epoch = set(), training.train_epoch

    def watch(model, samples, *arguments, **options):
        seen.update(samples.rows)
        return train_epoch(model, samples, *arguments, **options)

    monkeypatch.setattr(training, "train_epoch", watch)
    config = replace(CONFIG, early_stopping_patience=1, n_epochs=8, lr=1e-6)
    _, history_df, _ = train_fold(store, folds_df, 2, config, tmp_path / "p.pt", log=quiet)
    trained = {name for name, row in store.rows.items() if row in seen}
    assert trained == set(folds_df[folds_df["fold"] == 1]["image_name"])
    best = int(history_df["monitor_auc"].argmax())
    assert len(history_df) == min(best + 2, 8)  # one epoch without a better AUC ends it
    with pytest.raises(ValueError, match="need at least 3 folds, met 2"):
        train_fold(store, folds_df[folds_df["fold"] < 2], 0, config, tmp_path / "q.pt", log=quiet)


def test_metadata_give_the_logit_of_their_logistic_regression(store, folds_df, tmp_path):
    config = replace(CONFIG, n_epochs=1, model=replace(CONFIG.model, use_metadata=True))
    model, _, _ = train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=quiet)
    train_df = folds_df[folds_df["fold"] != 0]
    expected = LogisticRegression(max_iter=1000).fit(encode_metadata(train_df), train_df["target"])
    metadata = encode_metadata(folds_df[folds_df["fold"] == 0][:5])
    images = torch.rand(1, 3, 32, 32).expand(5, -1, -1, -1)  # one image, five patients: all that differs is metadata
    with torch.no_grad():
        logits = model(images, torch.from_numpy(metadata)).numpy()
    wanted = expected.decision_function(metadata)
    np.testing.assert_allclose(logits - logits[0], wanted - wanted[0], atol=1e-5)
    assert np.ptp(wanted) > 0.1


def test_external_images_are_trained_on_and_decide_nothing_else(store, folds_df, tmp_path, monkeypatch):
    """Half of the rows become external: the watched fold, the fold that is scored and the metadata have none."""
    is_external = pd.Series(range(len(folds_df))) % 2 == 1
    df = folds_df.assign(source=np.where(is_external, "external", "competition"))
    df.loc[is_external, "sex"] = "male"
    seen, train_epoch = set(), training.train_epoch

    def watch(model, samples, *arguments, **options):
        seen.update(samples.rows)
        return train_epoch(model, samples, *arguments, **options)

    monkeypatch.setattr(training, "train_epoch", watch)
    config = replace(CONFIG, n_epochs=1, early_stopping_patience=1, model=replace(CONFIG.model, use_metadata=True))
    model, _, _ = train_fold(store, df, 2, config, tmp_path / "p.pt", log=quiet)
    trained = {name for name, row in store.rows.items() if row in seen}
    own_df = df[(df["fold"] == 1) & ~is_external]
    assert trained == set(own_df["image_name"]) | set(df[(df["fold"] != 2) & is_external]["image_name"])
    expected = LogisticRegression(max_iter=1000).fit(encode_metadata(own_df), own_df["target"])
    known = [not name.endswith("unknown") for name in METADATA_FEATURES]
    np.testing.assert_allclose(model.metadata.weight.numpy()[:, known], expected.coef_[:, known], atol=1e-5)


def test_n_external_without_external_images_is_an_error(store, folds_df, tmp_path):
    with pytest.raises(ValueError, match="N_EXTERNAL is 8, but there are no external images in the folds"):
        train_fold(store, folds_df, 0, replace(CONFIG, n_external=8), tmp_path / "p.pt", log=quiet)


def test_n_external_draws_half_melanomas_anew_each_epoch(store, folds_df, tmp_path, monkeypatch):
    is_external = pd.Series(range(len(folds_df))) % 2 == 1
    df = folds_df.assign(source=np.where(is_external, "external", "competition"))
    orders, train_epoch = [], training.train_epoch

    def watch(model, samples, optimizer, order, **options):
        orders.append((samples.rows[order], samples.targets[order]))
        return train_epoch(model, samples, optimizer, order, **options)

    monkeypatch.setattr(training, "train_epoch", watch)
    train_fold(store, df, 2, replace(CONFIG, n_epochs=2, n_external=8), tmp_path / "p.pt", log=quiet)
    names = {row: name for name, row in store.rows.items()}
    external = set(df[is_external]["image_name"])
    drawn = [[(names[row], t) for row, t in zip(*order, strict=True) if names[row] in external] for order in orders]
    assert [len(epoch) for epoch in drawn] == [8, 8] and [sum(t for _, t in epoch) for epoch in drawn] == [4, 4]
    assert set(drawn[0]) != set(drawn[1])
    own = set(df[(df["fold"] != 2) & ~is_external]["image_name"])
    assert all({names[row] for row in rows} - external == own for rows, _ in orders)


def test_a_loss_that_is_not_finite_is_loud_and_keeps_the_last_good_state(store, folds_df, tmp_path):
    lines, config = [], replace(CONFIG, lr=9.9, optimizer="sgd", scheduler="none", n_epochs=200)
    with pytest.raises(ValueError, match=r"(the loss is|\d+ of \d+ logits are) .*lower LR"):
        train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=lines.append)
    assert (tmp_path / "p.pt").exists() == bool(lines)
    if lines:
        state = torch.load(tmp_path / "p.pt", weights_only=True)
        assert len(state["history"]) == len(lines) and np.isfinite(state["history"][-1]["train_loss"])


def explode(objective_forward, n_times):
    """Returns an Objective.forward whose gradients are infinite for so many times, as where fp16 overflows."""
    calls = []

    def forward(self, *arguments):
        loss = objective_forward(self, *arguments)
        calls.append(1)
        if len(calls) <= n_times:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss
    return forward


def test_a_gradient_that_is_not_finite_is_loud(store, folds_df, tmp_path, monkeypatch):
    monkeypatch.setattr(training.Objective, "forward", explode(training.Objective.forward, 1))
    with pytest.raises(ValueError, match=r"the gradient is (inf|nan) in step 1 of \d+: lower LR"):
        train_fold(store, folds_df, 0, CONFIG, tmp_path / "p.pt", log=quiet)
    assert not (tmp_path / "p.pt").exists()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_fp16_leaves_out_a_step_that_overflows_and_goes_on(store, folds_df, tmp_path, monkeypatch, optimizer):
    config = replace(CONFIG, precision="fp16", optimizer=optimizer)
    whole, _, _ = train_fold(store, folds_df, 0, config, tmp_path / "whole.pt", log=quiet)
    monkeypatch.setattr(training.Objective, "forward", explode(training.Objective.forward, 2))
    model, history_df, _ = train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=quiet)
    assert all(torch.isfinite(p).all() for p in model.parameters()) and not states_equal(whole, model)
    assert history_df["train_loss"].iloc[-1] < 0.8  # log(2) is what a network has that knows nothing


def test_fp16_gives_up_where_every_gradient_overflows(store, folds_df, tmp_path, monkeypatch):
    monkeypatch.setattr(training.Objective, "forward", explode(training.Objective.forward, 1000))
    with pytest.raises(ValueError, match=r"the gradient is (inf|nan) in step \d+ of \d+: lower LR .* PRECISION='fp32'"):
        train_fold(store, folds_df, 0, replace(CONFIG, precision="fp16", batch_size=2), tmp_path / "p.pt", log=quiet)


def test_too_little_memory_while_scoring_says_which_batch_size_to_try(store, folds_df, tmp_path, monkeypatch):
    sizes = []

    def fail(*arguments, batch_size, **options):
        sizes.append(batch_size)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(epoch, "predict_logits", fail)
    with pytest.raises(MemoryError, match="8 images at a time do not fit into memory: try BATCH_SIZE 4 or"):
        train_fold(store, folds_df, 0, replace(CONFIG, batch_size=8), tmp_path / "p.pt", log=quiet)
    assert sizes == [8]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"),
                                   RuntimeError("CUDA error: out of memory\nSearch for ..."),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")])
def test_too_little_memory_says_which_batch_size_to_try(store, folds_df, tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(training.Objective, "forward", fail)
    with pytest.raises(MemoryError, match=r"1[56] images at a time do not fit into memory: try BATCH_SIZE [78] or"):
        train_fold(store, folds_df, 0, CONFIG, tmp_path / "p.pt", log=quiet)
    monkeypatch.setattr(training.Objective, "forward", lambda *_: torch.ones(3) @ torch.ones(2))
    with pytest.raises(RuntimeError, match="size"):  # any other error stays what it is
        train_fold(store, folds_df, 0, CONFIG, tmp_path / "p.pt", log=quiet)


def test_a_part_with_one_class_is_refused_before_any_work(store, folds_df, tmp_path):
    df = folds_df[(folds_df["fold"] != 1) | (folds_df["target"] == 0)]
    with pytest.raises(ValueError, match=r"fold 1: the \d+ images of the valid part hold one class only"):
        train_fold(store, df, 1, CONFIG, tmp_path / "p.pt", log=quiet)


def test_the_state_of_another_training_is_refused(store, folds_df, tmp_path):
    train_fold(store, folds_df, 0, replace(CONFIG, n_epochs=1), tmp_path / "p.pt", log=quiet)
    with pytest.raises(ValueError, match="of a training with other parameters or folds"):
        train_fold(store, folds_df, 0, replace(CONFIG, n_epochs=2), tmp_path / "p.pt", log=quiet)
    other_store = replace(store, identity=store.identity | {"n_bytes": 1})
    with pytest.raises(ValueError, match="of a training with other parameters"):
        train_fold(other_store, folds_df, 0, replace(CONFIG, n_epochs=1), tmp_path / "p.pt", log=quiet)
    (tmp_path / "p.pt").write_bytes((tmp_path / "p.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        train_fold(store, folds_df, 0, replace(CONFIG, n_epochs=1), tmp_path / "p.pt", log=quiet)


def test_the_state_of_a_training_on_another_table_or_from_other_weights_is_refused(store, folds_df, tmp_path):
    model = replace(CONFIG.model, use_metadata=True)
    save_file(build_model(CONFIG.model).backbone.state_dict(), tmp_path / "weights.safetensors")
    config = replace(CONFIG, n_epochs=1, model=replace(model, weights=str(tmp_path / "weights.safetensors")))
    tables = {"metadata_df": folds_df.assign(target=folds_df["sex"] == "male")}
    train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=quiet, **tables)
    train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=quiet, **tables)
    with pytest.raises(ValueError, match="of a training with other parameters"):
        train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=quiet)
    with pytest.raises(ValueError, match="of a training with other parameters"):
        train_fold(store, folds_df.assign(age_approx=40.0), 0, config, tmp_path / "p.pt", log=quiet, **tables)
    save_file(build_model(CONFIG.model).backbone.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="of a training with other parameters"):
        train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=quiet, **tables)


def test_the_state_of_a_version_that_knew_fewer_parameters_is_continued(store, folds_df, tmp_path):
    config = replace(CONFIG, n_epochs=1)
    train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=quiet)
    state = torch.load(tmp_path / "p.pt", weights_only=True)
    del state["identity"]["config"]["n_external"], state["identity"]["config"]["model"]["clean_steps"]
    torch.save(state, tmp_path / "p.pt")
    lines = []
    train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=lines.append)
    assert lines == ["fold 0 continues after epoch 1 of 1"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_state_of_a_version_that_stepped_parameter_by_parameter_is_continued(store, folds_df, tmp_path, optimizer):
    config, states = replace(CONFIG, n_epochs=2, precision="fp16", optimizer=optimizer), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_bytes", lambda path, content: states.append(content))
        whole, _, _ = train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=quiet)
    state = torch.load(io.BytesIO(states[0]), weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = None
    torch.save(state, tmp_path / "p.pt")
    model, _, _ = train_fold(store, folds_df, 0, config, tmp_path / "p.pt", log=quiet)
    assert states_equal(whole, model)


def test_a_ragged_last_batch_is_spread(store, folds_df, tmp_path):
    df = folds_df[folds_df["fold"] != 2]
    n_train = int((df["fold"] == 1).sum())
    config = replace(CONFIG, n_epochs=1, batch_size=n_train - 1)  # one image too many for one batch
    train_fold(store, df, 0, config, tmp_path / "p.pt", log=quiet)


@pytest.mark.parametrize(("name", "value"), [("n_epochs", 0), ("batch_size", 1), ("lr", 0.0), ("optimizer", "lion"),
                                             ("scheduler", "step"), ("n_external", -1),
                                             ("early_stopping_patience", -1), ("n_frozen_layers", -1),
                                             ("n_averaged_epochs", 11)])
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=rf"{name.upper()} '?{value}"):
        TrainConfig(**{name: value})


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_training_on_a_gpu(store, folds_df, tmp_path, precision):
    model, history_df, _ = train_fold(store, folds_df, 0, replace(CONFIG, precision=precision), tmp_path / "p.pt",
                                      accelerator=training.build_accelerator("cuda"), log=quiet)
    assert np.isfinite(history_df["valid_auc"]).all() and next(model.parameters()).is_cuda


def test_steps_that_are_read_late_are_told_with_their_number_and_learning_rate():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.25)
    record, one, nan = epoch._Record(6, optimizer, n_unread=4), torch.tensor(1.0), torch.tensor(np.nan)
    for value in (0.5, 0.25, 0.125, 0.0625, 0.5):
        record.add(torch.tensor(value), one)
    assert len(record.losses) == 4 and record.read() == [0.5, 0.25, 0.125, 0.0625, 0.5] == record.read()
    record.add(one, nan)
    optimizer.param_groups[0]["lr"] = 0.125
    with pytest.raises(ValueError, match=r"the gradient is nan in step 6 of 6: lower LR 0\.25"):
        record.read()
