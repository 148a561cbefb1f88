"""The engine behind ``sgbench sweep`` and `sgbench.sweep`: from a sweep's specification to finished runs.

The command line and the function differ only in what they show. Ray and this process do the same work.
"""

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from sgbench.analysis.decisions import Decision
from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.core.errors import AGAIN, InputError, InterruptionError, MissingDataError, resumable
from sgbench.core.storage import Storage
from sgbench.core.words import in_bytes, plural
from sgbench.data import PackedImages, PackProgress, download_size, fetch_missing, pack_set
from sgbench.runs.delivery import fetch, receive, receive_networks
from sgbench.runs.execute import Job, Watcher, begin, conclude, run_here, stop_signal, unreplaced
from sgbench.runs.forecast import expect, longest_first
from sgbench.runs.initial import Start
from sgbench.runs.maintenance import clean
from sgbench.runs.plan import Data, Plan, PlannedRun, Recorded, make_plan, pack, recorded, refuse_losses, refuse_stale
from sgbench.runs.progress import Lane, Recorder, running_in
from sgbench.runs.rehearsal import rehearse
from sgbench.runs.rounds import Rounds
from sgbench.runs.shards import Shard
from sgbench.runs.status import RunStatus
from sgbench.runs.tracking import Trackers, tracked, trackers_of
from sgbench.spec import Expression, RunSpec, SweepSpec
from sgbench.spec.sources import Sources
from sgbench.spec.stored import read_spec
from sgbench.store import Store, identity_columns, now
from sgbench.store.rows import RunEnd

MANY_FILES = 1000
"""Small files from which on a sweep compacts its store at its end."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
"""Between two looks at runs that others have booked; each pause is twice as long as the one before."""


@dataclass
class Summary:
    """How some jobs ended."""

    failed: dict[str, str] = field(default_factory=dict)
    """Why runs failed, or some of their scores."""
    cut: dict[str, str] = field(default_factory=dict)
    """Which fault of storage or machine interrupted runs, by run id."""
    exhausted: dict[str, str] = field(default_factory=dict)
    """Which runs have used up their budget of hours, and what a person is told of each."""
    interrupted: bool = False
    """Whether somebody asked to stop before all was done."""


class Runner(Protocol):
    """Carries out the jobs of a sweep: Ray, or this process."""

    def __call__(self, name: str, jobs: Sequence[Job], sweep: SweepSpec, storage: Storage, watcher: Watcher) -> Summary:
        """Run jobs, in the order in which they are to start, until all have ended or somebody asks to stop."""


class Observer(Protocol):
    """Shows what a sweep does, before its runs start and while they run."""

    def say(self, text: str) -> None:
        """Say what is going on."""

    def warn(self, text: str) -> None:
        """Say what a person must know about the results."""

    def packing(self) -> AbstractContextManager[PackProgress]:
        """Show the progress of packing images while the context lasts."""

    def fetching(self) -> AbstractContextManager[PackProgress]:
        """Show the progress of fetching data sets and pretrained networks, in bytes."""

    def sending(self) -> AbstractContextManager[PackProgress]:
        """Show the progress of sending them to a store, in bytes."""

    def running(self, plan: Plan) -> AbstractContextManager[Watcher]:
        """Show the progress of the runs of a plan."""


class Quiet:
    """An `Observer` and `Watcher` that shows nothing; what a person must know becomes a Python warning."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Warn."""
        warnings.warn(text, stacklevel=2)

    def packing(self) -> AbstractContextManager[PackProgress]:
        """Show nothing."""
        return contextlib.nullcontext(_ignore)

    fetching = sending = packing

    def running(self, plan: Plan) -> AbstractContextManager[Watcher]:
        """Show nothing."""
        return contextlib.nullcontext(self)

    def started(self, run_id: str, label: str) -> None:
        """Do nothing."""

    def placed(self, run_id: str, lane: Lane) -> None:
        """Do nothing."""

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        """Do nothing."""

    def measured(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def scoring(self, run_id: str) -> None:
        """Do nothing."""

    def finished(self, run_id: str, end: RunEnd, message: str) -> None:
        """Do nothing."""


def _ignore(name: str, done: int, total: int) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended."""

    plan: Plan
    """Its runs, as they were before any started."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why runs or some of their scores failed, now or in an earlier sweep, by run id."""
    kept: dict[str, str] = field(default_factory=dict)
    """Why runs failed that were retrained and keep their previous results."""
    exhausted: dict[str, str] = field(default_factory=dict)
    """Which runs have used up their budget of hours, now or earlier, and what a person is told of each."""
    interrupted: bool = False
    """Whether somebody asked to stop before all was done; the same sweep resumes."""
    decisions: tuple[Decision, ...] = ()
    """Where its questions stand."""

    def out_of_budget(self) -> str | None:
        """Return a sentence on the runs that have used up their budget of hours; None if there are none."""
        for first in self.exhausted.values():
            count = len(self.exhausted)
            which = "1 run is not done" if count == 1 else f"{count} runs are not done; the first"
            return f"{which}: {first}."
        return None


def carry_out(
    name: str,
    sweep: SweepSpec,
    storage: Storage,
    runner: AbstractContextManager[Runner],
    observer: Observer,
    *,
    command: str = "sweep",
    download: bool = False,
    shard: Shard | None = None,
    retry: bool = False,
    retrain: bool = False,
    rerun: bool = False,
    rerun_stale: bool = False,
    keep_stale: bool = False,
) -> Outcome:
    """Train and score every run of a sweep, or of a part of it, that is missing in a store.

    A whole sweep has the store for itself. Shards and ``train`` share it: each books its runs, and those that another
    has booked it does last, once that one has ended or died, unless they are done by then.

    Args:
        name: Name of the sweep.
        sweep: The sweep's specification.
        storage: The results store; it is locked until the sweep has ended.
        runner: Carries out the jobs; entered when there are some.
        observer: Shows what happens.
        command: ``sweep`` or ``train``. The plan of a sweep is kept in the store, so that tables and `status` know
            about pending runs.
        download: Download catalogued sets, and a checkpoint with an address, that are not available locally.
        shard: The part of the sweep; None if it is the whole.
        retry: Repeat failed runs and scores.
        retrain: Retrain finished runs that lack scores and have no final weights.
        rerun: Repeat everything, except what another has booked; each run keeps its results until its new training is
            complete.
        rerun_stale: Repeat what was trained with other code of a plug-in than it has now.
        keep_stale: Take such runs as they are; without either, they are refused.

    Returns:
        How it ended; a run that fails raises nothing.

    Raises:
        InputError: If images cannot be used, the store is in use, runs are stale, something that the sweep names fails
            when it is tried, a tracker cannot be used, or the runs cannot be carried out.
        InterruptionError: If storage or machine failed, so that runs are not done; the same sweep resumes.
    """
    if rerun_stale and keep_stale:
        raise InputError("runs of other code are either trained again or kept; give --rerun-stale or --keep-stale.")
    store = Store(storage)
    store.refuse_other_folders()
    start = find_start(sweep, storage, observer, download=download)
    sweep = start.sweep
    if download:
        with observer.fetching() as progress:
            fetch_missing(sweep.sets(), sweep.recipe.scale, observer.say, progress)
    data = gather(sweep, storage, observer)
    rounds = Rounds(name, sweep, data, store) if sweep.decide else None
    named = sweep.runs(data.training)
    alone = command == "sweep" and shard is None
    what = f"shard {shard} of {name}" if shard else name
    purpose = f"sgbench sweep {name}" if alone else what if shard else f"run {named[0].run_id} of {name}"
    local = Locator(download=False)
    planned = functools.partial(
        make_plan,
        name,
        sweep,
        data,
        store,
        retry=retry,
        retrain=retrain,
        rerun_stale=rerun_stale,
        keep_stale=keep_stale,
        locator=local,
        sources=Sources(),
    )
    work = Work(name, data, store, runner, None, observer)
    shown: dict[RunSpec, PlannedRun] = {}

    def begin(added: Sequence[RunSpec], mine: Sequence[RunSpec], *, rerun: bool = False) -> _Turn:
        """Book runs, and prepare whatever those need that are still to be done."""
        taken = storage.book(_ids(mine))
        plan = planned(added=added, only=mine, rerun=rerun)
        refuse_stale(plan)
        if plan.pending or not shown:
            observer.say(f"{what}: {plan.summary()}{'' if plan.pending or plan.to_retrain() else '; nothing to do'}")
        if keep_stale and (remark := plan.to_decide("they are kept")):
            observer.warn(remark)
        if plan.pending and work.trackers is None:
            fetch_networks(plan.metrics, [run.spec.loss for run in plan.pending], storage, observer)
            rehearse(sweep)
            refuse_losses(plan, local)
            start.keep(storage)
            for source in (source for run in plan.pending for source in run.sources.values()):
                store.write_source(source)
            work.trackers = trackers_of(sweep)
        store.write_labels(sweep.labels())
        if command == "sweep":
            _note_lambdas(store, [spec for spec in mine if spec.run_id not in taken])
            store.ask(name, plan.records())
        for run in plan.runs:
            shown.setdefault(run.spec, run)
        return _Turn(what, plan, taken, rerun, functools.partial(planned, added=added))

    with store.writing(purpose) if alone else store.writing_runs(purpose):
        if alone:
            with contextlib.suppress(OSError):  # workers of a killed sweep may still be writing
                clean(store)
        turns = _turns(named, rounds, shard)
        first = begin(*next(turns), rerun=rerun)
        if rounds:
            rounds.declare()
        with resumable("the sweep"), work.running:
            work.finish(first)
            for turn in itertools.takewhile(lambda turn: not work.interrupted, turns):
                work.finish(begin(*turn))
        if alone and not work.interrupted:
            _compact_many(store, observer)
    if not alone and not work.interrupted:
        _tidy_up(store, purpose, observer)
    decided = tuple(rounds.decisions()) if rounds else ()
    plan = replace(first.plan, runs=tuple(shown.values()))
    return Outcome(plan, work.failed, work.kept, work.exhausted, work.interrupted, decided)


class _Turn(NamedTuple):
    """Runs that a command does before it looks what is next."""

    what: str
    """What a person is told that does them."""
    plan: Plan
    taken: Mapping[str, str]
    """Runs that others have booked, with their numbers."""
    rerun: bool
    """Whether everything is repeated."""
    planned: Callable[..., Plan]
    """Plans some of them anew."""


def _turns(
    named: Sequence[RunSpec], rounds: Rounds | None, shard: Shard | None
) -> Iterator[tuple[Sequence[RunSpec], Sequence[RunSpec]]]:
    """Yield which runs a sweep has beyond those of its grids, and which of all to do next.

    As a round follows from all results of the one before, a shard that has done its part of a round then does what no
    other has begun.

    Args:
        named: Those of its grids.
        rounds: Which runs its questions ask for; None if it has none.
        shard: The part of the sweep; None if it is the whole.
    """
    added = rounds.begun() if rounds else []
    while True:
        whole = [*named, *added]
        if shard:
            yield added, shard.among(whole)
        if rounds or not shard:
            yield added, whole
        if not rounds or not (more := rounds.after(whole)):
            return
        added = [*added, *more]


class Work:
    """Carries out runs of a sweep, in as many rounds as it takes until others have done theirs, and keeps the ends.

    Args:
        name: Name of the sweep.
        data: Its images.
        store: The results store.
        runner: Carries out the jobs; entered before the first of them.
        trackers: Whom to tell what happens; None until there is something to do.
        observer: Shows what happens.
    """

    def __init__(
        self,
        name: str,
        data: Data,
        store: Store,
        runner: AbstractContextManager[Runner],
        trackers: Trackers | None,
        observer: Observer,
    ) -> None:
        self._name, self._data, self._store, self.trackers = name, data, store, trackers
        self._runner, self._observer = runner, observer
        self._run_jobs: Runner | None = None
        self.running = contextlib.ExitStack()
        """Ends the runner when it is left."""
        self.failed: dict[str, str] = {}
        """See `Outcome`, also for the others."""
        self.kept: dict[str, str] = {}
        self.exhausted: dict[str, str] = {}
        self.interrupted = False

    def finish(self, turn: _Turn) -> None:
        """Carry out runs; those that others have booked only once these have ended or died, unless they are done then.

        Raises:
            InterruptionError: If storage or machine failed, so that some are not done.
        """
        storage, plan, taken = self._store.storage, turn.plan, turn.taken
        pause = FIRST_PAUSE_SECONDS
        while True:
            ours = [run for run in plan.runs if run.spec.run_id not in taken]
            pending = [run for run in ours if run.pending]
            self.do(plan, pending)
            if self.interrupted:
                return
            ended = _ids(run.spec for run in (ours if turn.rerun and plan is turn.plan else pending))
            conclude(self._store, (run_id for run_id in ended if run_id not in self.exhausted))
            if not (mine := [run.spec for run in plan.pending if run.spec.run_id in taken]):
                return
            if pending or plan is turn.plan:
                holders = storage.in_words(sorted(set(taken.values())))
                self._observer.say(f"{turn.what}: waiting for {plural(len(mine), 'run')} booked by {holders}")
            else:
                self.interrupted = _wait(storage, set(taken.values()), pause)
                if self.interrupted:
                    return
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            taken = storage.book(_ids(mine))
            plan = turn.planned(only=mine)

    def do(self, plan: Plan, pending: Sequence[PlannedRun], until: Mapping[str, int] | None = None) -> None:
        """Carry out runs of a plan.

        Args:
            plan: The plan.
            pending: The runs.
            until: Steps after which some of them pause, by id.

        Raises:
            InterruptionError: If storage or machine failed, so that some are not done.
        """
        for status, ended in ((RunStatus.FAILED, self.failed), (RunStatus.EXHAUSTED, self.exhausted)):
            ended |= {str(run.spec.run_id): str(run.error) for run in plan.runs if run.status is status}
        if not pending:
            return
        sweep, storage = plan.sweep, self._store.storage
        expected = expect(
            pending,
            self._store,
            tests=plan.tests,
            validation=sweep.validation,
            validation_sets=plan.validation,
            workers=max(1, sweep.workers),
        )
        asked, time, stops = self._store.asked(), now(), until or {}
        jobs = [
            Job.of(run, self._data, sweep, storage, asked.get(run_id, time), until=stops.get(run_id))
            for run in longest_first(expected)
            for run_id in [str(run.spec.run_id)]
        ]
        self._run_jobs = self._run_jobs or self.running.enter_context(self._runner)
        with (
            self._observer.running(plan) as shown,
            Recorder(shown, plan.course(), self._name, storage) as recorder,
            tracked(recorder, self._name, sweep, jobs, self.trackers or {}, storage) as watcher,
        ):
            summary = self._run_jobs(self._name, jobs, sweep, storage, watcher)
        for reason in summary.cut.values():
            cut = f"{len(summary.cut)} of {len(plan.runs)} runs were interrupted: {reason}"
            raise InterruptionError(f"{cut}; {AGAIN}.")
        stands = unreplaced(jobs, self._store)
        for run_id, why in summary.failed.items():
            (self.kept if run_id in stands else self.failed)[run_id] = why
        self.exhausted |= summary.exhausted
        self.interrupted = summary.interrupted


def _note_lambdas(store: Store, specs: Iterable[RunSpec]) -> None:
    """Write into the rows of runs what this sweep varies in their losses, if they say otherwise.

    Args:
        store: The store; no other process writes the rows.
        specs: Runs of the sweep; those in whose losses nothing is varied keep what their rows say.
    """
    varied = {spec.run_id: spec for spec in specs if spec.varied}
    for run_id, row in store.rows().items() if varied else ():
        if (spec := varied.get(run_id)) and (row["lambda"], row["varied"]) != (spec.lam, spec.varied):
            noted = read_spec(row["spec"], f"run {run_id}").model_copy(update={"varied": spec.varied})
            store.write_run(row | identity_columns(noted))


def _ids(specs: Iterable[RunSpec]) -> list[str]:
    return [str(spec.run_id) for spec in specs]


def _wait(storage: Storage, numbers: Iterable[str], seconds: float) -> bool:
    """Wait until others that have booked runs have ended or died, or for some time; return whether to stop.

    Args:
        storage: The store.
        numbers: Theirs.
        seconds: How long to wait if they live.
    """
    with stop_signal() as asked:
        for number in numbers:
            with contextlib.suppress(InputError):  # it lives
                storage.end([number])
                return asked.is_set()
        asked.wait(seconds)
        return asked.is_set()


def _tidy_up(store: Store, purpose: str, observer: Observer) -> None:
    """Do what only one at a time may do, as the last of those that shared a store."""
    with contextlib.suppress(InputError, OSError):  # somebody has begun meanwhile; the results are there all the same
        if not store.storage.writers():
            with store.writing(purpose, brief=True):
                clean(store)
                _compact_many(store, observer)


def _compact_many(store: Store, observer: Observer) -> None:
    """Compact a store once it has `MANY_FILES`, because every command reads all of them."""
    if sum(len(files.list().small) for files in store.tables.values()) < MANY_FILES:
        return
    try:
        store.compact()
    except (OSError, InputError) as error:  # the results are there all the same
        observer.warn(f"the store could not be compacted: {error}")


def gather(sweep: SweepSpec, storage: Storage, observer: Observer) -> Data:
    """Pack the images of a sweep, and fetch the sets that it has in its store.

    Raises:
        InputError: If images are missing or cannot be used.
    """
    with observer.fetching() as progress:
        received = receive(sweep.sets(), sweep.recipe, storage, progress)
    with observer.packing() as progress:
        return pack(sweep, progress, received)


def find_start(sweep: SweepSpec, storage: Storage, observer: Observer, *, download: bool = False) -> Start:
    """Return how the runs of a sweep start, and say what a person must know of that.

    Raises:
        InputError: As `Start.of` does.
    """
    with observer.fetching() as progress:
        start = Start.of(sweep, storage, functools.partial(progress, "checkpoint") if download else None)
    if init := start.sweep.recipe.init:
        observer.say(f"initial weights: {init.name} ({str(init.sha256)[:8]})")
    if start.remark:
        observer.warn(start.remark)
    return start


def available(sweep: SweepSpec, storage: Storage, observer: Observer) -> list[PackedImages]:
    """Return the sets of a sweep that are available, packed, and say what a sweep would do about the others.

    Raises:
        InputError: If images cannot be used.
    """
    found = []
    for reference, role in sweep.sets():
        try:
            with observer.fetching() as progress:
                received = receive([(reference, role)], sweep.recipe, storage, progress)
            with observer.packing() as progress:
                found.append(received.get(reference) or pack_set(reference, role, sweep.recipe, progress))
        except MissingDataError as error:
            size = download_size(reference, role, sweep.recipe.scale)
            download = f"; a sweep with --address or --fetch downloads {in_bytes(size)}" if size else ""
            observer.warn(f"{str(error).rstrip('.')}{download}.")
    return found


def look(name: str, sweep: SweepSpec, storage: Storage, observer: Observer) -> Plan:
    """Compare a sweep with a store, without starting anything.

    If a data set is not available locally, the set of that name on record in the store is used, provided there is
    exactly one. Otherwise runs have no ids. The same holds for the weights with which runs start.

    Raises:
        InputError: If images cannot be used, or something that the sweep names fails when it is tried.
    """
    rehearse(sweep)
    store = Store(storage)
    data: Data | Recorded | None
    try:
        data = gather(sweep, storage, observer)
    except MissingDataError as error:
        data = recorded(sweep, store)
        ids = "are those of the images on record in the store" if data else "are not known yet"
        observer.warn(f"run ids {ids}: {error}")
    try:
        sweep = find_start(sweep, storage, observer).sweep
    except MissingDataError as error:
        data = None
        observer.warn(f"run ids are not known yet: {error}")
    planned = functools.partial(
        make_plan, name, sweep, data, store, locator=Locator(download=False), running=running_in(storage)
    )
    if data is None or not sweep.decide:
        return planned()
    rounds = Rounds(name, sweep, data, store)
    for added, _ in _turns(sweep.runs(data.training), rounds, None):  # up to a round that is not done
        made = planned(added=added)
        if made.pending:
            break
    return replace(made, decisions=tuple(rounds.decisions()), undeclared=tuple(rounds.undeclared()))


def fetch_networks(metrics: Iterable[str], losses: Iterable[Expression], storage: Storage, observer: Observer) -> None:
    """Fetch the pretrained networks that are needed, from the store or else the internet, and say which are missing.

    A metric without its network gets no scores, but a loss cannot train without it.

    Args:
        metrics: Names of metrics.
        losses: The losses to train with.
        storage: The results store.
        observer: Shows which networks arrive, and which do not.

    Raises:
        InputError: If a loss needs a network that is not available.
    """
    local, losses = Locator(download=False), dict.fromkeys(losses)
    lacking = [name for name in networks_of(metrics, losses) if local.find(name) is None]
    with observer.fetching() as progress:
        receive_networks(lacking, storage, progress)
        missing = fetch(lacking, progress)
    for loss in losses:
        for name in networks_of(losses=[loss]):
            if name in missing:
                raise InputError(f"loss '{loss}' cannot be used for training: {missing[name]}")
    for reason in missing.values():
        observer.warn(reason)


def run_all_here(name: str, jobs: Sequence[Job], sweep: SweepSpec, storage: Storage, watcher: Watcher) -> Summary:
    """Run jobs one after another in this process, without Ray; a `Runner`.

    The first SIGINT or SIGTERM makes the current run write a checkpoint and stop, and ends the sweep. A fault of
    storage or machine ends it too, as the other runs would meet it as well.
    """
    summary = Summary()
    begin(jobs)
    with stop_signal() as asked:
        for job in jobs:
            end, message = run_here(job, watcher)
            if end is RunEnd.FAILED:
                summary.failed[job.run_id] = message
            if end is RunEnd.EXHAUSTED:
                summary.exhausted[job.run_id] = message
            if end is RunEnd.INTERRUPTED:
                summary.cut[job.run_id] = message
                break
            if end is RunEnd.STOPPED or asked.is_set():
                summary.interrupted = True
                break
    return summary
