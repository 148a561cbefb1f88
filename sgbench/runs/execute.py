"""One run from its plan to its rows: train, record, score. The same code whether Ray carries it or not.

Every outcome is on storage before a call returns, so that whoever called can die at any moment and the next sweep
continues from there.
"""

import contextlib
import datetime
import json
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, Protocol

import torch.distributed as dist

from sgbench.assets.weights import Locator
from sgbench.backbones import build_backbone, count_parameters, load_weights
from sgbench.core.errors import NotFiniteError
from sgbench.core.registry import METRICS
from sgbench.core.storage import Storage
from sgbench.runs.delivery import Packed, open_packed, receive_networks
from sgbench.runs.plan import Data, PlannedRun
from sgbench.scoring.evaluation import HR_CACHE, faults_in, score
from sgbench.scoring.provenance import provenance
from sgbench.scoring.upscaling import from_network
from sgbench.spec import RunSpec, SweepSpec
from sgbench.store import Store, identity_columns
from sgbench.store.layout import discard, weights_of
from sgbench.training import Checkpoints, Outcome, Progress, train
from sgbench.training.numerics import device_of_process, pinned

RunEnd = Literal["done", "failed", "stopped"]
"""How a run ended: weights and a row, a row with the error, or a checkpoint."""


class Watcher(Protocol):
    """Somebody who wants to know how a sweep goes; a run is named by its id."""

    def started(self, run_id: str, label: str) -> None:
        """A run has begun to train or to be scored."""

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        """A run has done some of its steps."""

    def scoring(self, run_id: str) -> None:
        """A run's training is done and its scores are being computed."""

    def finished(self, run_id: str, end: RunEnd, message: str) -> None:
        """A run has ended; unless it is done the message says why."""


@dataclass(frozen=True)
class Job:
    """A run and all that a process on another machine needs to do it; small, and plain JSON in transit."""

    spec: RunSpec
    store: str
    """Where results, checkpoints and weights go."""
    train: Packed
    """The training images."""
    tests: tuple[Packed, ...]
    """The test sets."""
    missing: tuple[tuple[str, str], ...]
    """Scores to compute: names of test sets and metrics."""
    recompute: bool
    """Whether activations are recomputed in the backward pass."""
    checkpoint_seconds: float
    """Least time between checkpoints."""

    @classmethod
    def of(cls, run: PlannedRun, data: Data, sweep: SweepSpec, storage: Storage) -> "Job":
        """Return the job that a planned run amounts to."""
        tests = tuple(map(Packed.of, data.tests))
        return cls(
            run.spec,
            storage.root,
            Packed.of(data.train),
            tests,
            run.missing,
            recompute=sweep.recompute,
            checkpoint_seconds=sweep.checkpoint_seconds,
        )

    @property
    def run_id(self) -> str:
        """The run's id; a job exists only for hashed data."""
        assert self.spec.run_id is not None
        return self.spec.run_id

    def to_json(self) -> str:
        """Return the job as text."""
        return json.dumps({**vars(self), "spec": self.spec.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Undo `to_json`."""
        fields = json.loads(text)
        return cls(
            **fields
            | {
                "spec": RunSpec.model_validate(fields["spec"]),
                "train": Packed(*fields["train"]),
                "tests": tuple(Packed(*test) for test in fields["tests"]),
                "missing": tuple((test, metric) for test, metric in fields["missing"]),
            }
        )


def clear(jobs: Sequence[Job]) -> None:
    """Delete all that earlier attempts left of jobs, so that they start from nothing."""
    for job in jobs:
        storage = Storage(job.store)
        Store(storage).forget(job.run_id)
        discard(storage, job.run_id)


def train_job(
    job: Job,
    *,
    node: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunEnd:
    """Train a job's network, unless its weights are there, and record the outcome.

    In a process group each process calls this; the first one records.

    Args:
        job: What to train.
        node: What a cluster calls this machine; it is recorded beside the host name, which several nodes may share.
        on_progress: See `sgbench.training.train`.
        should_stop: See there.

    Returns:
        How it ended. Whatever a run can die of by itself, such as a NaN or too little memory, is recorded as its
        failure and not raised; only in a process group is it raised, so that the whole group ends.
    """
    storage = Storage(job.store)
    store, checkpoints = Store(storage), Checkpoints(storage, job.run_id)
    first, world = (dist.get_rank() == 0, dist.get_world_size()) if dist.is_initialized() else (True, 1)
    row = identity_columns(job.spec) | provenance(device_of_process())
    row |= {"node": node, "workers": world, "started": _now()}
    if checkpoints.has_weights() and _is_done(store, job.run_id):
        return "done"
    if first:
        store.forget(job.run_id)  # an earlier failure is none while the run is tried again
    try:
        outcome = train(
            job.spec,
            open_packed(job.train, storage),
            checkpoints,
            device=device_of_process(),
            recompute=job.recompute,
            on_progress=on_progress,
            should_stop=should_stop,
            checkpoint_seconds=job.checkpoint_seconds,
        )
    except NotFiniteError as error:
        if first:
            store.write_run({**row, "status": "failed", "error": str(error), "step": error.step, "finished": _now()})
        return "failed"
    except Exception as error:
        if first:
            store.write_run({**row, **failure(error, checkpoints.latest_step())})
        if world > 1:
            raise
        traceback.print_exc()
        return "failed"
    if not outcome.finished:
        return "stopped"
    if first:
        store.write_history(outcome.history)
        store.write_run({**row, **_success(job.spec, outcome)})
        checkpoints.clear()
    return "done"


def score_job(job: Job, *, locator: Locator) -> list[str]:
    """Compute the missing scores of a trained job from its final weights, and record them.

    Returns:
        What went wrong, a sentence each: scores that failed. A score that lacks weights of a metric's network, or that
        a metric does not define, is an outcome and not a fault.
    """
    storage = Storage(job.store)
    device = device_of_process()
    network = build_backbone(job.spec.backbone, job.spec.recipe.scale)
    weights = Checkpoints(storage, job.run_id).load_weights()
    load_weights(network, weights, source=weights_of(job.run_id), name=job.spec.backbone)
    upscaler = from_network(network, job.spec.recipe, device)
    faults = []
    receive_networks({network for _, metric in job.missing for network in METRICS.load(metric).networks}, storage)
    for packed in job.tests:
        test = open_packed(packed, storage)
        metrics = [metric for dataset, metric in job.missing if dataset == test.name]
        if metrics:
            with pinned(job.spec.recipe):
                rows = score(
                    upscaler, test, metrics, run_id=job.run_id, locator=locator, device=device, hr_cache=HR_CACHE
                )
            Store(storage).write_scores(rows)
            faults += faults_in(rows)
    return faults


def run_here(job: Job, watcher: Watcher) -> tuple[RunEnd, list[str]]:
    """Train and score a job in this process; the first SIGINT or SIGTERM makes it write a checkpoint and stop.

    Returns:
        How training ended, and the scores that failed.
    """
    watcher.started(job.run_id, str(job.spec))
    with stop_signal() as asked:
        end = train_job(
            job,
            on_progress=lambda p: watcher.progress(job.run_id, p.step, p.steps, p.loss, p.steps_per_second),
            should_stop=asked.is_set,
        )
    faults = []
    if end == "done":
        watcher.scoring(job.run_id)
        faults = score_job(job, locator=Locator(download=False))
    watcher.finished(job.run_id, "failed" if faults else end, ending(end, faults, job))
    return end, faults


def ending(end: RunEnd, faults: list[str], job: Job) -> str:
    """Return in words how a run ended; nothing if it ended well."""
    if end == "stopped":
        return "the same command continues it"
    if end == "failed":
        row = Store(Storage(job.store)).run(job.run_id)
        return str(row["error"]) if row else "failed"
    return "; ".join(faults)


@contextlib.contextmanager
def stop_signal(also: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event, and the next into `KeyboardInterrupt`.

    Args:
        also: Called when the event is set.
    """
    asked = threading.Event()

    def handler(signum: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        also()

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def record_failure(job: Job, message: str) -> None:
    """Record a job whose process died without a word, unless there is a row of it."""
    store = Store(Storage(job.store))
    if store.run(job.run_id) is None:
        step = Checkpoints(store.storage, job.run_id).latest_step()
        row = {"status": "failed", "error": message, "step": step, "finished": _now()}
        store.write_run({**identity_columns(job.spec), **row})


def failure(error: Exception, step: int) -> dict[str, Any]:
    """Return the columns of a run that an exception ended."""
    lines = str(error).splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return {"status": "failed", "error": said, "step": step, "finished": _now()}


def _is_done(store: Store, run_id: str) -> bool:
    row = store.run(run_id)
    return row is not None and row["status"] == "done"


def _success(spec: RunSpec, outcome: Outcome) -> dict[str, Any]:
    return {
        "status": "done",
        "step": outcome.step,
        "parameters": count_parameters(build_backbone(spec.backbone, spec.recipe.scale)),
        "steps_per_second": outcome.step / outcome.wall_seconds,
        "wall_seconds": outcome.wall_seconds,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "finished": _now(),
    }


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
