"""A process beside a command that uses Ray: when the command ends, in whatever way, it ends what is left of its Ray.

It is started by this file's path and imports nothing of sgbench, so that it is there at once.
"""

import contextlib
import os
import sys
import time

import psutil

END_SECONDS = 10.0
"""How long killed processes may take to end; one that waits for a broken disk never does."""


def end_all(variable: str, value: str) -> None:
    """Kill all processes that have a value in their environment, and those that they start meanwhile; not this one."""
    deadline = time.monotonic() + END_SECONDS
    while found := [each for each in psutil.process_iter() if _has(each, variable, value)]:
        for each in found:
            with contextlib.suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(found, 1)
        if time.monotonic() > deadline:
            return


def _has(process: psutil.Process, variable: str, value: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.pid != os.getpid() and process.environ().get(variable) == value)
    return False


if __name__ == "__main__":
    what, mark = sys.argv[1:]  # what to say of a command that did not say that it leaves; the variable of its processes
    left = sys.stdin.readline()
    if mark:
        end_all(mark, os.environ[mark])
    if not left:
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stderr.write(f"error: {what}\n")
