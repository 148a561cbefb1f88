"""How long the runs of a plan will take, estimated from similar runs, and the best order in which to start them.

What a step takes is known from runs with the same backbone, recipe and loss, or was measured. Otherwise it is put
together from a step of the backbone with a loss that costs next to nothing, and from what the loss costs on another
backbone; the former may be scaled from other backbones by their multiply-accumulate operations (MACs). If that is not
known either, the time is unknown: a loss with a network may take many times as long as L1.
"""

import functools
import heapq
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sgbench.backbones import build_backbone, count_parameters
from sgbench.core.registry import BACKBONES
from sgbench.core.words import plural
from sgbench.runs.plan import PlannedRun
from sgbench.runs.status import RunStatus
from sgbench.spec import Expression, RunSpec, Validation, split_backbone
from sgbench.spec.stored import read_spec
from sgbench.store import Dataset, Store
from sgbench.store.rows import RunEnd, RunKind
from sgbench.store.times import StepTime, read_times

_SPEED = (
    "scale",
    "batch",
    "patch",
    "accumulate",
    "optimizer",
    "precision",
    "memory_format",
    "threads",
    "deterministic",
    "compiled",
)
"""Fields of a recipe that affect the time per step."""

_WORK = ("scale", "batch", "patch")
"""Those of them that affect it as the MACs do."""

_TRAINING_PASSES = 3
"""A step takes about three times the MACs of inference: forward, and backward to inputs and to weights."""

_CHEAP = frozenset({"l1", "l2", "charbonnier"})
"""Losses of a few operations per pixel, which take next to nothing of a step."""

UNKNOWN_DEVICE = "an unknown device"
"""Stands for a device that a row does not name."""


class _Step(NamedTuple):
    """Whatever the time of a step depends on."""

    backbone: str
    speed: tuple[Any, ...]
    workers: int
    loss: frozenset[str]
    """Its terms without their coefficients, and without those that are cheap."""

    @classmethod
    def of(cls, spec: RunSpec, workers: int) -> "_Step":
        values = {field: getattr(spec.recipe, field) for field in _SPEED} | {"optimizer": spec.recipe.optimizer.name}
        speed = tuple(values.values())
        return cls(spec.backbone, speed, workers, _costly(spec.loss))

    @property
    def cheap(self) -> "_Step":
        """The same step with a loss that costs next to nothing."""
        return self._replace(loss=frozenset())

    @property
    def settings(self) -> tuple[Any, ...]:
        """How a step computes: what the MACs do not tell."""
        return (self.workers, *(value for name, value in zip(_SPEED, self.speed, strict=True) if name not in _WORK))

    @property
    def work(self) -> float:
        """Its MACs."""
        scale, batch, patch = (self.speed[_SPEED.index(name)] for name in _WORK)
        return float(_TRAINING_PASSES * batch * _macs(self.backbone, scale, patch) / self.workers)


def same_step(spec: RunSpec) -> object:
    """Return what is equal for runs whose steps take equal time."""
    return _Step.of(spec, 1)


class Estimate(NamedTuple):
    """A time, and what it rests on."""

    seconds: float
    basis: str
    """For a person: ``12 runs here``, ``measured``, ``scaled by MACs``."""
    scaled: bool = False
    """Whether it is put together from the times of others."""


@dataclass(frozen=True)
class Expected:
    """The expected time of a run."""

    run: PlannedRun
    training: Estimate | None
    """The rest of its training; None if nothing that is known tells it."""
    scoring: Estimate | None
    """Computing its missing scores, and those on validation sets while it trains; None if one of them is unknown."""
    device: str | None = None
    """The device on which all times were taken that a forecast rests on; None if there are none."""

    @property
    def seconds(self) -> float | None:
        """Training and, as far as that is known, scoring; None if the training is unknown."""
        if self.training is None:
            return None
        return self.training.seconds + (self.scoring.seconds if self.scoring else 0.0)

    @property
    def work(self) -> float:
        """The remaining multiply-accumulate operations (MACs)."""
        return _steps_left(self.run) * step_work(self.run.spec)


def expect(
    runs: Iterable[PlannedRun],
    store: Store,
    *,
    tests: Iterable[Dataset] = (),
    validation: Validation | None = None,
    validation_sets: Sequence[Dataset] = (),
    workers: int = 1,
    others: Mapping[str, Store] | None = None,
) -> list[Expected]:
    """Estimate how long each run will take, all on one type of device.

    That is the device on which steps of most of the runs are known, of those in the store if there are any, and else of
    those in other stores; times of different devices are never mixed.

    Args:
        runs: Runs of a plan; one that only needs scoring has no training left.
        store: The store whose finished runs and measurements tell times, before those of other stores.
        tests: The test sets of the plan.
        validation: How its runs are validated.
        validation_sets: The sets for that.
        workers: How many share the batch of a run.
        others: Other stores, by name.
    """
    asked = list(runs)
    named = {run.spec.backbone for run in asked}
    own = _known(store, "here", named)
    more = [_known(other, f"in {name}", named) for name, other in (others or {}).items()]
    device, sources = _chosen(own, more, {_Step.of(run.spec, workers) for run in asked})
    times = _Times(sources)
    datasets = {test.name: test.sha256 for test in tests}

    def scoring(run: PlannedRun) -> Estimate | None:
        pairs = Counter((datasets.get(name, ""), metric) for name, metric in run.missing)
        if validation:
            count = _validations_left(run, validation.every)
            pairs.update({(each.sha256, metric): count for each in validation_sets for metric in validation.metrics})
        return times.scoring(run.spec, +pairs)

    return [Expected(run, times.training(run, workers), scoring(run), device) for run in asked]


def longest_first(expected: Iterable[Expected]) -> list[PlannedRun]:
    """Return runs in starting order, longest first: a long run started last would keep a single device busy.

    Runs of equal work keep their order, so that every loss has a first result before any gets its second seed.
    """
    known = list(expected)
    timed = all(each.seconds is not None for each in known)
    return [each.run for each in sorted(known, key=lambda each: -((each.seconds or 0.0) if timed else each.work))]


def makespan(seconds: Sequence[float], lanes: int) -> float:
    """Return the time at which the last run ends if each starts, in order, on the first free lane."""
    ends = [0.0] * lanes
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


@dataclass
class _Source:
    """What one store tells about one device."""

    name: str
    """For a person: ``here``, or ``in STORE``."""
    steps: defaultdict[_Step, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of a step, of each finished run."""
    measured: dict[_Step, float] = field(default_factory=dict)
    upscaling: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of making the images of a test set, by the hash of the set and the backbone."""
    metrics: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of a metric on a test set, by the hash of the set and the metric."""


def _known(store: Store, name: str, named: set[str]) -> dict[str, _Source]:
    """Return what a store tells, by device.

    Args:
        store: The store.
        name: See `_Source`.
        named: Backbones that the person names; of others only built-in ones count, as only a file names their code.
    """
    found: defaultdict[str, _Source] = defaultdict(lambda: _Source(name))
    ran: dict[str, tuple[_Source, str]] = {}
    for run_id, row in store.rows().items():
        if row["kind"] == RunKind.TRAIN and row["status"] == RunEnd.DONE and row["wall_seconds"] and row["step"]:
            spec = read_spec(row["spec"], f"run {run_id}")
            if _counts(spec, named):
                source = found[row["device"] or UNKNOWN_DEVICE]
                ran[run_id] = source, spec.backbone
                source.steps[_Step.of(spec, row["workers"] or 1)].append(row["wall_seconds"] / row["step"])
    keys, times = ["run_id", "dataset_sha256", "metric"], ["seconds", "upscaling_seconds"]
    totals = store.totals().select([*keys, *times]).drop_null()  # of older rows no times are known
    validation = store.validation().group_by(keys).aggregate([(each, "approximate_median") for each in times])
    validation = validation.rename_columns([*keys, *times]).drop_null()
    for row in (*totals.to_pylist(), *validation.to_pylist()):
        if row["run_id"] in ran:
            source, backbone = ran[row["run_id"]]
            source.metrics[row["dataset_sha256"], row["metric"]].append(row["seconds"])
            source.upscaling[row["dataset_sha256"], backbone].append(row["upscaling_seconds"])
    for time in read_times(store.storage):
        if _counts(time.spec, named):
            source = found[time.device]
            if isinstance(time, StepTime):
                source.measured[_Step.of(time.spec, time.workers)] = time.seconds
            elif time.metric is None:
                source.upscaling.setdefault((time.dataset_sha256, time.spec.backbone), [time.seconds])
            else:
                source.metrics.setdefault((time.dataset_sha256, time.metric), [time.seconds])
    return dict(found)


def _counts(spec: RunSpec, named: set[str]) -> bool:
    return spec.backbone in named or BACKBONES.is_built_in(split_backbone(spec.backbone)[0])


def _chosen(
    own: Mapping[str, _Source], others: Sequence[Mapping[str, _Source]], asked: set[_Step]
) -> tuple[str | None, list[_Source]]:
    """Return the device that most is known about, and what each store tells about it."""
    candidates = own or {device: source for there in others for device, source in there.items()}
    told: Counter[str] = Counter()
    for device in candidates:
        sources = [there[device] for there in (own, *others) if device in there]
        told[device] = sum(any(step in source.steps or step in source.measured for source in sources) for step in asked)
    if not told:
        return None, []
    device = max(told, key=lambda name: (told[name], name))
    return device, [there[device] for there in (own, *others) if device in there]


class _Times:
    """What several stores tell about one device; earlier ones come first."""

    def __init__(self, sources: Sequence[_Source]) -> None:
        self._sources = sources
        self._steps = {step for source in sources for step in (*source.steps, *source.measured)}

    def training(self, run: PlannedRun, workers: int) -> Estimate | None:
        """Estimate the rest of a run's training."""
        if not (steps := _steps_left(run)):
            return Estimate(0.0, "trained")
        step = _Step.of(run.spec, workers)
        estimate = self._own(step) or self._put_together(step)
        return estimate and estimate._replace(seconds=steps * estimate.seconds)

    def scoring(self, spec: RunSpec, pairs: Mapping[tuple[str, str], int]) -> Estimate | None:
        """Estimate what scores of a run take, which depends on its backbone only for making the images.

        Args:
            spec: The run.
            pairs: How often each score is computed, by the hash of the set and the metric.
        """
        times = {sha256: count for (sha256, _), count in pairs.items()}
        parts = [(count, self._upscaling(sha256, spec)) for sha256, count in times.items()]
        for pair, count in pairs.items():
            seconds = self._median([source.metrics.get(pair) for source in self._sources])
            parts.append((count, None if seconds is None else Estimate(seconds, "scored")))
        known = [(count, part) for count, part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return Estimate(
            sum(count * part.seconds for count, part in known), "scored", any(part.scaled for _, part in known)
        )

    def _upscaling(self, sha256: str, spec: RunSpec) -> Estimate | None:
        own = self._median([source.upscaling.get((sha256, spec.backbone)) for source in self._sources])
        if own is not None:
            return Estimate(own, "scored")
        scale, patch = spec.recipe.scale, spec.recipe.patch
        told = [
            seconds / _macs(backbone, scale, patch)
            for source in self._sources
            for (there, backbone), times in source.upscaling.items()
            if there == sha256
            for seconds in times
        ]
        work = _macs(spec.backbone, scale, patch) if told else 0
        return Estimate(statistics.median(told) * work, "scaled by MACs", scaled=True) if told else None

    def _own(self, step: _Step) -> Estimate | None:
        """Return what is known of the very step."""
        for source in self._sources:
            if seconds := source.steps.get(step):
                return Estimate(statistics.median(seconds), f"{plural(len(seconds), 'run')} {source.name}")
            if step in source.measured:
                return Estimate(source.measured[step], f"measured {source.name}")
        return None

    def _put_together(self, step: _Step) -> Estimate | None:
        base = self._own(step.cheap) or self._by_work(step.cheap)
        if not step.loss:
            return base
        costs = [
            each.seconds - cheap.seconds
            for other in self._steps
            if (other.loss, other.speed, other.workers) == (step.loss, step.speed, step.workers)
            if (each := self._own(other)) and (cheap := self._own(other.cheap))
        ]
        if base and costs:
            return Estimate(base.seconds + max(0.0, statistics.median(costs)), "scaled by the loss's cost", scaled=True)
        return self._by_work(step)

    def _by_work(self, step: _Step) -> Estimate | None:
        """Return the time of a step from those with the same loss, by the MACs of the backbone."""
        alike = [each for each in self._steps if (each.loss, each.settings) == (step.loss, step.settings)]
        told = [known.seconds / each.work for each in alike if (known := self._own(each))]
        return Estimate(statistics.median(told) * step.work, "scaled by MACs", scaled=True) if told else None

    @staticmethod
    def _median(times: Iterable[Sequence[float] | None]) -> float | None:
        """Return the median of the first times that there are."""
        return next((statistics.median(each) for each in times if each), None)


def _costly(loss: Expression) -> frozenset[str]:
    return frozenset(term.call for term in loss.terms if term.name not in _CHEAP)


def _validations_left(run: PlannedRun, every: int) -> int:
    steps = run.spec.recipe.steps
    done = steps - _steps_left(run)
    return -(-steps // every) - done // every if done < steps else 0


def _steps_left(run: PlannedRun) -> int:
    done = {RunStatus.TO_SCORE: run.spec.recipe.steps, RunStatus.RESUMABLE: run.step}.get(run.status, 0)
    return run.spec.recipe.steps - done


def step_work(spec: RunSpec) -> float:
    """Return the multiply-accumulate operations (MACs) of a step of a run; those of its loss are not counted."""
    return _Step.of(spec, 1).work


@functools.cache
def _macs(backbone: str, scale: int, patch: int) -> int:
    from sgbench.backbones.cost import measure

    try:
        return measure(backbone, scale, patch).macs
    except RuntimeError:  # a plug-in that needs actual values, while the measurement only has shapes
        return count_parameters(build_backbone(backbone, scale)) * patch**2
