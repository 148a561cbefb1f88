"""Shards in processes that share nothing but a store, which a test can kill."""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess
from typing import Any

from sgbench.core import lease
from sgbench.core.storage import Storage
from sgbench.runs.shards import Shard
from sgbench.runs.sweep import Quiet, carry_out, run_all_here
from sgbench.spec import build

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["sgbench.runs.sweep"])  # so that torch is imported once


class _Telling(Quiet):
    """Tells what happens, and may kill its process at a step of a run, or stop it."""

    def __init__(self, told: Any, die_at: int | None) -> None:
        self._told, self._die_at = told, die_at

    def say(self, text: str) -> None:
        self._told.put(("said", text))

    def warn(self, text: str) -> None:
        self._told.put(("said", text))

    def started(self, run_id: str, label: str) -> None:
        self._told.put(("started", run_id))

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        if step == self._die_at:
            self._told.put(("dies", run_id))
            self._told.close()
            self._told.join_thread()
            os.kill(os.getpid(), signal.SIGKILL)


def _do(told: Any, environment: Mapping[str, str], name: str, fields: Mapping[str, Any], root: str, how: Any) -> None:
    os.environ.update(environment)
    lease.BEAT_SECONDS, lease.LEASE_SECONDS, lease.SETTLE_SECONDS, lease.LOOK_SECONDS = 0.5, 3.0, 0.1, 0.2
    shard, die_at = how
    try:
        outcome = carry_out(
            name,
            build(fields, name),
            Storage(root),
            contextlib.nullcontext(run_all_here),
            _Telling(told, die_at),
            shard=Shard.of(shard),
        )
        told.put(("ended", sorted(outcome.failed.values())))
    except BaseException:
        told.put(("raised", traceback.format_exc()))
        sys.exit(1)


class Started:
    """A shard in a process of its own."""

    def __init__(self, name: str, fields: Mapping[str, Any], root: str, shard: str, die_at: int | None = None) -> None:
        self.told = _CONTEXT.Queue()
        environment = {key: value for key, value in os.environ.items() if key.startswith(("SGBENCH", "AWS"))}
        arguments = (self.told, environment, name, fields, root, (shard, die_at))
        self.process: BaseProcess = _CONTEXT.Process(target=_do, args=arguments, daemon=True)
        self.process.start()

    def events(self) -> Iterator[tuple[str, Any]]:
        """Yield what happens until it ends."""
        while True:
            event = self.told.get(timeout=300)
            yield event
            if event[0] in ("ended", "raised", "dies"):
                self.process.join(60)
                return
