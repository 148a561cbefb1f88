import ctypes
import itertools
import multiprocessing
import platform
import resource
from concurrent.futures import ProcessPoolExecutor

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


def pages_kept_and_given_back():
    """The most pages that a settled heap asked for while memory was kept, and those of the first look afterwards."""
    with kept_memory():
        for _ in range(4):  # until the heap has room also where small things have come between
            asked = pages_from_the_system()
    return max(asked), pages_from_the_system()[0]  # later looks may find a place within the heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's memory can be kept")
def test_memory_is_kept_for_the_next_step_and_goes_back_at_the_end():
    pages = MEGABYTES * 2**20 // resource.getpagesize()
    # In a process of its own, as the heap of this one is what the tests before have made of it.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        kept, given_back = fresh.submit(pages_kept_and_given_back).result(timeout=120)
    assert kept < pages / 100
    assert given_back > pages / 2


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with kept_memory():
        pass
