"""How long the runs of a plan will take, estimated from similar runs, and the best order in which to start them."""

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
"""Fields of a recipe that affect the time per step."""

_TRAINING_PASSES = 3
"""A step takes about three times the MACs of inference: forward, and backward to inputs and to weights."""


@dataclass(frozen=True)
class Expected:
    """The expected training time of a run."""

    run: PlannedRun
    seconds: float | None
    """None if the store has nothing to estimate from."""
    alike: bool
    """Whether ``seconds`` is from runs with this backbone and recipe; otherwise it is scaled from others by MACs."""
    devices: frozenset[str] = frozenset()
    """The devices of the runs that it is estimated from."""

    @property
    def work(self) -> float:
        """The remaining multiply-accumulate operations (MACs)."""
        return _steps_left(self.run) * step_work(self.run.spec)


def expect(runs: Iterable[PlannedRun], store: Store) -> list[Expected]:
    """Estimate the training time of each run from the runs of a store.

    Args:
        runs: Runs of a plan; a run that only needs scoring has no work left.
        store: The store with finished runs. The estimate is the median wall time per step of those with the same
            backbone, recipe and, if there are any, loss; otherwise the median over all runs, per MAC instead of per
            step.
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
            # No other backbone is measured, because only a file names its code.
            if spec.backbone in named or BACKBONES.is_built_in(split_backbone(spec.backbone)[0]):
                told.append((spec, seconds))
            devices.add(row["device"] or "an unknown device")
    expected = []
    for run in asked:
        steps = _steps_left(run)
        alike = next((by_step[key] for key in _likeness(run.spec) if key in by_step), None)
        if alike or not steps:
            left = steps * statistics.median(alike or [0.0])
        elif told:  # measured only if needed, as it takes seconds
            by_work = statistics.median(seconds / step_work(spec) for spec, seconds in told)
            left = steps * step_work(run.spec) * by_work
        else:
            left = None
        expected.append(Expected(run, left, bool(alike or not steps), frozenset(devices)))
    return expected


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


def _likeness(spec: RunSpec) -> list[tuple[Any, ...]]:
    """Return the keys that runs with equal time per step share, the most specific first."""
    speed = (spec.backbone, *(getattr(spec.recipe, field) for field in _SPEED))
    return [(*speed, spec.loss), speed]


def _steps_left(run: PlannedRun) -> int:
    done = {RunStatus.TO_SCORE: run.spec.recipe.steps, RunStatus.RESUMABLE: run.step}.get(run.status, 0)
    return run.spec.recipe.steps - done


def step_work(spec: RunSpec) -> float:
    """Return the multiply-accumulate operations (MACs) of a step of a run; those of its loss are not counted."""
    return _TRAINING_PASSES * spec.recipe.batch * _macs(spec.backbone, spec.recipe.scale, spec.recipe.patch)


@functools.cache
def _macs(backbone: str, scale: int, patch: int) -> int:
    from sgbench.backbones.cost import measure

    try:
        return measure(backbone, scale, patch).macs
    except RuntimeError:  # a plug-in that needs actual values, while the measurement only has shapes
        return count_parameters(build_backbone(backbone, scale)) * patch**2
