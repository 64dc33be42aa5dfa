"""Draws a seeded synthetic melanoma competition: tables, JPEG pictures and the hidden truth behind them.

One hidden number per image, its atypia, drives everything that marks a melanoma in the picture:

    atypia = 2.2 * target + s * patient + sqrt(1 - s**2) * image,    patient, image ~ N(0, 1), s = patient_strength

A single image is therefore equally hard for every s (AUC of the atypia = Phi(2.2 / sqrt(2)) = 0.94); s says how much of
the variation a patient's lesions share, which is what comparing a lesion with the patient's other lesions can remove.
The style of skin and moles is shared to the same degree: at s = 0 a patient's images have only age and sex in common.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image

from melanoma_utils.competition import (
    DUPLICATE_COLUMNS,
    TEST_COLUMNS,
    TRAIN_COLUMNS,
)
from melanoma_utils.drawing import draw_image
from melanoma_utils.files import find_differences, lock_folder, read_json, write_bytes, write_csv, write_json

DRAWING_VERSION = 1  # raise it whenever the same config would give other bytes
CLASS_DISTANCE = 2.2  # of the atypia, in its standard deviations
STYLES = ("skin", "pigment", "hue", "pattern", "mole_size")  # shared within a patient; they say nothing of the target
# Rounded shares of the SIIM-ISIC 2020 training table; the rarest diagnoses are raised so that a small draw holds some.
SITE_SHARES = {"torso": 0.51, "lower extremity": 0.255, "upper extremity": 0.155, "head/neck": 0.06,
               "palms/soles": 0.014, "oral/genital": 0.006}
BENIGN_SHARES = {"unknown": 0.8, "nevus": 0.165, "seborrheic keratosis": 0.015, "lentigo NOS": 0.01,
                 "lichenoid keratosis": 0.006, "solar lentigo": 0.004}


@dataclass(frozen=True)
class SyntheticConfig:
    """What to draw; equal configs give equal bytes.

    Args:
        n_train_patients, n_test_patients: number of patients, 1 to a million.
        mean_images_per_patient: at least 2; two images plus a geometric tail.
        prevalence: share of images with target 1, 0.001 to 0.999, the same in train and test.
        patient_strength: s in [0, 1], how much the atypia and the style of a patient's images share (module's text).
        duplicate_share: near copies to add, as a share in [0, 1] of a split's images.
        image_size: longest side in pixels, 32 to 6000.
        seed: at least 0.

    Raises:
        ValueError: a value is outside its range.
    """

    n_train_patients: int = 60
    n_test_patients: int = 17
    mean_images_per_patient: float = 12.0
    prevalence: float = 0.2
    patient_strength: float = 0.85
    duplicate_share: float = 0.02
    image_size: int = 224
    seed: int = 0

    def __post_init__(self):
        wanted = {"mean_images_per_patient": (2, math.inf), "image_size": (32, 6000), "patient_strength": (0, 1),
                  "n_train_patients": (1, 10**6), "n_test_patients": (1, 10**6), "duplicate_share": (0, 1),
                  "prevalence": (0.001, 0.999), "seed": (0, 2**63)}
        for name, (low, high) in wanted.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted {low} to {high}")


def draw_competition(out_dir: str | Path, config: SyntheticConfig | None = None, n_jobs: int = -1) -> Path:
    """Writes a whole competition in Kaggle's layout, and synthetic.json last of all; a killed call can be repeated.

    Args:
        out_dir: folder to write to; made where absent.
        config: what to draw; SyntheticConfig() where None.
        n_jobs: processes, as in joblib; it has no influence on the bytes.

    Returns:
        out_dir as a Path.

    Raises:
        FileExistsError: out_dir holds another config's competition, or tables that this config would not write.
        TimeoutError: another process has been drawing there for 30 s.
    """
    out_dir, config = Path(out_dir), config or SyntheticConfig()
    marker_path, partial_path = out_dir / "synthetic.json", out_dir / "synthetic.json.partial"
    stamp = {"drawing_version": DRAWING_VERSION, **asdict(config)}
    with lock_folder(out_dir):
        if not _holds_config(marker_path, stamp):
            if not _holds_config(partial_path, stamp):
                _clear_unmarked(out_dir, config)
                write_json(partial_path, stamp)
            _draw_files(out_dir, config, n_jobs)
            os.replace(partial_path, marker_path)
    return out_dir


def _holds_config(path: Path, stamp: dict) -> bool:
    """Returns whether the marker at path exists; raises FileExistsError where its config is another."""
    if not path.exists():
        return False
    differences = find_differences(read_json(path), stamp)
    if differences:
        raise FileExistsError(f"{path.parent} holds another synthetic competition ({differences}): remove the folder "
                              "or choose another")
    return True


def _clear_unmarked(out_dir: Path, config: SyntheticConfig) -> None:
    """Refuses a folder with tables of unknown origin, and removes synthetic images whose config nobody knows."""
    for name, df in _make_files(config).items():
        path = out_dir / name
        if path.exists() and path.read_bytes() != df.to_csv(index=False, lineterminator="\n").encode():
            raise FileExistsError(f"{path} is not what this config would write: choose another folder")
    for path in out_dir.glob("jpeg/*/SYN_*.jpg"):
        path.unlink()


def _draw_files(out_dir: Path, config: SyntheticConfig, n_jobs: int) -> None:
    """Writes the tables, and the images that are not there yet."""
    for path in out_dir.rglob("*.tmp"):
        path.unlink()
    for name, df in _make_files(config).items():
        write_csv(out_dir / name, df)
    rows = [row for row in make_latents(config).to_dict("records") if not _jpeg_path(out_dir, row).exists()]
    chunks = [rows[i : i + 32] for i in range(0, len(rows), 32)]
    Parallel(n_jobs=n_jobs)(delayed(_write_jpegs)(out_dir, chunk, config.image_size) for chunk in chunks)


def _make_files(config: SyntheticConfig) -> dict[str, pd.DataFrame]:
    """Returns the competition's four tables by file name."""
    train_df, test_df, duplicates_df = make_tables(config)
    sample_df = test_df[["image_name"]].assign(target=0)
    return {"train.csv": train_df, "test.csv": test_df, "sample_submission.csv": sample_df,
            "2020_Challenge_duplicates.csv": duplicates_df}


def _jpeg_path(out_dir: Path, row: Mapping) -> Path:
    return out_dir / "jpeg" / row["split"] / f"{row['image_name']}.jpg"


def _write_jpegs(out_dir: Path, rows: list[dict], image_size: int) -> None:
    """Draws and writes the images of some rows of make_latents."""
    for row in rows:
        buffer = BytesIO()
        Image.fromarray(draw_image(row, image_size)[0]).save(buffer, "JPEG", quality=90)
        write_bytes(_jpeg_path(out_dir, row), buffer.getvalue())


# ---- tables


def make_tables(config: SyntheticConfig) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Returns train_df, test_df and duplicates_df with exactly the columns of the competition's CSV files."""
    latents = make_latents(config)
    train, test = (latents[latents.split == split].reset_index(drop=True) for split in ("train", "test"))
    copies = latents.loc[latents.copy_of != "", ["copy_of", "image_name", "split"]].sort_values("copy_of")
    duplicates_df = copies.set_axis(list(DUPLICATE_COLUMNS), axis=1).reset_index(drop=True)
    return train[list(TRAIN_COLUMNS)], test[list(TEST_COLUMNS)], duplicates_df


def make_latents(config: SyntheticConfig) -> pd.DataFrame:
    """Returns one row an image of both splits, sorted by image_name: the tables' columns and what they hide.

    Columns beside TRAIN_COLUMNS (the labels of the test images included): split; atypia and each of STYLES (standard
    normal within a class); draw_seed; copy_of ('' or the name of the image of which this one is a near copy).
    """
    rng = np.random.default_rng([config.seed, 2020])
    n_train, n_test = config.n_train_patients, config.n_test_patients
    patient_ids = [f"SP_{number:07d}" for number in rng.choice(10**7, n_train + n_test, replace=False)]
    train_df = _make_split("train", patient_ids[:n_train], config, rng)
    test_df = _make_split("test", patient_ids[n_train:], config, rng)
    df = pd.concat([train_df, test_df], ignore_index=True)
    df["image_name"] = [f"SYN_{number:07d}" for number in rng.choice(10**7, len(df), replace=False)]
    df["copy_of"] = df["copy_of"].map(df.set_index("row_id")["image_name"]).fillna("")
    return df.drop(columns="row_id").sort_values("image_name", ignore_index=True)


def _make_split(split: str, patient_ids: list[str], config: SyntheticConfig, rng: np.random.Generator) -> pd.DataFrame:
    """Returns the images of one split's patients, patient by patient, near copies last."""
    patients = _make_patients(patient_ids, rng)
    n_images = _count_images(len(patients), config.mean_images_per_patient)
    df = patients.loc[np.repeat(patients.index, n_images)].reset_index(drop=True)
    _add_labels(df, config.prevalence, rng)
    shared, own, latents = config.patient_strength, math.sqrt(1 - config.patient_strength**2), ["atypia", *STYLES]
    df[latents] = shared * df[latents] + own * rng.normal(size=(len(df), len(latents)))
    df["atypia"] += CLASS_DISTANCE * df["target"]
    _hide_values(df, split, rng)
    df["split"], df["copy_of"], df["row_id"] = split, "", [f"{split}{i}" for i in range(len(df))]
    df["draw_seed"] = rng.integers(2**62, size=len(df))
    copied = df.loc[rng.choice(len(df), round(config.duplicate_share * len(df)), replace=False)]
    return pd.concat([df, copied.assign(copy_of=copied.row_id, row_id="copy" + copied.row_id)], ignore_index=True)


def _make_patients(patient_ids: list[str], rng: np.random.Generator) -> pd.DataFrame:
    """Returns one row a patient: sex, age in years, and the patient's part of the atypia and of each style."""
    n_patients = len(patient_ids)
    df = pd.DataFrame({"patient_id": patient_ids, "age_approx": rng.normal(49, 14, n_patients)})
    df["sex"] = rng.choice(["male", "female"], n_patients, p=[0.52, 0.48])
    # Permuted quantiles of a normal: with few patients a plain draw would make the AUC wander from seed to seed.
    normal = np.array([NormalDist().inv_cdf((rank + 0.5) / n_patients) for rank in range(n_patients)])
    for name in ("atypia", *STYLES):
        df[name] = rng.permutation(normal)
    return df


def _count_images(n_patients: int, mean: float) -> np.ndarray:
    """Returns numbers of images, most first: two and a geometric tail, at its quantiles so that the sum is steady."""
    tail = mean - 2
    levels = (np.arange(n_patients) + 0.5) / n_patients
    extra = np.log(levels) / math.log(tail / (tail + 1)) if tail > 0 else np.zeros(n_patients)
    return 2 + np.floor(extra).astype(int)


def _add_labels(df: pd.DataFrame, prevalence: float, rng: np.random.Generator) -> None:
    """Adds site, age in steps of five years, target, diagnosis and benign_malignant to a frame of images, in place."""
    age = 5 * np.round(df["age_approx"] / 5) + rng.choice([-5, 0, 5], len(df), p=[0.15, 0.7, 0.15])
    df["age_approx"] = age.clip(10, 90)
    df["anatom_site_general_challenge"] = site = rng.choice(list(SITE_SHARES), len(df), p=list(SITE_SHARES.values()))
    risk = 0.045 * df["age_approx"] + 0.4 * (df["sex"] == "male") + 0.8 * (site == "head/neck")
    # The largest of risk + Gumbel noise are a draw without replacement at odds exp(risk): exactly n_melanomas.
    n_melanomas = min(max(round(prevalence * len(df)), 1), len(df) - 1)
    is_melanoma = (risk + rng.gumbel(size=len(df))).rank() > len(df) - n_melanomas
    benign = rng.choice(list(BENIGN_SHARES), len(df), p=list(BENIGN_SHARES.values()))
    df["target"] = is_melanoma.astype(int)
    df["diagnosis"] = np.where(is_melanoma, "melanoma", benign)
    df["benign_malignant"] = np.where(is_melanoma, "malignant", "benign")


def _hide_values(df: pd.DataFrame, split: str, rng: np.random.Generator) -> None:
    """Empties some values in place, as in the real tables: site in both splits, age and sex in train only."""
    df.loc[rng.choice(len(df), math.ceil(0.015 * len(df)), replace=False), "anatom_site_general_challenge"] = np.nan
    if split == "train":
        patient_ids = df["patient_id"].unique()
        hidden = rng.choice(patient_ids, math.ceil(0.01 * len(patient_ids)), replace=False)
        df.loc[df["patient_id"].isin(hidden), ["sex", "age_approx"]] = np.nan
        df.loc[rng.choice(len(df), math.ceil(0.002 * len(df)), replace=False), "age_approx"] = np.nan
