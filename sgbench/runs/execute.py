"""Executing one run: train, record, score. The same code runs with and without Ray.

Every result is on storage before a call returns, so that the caller can die at any moment and the next sweep resumes
from there.
"""

import contextlib
import datetime
import json
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

import torch.distributed as dist

from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.backbones import build_backbone, count_parameters
from sgbench.core.errors import NotFiniteError, described, machine_fault
from sgbench.core.storage import Storage
from sgbench.runs.delivery import Packed, open_packed, receive_networks
from sgbench.runs.initial import first_weights
from sgbench.runs.plan import Data, PlannedRun
from sgbench.runs.progress import Lane, curves
from sgbench.runs.status import begun_with, note_budget, note_code, out_of_budget
from sgbench.scoring.evaluation import score_subject
from sgbench.scoring.provenance import provenance
from sgbench.scoring.subjects import trained
from sgbench.scoring.validation import Validator
from sgbench.spec import RunSpec, SweepSpec, Validation, canonical_json
from sgbench.spec.sources import Code, changed, joined
from sgbench.spec.stored import read_spec
from sgbench.store import BESIDE_RUNS, Replaced, Store, identity_columns, now, stamp
from sgbench.store.layout import has_weights, images_of, latest_step
from sgbench.store.rows import HistoryRow, RunEnd, RunRow, ScoreRow, ValidationRow
from sgbench.training import Checkpoints, Outcome, Progress, peak_memory, train
from sgbench.training.numerics import device_of_process

STOPPED = "the same command resumes it"
"""What a person is told about a run that was stopped."""


class Watcher(Protocol):
    """Follows the progress of a sweep; runs are named by their ids."""

    def started(self, run_id: str, label: str) -> None:
        """A run has started training or scoring."""

    def placed(self, run_id: str, lane: Lane) -> None:
        """A run is at work on a node of a cluster; a run without Ray is not placed."""

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        """A run has done some of its steps."""

    def measured(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        """A run has values at a step: of its training curves, see `sgbench.runs.progress.curves`, or scores."""

    def scoring(self, run_id: str) -> None:
        """A run's training is done and its scores are being computed."""

    def finished(self, run_id: str, end: RunEnd, message: str) -> None:
        """A run has ended; unless it is done, the message says why."""


@dataclass(frozen=True)
class Job:
    """A run with everything that a process on another machine needs; small, and sent as plain JSON."""

    spec: RunSpec
    store: str
    """The store for results, checkpoints and weights."""
    train: Packed
    """The training images."""
    tests: tuple[Packed, ...]
    """The test sets."""
    missing: tuple[tuple[str, str], ...]
    """Scores to compute: names of test sets and metrics."""
    recompute: bool
    """Whether activations are recomputed in the backward pass."""
    checkpoint_seconds: float
    """Minimum time between checkpoints."""
    step: int = 0
    """Steps that were done when it was planned."""
    replaced: Replaced | None = None
    """What the training replaces; without it, a finished run is only scored."""
    validation: Validation | None = None
    """How its network is validated while it trains."""
    validation_sets: tuple[Packed, ...] = ()
    code: Code = field(default_factory=dict)
    """The code of its plug-ins when it was planned."""
    metric_code: Code = field(default_factory=dict)
    """That of its metrics that are not built in, by their names."""
    label: str | None = None
    """See `PlannedRun.label`."""
    until: int | None = None
    """Steps after which it pauses; None is all of the recipe's."""
    fence: str | None = None
    """Of the store while the sweep holds its lock: what no longer has it writes nothing there."""
    planned: datetime.datetime | None = None
    """When the run was first asked for."""

    @classmethod
    def of(
        cls,
        run: PlannedRun,
        data: Data,
        sweep: SweepSpec,
        storage: Storage,
        planned: datetime.datetime | None = None,
        *,
        until: int | None = None,
    ) -> "Job":
        """Return the job of a planned run, or that of its first steps, which was first asked for at a time."""
        return cls(
            run.spec,
            storage.root,
            Packed.of(data.train),
            tuple(map(Packed.of, data.tests)),
            run.missing,
            recompute=sweep.recompute,
            checkpoint_seconds=sweep.checkpoint_seconds,
            step=run.step,
            replaced=run.replaced,
            validation=sweep.validation,
            validation_sets=tuple(map(Packed.of, data.validation)),
            code=run.code,
            metric_code=run.metric_code,
            label=run.label,
            until=until,
            fence=storage.fence,
            planned=planned,
        )

    def storage(self) -> Storage:
        """Return the store, to be written to on behalf of the sweep for as long as that holds its lock."""
        return Storage(self.store, self.fence)

    @property
    def run_id(self) -> str:
        """The run's id; a job exists only for hashed data."""
        assert self.spec.run_id is not None
        return self.spec.run_id

    @property
    def columns(self) -> RunRow:
        """The columns of the run's row that are known before it starts."""
        return identity_columns(self.spec) | {"planned": self.planned}

    @property
    def title(self) -> str:
        """What a person is told while it runs that it is."""
        return self.spec.called(self.label or str(self.spec.loss))

    @property
    def sets(self) -> tuple[Packed, ...]:
        """Its sets of images."""
        return (self.train, *self.tests, *self.validation_sets)

    @property
    def metrics(self) -> set[str]:
        """The metrics that it computes, while and after it trains."""
        return {metric for _, metric in self.missing}.union(self.validation.metrics if self.validation else ())

    def to_json(self) -> str:
        """Return the job as text."""
        validation = self.validation and self.validation.model_dump(mode="json")
        spec, planned = self.spec.model_dump(mode="json"), self.planned and self.planned.isoformat()
        return json.dumps({**vars(self), "spec": spec, "validation": validation, "planned": planned})

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Parse the output of `to_json`."""
        fields = json.loads(text)
        return cls(
            **fields
            | {
                "spec": read_spec(fields["spec"], "the job"),
                "train": Packed(*fields["train"]),
                "tests": tuple(Packed(*test) for test in fields["tests"]),
                "validation_sets": tuple(Packed(*images) for images in fields["validation_sets"]),
                "validation": fields["validation"] and Validation.model_validate(fields["validation"]),
                "missing": tuple((test, metric) for test, metric in fields["missing"]),
                "replaced": Replaced.of(fields["replaced"]) if fields["replaced"] else None,
                "planned": fields["planned"] and datetime.datetime.fromisoformat(fields["planned"]),
            }
        )

    def replaces(self, row: RunRow | None) -> bool:
        """Return whether the training replaces this row of the run."""
        return self.replaced is not None and self.replaced.row == stamp(row)


def begin(jobs: Sequence[Job]) -> None:
    """Record which runs are about to be replaced, so that later commands know what was started.

    For runs that are repeated from the start, checkpoints from earlier trainings are deleted.
    """
    if not any(job.replaced for job in jobs):
        return
    store = Store(jobs[0].storage())
    with store.storage.alone():
        replaced = store.replaced()
        for job in jobs:
            before = replaced.get(job.run_id)
            begun = before and job.replaced and before.rerun and before.row == job.replaced.row
            same = begun and not changed(begun_with(store.storage, job.run_id), job.code)
            if job.replaced and job.replaced.rerun and not same:
                Checkpoints(store.storage, job.run_id).clear()
            if job.replaced and (job.replaced.rerun or job.replaced.scores):
                replaced[job.run_id] = job.replaced
        store.write_replaced(replaced)


def conclude(store: Store, run_ids: Iterable[str]) -> None:
    """Record that a command has ended: of the runs that it replaced, only scores still to be computed stay on record.

    Args:
        store: The store.
        run_ids: The runs that the command was to replace; what other commands have started stays on record too.
    """
    if not store.replaced():
        return
    with store.storage.alone():
        rows = store.rows()
        key = ["run_id", "dataset", "dataset_sha256", "metric"]
        scored = {tuple(row.values()) for row in store.totals().select(key).to_pylist()}
        ended, remaining = set(run_ids), {}
        for run_id, before in store.replaced().items():
            stands = before.row == stamp(rows.get(run_id))
            owed = tuple(each for each in before.scores if (run_id, *each) not in scored)
            if run_id not in ended and (stands or before.rerun):
                remaining[run_id] = before
            elif owed and not stands:
                remaining[run_id] = Replaced(before.row, rerun=False, scores=owed)
        store.write_replaced(remaining)


def unreplaced(jobs: Iterable[Job], store: Store) -> set[str]:
    """Return the ids of jobs whose runs were done before and still have their previous results."""
    done = {run_id: row for run_id, row in store.rows().items() if row["status"] == RunEnd.DONE}
    return {job.run_id for job in jobs if job.run_id in done and job.replaces(done[job.run_id])}


def train_job(
    job: Job,
    *,
    node: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[RunEnd, str]:
    """Train a job's network, unless its weights exist, and record the outcome.

    If a run is retrained, its old results stay untouched until the new training is complete and in a checkpoint. Then
    the old row is deleted first, so that the run counts as resumable and nothing shows what is left of its old results.
    The new row is written last. In a process group, every process calls this; the first one records the result, and
    whichever fails first its failure.

    Args:
        job: The job to train.
        node: The cluster's name for this machine; recorded with the host name, which several nodes may share.
        on_progress: See `sgbench.training.train`.
        should_stop: See there.

    Returns:
        How it ended and, unless it is done, why. Faults of the run itself, such as a NaN or an exception of a plug-in,
        are recorded as its failure instead of raised; only a process group raises them, so that the whole group ends.
        A run that was done before keeps its results if it fails.

    Raises:
        Exception: A fault of storage or machine, see `sgbench.core.errors.machine_fault`; nothing is recorded, so
            that the run counts as resumable.
    """
    storage = job.storage()
    store, checkpoints = Store(storage), Checkpoints(storage, job.run_id)
    first, world = (dist.get_rank() == 0, dist.get_world_size()) if dist.is_initialized() else (True, 1)
    device = device_of_process()
    row = job.columns | provenance(device)
    row |= {"node": node, "workers": world, "started": now()}
    before = store.run(job.run_id)
    if before and before["status"] == RunEnd.DONE and not job.replaces(before):
        if not has_weights(storage, job.run_id):
            return RunEnd.FAILED, "its final weights are missing; --retrain trains it again"
        return RunEnd.DONE, ""
    code = note_code(storage, job.run_id, job.code) if first else joined(begun_with(storage, job.run_id), job.code)
    row |= {"code": _as_column(code)}
    history: list[HistoryRow] = []
    validated: list[ValidationRow] = []
    validator: Validator | None = None

    def make_way() -> None:
        store.tables["runs"].forget(job.run_id)
        store.forget(job.run_id)
        storage.delete_folder(images_of(job.run_id))

    def failed(columns: RunRow) -> tuple[RunEnd, str]:
        recorded = None if world == 1 else _recorded_failure(store, job)
        columns |= {"peak_memory_bytes": peak_memory(device)}
        return RunEnd.FAILED, recorded or _record_failure(store, row | columns, history, validated)

    try:
        receive_networks(networks_of(job.validation.metrics if job.validation else (), [job.spec.loss]), storage)
        if job.validation:
            sets = [open_packed(packed, storage) for packed in job.validation_sets if first]
            validator = Validator(job.spec, job.validation, sets, Locator(download=False), device)
        outcome = train(
            job.spec,
            open_packed(job.train, storage),
            checkpoints,
            device=device,
            recompute=job.recompute,
            initial=first_weights(job.spec, storage),
            on_progress=on_progress,
            should_stop=should_stop,
            on_complete=make_way,
            history=history,
            validator=validator,
            validated=validated,
            checkpoint_seconds=job.checkpoint_seconds,
            until=job.until,
        )
    except NotFiniteError as error:
        return failed(_failed(str(error), error.step))
    except Exception as error:
        if machine_fault(error):
            raise
        end = failed(_failed(described(error), latest_step(storage, job.run_id)))
        if world > 1:
            raise
        traceback.print_exc()
        return end
    if outcome.exhausted:
        if first:
            note_budget(storage, job.run_id, outcome.wall_seconds)
        return RunEnd.EXHAUSTED, out_of_budget(storage, job.run_id, outcome.step, job.spec.recipe)
    if outcome.paused:
        if first:
            store.write_history(outcome.history)
            store.write_validation(validated)
        return RunEnd.PAUSED, f"after {outcome.step} of {job.spec.recipe.steps} steps"
    if not outcome.finished:
        return RunEnd.STOPPED, STOPPED
    if first:
        store.write_history(outcome.history)
        store.write_validation(validated)
        store.write_run(row | _success(job.spec, outcome))
        checkpoints.clear()
    return RunEnd.DONE, ""


def score_job(
    job: Job, *, locator: Locator, on_rows: Callable[[Sequence[ScoreRow]], object] = lambda rows: None
) -> list[str]:
    """Compute the missing scores of a trained job from its final weights, and record them.

    Args:
        job: The job.
        locator: See `sgbench.scoring.evaluation.score_subject`.
        on_rows: See there.

    Returns:
        See there.
    """
    storage = job.storage()
    receive_networks(networks_of([metric for _, metric in job.missing]), storage)
    wanted: dict[str, list[str]] = {}
    for dataset, metric in job.missing:
        wanted.setdefault(dataset, []).append(metric)
    tests = (open_packed(packed, storage) for packed in job.tests)
    return score_subject(
        trained(job.spec, Store(storage)),
        ((test, wanted[test.name]) for test in tests if test.name in wanted),
        Store(storage),
        locator=locator,
        code=job.metric_code,
        on_rows=on_rows,
    )


def scores_in(rows: Iterable[ScoreRow]) -> dict[str, float]:
    """Return the scores of whole test sets, as far as they have values, by `score_name`."""
    totals = (row for row in rows if row["image"] is None)
    return {score_name(row["dataset"], row["metric"]): row["value"] for row in totals if row["value"] is not None}


def score_name(dataset: str, metric: str) -> str:
    """Return what a score is called beside the training curves: ``scores/Set5/psnr_y``."""
    return f"scores/{dataset}/{metric}"


def run_here(job: Job, watcher: Watcher) -> tuple[RunEnd, str]:
    """Train and score a job in this process; the first SIGINT or SIGTERM makes it write a checkpoint and stop.

    Returns:
        How it ended and, unless it is done, why; it fails if a score does.
    """
    watcher.started(job.run_id, job.title)
    end, message = unless_interrupted(lambda: _train_and_score(job, watcher))
    watcher.finished(job.run_id, end, message)
    return end, message


def _train_and_score(job: Job, watcher: Watcher) -> tuple[RunEnd, str]:
    def on_progress(p: Progress) -> None:
        for step, values in curves(p):
            watcher.measured(job.run_id, step, values)
        watcher.progress(job.run_id, p.step, p.steps, p.loss, p.steps_per_second)

    def on_rows(rows: Sequence[ScoreRow]) -> None:
        watcher.measured(job.run_id, job.spec.recipe.steps, scores_in(rows))

    with stop_signal() as asked:
        end, message = train_job(job, on_progress=on_progress, should_stop=asked.is_set)
    if end is RunEnd.DONE:
        watcher.scoring(job.run_id)
        if faults := score_job(job, locator=Locator(download=False), on_rows=on_rows):
            return RunEnd.FAILED, "; ".join(faults)
    return end, message


def unless_interrupted(execute: Callable[[], tuple[RunEnd, str]]) -> tuple[RunEnd, str]:
    """Execute a run and return how it ended, also if storage or machine failed, which is no failure of the run."""
    try:
        return execute()
    except Exception as error:
        if (fault := machine_fault(error)) is None:
            raise
        return RunEnd.INTERRUPTED, fault


@contextlib.contextmanager
def stop_signal(also: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event, and the next into `KeyboardInterrupt`.

    Outside the main thread, where Python delivers no signals, the event is never set.

    Args:
        also: Called when the event is set.
    """
    asked = threading.Event()

    def handler(signum: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        also()

    hears = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM) if hears}
    try:
        yield asked
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def record_failure(job: Job, message: str, lane: Lane | None = None) -> str:
    """Record the failure of a job whose process died silently, unless its end is on record.

    Args:
        job: The job.
        message: Why it failed.
        lane: Where it was, if that is known.

    Returns:
        The reason, for a person.
    """
    store = Store(job.storage())
    if recorded := _recorded_failure(store, job):
        return recorded
    step = latest_step(store.storage, job.run_id)
    checkpoint = Checkpoints(store.storage, job.run_id).load(job.spec) or {}
    curves = checkpoint.get("history", []), checkpoint.get("validation", [])
    where: RunRow = {"node": lane.node, "gpu": lane.kind or None} if lane else {}
    where |= {"code": _as_column(joined(begun_with(store.storage, job.run_id), job.code))}
    return _record_failure(store, job.columns | where | _failed(message, step), *curves)


def _as_column(code: Code) -> str | None:
    return canonical_json(code) if code else None


def _recorded_failure(store: Store, job: Job) -> str | None:
    """Return why a job has failed, if a process of it has recorded that."""
    row = store.run(job.run_id)
    return str(row["error"]) if row and row["status"] == RunEnd.FAILED and not job.replaces(row) else None


def _record_failure(store: Store, row: RunRow, history: list[HistoryRow], validated: list[ValidationRow]) -> str:
    """Record a failure with its training curve and its validation, unless the run is done; return the reason."""
    before = store.run(row["run_id"])
    if before and before["status"] == RunEnd.DONE:
        return f"{row['error']}; its previous results are kept"
    for table in BESIDE_RUNS:
        store.tables[table].forget(row["run_id"])
    store.write_history(history)
    store.write_validation(validated)
    store.write_run(row)
    return str(row["error"])


def _failed(error: str, step: int) -> RunRow:
    return {"status": RunEnd.FAILED, "error": error, "step": step, "finished": now()}


def _success(spec: RunSpec, outcome: Outcome) -> RunRow:
    return {
        "status": RunEnd.DONE,
        "step": outcome.step,
        "parameters": count_parameters(build_backbone(spec.backbone, spec.recipe.scale)),
        "steps_per_second": outcome.step / outcome.wall_seconds,
        "wall_seconds": outcome.wall_seconds,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "finished": now(),
    }
