import ctypes
import itertools
import platform
import resource

import pytest
import torch

from sgbench.training.memory import kept_memory

MEGABYTES = 64


def pages_from_the_system():
    """Each of several times that as much memory is written and freed: how many pages the system had to clear."""
    counts = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
    for _ in range(5):
        torch.empty(MEGABYTES * 2**20, dtype=torch.uint8).fill_(1)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return [after - before for before, after in itertools.pairwise(counts)]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's memory can be kept")
def test_memory_is_kept_for_the_next_step_and_goes_back_at_the_end():
    pages = MEGABYTES * 2**20 // resource.getpagesize()
    with kept_memory():
        for _ in range(4):  # until the heap has room also where small things have come between
            asked = pages_from_the_system()
        assert max(asked) < pages / 100
    assert pages_from_the_system()[0] > pages / 2  # later ones may find a place within the heap


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with kept_memory():
        pass
