"""Measuring what a step of training and what scoring takes, before any run has told."""

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.core.errors import described, machine_fault, resumable
from sgbench.core.status import ScoreStatus
from sgbench.core.storage import Storage
from sgbench.core.words import listed
from sgbench.data import PackedImages
from sgbench.metrics import HrCache
from sgbench.runs.delivery import open_packed, receive_networks
from sgbench.runs.execute import Job
from sgbench.runs.forecast import same_step
from sgbench.runs.plan import Plan, PlannedRun
from sgbench.runs.status import RunStatus
from sgbench.runs.sweep import Observer, fetch_networks, gather
from sgbench.scoring.evaluation import score
from sgbench.scoring.provenance import provenance
from sgbench.scoring.subjects import trained
from sgbench.spec import RunSpec, SweepSpec, TrainingData
from sgbench.store import Store
from sgbench.store.times import ScoringTime, StepTime, Time, keep_times
from sgbench.training import Checkpoints, train
from sgbench.training.numerics import device_of_process, pinned

STEPS = 20
"""Steps that are timed."""

FIRST_STEPS = 5
"""Steps before them, in which memory is allocated and kernels are chosen."""

IMAGES = 2
"""Images of a test set that are scored; the time of all is taken to grow with their pixels."""

_TIMELESS = {"init": None, "init_partial": False, "max_hours": None}
"""Defaults of what affects no time of a step: the values of weights, and a budget."""

Measurer = Callable[[Sequence[Job], SweepSpec, Storage], Iterator[list[Time] | str]]
"""Measures jobs one after another and yields, for each, its times or why it cannot be measured."""


def measure(plan: Plan, storage: Storage, measurer: AbstractContextManager[Measurer], observer: Observer) -> None:
    """Measure each backbone with each loss of the runs that a plan leaves to do, and keep the times in the store.

    Losses that differ only in their coefficients are measured once, and scoring once for each backbone.

    Args:
        plan: The plan; nothing of it is carried out.
        storage: The results store; it is locked meanwhile.
        measurer: Measures jobs, on this machine or on a node of a cluster.
        observer: Shows the times.

    Raises:
        InputError: If images or pretrained networks are not available, or the store is in use.
        InterruptionError: If storage or machine failed; what was measured until then is kept.
    """
    store, sweep = Store(storage), plan.sweep
    store.refuse_other_folders()
    data = gather(sweep, storage, observer)
    pending = [run for run in plan.runs if run.pending or run.status is RunStatus.TO_RETRAIN]
    runs: dict[object, PlannedRun] = {}
    for run in pending:
        runs.setdefault(same_step(run.spec), run)
    with store.writing(f"sgbench plan --measure {plan.name}"):
        fetch_networks(sweep.all_metrics(), [run.spec.loss for run in pending], storage, observer)
        everything = [(test.name, metric) for test in data.tests for metric in sweep.metrics]
        if sweep.validation:
            everything += [(each.name, metric) for each in data.validation for metric in sweep.validation.metrics]
        jobs, scored = list[Job](), set[str]()
        for run in runs.values():
            backbone = run.spec.backbone
            job = Job.of(run, data, sweep, storage)
            jobs.append(replace(job, missing=() if backbone in scored else tuple(everything)))
            scored.add(backbone)
        if not jobs:
            observer.say("nothing to measure: every run is done")
            return
        with resumable("the measurement"), measurer as measure_all:
            for job, times in zip(jobs, measure_all(jobs, sweep, storage), strict=False):
                what = f"{job.spec.backbone} · {job.spec.loss}"
                if isinstance(times, str):
                    observer.warn(f"{what} cannot be measured: {times}")
                    continue
                keep_times(storage, times)
                observer.say(f"{what}: {_in_words(times)}")


def measure_here(jobs: Sequence[Job], sweep: SweepSpec, storage: Storage) -> Iterator[list[Time] | str]:
    """Measure jobs in this process; a `Measurer`."""
    for job in jobs:
        yield measure_job(job, workers=max(1, sweep.workers), locator=Locator(download=False))


def measure_job(job: Job, *, workers: int, locator: Locator) -> list[Time] | str:
    """Time the training of a job for a few steps, and the scores in its ``missing``, without leaving anything.

    Args:
        job: The job.
        workers: How many would share a batch; one of them is timed, without the exchange of gradients.
        locator: Finds pretrained networks.

    Returns:
        The times, or why there are none.

    Raises:
        Exception: A fault of storage or machine, see `sgbench.core.errors.machine_fault`.
    """
    recipe = job.spec.recipe
    share = {"steps": FIRST_STEPS + STEPS, "batch": math.ceil(recipe.batch / workers), **_TIMELESS}
    spec = job.spec.model_copy(update={"recipe": recipe.model_copy(update=share)})
    try:
        with tempfile.TemporaryDirectory(prefix="sgbench-") as folder:
            scratch = Storage(str(Path(folder) / "scratch"))
            receive_networks(networks_of([metric for _, metric in job.missing], [spec.loss]), job.storage())
            step = _time_steps(spec, job, scratch)
            device = str(provenance(device_of_process())["device"])
            general = _general(job.spec)
            times: list[Time] = [StepTime(device=device, spec=general, workers=workers, seconds=step)]
            for (sha256, metric), seconds in _time_scores(spec, job, scratch, locator).items():
                times.append(
                    ScoringTime(device=device, spec=general, dataset_sha256=sha256, metric=metric, seconds=seconds)
                )
            return times
    except Exception as error:
        if machine_fault(error):
            raise
        return described(error)


def _time_steps(spec: RunSpec, job: Job, scratch: Storage) -> float:
    ends: list[float] = []
    train(
        spec,
        open_packed(job.train, job.storage()),
        Checkpoints(scratch, str(spec.run_id)),
        device=device_of_process(),
        recompute=job.recompute,
        on_progress=lambda progress: ends.append(time.perf_counter()),
        checkpoint_seconds=math.inf,
    )
    timed = ends[-STEPS - 1 :]
    return statistics.median(after - before for before, after in itertools.pairwise(timed))


def _time_scores(spec: RunSpec, job: Job, scratch: Storage, locator: Locator) -> dict[tuple[str, str | None], float]:
    """Return the seconds of each metric, and of making the images, by the hash of each set."""
    found: dict[tuple[str, str | None], float] = {}
    for images in (open_packed(packed, job.storage()) for packed in (*job.tests, *job.validation_sets)):
        metrics = [metric for name, metric in job.missing if name == images.name]
        if not metrics:
            continue
        part = _first(images, IMAGES)
        upscaler = trained(spec, Store(scratch)).upscaler(part)
        with pinned(spec.recipe):
            for some in (_first(images, 1), part):  # the first call also sets up the networks
                rows = score(
                    upscaler,
                    some,
                    metrics,
                    run_id=str(spec.run_id),
                    locator=locator,
                    device=device_of_process(),
                    hr_cache=HrCache(),
                )
        share = _pixels(images) / _pixels(part)
        for row in rows:
            if row["image"] is None and row["status"] != ScoreStatus.NO_WEIGHTS:
                found[images.sha256, row["metric"]] = share * (row["seconds"] or 0.0)
                found[images.sha256, None] = share * (row["upscaling_seconds"] or 0.0)
    return found


def _first(images: PackedImages, count: int) -> PackedImages:
    few = images.images[:count]
    return PackedImages(images.path, images.name, images.role, images.scale, images.degradation, few, images.lr_folder)


def _pixels(images: PackedImages) -> int:
    return sum(image.height * image.width for image in images.images)


def _general(spec: RunSpec) -> RunSpec:
    """Return a run without what affects no time, so that a measurement replaces an earlier one."""
    recipe = spec.recipe.model_copy(update={"steps": 1, **_TIMELESS})
    return spec.model_copy(update={"seed": 0, "train": TrainingData(name="any"), "recipe": recipe})


def _in_words(times: Sequence[Time]) -> str:
    (step,) = (each for each in times if isinstance(each, StepTime))
    scoring = sum(each.seconds for each in times if isinstance(each, ScoringTime))
    parts = [f"{step.seconds:.3g} s a step", *([f"{scoring:.3g} s to score"] if scoring else [])]
    return f"{listed(parts)} on {step.device}"
