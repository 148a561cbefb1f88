"""The log of a run: all that its processes print, C libraries included, kept in the store and off the screen."""

import contextlib
import datetime
import logging
import os
import platform
import re
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.core.streams import ERR, OUT, pointed
from sgbench.core.words import listed, plural, printable, shortened
from sgbench.store import LOGS
from sgbench.store.layout import RUN_ID, logs_of

if TYPE_CHECKING:
    from sgbench.runs.execute import Job

_SHOWN = 2
"""Runs that a sentence names."""

MAIN = "run"
"""Name of the log of a run's main process, which every run has."""


def log_address(storage: Storage, run_id: str) -> str:
    """Return where the log of a run is, for a person to open."""
    return storage.address(_name(run_id, MAIN))


@contextlib.contextmanager
def into_log(job: "Job", part: str = MAIN) -> Iterator[None]:
    """Let this process print into the log of a run for as long as the context lasts; an exception is printed too.

    Each attempt appends to the log of those before it. In an object store the log arrives when the context ends, so
    that a killed process leaves nothing there.

    Args:
        job: The run's.
        part: Name of the process within the run, such as ``worker1``; each has its own file.
    """
    storage, name = job.storage(), _name(job.run_id, part)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(storage.path(name)) if storage.is_local else Path(folder) / "log"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not storage.is_local and storage.exists(name):
            storage.download(name, file)
        with file.open("a", encoding="utf-8") as log:
            now = datetime.datetime.now(datetime.UTC)
            log.write(f"── {job.spec}, {now:%Y-%m-%d %H:%M:%S} UTC, process {os.getpid()} on {platform.node()}\n")
            log.flush()
            logging.getLogger("ray.train").setLevel(logging.WARNING)  # it tells of each report
            try:
                with pointed(OUT, ERR, at=log.fileno()), _printing_errors():
                    yield
            finally:
                if not storage.is_local:
                    storage.upload(file, name)


def read_log(storage: Storage, beginning: str) -> str:
    """Return what the processes of a run printed, each below the name of its file if there are several.

    Args:
        storage: The results store.
        beginning: The run's id, or the beginning of it.

    Raises:
        InputError: If there is no log of such a run, or logs of several.
    """
    logs = _logs(storage)
    runs = [run_id for run_id in logs if run_id.startswith(beginning)]
    if len(runs) != 1:
        raise InputError(f"run '{beginning}': {logged(storage, runs)}.")
    names = logs[runs[0]]
    texts = {name: storage.read(name).decode(errors="replace") for name in names}
    return "".join(text if len(texts) == 1 else f"{name}\n{text}\n" for name, text in texts.items())


def logged(storage: Storage, runs: Sequence[str] = ()) -> str:
    """Return which runs have a log, some of them by id and name: ``'results/quick' has logs of 4 runs, such as …``.

    Args:
        storage: The results store.
        runs: Those that are meant; by default all.
    """
    logs = _logs(storage)
    ids = [*(runs or logs)]
    if not ids:
        return f"'{storage}' has no log of a run"
    shown = listed(f"{run_id} ({_told(storage, logs[run_id])})" for run_id in ids[:_SHOWN])
    begin = f"{len(ids)} runs whose ids begin with it" if runs else plural(len(ids), "run")
    return f"'{storage}' has logs of {begin}{', such as' if len(ids) > _SHOWN else ':'} {shown}"


def _logs(storage: Storage) -> dict[str, list[str]]:
    """Return the names of the logs of each run, by id."""
    logs: dict[str, list[str]] = {}
    for name in storage.sizes(LOGS):
        if found := re.fullmatch(rf"{LOGS}/({RUN_ID})/[^/]+\.log", name):
            logs.setdefault(found[1], []).append(name)
    return logs


def _told(storage: Storage, names: Sequence[str]) -> str:
    """Return what the first line of a log says that the run is called."""
    first = storage.read(names[0]).decode(errors="replace").partition("\n")[0]
    return shortened(printable(re.sub(r", [0-9-]+ [0-9:]+ UTC, .*|^── ", "", first)))


def _name(run_id: str, part: str) -> str:
    return f"{logs_of(run_id)}/{part}.log"


@contextlib.contextmanager
def _printing_errors() -> Iterator[None]:
    try:
        yield
    except Exception:
        traceback.print_exc()
        raise
