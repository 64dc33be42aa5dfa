"""Memory that this process keeps for its next step, instead of handing it back to the system after each."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt, glibc's malloc.h


def keep_freed_memory() -> bool:
    """Makes glibc's malloc keep what is freed, until the process ends.

    It asks the system for every large tensor anew otherwise, and a step of training takes and frees hundreds: on a CPU
    the pages' first touch costs a fifth to a quarter of the step (`10_benchmark`). The peak grows a little: 2.1 GB
    instead of 1.9 in a training of MobileNetV2.

    Returns:
        Whether it does; with another C library than glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # macOS, musl; Windows
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
