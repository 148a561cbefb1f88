"""What Ray runs on a worker: one Tune trial is one run, and its training is a Ray Train job.

A run of one device trains in Train's local mode and is scored inside the process of the trial, which has the device
and which Tune keeps for the next run. A run of several has a worker group; the process of the trial has no device then,
and when the group has ended a task with one device scores the run, so that the others are free. Either way the outcome
is on storage when training ends; nothing is read back from what Ray keeps.
"""

import contextlib
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray import train, tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from sgbench.assets.locator import Locator
from sgbench.cluster.groups import InFile
from sgbench.cluster.nodes import own_id, own_lane
from sgbench.cluster.ray_internals import anywhere, is_leaving, preemption, session_folder
from sgbench.cluster.registered import unpack
from sgbench.cluster.runlog import into_log
from sgbench.core.errors import described, machine_fault
from sgbench.core.storage import Storage
from sgbench.runs.execute import STOPPED, Job, record_failure, score_job, scores_in, train_job, unless_interrupted
from sgbench.runs.progress import Pace, curves, line
from sgbench.store.rows import RunEnd, ScoreRow
from sgbench.training import Progress

REPORT_SECONDS = 0.5
"""Between two reports of progress of a run in local mode."""

STOP_SECONDS = 1.0
"""Between two looks at the storage for a request to stop, and at whether the node will be taken away."""


def trial(config: dict[str, Any], code: bytes) -> None:
    """Train and score one run.

    Args:
        config: ``job`` (JSON of a `Job`), ``stop`` (name, in the store, of the file that asks all runs to stop),
            ``workers`` (of Train; 0 is local mode), ``resources`` (of each worker), ``use_gpu`` and ``remote`` (whether
            workers may be on other machines, and fetch the weights of metrics themselves).
        code: The code of plug-ins, see `sgbench.cluster.registered.unpack`; ``config`` carries it from here on.
    """
    config = {**config, "code": code}
    job, node = _job(config), own_id()
    if is_leaving(node):  # the process was kept for another run
        raise preemption()
    lane = None if config["workers"] else list(own_lane())  # a worker group is elsewhere
    tune.report({"event": "started", "run_id": job.run_id, "label": job.title, "node": node, "lane": lane})
    scores: dict[str, float] = {}
    end, message = unless_interrupted(lambda: _in_log(job, config, scores))
    tune.report({"event": "finished", "run_id": job.run_id, "end": end, "message": message, "scores": scores})


def _job(config: dict[str, Any]) -> Job:
    """Return the job of this process, which by then knows the names in it."""
    unpack(config["code"])
    return Job.from_json(config["job"])


def _in_log(job: Job, config: dict[str, Any], scores: dict[str, float]) -> tuple[RunEnd, str]:
    with into_log(job):
        end, message = _train_and_score(job, config, scores)
        sys.stderr.write(f"{end}{message and f': {message}'}\n")
    return end, message


def _train_and_score(job: Job, config: dict[str, Any], scores: dict[str, float]) -> tuple[RunEnd, str]:
    """Return how the run ended, and why; its scores that are computed are added to ``scores``."""
    if _stop_requested(job, config):
        return RunEnd.STOPPED, STOPPED
    try:
        with tempfile.TemporaryDirectory(prefix="train-", dir=session_folder(), ignore_cleanup_errors=True) as folder:
            end, message = _trainer(job, config, folder).fit().return_value
    except train.TrainingFailedError as error:  # a worker group that Train could not restart
        traceback.print_exc()
        causes = list((getattr(error, "worker_failures", None) or {0: error}).values())
        own = [cause for cause in causes if machine_fault(cause) is None]
        if not own:
            raise causes[0] from error
        return RunEnd.FAILED, record_failure(job, described(own[0]))
    if end is RunEnd.STOPPED and not _stop_requested(job, config):
        raise preemption()
    if end is not RunEnd.DONE or _stop_requested(job, config):
        return end, message
    tune.report({"event": "scoring", "run_id": job.run_id})
    faults, computed = _score_elsewhere(config) if config["workers"] else _score(config)
    scores.update(computed)
    return RunEnd.FAILED if faults else RunEnd.DONE, "; ".join(faults)


Scored = tuple[list[str], dict[str, float]]
"""A sentence for each score that failed, and the others by `sgbench.runs.execute.score_name`."""


def _score(config: dict[str, Any]) -> Scored:
    scores: dict[str, float] = {}

    def keep(rows: Sequence[ScoreRow]) -> None:
        scores.update(scores_in(rows))

    return score_job(_job(config), locator=Locator(download=config["remote"]), on_rows=keep), scores


def _score_elsewhere(config: dict[str, Any]) -> Scored:
    """Score on what one worker takes, wherever in the cluster that is free."""
    each = config["resources"]
    task = ray.remote(num_cpus=each["CPU"], num_gpus=each.get("GPU", 0), scheduling_strategy=anywhere())(_score_in_task)
    scored: Scored = ray.get(task.remote(config))
    return scored


def _score_in_task(config: dict[str, Any]) -> Scored:
    with into_log(_job(config), "scoring"), ThreadPoolExecutor(1) as pool:  # see `sgbench.core.plugins.FAULTS`
        return pool.submit(_score, config).result()


def _trainer(job: Job, config: dict[str, Any], folder: str) -> TorchTrainer:
    """Return what trains a job, and keeps its own files in a folder."""
    workers: int = config["workers"]
    return TorchTrainer(
        _train_loop,
        train_loop_config=config,
        torch_config=TorchConfig() if config["remote"] else InFile(),
        scaling_config=train.ScalingConfig(
            num_workers=workers,
            use_gpu=config["use_gpu"],
            resources_per_worker=config["resources"] if workers else None,
        ),
        run_config=train.RunConfig(
            name=f"{job.run_id}-{time.time_ns()}",
            storage_path=folder,
            callbacks=[TuneReportCallback()] if workers else [],
            failure_config=train.FailureConfig(max_failures=2 if workers else 0),
        ),
    )


def _train_loop(config: dict[str, Any]) -> tuple[RunEnd, str]:
    """Run in every worker of the Train job."""
    job = _job(config)
    if config["workers"] == 0:
        return _train(job, config)
    with into_log(job, f"worker{train.get_context().get_world_rank()}"):
        return _train(job, config)


def _train(job: Job, config: dict[str, Any]) -> tuple[RunEnd, str]:
    local, node, lane = config["workers"] == 0, own_id(), own_lane(max(1, config["workers"]))
    pace, reported, looked = Pace(), 0.0, 0.0
    stop = False

    def on_progress(progress: Progress) -> None:
        nonlocal reported
        now = time.monotonic()
        if pace.is_due(progress.step / progress.steps) or progress.step == progress.steps:
            told = line(progress.step, progress.steps, progress.loss, progress.steps_per_second)
            sys.stderr.write(f"{told}\n")
        if local and now - reported < REPORT_SECONDS and progress.step < progress.steps and not progress.validation:
            return
        reported = now
        shown = {key: getattr(progress, key) for key in ("step", "steps", "loss", "steps_per_second")}
        report = {"event": "progress", "run_id": job.run_id, "lane": list(lane), **shown, "curves": curves(progress)}
        if local:
            tune.report(report)
        else:
            train.report(report)  # all workers of a group meet here, so none may skip a report

    def should_stop() -> bool:
        nonlocal looked, stop
        if not stop and time.monotonic() - looked > STOP_SECONDS:
            with contextlib.suppress(OSError):  # without the storage, training goes on until a checkpoint is due
                stop = _stop_requested(job, config)
            stop, looked = stop or is_leaving(node), time.monotonic()
        return stop

    return train_job(job, node=lane.node, on_progress=on_progress, should_stop=should_stop)


def _stop_requested(job: Job, config: dict[str, Any]) -> bool:
    return Storage(job.store).exists(config["stop"])
