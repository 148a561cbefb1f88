"""The driver of a sweep: it places runs, reports what happens, and handles Ctrl-C."""

import contextlib
import math
import secrets
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from sgbench.assets.needs import networks_of
from sgbench.cluster.nodes import Node, Wanted, examine, own_id, refuse_unfit
from sgbench.cluster.placement import Placement, place
from sgbench.cluster.ray_internals import (
    DRIVER_RESOURCES,
    PREEMPTED,
    Unsaved,
    error_of,
    is_lost_machine,
    is_unreached,
    session_folder,
    set_failures,
)
from sgbench.cluster.registered import Sent, pack
from sgbench.cluster.runlog import log_address
from sgbench.cluster.trial import trial
from sgbench.core.errors import AGAIN, InterruptionError, described
from sgbench.core.storage import Storage
from sgbench.runs.code import names_of_jobs
from sgbench.runs.delivery import Moved, open_in_place, parcels, send
from sgbench.runs.execute import Job, Watcher, begin, record_failure, stop_signal
from sgbench.runs.progress import Lane
from sgbench.runs.sweep import Summary
from sgbench.spec import SweepSpec
from sgbench.store.layout import SCRATCH, discard_scratch
from sgbench.store.rows import RunEnd

MAX_FAILURES = 2
"""How often a run whose process died is started again, from its last checkpoint, before it counts as failed."""


def run_sweep(
    name: str,
    jobs: Sequence[Job],
    sweep: SweepSpec,
    storage: Storage,
    watcher: Watcher,
    *,
    lost: threading.Event | None = None,
    sending: Callable[[], AbstractContextManager[Moved]] | None = None,
) -> Summary:
    """Run jobs on the connected Ray, as many at once as it has room for; a `sgbench.runs.sweep.Runner`.

    Ctrl-C, or SIGTERM, asks every run to write a checkpoint and stop; a second one stops at once.

    Args:
        name: The sweep's.
        jobs: In the order in which they are to start.
        sweep: The sweep that they belong to.
        storage: The results store.
        watcher: Called with what happens.
        lost: Set when the connected Ray has died, so that there is nothing to wait for.
        sending: Shows what is sent to workers, which may be on other machines; None if all are on this one.

    Raises:
        KeyboardInterrupt: If somebody presses Ctrl-C twice, or once it is lost.
        InterruptionError: If Tune cannot use its own files.
        InputError: If the cluster can never place a run, a node lacks what a run needs, or the code of plug-ins cannot
            be sent.
    """
    placement = place(sweep)
    scratch = f"{SCRATCH}/{secrets.token_hex(4)}"
    stop, state = f"{scratch}.stop", Path(session_folder(), f"tune-{secrets.token_hex(4)}")
    remote = sending is not None
    sent = pack(names_of_jobs(jobs), remote=remote)
    nodes = prepare_nodes(jobs, storage, scratch, sent, sending) if sending else []
    common = {
        "stop": stop,
        "workers": sweep.workers,
        "resources": placement.each,
        "use_gpu": placement.use_gpu,
        "remote": remote,
    }
    # A run with a worker group holds no CPU itself: drivers that did could fill the cluster and wait for ever.
    held = DRIVER_RESOURCES if sweep.workers else placement.each
    lanes = Lanes(placement) if sweep.workers else BasicVariantGenerator()
    with _lock_that_all_see(f"sgbench sweep {name}", storage, nodes):
        begin(jobs)
        events = _Events(jobs, watcher, remote=remote)
        try:
            with stop_signal(lambda: storage.write(stop, b"")) as asked:
                tune.Tuner(
                    tune.with_resources(tune.with_parameters(trial, code=sent.code), held),
                    param_space={**common, "job": tune.grid_search([job.to_json() for job in jobs])},
                    tune_config=tune.TuneConfig(search_alg=lanes, reuse_actors=True),
                    run_config=tune.RunConfig(
                        name="tune",
                        storage_path=str(state),  # not in the store, where Tune would write without the lock
                        verbose=0,
                        callbacks=[events],
                        stop=_Waiting(events, asked, lost or threading.Event(), placement),
                        failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                    ),
                ).fit()
                if lost and lost.is_set():
                    raise KeyboardInterrupt  # these are no failures of runs, as Tune thinks
        except (tune.TuneError, EOFError) as error:  # the latter of files that a full disk has left empty
            fault = f"Ray Tune cannot use its files, as on a full disk: {described(error)}"
            raise InterruptionError(f"{fault}; {AGAIN}.") from error
        finally:
            shutil.rmtree(state, ignore_errors=True)
            with contextlib.suppress(OSError):  # if the storage fails now, the next sweep deletes the rest
                discard_scratch(storage, scratch if storage.is_shared else "")
    for job in jobs:
        if job.run_id in events.died:
            record_failure(job, events.summary.failed[job.run_id], events.lanes.get(job.run_id))
    events.summary.interrupted = asked.is_set()
    return events.summary


def _lock_that_all_see(purpose: str, storage: Storage, nodes: Sequence[Node]) -> AbstractContextManager[object]:
    """Hold a lease beside the kernel's lock of a store if a node does not see that."""
    return contextlib.nullcontext() if all(node.sees_lock for node in nodes) else storage.lease_too(purpose)


def prepare_nodes(
    jobs: Sequence[Job],
    storage: Storage,
    scratch: str,
    sent: Sent,
    sending: Callable[[], AbstractContextManager[Moved]],
) -> list[Node]:
    """Refuse a cluster that lacks what cannot be sent, and put into the store what nodes will fetch from there.

    Returns:
        The nodes.
    """
    sets = dict.fromkeys(packed for job in jobs for packed in job.sets)
    nodes = examine(Wanted(storage.root, tuple(sets), sent=sent), scratch)
    refuse_unfit(nodes)
    others = [node for node in nodes if node.id != own_id()]
    if storage.is_local and others and not any(node.lacks for node in others):
        return nodes  # their caches are this machine's, and so are those of nodes that start later
    metrics = {metric for job in jobs for metric in job.metrics}
    networks = networks_of(metrics, {job.spec.loss for job in jobs})
    with sending() as moved:
        send(parcels(map(open_in_place, sets), networks, storage), storage, moved)
    return nodes


class Lanes(BasicVariantGenerator):
    """Begins as many runs with worker groups as the cluster, as it is or can grow, has room for, and one more.

    Without this Tune would begin all, because the processes that hold no CPU always find room. The one more has its
    processes ready when a group ends.
    """

    LOOK_SECONDS = 5.0
    """Between two looks at what the cluster has."""

    def __init__(self, placement: Placement) -> None:
        super().__init__()
        self._placement = placement
        self._looked = -math.inf

    def next_trial(self) -> Any:
        """Return the next run to begin, or None if there is no room or nothing left."""
        now = time.monotonic()
        if now - self._looked > self.LOOK_SECONDS:
            self._looked, self.max_concurrent = now, self._placement.lanes() + 1
        return super().next_trial()


class _Events(Unsaved, tune.Callback):
    """Turns the reports of trials into calls of a watcher and a summary."""

    _SAVED_AS = tune.Callback

    def __init__(self, jobs: Sequence[Job], watcher: Watcher, *, remote: bool) -> None:
        self.jobs = {job.run_id: job for job in jobs}
        self.watcher = watcher
        self._remote = remote
        self.summary = Summary()
        self.died: set[str] = set()
        self.running: set[str] = set()
        self.lanes: dict[str, Lane] = {}
        """Where runs were last."""
        self._nodes: dict[str, str] = {}
        """Where runs are that have started."""
        self._failed_on: dict[str, list[str]] = {}
        """Where runs were when they failed."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass on one report of a run."""
        run_id = result["run_id"]
        match result["event"]:
            case "started":
                self.running.add(run_id)
                self._nodes[run_id] = result["node"]
                self.watcher.started(run_id, result["label"])
                if result["lane"]:
                    self._placed(run_id, Lane(*result["lane"]))
            case "progress":
                self._placed(run_id, Lane(*result["lane"]))
                for step, values in result["curves"]:
                    self.watcher.measured(run_id, step, values)
                keys = ("step", "steps", "loss", "steps_per_second")
                self.watcher.progress(run_id, **{key: result[key] for key in keys})
            case "scoring":
                self.watcher.scoring(run_id)
            case "finished":
                self.watcher.measured(run_id, self.jobs[run_id].spec.recipe.steps, result["scores"])
                self._finished(run_id, RunEnd(result["end"]), result["message"])

    def _placed(self, run_id: str, lane: Lane) -> None:
        """Tell where a run is; a machine that is alone needs no name."""
        self.lanes[run_id] = lane
        self.watcher.placed(run_id, lane if self._remote else lane._replace(node=""))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a run that waits to be started again; it may be as often as its node is lost."""
        run_id = Job.from_json(trial.config["job"]).run_id
        self.running.discard(run_id)
        if PREEMPTED not in error_of(trial):
            set_failures(trial, self._failures(run_id, error_of(trial)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a run whose process died too often to be started again; the loss of its machine is no fault of it."""
        run_id, reason = Job.from_json(trial.config["job"]).run_id, error_of(trial)
        if self._failures(run_id, reason) <= MAX_FAILURES or is_lost_machine(reason):
            self._finished(run_id, RunEnd.INTERRUPTED, reason)
            return
        self.died.add(run_id)
        self._finished(run_id, RunEnd.FAILED, reason)

    def _failures(self, run_id: str, reason: str) -> int:
        """Note a failure of a run and return how many it has had on nodes that Ray still has.

        A process that is lost with its node is just gone, and Ray learns of the node up to a minute later. That is why
        earlier failures are judged again. Calls that the network lost do not count.
        """
        failed_on, node = self._failed_on.setdefault(run_id, []), self._nodes.pop(run_id, "")
        if not is_unreached(reason):
            failed_on.append(node)
        lost = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
        return sum(node not in lost for node in failed_on)

    def _finished(self, run_id: str, end: RunEnd, message: str) -> None:
        self.running.discard(run_id)
        summary = self.summary
        told = {
            RunEnd.FAILED: summary.failed,
            RunEnd.INTERRUPTED: summary.cut,
            RunEnd.EXHAUSTED: summary.exhausted,
        }
        if end in told:
            told[end][run_id] = message
        if end in (RunEnd.FAILED, RunEnd.INTERRUPTED):
            message = f"{message.rstrip('.')}; its log: {log_address(Storage(self.jobs[run_id].store), run_id)}"
        self.watcher.finished(run_id, end, message)


class _Waiting(Unsaved, tune.Stopper):
    """Ends a sweep that is asked to stop while its runs only wait for room; active runs end by themselves.

    If Ray is lost, it ends at once, by an exception that Tune does not catch: Tune would wait for runs to stop. If all
    runs have waited for `PATIENCE_SECONDS`, a person is told, once each time.
    """

    _SAVED_AS = tune.stopper.NoopStopper

    PATIENCE_SECONDS = 60.0
    """How long all runs may wait for room before a person is told."""

    LOOK_SECONDS = 5.0
    """Between two looks at that."""

    def __init__(self, events: _Events, asked: threading.Event, lost: threading.Event, placement: Placement) -> None:
        self.events = events
        self.asked = asked
        self.lost = lost
        self._placement = placement
        self._looked = self._worked = time.monotonic()
        self._told = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no run."""
        return False

    def stop_all(self) -> bool:
        """Return whether a stop was requested and nothing runs."""
        if self.lost.is_set():
            raise KeyboardInterrupt
        if time.monotonic() - self._looked > self.LOOK_SECONDS:
            self._look()
        return self.asked.is_set() and not self.events.running

    def _look(self) -> None:
        """Tell a person once of runs that have waited for too long."""
        self._looked = time.monotonic()
        if self.events.running and self._placement.has_room():
            self._worked, self._told = self._looked, False
        elif not self._told and self._looked - self._worked > self.PATIENCE_SECONDS:
            self._told = True
            waited = f"no run has been at work for {self.PATIENCE_SECONDS:g} s"
            why = "the sweep waits for room, for nodes, or for its processes to start"
            warnings.warn(f"{waited}: {self._placement.against()}; {why}.", stacklevel=1)
