import platform
import subprocess
import sys

import pytest

from melanoma_utils import memory

COUNT_PAGE_FAULTS = """
import resource, torch
from melanoma_utils.memory import keep_freed_memory

def step():
    first = torch.ones(16, 2**18)  # 16 MB
    return (first * 2 + first).sum() + torch.ones(4, 2**18).sum()

assert keep_freed_memory()
for i in range(30):
    if i == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone can be told")
def test_kept_memory_is_not_asked_for_again():
    run = subprocess.run([sys.executable, "-c", COUNT_PAGE_FAULTS], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 13_000  # 130,000 pages of 4 KiB are touched anew otherwise; the heap may still grow a bit


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())  # knows no mallopt
    assert not memory.keep_freed_memory()
