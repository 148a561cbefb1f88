"""Standard streams that are closed, full, no longer read or of a small encoding."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator


class _Remarks(io.TextIOWrapper):
    """Standard error: what cannot be printed there is dropped, as no remark is worth the end of a sweep."""

    def write(self, text: str) -> int:
        """Write a text, if that is possible."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, if that is possible."""
        with contextlib.suppress(OSError):
            super().flush()


def prepare() -> None:
    """Let every text be written, and nothing end because standard error cannot be.

    What the terminal's encoding lacks is escaped, and closed streams swallow all. The number of a closed stream would
    be that of the next file to be opened, and C libraries would print into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, so that of the stream
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:  # not what a test has put there
        sys.stderr = _Remarks(sys.stderr.buffer, sys.stderr.encoding, "backslashreplace", line_buffering=True)


@contextlib.contextmanager
def until_nobody_reads() -> Iterator[None]:
    """End without an error once the reader of standard output has seen enough."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        pass
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):  # as Click ends then
            raise
    else:
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
