"""Training: one fold."""

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from sklearn.metrics import roc_auc_score
from torch import nn

from melanoma_utils.epoch import build_accelerator, build_scaler, predict_together, train_epoch
from melanoma_utils.files import write_bytes
from melanoma_utils.freezing import BATCH_NORM, freeze_layers
from melanoma_utils.image_store import ImageStore
from melanoma_utils.inference import Samples
from melanoma_utils.memory import keep_freed_memory
from melanoma_utils.metadata_logit import fit_metadata
from melanoma_utils.models import LesionClassifier, build_model, describe_model
from melanoma_utils.objective import Objective
from melanoma_utils.train_config import OPTIMIZERS, TrainConfig, fill_config
from melanoma_utils.training_images import gather_samples, make_pools
from melanoma_utils.transforms import build_augmentation


def train_fold(store: ImageStore, folds_df: pd.DataFrame, fold: int, config: TrainConfig, partial_path: str | Path, *,
               pseudo_df: pd.DataFrame | None = None, metadata_df: pd.DataFrame | None = None,
               start: LesionClassifier | None = None, teachers: Sequence[LesionClassifier] = (),
               accelerator: Accelerator | None = None, log: Callable[[str], None] = print
               ) -> tuple[LesionClassifier, pd.DataFrame, float]:
    """Trains on all folds but one, continuing after the last whole epoch of a run that was stopped.

    Where an AUC steers the training (`TrainConfig.has_monitor`), the next fold is kept out of it for that, so the fold
    that is scored never decides anything. On one machine's CPU the result is the same to the bit, stopped or not.

    Args:
        store: images of all rows of folds_df and pseudo_df.
        folds_df: table with image_name, target, fold, source and the metadata columns.
        fold: the fold to leave out; each epoch shows its AUC over the competition's rows (without TTA), unused.
        config: what to train.
        partial_path: file for the state after each epoch; the caller deletes it when the result is stored.
        pseudo_df: test images with soft targets to train on as well, of `pseudo_labels.read_pseudo_labels`.
        metadata_df: see `metadata_logit.fit_metadata`; nobody of the fold left out is in it.
        start: model of the same network whose parameters the training begins with; none = new ones.
        teachers: config.distill_from's models that have not seen the fold, evaluating, on the accelerator's device.
        accelerator: of the processes that train together, see `epoch.build_accelerator`; none = this one on the CPU.
        log: called with a line an epoch.

    Returns:
        (model, history_df, seconds): the trained classifier; a row an epoch with the columns epoch (from 1), n_images
        (trained on), lr, train_loss (with target "diagnosis" the other diagnoses' loss on top), valid_loss (the
        melanoma's alone), valid_auc (and monitor_auc); the training time, that before a stop included.

    Raises:
        ValueError: the fold is out of range, a part of the images holds one class only, there are too few folds for a
            monitor or no external images, the loss or the gradient is not finite, or the state is another training's.
        MemoryError: a batch does not fit; tells which BATCH_SIZE to try.
        KeyError: an image is not in the store.
    """
    samples, sources = gather_samples(store, folds_df, fold, config, pseudo_df, log)
    run = _Run(samples, sources, config, fold, accelerator or build_accelerator("cpu"), store.identity, metadata_df,
               start, teachers)
    if run.accelerator.device.type == "cpu":
        keep_freed_memory()
    run.resume(Path(partial_path), log)
    run.accelerator.wait_for_everyone()  # nobody writes what another still reads
    while not run.is_finished():
        run.run_epoch(log)
        run.save(Path(partial_path))
    return run.pick_model(), pd.DataFrame(run.history), run.seconds


class _Run:
    """The state of one fold's training: what an epoch changes, and what a stopped run must find again."""

    def __init__(self, samples: dict[str, Samples], sources: np.ndarray, config: TrainConfig, fold: int,
                 accelerator: Accelerator, store_identity: dict, metadata_df: pd.DataFrame | None,
                 start: LesionClassifier | None, teachers: Sequence[LesionClassifier]):
        self.samples, self.config, self.fold, self.accelerator = samples, config, fold, accelerator
        self.store_identity = store_identity
        self.history: list[dict] = []
        self.seconds = 0.0
        self.best_state: dict | None = None  # of the best epoch, or the mean of the last ones
        self.teachers_sha256 = [_hash_parameters(teacher) for teacher in teachers] or None
        self.pools = make_pools(sources, samples["train"].targets, config)
        n_images, world = sum(n for _, n in self.pools), accelerator.num_processes
        self.n_batches = -(-n_images // config.batch_size)
        if n_images // self.n_batches < world:
            raise ValueError(f"BATCH_SIZE {config.batch_size} is too small for {world} processes: wanted at least "
                             f"{2 * world}")
        self.augment = build_augmentation(config.augment)
        torch.manual_seed(_mix_seed(config.seed, fold, 0))
        self.model = build_model(config.model)
        if start is not None:
            self._load_start(start)
        if config.model.use_metadata:
            fit_metadata(self.model, samples["competition"], metadata_df)  # external patients are others in sex, age
            for teacher in teachers:  # imitated in what it sees: theirs was perhaps fitted on other rows
                teacher.metadata.load_state_dict(self.model.metadata.state_dict())
        self.initial_sha256 = _hash_parameters(self.model)  # of SEED, WEIGHTS, START_FROM, metadata
        frozen = freeze_layers(self.model.backbone, config.n_frozen_layers)
        if config.freeze_batch_norm:
            frozen = [module for module in self.model.modules() if isinstance(module, BATCH_NORM)]
        self.objective = Objective(self.model, config.target, frozen, teachers, config.distill_share, config.augment)
        self.objective.to(memory_format=torch.channels_last)
        self.prepared = accelerator.prepare(self.objective)  # on its device; its gradients are those of all processes
        self.optimizer = OPTIMIZERS[config.optimizer](self.objective.parameters(), lr=config.lr,
                                                      weight_decay=config.weight_decay)
        self.scheduler = self._build_scheduler()
        self.scaler = build_scaler(str(accelerator.device), config.precision)

    def _load_start(self, start: LesionClassifier) -> None:
        try:
            self.model.load_state_dict(start.state_dict())
        except RuntimeError as error:
            raise ValueError(f"the model to begin with is another network: {error}") from error

    def _build_scheduler(self):
        n_steps, schedulers = self.n_batches * self.config.n_epochs, torch.optim.lr_scheduler
        if self.config.scheduler == "one_cycle":
            return schedulers.OneCycleLR(self.optimizer, self.config.lr, total_steps=max(n_steps, 2))
        if self.config.scheduler == "cosine":
            return schedulers.CosineAnnealingLR(self.optimizer, n_steps)
        if self.config.scheduler == "plateau":
            return schedulers.ReduceLROnPlateau(self.optimizer, mode="max", factor=0.2, patience=2)
        return None

    def is_finished(self) -> bool:
        """Returns whether all epochs are done, or early stopping ends them."""
        patience, aucs = self.config.early_stopping_patience, [row.get("monitor_auc") for row in self.history]
        is_stale = bool(patience and aucs) and len(aucs) - 1 - int(np.argmax(aucs)) >= patience
        return is_stale or len(aucs) == self.config.n_epochs

    def run_epoch(self, log: Callable[[str], None]) -> None:
        """Trains and scores one epoch, adds its row to the history and logs a line."""
        start, config, epoch = time.perf_counter(), self.config, len(self.history) + 1
        seed = _mix_seed(config.seed, self.fold, epoch)
        torch.manual_seed(seed + self.accelerator.process_index)  # augmentation and dropout
        rng = np.random.default_rng(seed)
        order = rng.permutation(np.concatenate([pool if n == len(pool) else rng.choice(pool, n, replace=False)
                                                for pool, n in self.pools]))
        lr = self.optimizer.param_groups[0]["lr"]
        steps = self.scheduler.step if config.scheduler in ("one_cycle", "cosine") else lambda: None
        loss = train_epoch(self.prepared, self.samples["train"], self.optimizer, order, n_batches=self.n_batches,
                           image_size=config.size_of_epoch(epoch), augment=self.augment, after_step=steps,
                           accelerator=self.accelerator, scaler=self.scaler, precision=config.precision)
        valid_loss, valid_auc = self._score("valid")
        row = {"epoch": epoch, "n_images": len(order), "lr": lr, "train_loss": loss, "valid_loss": valid_loss,
               "valid_auc": valid_auc}
        if config.has_monitor:
            row["monitor_auc"] = self._score("monitor")[1]
            if row["monitor_auc"] > max((r["monitor_auc"] for r in self.history), default=-1):
                self.best_state = self._copy_state()
            if config.scheduler == "plateau":
                self.scheduler.step(row["monitor_auc"])
        n_averaged = epoch - (config.n_epochs - config.n_averaged_epochs)
        if config.n_averaged_epochs and n_averaged > 0:
            state = self._copy_state()
            self.best_state = {k: v + (state[k] - v) / n_averaged if v.is_floating_point() else state[k]
                               for k, v in (self.best_state or state).items()}
        self.history.append(row)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        log(f"epoch {epoch:>2}/{config.n_epochs}  loss {loss:.4f}  valid loss {valid_loss:.4f}  valid AUC "
            f"{valid_auc:.4f}" + (f"  monitor AUC {row['monitor_auc']:.4f}" if config.has_monitor else "")
            + f"  {len(order) / seconds:.0f} images/s")

    def _score(self, name: str) -> tuple[float, float]:
        samples = self.samples[name]
        logits = predict_together(self.model, samples, self.accelerator, self.config.batch_size,
                                  precision=self.config.precision)
        loss = nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logits),
                                                              torch.from_numpy(samples.targets))
        return loss.item(), float(roc_auc_score(samples.targets, logits))

    def _copy_state(self) -> dict:
        return {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}

    def pick_model(self) -> LesionClassifier:
        """Returns the model of the last epoch, with a monitor that of its best one, or the mean of the last ones."""
        if self.best_state is not None:
            self.model.load_state_dict(self.best_state)
        return self.model.eval()

    def save(self, path: Path) -> None:
        """Writes the state, whole or not at all; one process does it for all."""
        if not self.accelerator.is_main_process:
            return
        buffer = io.BytesIO()
        torch.save({"identity": self._identify(), "history": self.history, "seconds": self.seconds,
                    "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                    "scheduler": self.scheduler and self.scheduler.state_dict(), "scaler": self.scaler.state_dict(),
                    "best_state": self.best_state,
                    "classes": self.objective.classes and self.objective.classes.state_dict()}, buffer)
        write_bytes(path, buffer.getvalue())

    def resume(self, path: Path, log: Callable[[str], None]) -> None:
        """Takes up the state at path where there is one; raises ValueError if it is damaged or of another training."""
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} is damaged ({type(error).__name__}): delete it, this fold starts over") from error
        identity, wanted = ({**i, "config": fill_config(i["config"])} for i in (state["identity"], self._identify()))
        if identity != wanted:
            raise ValueError(f"{path} is of a training with other parameters or folds: delete it, or give another "
                             "EXPERIMENT")
        self.history, self.seconds, self.best_state = state["history"], state["seconds"], state["best_state"]
        self.model.load_state_dict(state["model"])
        if self.objective.classes is not None:
            self.objective.classes.load_state_dict(state["classes"])
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self.optimizer.defaults["fused"]  # how a step is computed is no state of the training
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        log(f"fold {self.fold} continues after epoch {len(self.history)} of {self.config.n_epochs}")

    def _identify(self) -> dict:
        train = self.samples["train"]
        columns = (train.rows, train.targets, train.metadata, train.diagnoses)
        digest = hashlib.sha256(b"".join(c.tobytes() for c in columns if c is not None)).hexdigest()
        config = asdict(self.config) | {"model": describe_model(self.config.model)}
        optional = {"teachers_sha256": self.teachers_sha256, "n_processes": self.accelerator.num_processes}
        return {"config": config, "fold": self.fold, "train_sha256": digest, "store": self.store_identity,
                "initial_sha256": self.initial_sha256,
                **{key: value for key, value in optional.items() if value not in (None, 1)}}


def _hash_parameters(model: LesionClassifier) -> str:
    parameters = np.concatenate([p.detach().cpu().numpy().ravel() for p in model.parameters()])
    return hashlib.sha256(parameters.tobytes()).hexdigest()


def _mix_seed(seed: int, fold: int, epoch: int) -> int:
    """Returns one seed for three numbers, so that no two epochs share their random draws."""
    return int(np.random.SeedSequence((seed, fold, epoch)).generate_state(1)[0])
