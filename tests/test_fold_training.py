import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from conftest import place, run_pipeline
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from melanoma_utils import fold_training
from melanoma_utils.competition import METADATA_FEATURES, encode_metadata
from melanoma_utils.experiment import checkpoint_path
from melanoma_utils.fold_training import run_fold
from melanoma_utils.folds import write_folds
from melanoma_utils.models import ModelConfig
from melanoma_utils.train_config import TrainConfig

CONFIG = TrainConfig(model=ModelConfig("timm/test_resnet", image_size=32), n_epochs=1, batch_size=16)


def quiet(line):
    """Takes a line and does nothing."""


@pytest.fixture
def first_dir(store, folds_df, tmp_path):
    """An experiment with fold 0 trained."""
    write_folds(tmp_path / "first" / "folds.csv", folds_df)
    run_fold(tmp_path / "first", store, folds_df, 0, CONFIG, log=quiet)
    return tmp_path / "first"


def test_a_fold_is_trained_once(first_dir, store, folds_df):
    lines, changed = [], checkpoint_path(first_dir, 0).stat().st_mtime_ns
    run_fold(first_dir, store, folds_df, 0, CONFIG, log=lines.append)
    assert lines == ["fold 0 is trained already: nothing to do"]
    assert checkpoint_path(first_dir, 0).stat().st_mtime_ns == changed


def test_a_training_begins_with_the_other_experiments_model(first_dir, store, folds_df, tmp_path):
    """At no learning rate to speak of it stays that model; from new weights it becomes another."""
    config = replace(CONFIG, lr=1e-12, weight_decay=0.0, freeze_batch_norm=True, start_from="first", seed=7)
    for name, start in (("second", first_dir), ("third", "")):
        shutil.copytree(first_dir, tmp_path / name, ignore=shutil.ignore_patterns("*fold_0*"))
        run_fold(tmp_path / name, store, folds_df, 0, replace(config, start_from=name if start else ""),
                 start_dir=start, log=quiet)
    first, second, third = (safetensors.torch.load_file(checkpoint_path(tmp_path / name, 0))
                            for name in ("first", "second", "third"))
    assert all(torch.allclose(first[key].float(), second[key].float(), atol=1e-6) for key in first)
    assert not torch.allclose(first["head.weight"], third["head.weight"], atol=1e-3)
    checkpoint_path(first_dir, 0).write_bytes(checkpoint_path(tmp_path / "third", 0).read_bytes())
    with pytest.raises(ValueError, match="start_sha256"):
        run_fold(tmp_path / "second", store, folds_df, 0, replace(config, start_from="second"), start_dir=first_dir,
                 log=quiet)


def test_a_model_that_saw_the_fold_or_is_another_network_is_no_start(first_dir, store, folds_df, tmp_path):
    shifted_df = folds_df.assign(fold=(folds_df["fold"] + 1) % 3)
    write_folds(tmp_path / "second" / "folds.csv", shifted_df)
    with pytest.raises(ValueError, match=r"was trained with another folds\.csv, perhaps on images"):
        run_fold(tmp_path / "second", store, shifted_df, 0, CONFIG, start_dir=first_dir, log=quiet)
    write_folds(tmp_path / "third" / "folds.csv", folds_df)
    other = replace(CONFIG, model=replace(CONFIG.model, use_metadata=True))
    with pytest.raises(ValueError, match="has USE_METADATA False, wanted True"):
        run_fold(tmp_path / "third", store, folds_df, 0, other, start_dir=first_dir, log=quiet)
    with pytest.raises(FileNotFoundError, match="fold_1"):
        run_fold(tmp_path / "third", store, folds_df, 1, CONFIG, start_dir=first_dir, log=quiet)


def test_the_metadata_may_be_those_of_a_whole_table_but_for_the_patients_left_out(store, folds_df, tmp_path):
    """Those left out say the opposite of the others here: with them the weights would be others."""
    others_df = pd.concat([folds_df[folds_df["fold"] != 0]] * 3).assign(patient_id="somebody else")
    others_df["image_name"] += "_of_the_whole"
    others_df["target"] = np.random.default_rng(0).random(len(others_df)) < 0.02 + 0.01 * (others_df["sex"] == "male")
    left_out_df = folds_df[folds_df["fold"] == 0].assign(target=lambda df: df["sex"] == "female")
    config = replace(CONFIG, metadata_from="whole", model=replace(CONFIG.model, use_metadata=True))
    write_folds(tmp_path / "folds.csv", folds_df)
    run_fold(tmp_path, store, folds_df, 0, config, metadata_df=pd.concat([others_df, left_out_df]), log=quiet)
    state = safetensors.torch.load_file(checkpoint_path(tmp_path, 0))
    expected = LogisticRegression(max_iter=1000).fit(encode_metadata(others_df), others_df["target"])
    weight, bias = (state[f"metadata.{name}"].numpy() for name in ("weight", "bias"))
    known = [not name.endswith("unknown") for name in METADATA_FEATURES]
    np.testing.assert_allclose(weight[:, known], expected.coef_[:, known], atol=1e-5)
    train_df = folds_df[folds_df["fold"] != 0]
    mean = (encode_metadata(train_df) @ weight.T + bias).mean()
    assert mean == pytest.approx(logit(train_df["target"].mean()), abs=1e-4)
    with pytest.raises(ValueError, match="metadata_sha256"):
        run_fold(tmp_path, store, folds_df, 0, config, metadata_df=others_df[:100], log=quiet)
    with pytest.raises(ValueError, match=r"another patient_id than folds\.csv for .* images, first .*: the patients "
                                         "of fold 0 can't be left out"):
        run_fold(tmp_path, store, folds_df, 0, config, metadata_df=left_out_df.assign(patient_id="IP_1"), log=quiet)


def test_a_teacher_is_imitated_and_must_not_have_seen_the_fold(first_dir, store, folds_df, tmp_path):
    """A teacher's share of 1 leaves nothing of the labels: with them turned around the same is learnt."""
    config, names = replace(CONFIG, distill_from=("first",), distill_share=1.0), ("student", "turned")
    for name, df in zip(names, (folds_df, folds_df.assign(target=1 - folds_df["target"])), strict=True):
        shutil.copytree(first_dir, tmp_path / name, ignore=shutil.ignore_patterns("*fold_0*"))
        run_fold(tmp_path / name, store, df, 0, config, teacher_dirs=[first_dir], log=quiet)
    student, turned = (safetensors.torch.load_file(checkpoint_path(tmp_path / name, 0)) for name in names)
    assert all(torch.equal(student[key], turned[key]) for key in student)
    shifted_df = folds_df.assign(fold=(folds_df["fold"] + 1) % 3)
    write_folds(tmp_path / "second" / "folds.csv", shifted_df)
    with pytest.raises(ValueError, match=r"was trained with another folds\.csv, perhaps on images"):
        run_fold(tmp_path / "second", store, shifted_df, 0, config, teacher_dirs=[first_dir], log=quiet)
    padded = replace(config, model=replace(CONFIG.model, resize_mode="pad"))
    with pytest.raises(ValueError, match="has RESIZE_MODE 'squash', wanted 'pad'"):
        run_fold(tmp_path / "turned", store, folds_df, 0, padded, teacher_dirs=[first_dir], log=quiet)


def test_more_processes_than_gpus_are_refused(store, folds_df, tmp_path):
    with pytest.raises(ValueError, match=r"N_PROCESSES 99 is more than the \d+ GPUs .* the pipeline's --workers"):
        run_fold(tmp_path, store, folds_df, 0, CONFIG, device="cuda", n_processes=99, log=quiet)


def test_external_images_in_the_folds_alone_are_refused(store, folds_df, tmp_path):
    with pytest.raises(ValueError, match="want the same EXTERNAL_DIR"):
        run_fold(tmp_path, store, folds_df.assign(source="external"), 0, CONFIG, log=quiet)


@pytest.mark.slow
def test_a_second_experiment_goes_on_from_the_first_through_the_pipeline(finished, data_dir, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    first = folder / "output" / "tiny"
    again = ["-p", "EXPERIMENT", "again", "-r", "START_FROM", first, "-r", "FOLDS_FROM", first, "-p", "FOLD_SEED", "5"]
    done = run_pipeline(*place(folder, data_dir), *again, "--steps", "02-04")
    assert "the folds of tiny: " in done.stdout
    assert (first / "folds.csv").read_bytes() == (folder / "output" / "again" / "folds.csv").read_bytes()
    histories = [pd.read_csv(folder / "output" / name / "history_fold_0.csv") for name in ("tiny", "again")]
    assert histories[1]["train_loss"].iloc[0] < histories[0]["train_loss"].iloc[0]
    done = run_pipeline(*place(folder, data_dir), *again, "--steps", "02-04")
    assert done.stdout.count("nothing to do") == 4


@pytest.mark.parametrize("text", ["CUDA error: out of memory\nSearch", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"])
def test_a_gpu_that_others_fill_is_told(store, folds_df, tmp_path, monkeypatch, text):
    def fail(*arguments, **options):
        raise RuntimeError(text)

    write_folds(tmp_path / "folds.csv", folds_df)
    monkeypatch.setattr(fold_training, "train_fold", fail)
    with pytest.raises(MemoryError, match="no room in memory for the networks: other programs fill it"):
        run_fold(tmp_path, store, folds_df, 0, CONFIG, log=quiet)
