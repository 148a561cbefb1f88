"""The log of a run: all that its processes print, C libraries included, kept in the store and off the screen."""

import contextlib
import datetime
import logging
import os
import platform
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.core.streams import ERR, OUT, pointed
from sgbench.store import LOGS
from sgbench.store.layout import logs_of

if TYPE_CHECKING:
    from sgbench.runs.execute import Job

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
    names = [name for name in storage.sizes(LOGS) if name.endswith(".log") and name.startswith(f"{LOGS}/{beginning}")]
    runs = {name.split("/")[1] for name in names}
    if len(runs) != 1:
        there = f"logs of {len(runs)} runs whose ids begin with it" if runs else "no log of such a run"
        raise InputError(f"run '{beginning}': '{storage}' has {there}.")
    texts = {name: storage.read(name).decode(errors="replace") for name in names}
    return "".join(text if len(texts) == 1 else f"{name}\n{text}\n" for name, text in texts.items())


def _name(run_id: str, part: str) -> str:
    return f"{logs_of(run_id)}/{part}.log"


@contextlib.contextmanager
def _printing_errors() -> Iterator[None]:
    try:
        yield
    except Exception:
        traceback.print_exc()
        raise
