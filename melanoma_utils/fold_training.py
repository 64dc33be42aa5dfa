"""One fold of an experiment: trained, predicted and stored once, by one process or by several together."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import torch
from accelerate import notebook_launcher
from accelerate.utils import broadcast_object_list

from melanoma_utils.epoch import build_accelerator, predict_together, tell_no_memory
from melanoma_utils.experiment import checkpoint_path, describe_training, is_trained, partial_path, save_fold
from melanoma_utils.files import hash_file, lock_folder, update_json
from melanoma_utils.folds import split_by_fold
from melanoma_utils.image_store import ImageStore
from melanoma_utils.inference import fuse_batch_norm, select_samples
from melanoma_utils.models import LesionClassifier, load_checkpoint, read_checkpoint_config
from melanoma_utils.train_config import TrainConfig
from melanoma_utils.training import train_fold
from melanoma_utils.transforms import check_tta_views


def run_fold(experiment_dir: str | Path, store: ImageStore, folds_df: pd.DataFrame, fold: int, config: TrainConfig, *,
             tta_views: int = 1, pseudo_df: pd.DataFrame | None = None, metadata_df: pd.DataFrame | None = None,
             start_dir: str | Path = "", teacher_dirs: Sequence[str | Path] = (), device: str = "cpu",
             n_processes: int = 1, log: Callable[[str], None] = print) -> None:
    """Trains a fold and writes what `experiment.save_fold` tells, unless it is there already.

    Args:
        experiment_dir: the experiment's folder, with folds.csv.
        store: images of all rows of folds_df and pseudo_df.
        folds_df: that folds.csv.
        fold: the fold to leave out.
        config: what to train.
        tta_views: views of the out-of-fold predictions.
        pseudo_df: see `training.train_fold`.
        metadata_df: train.csv of a competition, on whose rows, but those of patients left out, the metadata's logit is
            fitted; none = on the images trained on.
        start_dir: folder of an experiment, or of an exported model, with whose checkpoint of this fold the training
            begins; "" = with config.model.weights.
        teacher_dirs: folders of the experiments of config.distill_from, whose checkpoints of this fold are imitated.
        device: "cpu" or "cuda".
        n_processes: GPUs of this machine, or processes on its CPU, that train the fold together. Processes that
            torchrun or `accelerate launch` has started train together anyway.
        log: called with a line now and then.

    Raises:
        FileNotFoundError: start_dir or a teacher has no checkpoint of the fold.
        ValueError: that checkpoint is of another network or was trained on other folds, or a teacher wants other
            images; external images are in the store and not in the folds, or the other way round; metadata_df has
            another patient for an image; n_processes is more than there are GPUs; the fold is there with other
            parameters; or see `training.train_fold`.
        TimeoutError: another process trains this fold.
        MemoryError: there is no room for the networks; or see `training.train_fold`.
        KeyError: see `training.train_fold`.
    """
    _check_call(store, folds_df, tta_views, device, n_processes)
    if metadata_df is not None:
        metadata_df = _drop_left_out(metadata_df, folds_df[folds_df["source"] == "competition"], fold)
    arguments = Path(experiment_dir), store, folds_df, fold, config, tta_views, pseudo_df, metadata_df, start_dir, \
        teacher_dirs, device, log
    if n_processes > 1:
        notebook_launcher(_run_forked, arguments, num_processes=n_processes, rdzv_backend="c10d",
                          rdzv_endpoint="localhost:0")  # any free port; with use_port="0" they never meet
    else:
        _run(*arguments)


def _check_call(store: ImageStore, folds_df: pd.DataFrame, tta_views: int, device: str, n_processes: int) -> None:
    check_tta_views(tta_views)
    if ("external" in store.identity) != (folds_df["source"] == "external").any():
        raise ValueError("02_create_folds and 03_train_fold want the same EXTERNAL_DIR")
    n_gpus = torch.cuda.device_count()
    if device != "cpu" and n_processes > n_gpus:
        raise ValueError(f"N_PROCESSES {n_processes} is more than the {n_gpus} GPUs of this machine: lower it, or "
                         "train folds side by side, with the pipeline's --workers")


def _drop_left_out(metadata_df: pd.DataFrame, folds_df: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Returns the rows of a whole train.csv that are of no patient of a fold."""
    both_df = folds_df.merge(metadata_df, on="image_name", suffixes=("", "_there"))
    changed = both_df["image_name"][both_df["patient_id"] != both_df["patient_id_there"]]
    if len(changed):
        raise ValueError(f"METADATA_FROM's train.csv has another patient_id than folds.csv for {len(changed)} images, "
                         f"first {changed.iloc[0]}: the patients of fold {fold} can't be left out of it")
    return metadata_df[~metadata_df["patient_id"].isin(folds_df["patient_id"][folds_df["fold"] == fold])]


@tell_no_memory("there is no room in memory for the networks: other programs fill it; wait for them, or choose another "
                "GPU with CUDA_VISIBLE_DEVICES")
def _run(folder: Path, store: ImageStore, folds_df: pd.DataFrame, fold: int, config: TrainConfig, tta_views: int,
         pseudo_df: pd.DataFrame | None, metadata_df: pd.DataFrame | None, start_dir: str | Path,
         teacher_dirs: Sequence[str | Path], device: str, log: Callable[[str], None]) -> None:
    accelerator = build_accelerator(device)
    is_main = accelerator.is_main_process
    log = log if is_main else lambda line: None
    description = describe_training(config, fold, folder / "folds.csv", store, tta_views, pseudo_df, metadata_df)
    teachers: list[LesionClassifier] = []
    if start_dir:
        read_checkpoint_config(checkpoint_path(start_dir, fold))  # a clear error where there is none
        description["start_sha256"] = hash_file(checkpoint_path(start_dir, fold))
    if teacher_dirs:
        teachers = [_load_teacher(path, fold, config, description["folds_sha256"], device) for path in teacher_dirs]
        description["teachers_sha256"] = [hash_file(checkpoint_path(path, fold)) for path in teacher_dirs]
    with lock_folder(folder, name=f"fold_{fold}") if is_main else nullcontext():
        answer = [is_main and is_trained(folder, description)]
        if accelerator.num_processes > 1:
            broadcast_object_list(answer)  # one decides for all
        if answer[0]:
            log(f"fold {fold} is trained already: nothing to do")
            return
        start = _load_start(start_dir, fold, config, description["folds_sha256"]) if start_dir else None
        model, history_df, seconds = train_fold(store, folds_df, fold, config, partial_path(folder, fold),
                                                pseudo_df=pseudo_df, metadata_df=metadata_df, start=start,
                                                teachers=teachers, accelerator=accelerator, log=log)
        _, *left_out = split_by_fold(folds_df, fold)  # the competition's images, the external ones
        oof_dfs = [df[["image_name", "patient_id", "target", "fold"]].assign(logit=predict_together(
            model, select_samples(store, df, config.model.use_metadata), accelerator, config.batch_size,
            tta_views=tta_views)) for df in left_out]  # in fp32, as the app and `predict` compute: bf16 differs by 0.05
        if is_main:
            save_fold(folder, description, model, history_df, *oof_dfs)
            update_json(folder / "timing.json", **{f"train_fold_{fold}_seconds": round(seconds, 1)})
    accelerator.wait_for_everyone()


def _run_forked(*arguments: object) -> None:
    """Does `_run` in a process that notebook_launcher has forked.

    The notebook's OpenMP threads are not forked along: whatever wants several would wait for them for ever.
    """
    torch.set_num_threads(1)
    _run(*arguments)


def _load_start(start_dir: str | Path, fold: int, config: TrainConfig, folds_sha256: str) -> LesionClassifier:
    return _load_unseen(checkpoint_path(start_dir, fold), fold, config, folds_sha256, ("arch", "use_metadata"))


def _load_teacher(teacher_dir: str | Path, fold: int, config: TrainConfig, folds_sha256: str,
                  device: str) -> LesionClassifier:
    model = _load_unseen(checkpoint_path(teacher_dir, fold), fold, config, folds_sha256,
                         ("use_metadata", "resize_mode", "clean_steps"))
    return fuse_batch_norm(model).to(device, memory_format=torch.channels_last)


def _load_unseen(path: Path, fold: int, config: TrainConfig, folds_sha256: str,
                 names: Sequence[str]) -> LesionClassifier:
    """Returns the model of a checkpoint that has not seen a fold and agrees with our configuration in these names."""
    model, stored = load_checkpoint(path)
    if "committee" in stored:
        raise ValueError(f"{path} is of a committee, whose folds are of several trainings: name one of its members, "
                         f"{', '.join(dict.fromkeys(stored['committee']))}")
    if stored["folds_sha256"] != folds_sha256:
        raise ValueError(f"{path} was trained with another folds.csv, perhaps on images that fold {fold} is scored "
                         "on: take an experiment that has the same one")
    for name in names:
        found, wanted = (tuple(value) if isinstance(value := getattr(c, name), list) else value
                         for c in (model.config, config.model))
        if found != wanted:
            raise ValueError(f"{path} has {name.upper()} {found!r}, wanted {wanted!r}")
    return model
