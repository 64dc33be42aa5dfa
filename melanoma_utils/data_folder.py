"""Which folder the images come from: one given, Kaggle's, or a drawn one."""

from pathlib import Path

from melanoma_utils.synthetic import draw_competition

COMPETITION = "siim-isic-melanoma-classification"
KAGGLE_DIRS = (Path("/kaggle/input", COMPETITION), Path("/kaggle/input/competitions", COMPETITION))


def find_data_dir(data_dir: str | Path, input_dir: str | Path) -> Path:
    """Returns the competition folder: data_dir where it is given, else the competition attached to a Kaggle notebook,
    else input_dir/synthetic, where a competition is drawn when there is none yet.

    Raises:
        FileNotFoundError: the folder given does not exist.
        FileExistsError, TimeoutError: see `synthetic.draw_competition`.
    """
    if data_dir:
        if not Path(data_dir).is_dir():
            raise FileNotFoundError(f"DATA_DIR {data_dir} does not exist")
        return Path(data_dir)
    attached = next((folder for folder in KAGGLE_DIRS if folder.is_dir()), None)
    return attached or draw_competition(Path(input_dir) / "synthetic")


def is_synthetic(data_dir: str | Path) -> bool:
    """Returns whether a competition folder holds drawn images."""
    return Path(data_dir, "synthetic.json").exists()


def name_source(data_dir: str | Path) -> str:
    """Returns what a figure says of where its images come from: the folder's name, or that they are drawn."""
    return "synthetic competition" if is_synthetic(data_dir) else Path(data_dir).name
