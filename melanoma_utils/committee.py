"""Networks of several trainings gathered into one experiment: one a fold, each fold's from another training."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_utils.blending import blend_scores
from melanoma_utils.experiment import checkpoint_path, find_trained_folds
from melanoma_utils.files import hash_file, read_json, write_csv, write_json
from melanoma_utils.fold_predictions import OOF_NAMES, read_oof
from melanoma_utils.folds import SOURCES, read_folds
from melanoma_utils.models import load_checkpoint, read_checkpoint_config, save_checkpoint
from melanoma_utils.plan import COMMITTEE, LEAVES
from melanoma_utils.train_config import fill_defaults


def gather_committee(experiment_dir: str | Path, member_dirs: Sequence[str | Path]) -> None:
    """Makes an experiment of trained ones, for 04_evaluate_oof and `melanoma_utils.export`.

    Its network of fold k is that of the k-th member; its out-of-fold logit of an image is the mean of the members'
    logits, each of a network that has not seen the image's fold, so the figures are those of the mean over these
    trainings, as a new picture gets it. A member may be named more than once, and then counts as often in both.

    Args:
        experiment_dir: where to make it: a folder that is not there yet, or empty.
        member_dirs: folders of experiments with the same folds.csv, as many as there are folds, in the folds' order.

    Raises:
        FileNotFoundError: a member is not there, or a fold of it not trained.
        ValueError: the members are not as many as the folds, or all one; two have one name; they differ in folds,
            images, network or views; a member is damaged; or the folder holds something.
    """
    folder, members = Path(experiment_dir), [Path(path).resolve() for path in member_dirs]
    names = [member.name for member in members]
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something already: give another folder, or delete it first")
    folds = _check_members(members)
    tables = {source: _average(members, folds, source) for source in SOURCES}
    loaded = [load_checkpoint(checkpoint_path(member, fold)) for fold, member in enumerate(members)]
    parameters = [read_json(member / "parameters.json") for member in members]
    folder.mkdir(parents=True, exist_ok=True)
    for name in LEAVES["02_create_folds"]:
        if (members[0] / name).is_file():
            shutil.copyfile(members[0] / name, folder / name)
    shared = {key: value for key, value in parameters[0].items() if all(p.get(key) == value for p in parameters)}
    shared |= {"EXPERIMENT": folder.name, COMMITTEE: names}
    write_json(folder / "parameters.json", dict(sorted(shared.items())))
    for fold, member in enumerate(members):
        for source, df in tables.items():
            if len(df):
                write_csv(folder / f"{OOF_NAMES[source]}_fold_{fold}.csv", df[df["fold"] == fold])
        shutil.copyfile(member / f"history_fold_{fold}.csv", folder / f"history_fold_{fold}.csv")
        model, config = loaded[fold]
        save_checkpoint(checkpoint_path(folder, fold), model, config | {"committee": names})


def _check_members(members: Sequence[Path]) -> list[int]:
    """Returns the folds that all members are trained for, on the same images."""
    for member in members:
        for name in ("folds.csv", "parameters.json"):
            if not (member / name).is_file():
                raise FileNotFoundError(f"{member} is no trained experiment: it holds no {name}")
    folds = find_trained_folds(members[0], require_all=True)
    if len(members) != len(folds) or len(set(members)) < 2:
        raise ValueError(f"{len(set(members))} members named {len(members)} times, wanted {len(folds)}, as many as "
                         "there are folds, and two different ones at least; one may be named more than once")
    if len({member.name for member in members}) < len(set(members)):
        raise ValueError("two members have the same name, by which the card tells them apart: rename one folder")
    for fold, member in enumerate(members):
        if not (member / f"history_fold_{fold}.csv").is_file():
            raise FileNotFoundError(f"{member} holds no history_fold_{fold}.csv, which 03_train_fold wrote")
    found = {member.name: _describe(member) for member in members}
    first = found[members[0].name]
    for name, described in found.items():
        differing = [key for key in first if described[key] != first[key]]
        if differing:
            raise ValueError(f"{name} and {members[0].name} differ in {', '.join(differing)}: a committee wants "
                             "members with the same folds that look at the same images")
    return folds


def _describe(member: Path) -> dict[str, object]:
    """Returns what must be the same in all members."""
    folds = find_trained_folds(member, require_all=True)
    config = fill_defaults(read_checkpoint_config(checkpoint_path(member, folds[0])))
    if "committee" in config:
        raise ValueError(f"{member} is a committee itself: name its members")
    made = {key: config["model"][key] for key in ("arch", "image_size", "resize_mode", "clean_steps", "use_metadata")}
    store = {key: value for key, value in config["store"].items() if key != "test"}  # there with TEACHERS alone
    return made | {"folds.csv": hash_file(member / "folds.csv"), "store": store, "tta_views": config["tta_views"],
                   "metadata_from": config["train"]["metadata_from"]}


def _average(members: Sequence[Path], folds: list[int], source: str) -> pd.DataFrame:
    """Returns image_name, patient_id, target, fold, and the mean over the members of the out-of-fold logit."""
    folds_df = read_folds(members[0] / "folds.csv")
    tables = [read_oof(member, folds_df, folds, source) for member in members]
    logits = np.stack([df["logit"] for df in tables], axis=1)  # (N, n_members), all in folds.csv's order
    return tables[0][["image_name", "patient_id", "target", "fold"]].assign(logit=blend_scores(logits))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m melanoma_utils.committee", description=__doc__)
    parser.add_argument("experiment_dir", metavar="EXPERIMENT_DIR", help="what to make, such as output/committee")
    parser.add_argument("member_dirs", metavar="MEMBER_DIR", nargs="+",
                        help="folders of trained experiments, as many as there are folds; one may come again")
    a = parser.parse_args(arguments)
    try:
        gather_committee(a.experiment_dir, a.member_dirs)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{a.experiment_dir}: a network a fold of {', '.join(Path(path).name for path in a.member_dirs)}; next: "
          "04_evaluate_oof, with the images and their size as in the trainings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
