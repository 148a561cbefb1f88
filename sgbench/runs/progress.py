"""What a sweep is doing: followed from its reports, told in lines, and kept in the store for whoever asks meanwhile.

A sweep that holds a store's lock writes a file there every `WRITE_SECONDS`, named by the token of the lock. Readers
believe those whose lock is held, so that no clocks are compared and nothing that a killed sweep left counts.
"""

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

import pydantic

from sgbench.core.errors import InterruptionError
from sgbench.core.lease import Claim
from sgbench.core.storage import Storage
from sgbench.core.words import duration
from sgbench.metrics.display import display_of
from sgbench.store.layout import PROGRESS, progress_of
from sgbench.store.rows import RunEnd

if TYPE_CHECKING:  # it loads torch
    from sgbench.runs.execute import Watcher
    from sgbench.training import Progress

WRITE_SECONDS = 10.0
"""Between two writes of a sweep's progress into its store."""

LINE_SECONDS = 10.0
LINE_SHARE = 0.1
HEARTBEAT_SECONDS = 300.0
"""In lines: a run speaks at most every ten seconds, and then after a tenth of its steps or five minutes."""


class Lane(NamedTuple):
    """Where a run is on a cluster; of a group of workers, where the first one is."""

    node: str
    """Ray's name of the node; empty if it is the only one."""
    gpu: str = ""
    """Which of the node's GPUs, such as ``0`` or ``0,1``; empty for a CPU."""
    kind: str = ""
    """The type of the GPU, such as ``NVIDIA H100 80GB HBM3``."""
    workers: int = 1
    """Of the group, on any nodes."""

    @property
    def share(self) -> str:
        """What it has of the node: ``GPU 0``, ``4 workers``, or nothing for a CPU."""
        return f"{self.workers} workers" if self.workers > 1 else f"GPU {self.gpu}" if self.gpu else ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.node, self.share))) + (f" ({self.kind})" if self.kind else "")


def line(step: int, steps: int, loss: float, rate: float) -> str:
    """Return where a run stands, as a line has it: ``step 12/1200, loss 0.03123, 12.3 steps/s, ETA 1:36``."""
    eta = duration((steps - step) / rate) if rate > 0 else "unknown"
    return f"step {step}/{steps}, loss {loss:.4g}, {rate:.3g} steps/s, ETA {eta}"


VALIDATED = "validation/"
"""How the names of scores on validation sets begin among the curves of a run."""


def curves(progress: "Progress") -> list[tuple[int, dict[str, float]]]:
    """Return points of a run's training curves, in order: steps, and values by name.

    Names are ``loss``, ``lr``, ``steps_per_second``, ``terms/l1`` and so on, and ``validation/Set5/psnr_y``.
    """
    points: dict[int, dict[str, float]] = {}
    for row in progress.validation:
        if row["value"] is not None:
            points.setdefault(row["step"], {})[f"{VALIDATED}{row['dataset']}/{row['metric']}"] = row["value"]
    terms = {f"terms/{term}": value for term, value in progress.terms.items()}
    means = {"loss": progress.loss, "lr": progress.lr, "steps_per_second": progress.steps_per_second, **terms}
    points[progress.step] = points.get(progress.step, {}) | means
    return list(points.items())


class Pace:
    """Tells when a run is to speak in lines: at its first report, and see `LINE_SECONDS`.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: float | None = None
        self._share = 0.0

    def is_due(self, share: float) -> bool:
        """Return whether a run that has done this share of its steps is to speak; if so, it is taken to have."""
        now = self._clock()
        if self._at is not None:
            silence = now - self._at
            advanced = share - self._share >= LINE_SHARE or silence >= HEARTBEAT_SECONDS
            if silence < LINE_SECONDS or not advanced:
                return False
        self._at, self._share = now, share
        return True


@dataclass
class Running:
    """A run that is going."""

    label: str
    lane: Lane | None = None
    step: int = 0
    steps: int = 0
    """0 until it has told."""
    loss: float = 0.0
    rate: float = 0.0
    """Steps per second."""
    scoring: bool = False
    validated: dict[str, float] = field(default_factory=dict)
    """The newest scores on validation sets, by set and metric: ``Set5/psnr_y``."""

    @property
    def scores(self) -> list[str]:
        """The newest scores on validation sets, in words: ``Set5 psnr_y 29.12``."""
        named = ((*name.rpartition("/"), value) for name, value in self.validated.items())
        return [f"{dataset} {metric} {display_of(metric).number(value)}" for dataset, _, metric, value in named]

    @property
    def doing(self) -> str:
        """What it does, in a word."""
        return "scoring" if self.scoring else "training" if self.steps else "starting"

    @property
    def share(self) -> float:
        """Of its steps that are done."""
        return self.step / self.steps if self.steps else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Of its training; None if unknown."""
        return (self.steps - self.step) / self.rate if self.rate > 0 else None


class Course:
    """The course of a sweep, as its reports tell; for one thread at a time.

    Args:
        total: Number of runs of the sweep.
        done: Number of runs that were done before.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, total: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done, self.failed, self.exhausted, self.paused = total, done, 0, 0, 0
        self.running: dict[str, Running] = {}
        self.clock = clock
        self._begin = clock()
        self._worked = 0.0  # runs' worth of training that this process has seen happen
        self._since: float | None = None  # when it began to

    def started(self, run_id: str, label: str) -> None:
        """A run has started, or restarted."""
        self.running[run_id] = Running(label)

    def placed(self, run_id: str, lane: Lane) -> None:
        """A run is at work there."""
        if run_id in self.running:
            self.running[run_id].lane = lane

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> Running | None:
        """A run has done some of its steps; return it, or None if it is not running."""
        if run := self.running.get(run_id):
            first, before = run.steps == 0, run.share
            run.step, run.steps, run.loss, run.rate = step, steps, loss, steps_per_second
            if self._since is None:  # the seconds before, in which workers start, say nothing about training
                self._since = self.clock()
            if not first:  # the earlier steps of a resumed run say nothing about today's speed
                self._worked += run.share - before
        return run

    def measured(self, run_id: str, values: Mapping[str, float]) -> None:
        """A run has values of its curves, of which only scores on validation sets are kept."""
        if run := self.running.get(run_id):
            found = {name: value for name, value in values.items() if name.startswith(VALIDATED)}
            run.validated |= {name.removeprefix(VALIDATED): value for name, value in found.items()}

    def scoring(self, run_id: str) -> Running | None:
        """A run's scores are being computed; return it, or None if it is not running."""
        if run := self.running.get(run_id):
            run.scoring = True
        return run

    def finished(self, run_id: str, end: RunEnd) -> Running | None:
        """A run has ended; return it, or None if it was not running."""
        run = self.running.pop(run_id, None)
        if self._since is None:
            self._since = self._begin
        self._worked += 1.0 - (run.share if run else 0.0)
        self.done += end is RunEnd.DONE
        self.failed += end is RunEnd.FAILED
        self.exhausted += end is RunEnd.EXHAUSTED
        self.paused += end is RunEnd.PAUSED
        return run

    @property
    def waiting(self) -> int:
        """Number of runs that have not started."""
        return max(0, self.total - self.done - self.failed - self.exhausted - self.paused - len(self.running))

    @property
    def seconds(self) -> float:
        """For how long it has gone on."""
        return self.clock() - self._begin

    @property
    def seconds_left(self) -> float | None:
        """Of the whole sweep; None if unknown."""
        if not self.running or self._worked <= 0 or self._since is None:
            return None
        left = len(self.running) + self.waiting - sum(run.share for run in self.running.values())
        return (self.clock() - self._since) * left / self._worked


@dataclass(frozen=True)
class Snapshot:
    """What the file of a sweep says."""

    sweep: str
    seconds_left: float | None
    """Until the whole sweep is done, when it was written."""
    runs: dict[str, Running] = field(default_factory=dict)
    """The runs that are going, by id."""


_SNAPSHOT = pydantic.TypeAdapter(Snapshot)


class Recorder:
    """Passes on what happens to runs, and keeps it in the store for as long as the context lasts.

    A store that cannot be written to, or a lock that was lost, is for others to notice.

    Args:
        watcher: Who is told.
        course: Of the sweep, which has not begun.
        sweep: Its name.
        storage: The results store, locked.
    """

    def __init__(self, watcher: "Watcher", course: Course, sweep: str, storage: Storage) -> None:
        self._watcher, self._course, self._sweep = watcher, course, sweep
        self._lock = threading.Lock()
        self._begun, self._ended = threading.Event(), threading.Event()
        self._storage = Storage(storage.root, storage.fence)
        self._file = progress_of(storage.fence) if storage.fence else None  # None on a full disk
        self._thread = threading.Thread(target=self._write, name="sgbench-progress", daemon=True)

    def __enter__(self) -> Self:
        if self._file:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._begun.set()
        if self._file:
            self._thread.join()
            with contextlib.suppress(OSError, InterruptionError):
                self._storage.delete(self._file)

    def started(self, run_id: str, label: str) -> None:
        """A run has started training or scoring."""
        with self._lock:
            self._course.started(run_id, label)
        self._begun.set()
        self._watcher.started(run_id, label)

    def placed(self, run_id: str, lane: Lane) -> None:
        """A run is at work on a node."""
        with self._lock:
            self._course.placed(run_id, lane)
        self._watcher.placed(run_id, lane)

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        """A run has done some of its steps."""
        with self._lock:
            self._course.progress(run_id, step, steps, loss, steps_per_second)
        self._watcher.progress(run_id, step, steps, loss, steps_per_second)

    def measured(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        """A run has values at a step."""
        with self._lock:
            self._course.measured(run_id, values)
        self._watcher.measured(run_id, step, values)

    def scoring(self, run_id: str) -> None:
        """A run's scores are being computed."""
        with self._lock:
            self._course.scoring(run_id)
        self._watcher.scoring(run_id)

    def finished(self, run_id: str, end: RunEnd, message: str) -> None:
        """A run has ended."""
        with self._lock:
            self._course.finished(run_id, end)
        self._watcher.finished(run_id, end, message)

    def _write(self) -> None:
        self._begun.wait()
        while not self._ended.is_set():
            with self._lock:
                snapshot = Snapshot(self._sweep, self._course.seconds_left, self._course.running)
                content = json.dumps(dataclasses.asdict(snapshot)).encode()
            with contextlib.suppress(OSError, InterruptionError):
                self._storage.write(str(self._file), content)
            self._ended.wait(WRITE_SECONDS)


def read_progress(storage: Storage, holders: Iterable[Claim]) -> Iterator[Snapshot]:
    """Yield what sweeps are doing on a store.

    Files that are damaged are passed over, as their sweep writes them anew.

    Args:
        storage: The store.
        holders: Whose sweeps these are, see `Storage.holders`.
    """
    files = {progress_of(each.token) for each in holders if each.token}
    for name in storage.list(PROGRESS, ".json"):
        if name in files:
            with contextlib.suppress(OSError, ValueError):
                yield _SNAPSHOT.validate_json(storage.read(name))


def running_in(storage: Storage) -> dict[str, Running]:
    """Return the runs that are going on a store, by id."""
    if not storage.list(PROGRESS, ".json"):
        return {}
    return {run_id: run for each in read_progress(storage, storage.holders()) for run_id, run in each.runs.items()}
