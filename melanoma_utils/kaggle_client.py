"""The official kaggle client, run with advice where it fails."""

import argparse
import errno
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from melanoma_utils.archives import ZipMember, list_zip_members
from melanoma_utils.clients import report_errors, run_client
from melanoma_utils.competition import check_test_names, find_images, read_sample_submission, read_test, read_train
from melanoma_utils.data_folder import COMPETITION
from melanoma_utils.files import write_bytes
from melanoma_utils.kaggle_advice import COMPETITION_ADVICE, make_dataset_advice
from melanoma_utils.kaggle_submission import submit

COMPETITION_BYTES = 108 * 10**9  # its zip, about
TABLES = ("train.csv", "test.csv", "sample_submission.csv")
KAGGLE_INPUT = Path("/kaggle/input")  # there inside a Kaggle notebook


def check_competition(data_dir: str | Path) -> str:
    """Returns what a competition folder holds, in words, its tables read and every image found by name.

    Raises:
        FileNotFoundError: a table or an image is not there.
        ValueError: a table is wrong, or an archive damaged.
    """
    test_df = read_test(data_dir)
    check_test_names(test_df, read_sample_submission(data_dir))
    train, test = (find_images(data_dir, split, df["image_name"])
                   for split, df in (("train", read_train(data_dir)), ("test", test_df)))
    return f"{data_dir} holds {len(train):,} training and {len(test):,} test images"


def download_competition(data_dir: str | Path) -> None:
    """Writes the competition's zip (108 GB) and its three tables into a folder; the images stay in the zip.

    What is there already is kept: an interrupted download continues, a complete one is left alone.

    Raises:
        FileNotFoundError: there is no kaggle client.
        ChildProcessError: the client failed; tells what to do.
        OSError: the disk has no room for the zip.
        ValueError: this is a Kaggle notebook, or the zip is damaged.
    """
    _refuse_kaggle_notebook("Competitions > SIIM-ISIC Melanoma Classification", "it is then found without DATA_DIR")
    data_dir = Path(data_dir).expanduser()
    zip_path = data_dir / f"{COMPETITION}.zip"
    if _is_complete(data_dir):
        return
    for _ in range(2):  # a client that ends well with a part of the zip continues when it is run again
        if not _is_whole(zip_path):
            _check_space(data_dir, COMPETITION_BYTES - (zip_path.stat().st_size if zip_path.exists() else 0))
            run_client(["kaggle", "competitions", "download", "-c", COMPETITION, "-p", str(data_dir)],
                       COMPETITION_ADVICE)
    if not _is_whole(zip_path):
        raise ValueError(f"{zip_path} is still no whole zip archive: delete it, then run the same command again")
    for name in TABLES:
        write_bytes(data_dir / name, ZipMember(zip_path, name, 0).read_bytes())
    print(check_competition(data_dir), "(in the zip, which needs no unpacking)")


def download_dataset(dataset: str, data_dir: str | Path) -> None:
    """Writes a Kaggle dataset laid out like the competition, such as a resized mirror, unpacked into a folder.

    Args:
        dataset: "owner/name", e.g. "cdeotte/jpeg-melanoma-256x256".
        data_dir: the folder; one that is complete is left alone.

    Raises:
        FileNotFoundError: there is no kaggle client, or the dataset lacks tables or images.
        ChildProcessError: the client failed; tells what to do.
        ValueError: this is a Kaggle notebook, or a table is wrong.
    """
    _refuse_kaggle_notebook(f"Datasets > {dataset}", f"then give its folder in {KAGGLE_INPUT} as DATA_DIR")
    data_dir = Path(data_dir).expanduser()
    if _is_complete(data_dir):
        return
    run_client(["kaggle", "datasets", "download", "-d", dataset, "-p", str(data_dir), "--unzip"],
               make_dataset_advice(dataset))
    print(check_competition(data_dir))


def _refuse_kaggle_notebook(what: str, then: str) -> None:
    if KAGGLE_INPUT.is_dir():
        raise ValueError(f"inside Kaggle data are attached, not downloaded: Add Input > {what}; {then}")


def _is_complete(data_dir: Path) -> bool:
    """Returns whether all is there; raises ValueError where something of it can't be used, and no zip is there to take
    it from anew."""
    try:
        print(f"{check_competition(data_dir)} already")
    except FileNotFoundError:
        return False
    except ValueError:
        if not any(data_dir.glob("*.zip")):
            raise
        return False
    return True


def _is_whole(zip_path: Path) -> bool:
    try:
        return bool(list_zip_members(zip_path))
    except (FileNotFoundError, ValueError):
        return False


def _check_space(data_dir: Path, n_bytes: int) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_dir).free
    if free < n_bytes:
        raise OSError(errno.ENOSPC, f"the download needs {n_bytes / 1e9:,.1f} GB more, {free / 1e9:,.1f} GB are free "
                                    "(a resized mirror needs a few: DATASET=OWNER/NAME)", str(data_dir))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m melanoma_utils.kaggle_client", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    download = commands.add_parser("download", help="get the competition, or a dataset laid out like it")
    download.add_argument("--dataset", metavar="OWNER/NAME", help="such as cdeotte/jpeg-melanoma-256x256")
    download.add_argument("data_dir", metavar="DIR")
    send = commands.add_parser("submit", help="send a submission")
    send.add_argument("path", metavar="FILE")
    send.add_argument("-m", "--message", required=True)
    a = parser.parse_args(arguments)
    if a.command == "submit":
        return report_errors(lambda: submit(a.path, a.message))
    if a.dataset:
        return report_errors(lambda: download_dataset(a.dataset, a.data_dir))
    return report_errors(lambda: download_competition(a.data_dir))


if __name__ == "__main__":
    sys.exit(main())
