"""Noticing that the Ray of a command is lost, without which its runs would wait forever or the command end unasked."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from sgbench.cluster import witness
from sgbench.cluster.ray_internals import RAYLET_VARIABLE, RECONNECT_SECONDS, TOKEN_VARIABLE, VITAL, is_alive
from sgbench.core.errors import InterruptionError

LOOK_SECONDS = 1.0
"""Between two looks."""

ANSWER_SECONDS = 5.0
"""How long Ray may take to answer a look; it is asked again."""

LEAVE_SECONDS = 20.0
"""How long the command may take to end by itself; a call to a dead process may block for longer."""

START_SECONDS = 180.0
"""How long it may take to start Ray or to join a cluster; Ray itself may wait forever for a process that is stopped."""

SILENT_LOOKS = 4
"""How many looks in a row Ray may leave without an answer; one may fail because this process itself was stopped."""

SILENT_SECONDS = max(RECONNECT_SECONDS - LEAVE_SECONDS - 2 * ANSWER_SECONDS, LOOK_SECONDS)
"""How long Ray may not answer these before it is lost; so long that the command leaves before Ray itself ends it."""

NOT_LEFT = "the command was ended from outside or by Ray; run the same command again to resume."


class Watch:
    """Watches the Ray that this process starts or joins, from before it does until the context is left.

    A Ray that was started here is lost when one of its processes dies. Any Ray is lost when it takes longer than
    `START_SECONDS` to start, has not answered for `SILENT_SECONDS`, or says that the node of this process is dead: its
    raylet was stopped for too long, or the head of the cluster was started anew and knows nobody. The processes of
    runs, which might outlive a Ray that was started here, are killed then. Code that sees `lost` has `LEAVE_SECONDS` to
    leave the context before this process is ended.

    Where a Ray that is lost, or somebody else, ends this process without asking, a process beside it says so in its
    place. That process also ends, whenever this one has left, whatever is then still running of a Ray started here.

    Args:
        address: Of the cluster to join; None for a Ray that is started here.
        token: What all processes of a Ray that is started here have in `TOKEN_VARIABLE`.
    """

    def __init__(self, address: str | None = None, token: str = "") -> None:
        self.lost = threading.Event()
        """Set when Ray is lost."""
        self._address = address
        self._token = token
        self._vital: dict[str, Any] = {}
        self._is_alive: Callable[[float], bool] | None = None
        self._answered = time.monotonic()
        self._unanswered = 0
        self._why = ""
        self._left = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="sgbench-watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._witness = subprocess.Popen(
            [sys.executable, "-P", witness.__file__, NOT_LEFT, TOKEN_VARIABLE if self._token else ""],
            env=os.environ | ({TOKEN_VARIABLE: self._token} if self._token else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C, and a terminal that is closed, leave it alone
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._dismiss()

    def connected(self, is_alive: Callable[[float], bool]) -> None:
        """Begin to ask Ray.

        Args:
            is_alive: Returns whether Ray takes this process's node for alive. It is given the seconds within which to
                answer, and raises an exception if Ray does not.
        """
        self._answered, self._unanswered, self._is_alive = time.monotonic(), 0, is_alive

    def look(self) -> None:
        """Set `lost` if Ray is lost by now."""
        with self._looking:
            why = "" if self.lost.is_set() else self._dead() or self._silent()
            if why:
                self._why = why
                self.lost.set()
                if "raylet" in self._vital:
                    witness.end_all(RAYLET_VARIABLE, str(self._vital["raylet"].pid))

    def error(self) -> InterruptionError:
        """Return the error to raise once `lost` is set."""
        there = "to start a new Ray and resume" if self._address is None else "to resume, once the cluster is back"
        return InterruptionError(f"{self._why}; run the same command again {there}.")

    def _dead(self) -> str:
        """Return which process of a Ray that was started here has died, as a person is told, or nothing."""
        if self._address is None and len(self._vital) < len(VITAL):
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if (name := child.name()) in VITAL:
                        self._vital[name] = child
        return next((f"Ray's process '{name}' died" for name, each in self._vital.items() if not is_alive(each)), "")

    def _silent(self) -> str:
        """Return what a person is told if Ray does not answer or has given this process's node up, or nothing."""
        whose = "Ray" if self._address is None else f"the cluster at '{self._address}'"
        if self._is_alive is None:
            late = time.monotonic() - self._answered > START_SECONDS
            return f"{whose} could not be joined within {START_SECONDS:g} s" if late else ""
        try:
            alive = self._is_alive(ANSWER_SECONDS)
        except Exception:  # whatever Ray raises says that there was no answer
            self._unanswered += 1
            silence = time.monotonic() - self._answered
            lost = silence > SILENT_SECONDS and self._unanswered >= SILENT_LOOKS
            return f"{whose} has not answered for {silence:.0f} s" if lost else ""
        self._answered, self._unanswered = time.monotonic(), 0
        if alive:
            return ""
        alone = self._address is None
        return (
            f"{whose} {'gave its raylet up, which does not respond' if alone else 'was restarted or lost this machine'}"
        )

    def _watch(self) -> None:
        while not self._left.wait(LOOK_SECONDS):
            self.look()
            if self.lost.is_set():
                if not self._left.wait(LEAVE_SECONDS):
                    self._leave()
                return

    def _leave(self) -> None:
        self._dismiss()
        sys.stderr.write(f"error: {self.error()}\n")
        sys.stderr.flush()
        os._exit(1)

    def _dismiss(self) -> None:
        """Tell the process beside this one that this one leaves, and wait until it has ended what Ray leaves."""
        with contextlib.suppress(OSError):  # somebody has killed it
            self._witness.communicate(b"left\n")
