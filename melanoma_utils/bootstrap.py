"""The patient-clustered bootstrap: which rows it takes, how often each patient is drawn, sums over resamples."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

CHUNK = 100  # resamples computed at a time
MIN_RESAMPLES = 40  # a 95 % interval leaves out one in 40 at either end


def check_scores(targets: np.ndarray, scores: np.ndarray, patient_ids: np.ndarray,
                 n_resamples: int = MIN_RESAMPLES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns targets, float64 scores and the patients' codes 0..n_patients-1, all (N,).

    Args:
        targets: (N,) 0 or 1, both of them met.
        scores: (N,) finite.
        patient_ids: (N,) labels of the patients, none missing.
        n_resamples: number of bootstrap resamples, see `check_resamples`.

    Raises:
        ValueError: the lengths differ, a score is not finite, a target is not 0 or 1, there is one class only, a
            patient_id is missing, or see `check_resamples`.
    """
    targets, scores = np.asarray(targets), np.asarray(scores, dtype=np.float64)
    if not len(targets) == len(scores) == len(patient_ids):
        raise ValueError(f"{len(targets)} targets, {len(scores)} scores and {len(patient_ids)} patient_ids differ in "
                         "number")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    is_bad = ~np.isin(targets, (0, 1))
    if is_bad.any():
        raise ValueError(f"{int(is_bad.sum())} of {len(targets)} targets are not 0 or 1, first {targets[is_bad][0]}")
    if len(np.unique(targets)) != 2:
        raise ValueError(f"an AUC needs both classes, met only target {np.unique(targets)}")
    check_resamples(n_resamples)
    patients = pd.factorize(np.asarray(patient_ids))[0]
    if (patients < 0).any():
        raise ValueError(f"{int((patients < 0).sum())} of {len(patients)} images have no patient_id: without it nobody "
                         "knows which images belong together")
    return targets.astype(int), scores, patients


def check_resamples(n_resamples: int) -> None:
    """Raises ValueError for fewer than `MIN_RESAMPLES`: of so few an interval may miss the very value it is of."""
    if n_resamples < MIN_RESAMPLES:
        raise ValueError(f"N_RESAMPLES {n_resamples} is too small: wanted at least {MIN_RESAMPLES}")


def draw_patients(n_patients: int, n_resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields (n, n_patients) int64, n at most `CHUNK`: how often each patient is drawn in each resample.

    As many patients are drawn with replacement as there are, each with all images (the cluster bootstrap, Field &
    Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x), because images of one patient are not independent.
    """
    for start in range(0, n_resamples, CHUNK):
        n = min(CHUNK, n_resamples - start)
        yield rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n)


def count_by_patient(patients: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """Returns a sparse (n_patients, n_columns) float64 table that counts images.

    Args:
        patients: (n,) codes of the images' patients.
        columns: (n,) the column in which each image counts.
        shape: (n_patients, n_columns).
    """
    return csr_array((np.ones(len(patients)), (patients, columns)), shape)


def sum_by_patient(patients: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns (n_patients, K) sums over each patient's images of (N, K) values."""
    return count_by_patient(patients, np.arange(len(patients)), (patients.max() + 1, len(patients))) @ values


def bootstrap_sums(patients: np.ndarray, values: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Returns (n_resamples, K) sums of (N, K) values over the images of each resample."""
    by_patient = sum_by_patient(patients, values.astype(np.float64))  # (n_patients, K)
    chunks = draw_patients(len(by_patient), n_resamples, np.random.default_rng(seed))
    return np.concatenate([counts @ by_patient for counts in chunks])


def take_interval(values: np.ndarray, level: float) -> np.ndarray:
    """Returns (2, …): the ends of the percentile interval over the first axis, NaN left out (NaN where all are)."""
    is_there = ~np.isnan(values).all(axis=0)
    ends = np.full((2, *values.shape[1:]), np.nan)
    ends[:, is_there] = np.nanquantile(values[:, is_there], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends


def widen_certain(shares: np.ndarray, ends: np.ndarray, n_patients: int, level: float) -> np.ndarray:
    """Returns (2, K) ends of intervals of shares, those of a share of 0 or 1 wide enough for the number of patients.

    Where all melanomas of a sample are found they are in every resample, so its interval would have no width. The exact
    binomial bound (Clopper & Pearson 1934, doi 10.1093/biomet/26.4.404) with patients as the trials is put there.

    Args:
        shares: (K,) in 0..1.
        ends: (2, K) their bootstrap intervals.
        n_patients: number of patients with images that the shares are of.
        level: coverage of the intervals, in 0..1.
    """
    bound = ((1 - level) / 2) ** (1 / n_patients)
    low = np.where(shares == 1, np.minimum(ends[0], bound), ends[0])
    return np.stack([low, np.where(shares == 0, np.maximum(ends[1], 1 - bound), ends[1])])
