"""Telling trackers what happens to runs, in the process of the command: the driver of a sweep, a shard or ``train``.

Each kind of tracker has a thread, so that no run waits for a disk or a server, however long that takes to answer.
"""

import contextlib
import importlib.util
import queue
import re
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sgbench.core.errors import InputError, InterruptionError, described
from sgbench.core.plugins import foreign
from sgbench.core.storage import Storage
from sgbench.core.words import shortened
from sgbench.runs.execute import Job, Watcher, score_name
from sgbench.runs.progress import Lane
from sgbench.spec import RunSpec, SweepSpec, set_name
from sgbench.store import identity_columns
from sgbench.store.layout import curves_of
from sgbench.store.rows import RunEnd
from sgbench.trackers import TRACKERS, TrackedRun, Tracker

CLOSE_SECONDS = 60.0
"""How long the end of a command waits for trackers that are still sending."""

_LONGEST = 120
"""Characters of a run's title that are kept."""

Trackers = Mapping[str, type[Tracker]]
"""By name."""


def trackers_of(sweep: SweepSpec) -> Trackers:
    """Return the trackers of a sweep, each of which can be made; TensorBoard's files are always written.

    Raises:
        InputError: If one is not installed, or refuses.
    """
    found = {}
    for name in dict.fromkeys(("tensorboard", *sweep.track)):
        if TRACKERS.is_built_in(name) and name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise InputError(f"track is '{name}', which needs an extra: pip install 'sgbench[{name}]'.")
        with foreign(f"track is '{name}', which cannot be used"):
            found[name] = TRACKERS.load(name)
            found[name]()
    return found


class Tracking:
    """A `Watcher` that passes on to another one what it is told, and tells trackers of it.

    Args:
        watcher: The other one.
        sweep: The sweep's name.
        jobs: Those that may be run.
        trackers: Whom to tell.
        scores: The names of the scores that runs are to have.
        folder: The folder for the files of a store.
    """

    def __init__(
        self,
        watcher: Watcher,
        sweep: str,
        jobs: Sequence[Job],
        trackers: Trackers,
        *,
        scores: Sequence[str],
        folder: Path,
    ) -> None:
        self._watcher = watcher
        self._sweep, self._scores, self._folder = sweep, tuple(map(_tag, scores)), folder
        self._jobs = {job.run_id: job for job in jobs}
        self._tellers = [_Teller(name, tracker) for name, tracker in trackers.items()]
        self._reached: dict[str, dict[str, int]] = {}  # of active runs, the last step of each curve

    def started(self, run_id: str, label: str) -> None:
        """A run has started, or restarted after its process died."""
        self._watcher.started(run_id, label)
        if run_id not in self._reached:
            self._reached[run_id] = {}
            self._tell(run_id, "started", self._run(self._jobs[run_id]))

    def placed(self, run_id: str, lane: Lane) -> None:
        """A run is at work on a node."""
        self._watcher.placed(run_id, lane)

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        """A run has done some of its steps."""
        self._watcher.progress(run_id, step, steps, loss, steps_per_second)

    def measured(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        """A run has values at a step; those that a restarted process measures again are passed over."""
        self._watcher.measured(run_id, step, values)
        if (reached := self._reached.get(run_id)) is None:
            return
        if new := {name: value for name, value in values.items() if step > reached.get(name, -1)}:
            reached.update(dict.fromkeys(new, step))
            self._tell(run_id, "log", step, {_tag(name): value for name, value in new.items()})

    def scoring(self, run_id: str) -> None:
        """A run's scores are being computed."""
        self._watcher.scoring(run_id)

    def finished(self, run_id: str, end: RunEnd, message: str) -> None:
        """A run has ended."""
        self._watcher.finished(run_id, end, message)
        if self._reached.pop(run_id, None) is not None:
            self._tell(run_id, "finished", end, message)

    def close(self) -> None:
        """End the runs that are still active, and wait for trackers that are still sending."""
        for run_id in self._reached:
            self._tell(run_id, "finished", RunEnd.INTERRUPTED, "")
        for teller in self._tellers:
            teller.end()
        deadline = time.monotonic() + CLOSE_SECONDS
        for teller in self._tellers:
            teller.join(deadline)

    def _tell(self, run_id: str, what: str, *arguments: Any) -> None:
        for teller in self._tellers:
            teller.tell(run_id, what, arguments)

    def _run(self, job: Job) -> TrackedRun:
        columns: Mapping[str, Any] = identity_columns(job.spec)
        config = {key: value for key, value in columns.items() if value is not None and key not in ("spec", "name")}
        folder = self._folder / curves_of(job.run_id, title(job.spec))
        return TrackedRun(job.run_id, folder.name, self._sweep, config, job.step, self._scores, folder)


class _Teller:
    """Tells the trackers of one kind, one for each run, what happens, in a thread.

    Args:
        name: Of the kind.
        kind: Makes a tracker.
    """

    def __init__(self, name: str, kind: type[Tracker]) -> None:
        self._name, self._kind = name, kind
        self._told: queue.SimpleQueue[tuple[str, str, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._trackers: dict[str, Tracker] = {}
        self._warned = False
        self._thread = threading.Thread(target=self._work, name=f"sgbench-{name}", daemon=True)
        self._thread.start()

    def tell(self, run_id: str, what: str, arguments: tuple[Any, ...]) -> None:
        """Have a method of a run's tracker called."""
        self._told.put((run_id, what, arguments))

    def end(self) -> None:
        """Let the thread end after what it has been told."""
        self._told.put(None)

    def join(self, deadline: float) -> None:
        """Wait for that, until a time of the monotonic clock."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._warn(f"tracker '{self._name}' has not received everything: it is still busy")

    def _work(self) -> None:
        while told := self._told.get():
            run_id, what, arguments = told
            try:
                with foreign(f"tracker '{self._name}'"):
                    if what == "started":
                        self._trackers[run_id] = self._kind()
                    if (tracker := self._trackers.get(run_id)) is not None:
                        getattr(tracker, what)(*arguments)
            except InputError as error:  # servers go away, disks are full, and trackers raise anything then
                self._trackers.pop(run_id, None)
                self._warn(f"training curves are incomplete: {described(error)}")
            if what == "finished":
                self._trackers.pop(run_id, None)

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(text, stacklevel=1)


def title(spec: RunSpec) -> str:
    """Return what a run is called beside its id, such as ``edsr-tiny l1+0.1*sg seed 0``; a part of a path."""
    loss = re.sub(r"(?<![\d.])1\.0\*|\s", "", str(spec.loss)).replace(":", ".")
    parts = (re.sub(r"[^\w.+*()=,-]+", "_", part) for part in (spec.backbone, loss))
    return f"{shortened(' '.join(parts), _LONGEST)} seed {spec.seed}"


def _tag(name: str) -> str:
    return re.sub(r"[^\w./-]+", "_", name).strip("_")


@contextlib.contextmanager
def tracked(
    watcher: Watcher, name: str, sweep: SweepSpec, jobs: Sequence[Job], trackers: Trackers, storage: Storage
) -> Iterator[Tracking]:
    """Track runs for as long as the context lasts.

    Files are in the store, in `sgbench.store.layout.CURVES`; in an object store they arrive when the context ends.

    Args:
        watcher: Who else is to be told.
        name: The sweep's.
        sweep: The sweep.
        jobs: Those that may be run.
        trackers: See `trackers_of`.
        storage: The results store.
    """
    scores = [score_name(set_name(test), metric) for test in sweep.tests for metric in sweep.metrics]
    with _folder(storage) as folder:
        tracking = Tracking(watcher, name, jobs, trackers, scores=scores, folder=folder)
        try:
            yield tracking
        finally:
            tracking.close()


@contextlib.contextmanager
def _folder(storage: Storage) -> Iterator[Path]:
    """Provide a folder whose files are in a store when the context ends, at the latest."""
    if storage.is_local:
        yield Path(storage.path())
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            yield Path(folder)
        finally:
            _send(Path(folder), storage)


def _send(folder: Path, storage: Storage) -> None:
    try:
        for file in filter(Path.is_file, folder.rglob("*")):
            storage.upload(file, str(file.relative_to(folder)))
    except (OSError, InterruptionError) as error:
        warnings.warn(f"training curves are incomplete: {described(error)}", stacklevel=2)
