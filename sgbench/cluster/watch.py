"""Noticing that the Ray of a command has lost a process without which its runs would wait forever."""

import contextlib
import os
import sys
import threading
from typing import Any

import psutil

from sgbench.cluster.ray_internals import VITAL, kill_workers
from sgbench.core.errors import InterruptionError

LOOK_SECONDS = 1.0
"""Between two looks at them."""

LEAVE_SECONDS = 20.0
"""How long the command may take to end by itself; a call to a dead process may block for longer."""


class Watch:
    """Watches the Ray that this process starts, from before it does until the context is left.

    On a death the runs' processes are killed, which might otherwise outlive the command. Then code that sees `lost` has
    `LEAVE_SECONDS` to leave the context before this process is ended.
    """

    def __init__(self) -> None:
        self.lost = threading.Event()
        """Set when a process was found dead."""
        self._vital: dict[str, Any] = {}
        self._dead = ""
        self._left = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="sgbench-watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def look(self) -> None:
        """Set `lost` if a process is dead by now."""
        with self._looking:
            if len(self._vital) < len(VITAL):
                for child in psutil.Process().children():
                    with contextlib.suppress(psutil.Error):
                        if (name := child.name()) in VITAL:
                            self._vital[name] = child
            dead = [name for name, process in self._vital.items() if not _is_alive(process)]
            if dead and not self.lost.is_set():
                self._dead = dead[0]
                self.lost.set()
                if "raylet" in self._vital:
                    kill_workers(self._vital["raylet"].pid)

    def error(self) -> InterruptionError:
        """Return the error to raise once `lost` is set."""
        return InterruptionError(
            f"Ray's process '{self._dead}' died; run the same command again to start a new Ray and resume."
        )

    def _watch(self) -> None:
        while not self._left.wait(LOOK_SECONDS):
            self.look()
            if self.lost.is_set():
                if not self._left.wait(LEAVE_SECONDS):
                    self._leave()
                return

    def _leave(self) -> None:
        sys.stderr.write(f"error: {self.error()}\n")
        sys.stderr.flush()
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
        os._exit(1)


def _is_alive(process: Any) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
