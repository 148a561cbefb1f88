"""Standard output and standard error of this process, to which C libraries and programs that it starts write too."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

OUT, ERR = 1, 2
"""The numbers of standard output and standard error."""


@contextlib.contextmanager
def pointed(*streams: int, at: int) -> Iterator[None]:
    """Point standard streams at an open file for as long as the context lasts.

    Args:
        streams: `OUT`, `ERR` or both.
        at: The number of the open file.
    """
    _flush()
    kept = {stream: os.dup(stream) for stream in streams}
    try:
        for stream in streams:
            os.dup2(at, stream)
        yield
    finally:
        with contextlib.suppress(OSError):  # of a full disk, which would hide what ended the context
            _flush()
        for stream, copy in kept.items():
            os.dup2(copy, stream)
            os.close(copy)


@contextlib.contextmanager
def nothing_on_stdout() -> Iterator[None]:
    """Let what is printed on standard output go to standard error: the code of plug-ins may print anything."""
    with contextlib.ExitStack() as stack:
        if _is_open(OUT) and _is_open(ERR):
            stack.enter_context(pointed(OUT, at=ERR))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def _is_open(stream: int) -> bool:
    try:
        os.fstat(stream)
    except OSError:
        return False
    return True


def _flush() -> None:
    """Write what Python and C hold back, which would arrive where a stream points next."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    ctypes.CDLL(None).fflush(None)
