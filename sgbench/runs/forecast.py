"""How long the runs of a plan will take, from what runs like them took; and in which order they are best started."""

import functools
import heapq
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sgbench.backbones import build_backbone, count_parameters
from sgbench.core.registry import BACKBONES
from sgbench.runs.plan import PlannedRun
from sgbench.runs.status import RunStatus
from sgbench.spec import RunSpec, split_backbone
from sgbench.spec.stored import read_spec
from sgbench.store import Store
from sgbench.store.rows import RunEnd, RunKind

_SPEED = ("scale", "batch", "patch", "precision", "memory_format", "threads", "deterministic", "compiled")
"""Fields of a recipe that move the time of a step."""

_TRAINING_PASSES = 3
"""A step multiplies about three times as often as an inference: forward, and backward to inputs and to weights."""


@dataclass(frozen=True)
class Expected:
    """What a run is expected to take, training alone."""

    run: PlannedRun
    seconds: float | None
    """None if nothing in the store tells."""
    alike: bool
    """Whether ``seconds`` is from runs of this backbone and recipe; else it is scaled from others by their work."""
    devices: frozenset[str] = frozenset()
    """What the runs that tell were trained on."""

    @property
    def work(self) -> float:
        """Multiply-accumulate operations that are left."""
        return _steps_left(self.run) * _step_work(self.run.spec)


def expect(runs: Iterable[PlannedRun], store: Store) -> list[Expected]:
    """Return what each run will take, from what the runs of a store took.

    Args:
        runs: Of a plan; one that only has to be scored has no work left.
        store: Its done runs tell. A run's wall time is divided by its steps, and the median is taken over those of the
            same backbone, recipe and, where there are such, loss; else over all, by multiplications instead of steps.
    """
    asked = list(runs)
    named = {run.spec.backbone for run in asked}
    by_step: defaultdict[tuple[Any, ...], list[float]] = defaultdict(list)
    told: list[tuple[RunSpec, float]] = []
    devices = set()
    for run_id, row in store.rows().items():
        if row["kind"] == RunKind.TRAIN and row["status"] == RunEnd.DONE and row["wall_seconds"] and row["step"]:
            spec = read_spec(row["spec"], f"run {run_id}")
            seconds = row["wall_seconds"] / row["step"]
            for key in _likeness(spec):
                by_step[key].append(seconds)
            # The work of any other backbone is not measured: only a file asks for its code.
            if spec.backbone in named or BACKBONES.is_built_in(split_backbone(spec.backbone)[0]):
                told.append((spec, seconds))
            devices.add(row["device"] or "an unknown device")
    expected = []
    for run in asked:
        steps = _steps_left(run)
        alike = next((by_step[key] for key in _likeness(run.spec) if key in by_step), None)
        if alike or not steps:
            left = steps * statistics.median(alike or [0.0])
        elif told:  # only then is anything measured, which takes seconds
            by_work = statistics.median(seconds / _step_work(spec) for spec, seconds in told)
            left = steps * _step_work(run.spec) * by_work
        else:
            left = None
        expected.append(Expected(run, left, bool(alike or not steps), frozenset(devices)))
    return expected


def longest_first(expected: Iterable[Expected]) -> list[PlannedRun]:
    """Return runs in the order in which to start them: a long one that starts last keeps one device busy alone.

    Runs of equal work keep their order, so that a first result for each loss comes before the second seed of any.
    """
    known = list(expected)
    timed = all(each.seconds is not None for each in known)
    return [each.run for each in sorted(known, key=lambda each: -((each.seconds or 0.0) if timed else each.work))]


def makespan(seconds: Sequence[float], lanes: int) -> float:
    """Return when the last of some runs ends, each of which starts on the first lane that is free, in their order."""
    ends = [0.0] * lanes
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


def _likeness(spec: RunSpec) -> list[tuple[Any, ...]]:
    """Return what runs that take as long have in common, most alike first."""
    speed = (spec.backbone, *(getattr(spec.recipe, field) for field in _SPEED))
    return [(*speed, spec.loss), speed]


def _steps_left(run: PlannedRun) -> int:
    done = {RunStatus.TO_SCORE: run.spec.recipe.steps, RunStatus.RESUMABLE: run.step}.get(run.status, 0)
    return run.spec.recipe.steps - done


def _step_work(spec: RunSpec) -> float:
    return _TRAINING_PASSES * spec.recipe.batch * _macs(spec.backbone, spec.recipe.scale, spec.recipe.patch)


@functools.cache
def _macs(backbone: str, scale: int, patch: int) -> int:
    from sgbench.backbones.cost import measure

    try:
        return measure(backbone, scale, patch).macs
    except RuntimeError:  # a network of one's own that computes with values, which a measurement by shapes has not
        return count_parameters(build_backbone(backbone, scale)) * patch**2
