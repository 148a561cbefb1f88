"""Memory that a process keeps while it trains."""

import contextlib
import ctypes
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of ``mallopt``, as glibc's ``malloc.h`` numbers them."""

LARGEST_THRESHOLD = 32 * 2**20
"""The size up to which glibc, by default, comes to keep blocks that were freed."""


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for the next allocations, and return it to the system at the end.

    Every step frees its activations and the next one asks for as much again. By default glibc returns large blocks to
    the system, which hands them out again page by page, cleared: on a CPU a good part of a step. The numbers of a run
    do not depend on it. It helps the main thread only, or any thread of a process that was started with
    ``MALLOC_ARENA_MAX=1``; without glibc nothing happens.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, 2**16)  # glibc's default
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)
        libc.malloc_trim(0)
