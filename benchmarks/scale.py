"""How long all runs of the paper would take on 1 to 1,024 GPUs: a simulation of the scheduler on assumed clusters.

    python benchmarks/scale.py
    python benchmarks/scale.py --results results/paper --between 40

The plan is that of `paper` with five seeds. Training times are what `sgbench plan` expects from the done runs of a
store, and the overhead of a run is what it was there. Without a store, steps are measured on this machine's GPU or, if
there is none, computed from the network's MACs at an assumed rate. The runs start as in a sweep, the longest first,
each on the first GPUs that are free. The tables say of each time whether it is measured, scaled by MACs from a
measurement, or assumed; other assumptions stand below them.

A data-parallel step takes as long as that of the worker with the most patches and then, not overlapped, an all-reduce
of the gradients in a ring. There cannot be more workers than patches in a batch.
"""

import argparse
import functools
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import harness

from sgbench.backbones.cost import measure
from sgbench.core.storage import Storage
from sgbench.data import prepare, resolve
from sgbench.runs.forecast import Estimate, Expected, expect, longest_first, makespan
from sgbench.runs.plan import Choices, PlannedRun, make_plan, read_sweep
from sgbench.spec import RunSpec, TrainingData
from sgbench.store import Store, identity_columns

GPUS = tuple(2**power for power in range(11))
SEEDS = range(5)
WORKERS = (1, 2, 4, 8, 16)
STEPS = 100
"""Steps that are measured of each network."""

BYTES = 4
"""Bytes of a gradient's value: weights and gradients are fp32."""


@dataclass(frozen=True)
class Cluster:
    """What is assumed of a cluster unless it is known."""

    tflops: float = 40.0
    """What a GPU does in a training step, in 10¹² operations per second, if no step was measured.

    It is three fifths of what the data sheet of an H100 says of fp32.
    """
    once_seconds: float = 300.0
    """Before the first run: Ray starts, DIV2K is packed, and every node fetches it."""
    run_seconds: float = 180.0
    """Overhead of each run, if no store tells: its processes start, and its network is scored."""
    node: int = 8
    """GPUs in a node."""
    inside: float = 200.0
    """GB/s at which the GPUs of a node reduce gradients."""
    between: float = 20.0
    """GB/s at which the GPUs of several nodes reduce gradients."""

    def reduction(self, parameters: int, workers: int) -> float:
        """Return the seconds in which workers sum up their gradients in a ring."""
        rate = self.inside if workers <= self.node else self.between
        return 2 * (workers - 1) / workers * BYTES * parameters / (1e9 * rate)


@dataclass(frozen=True)
class Timed:
    """A run and its time on some workers."""

    run: PlannedRun
    seconds: float
    """Time of the training."""
    source: str
    """Where the time of a step without the reduction is from: ``measured``, ``scaled`` or ``assumed``."""


def timed(runs: Sequence[PlannedRun], workers: int, store: Store, cluster: Cluster) -> list[Timed]:
    """Return runs in the order in which a sweep starts them, with their times on a number of workers each."""
    by_share = {_share(run, workers): run for run in runs}
    expected = [_assumed(each, cluster) if each.seconds is None else each for each in expect(by_share, store)]
    times = {each.run: each for each in expected}
    return [
        Timed(
            by_share[share],
            (times[share].seconds or 0.0) + _reductions(by_share[share].spec, workers, cluster),
            _source(times[share]),
        )
        for share in longest_first(expected)
    ]


def _source(expected: Expected) -> str:
    if expected.training is None or expected.device is None:
        return "assumed"
    return "scaled" if expected.training.scaled else "measured"


def simulate(times: Sequence[Timed], gpus: int, workers: int, cluster: Cluster) -> dict[str, object]:
    """Return how runs, in their order, are done on a number of GPUs."""
    seconds = [cluster.run_seconds + each.seconds for each in times]
    end = makespan(seconds, gpus // workers)
    hours = (cluster.once_seconds + end) / 3600
    if gpus // workers > len(times):
        limit = "the number of runs"
    else:
        limit = "the longest run" if end == max(seconds) else "GPUs"
    busy = sum(seconds) * workers / 3600
    return {"hours": hours, "GPU-hours": gpus * hours, "busy, %": 100 * busy / (gpus * hours), "limit": limit}


def scale_sweep(runs: Sequence[PlannedRun], store: Store, cluster: Cluster) -> list[dict[str, object]]:
    """Return a row for each number of GPUs, with one GPU per run and with as many as make the sweep shortest."""
    times = {workers: timed(runs, workers, store, cluster) for workers in WORKERS}
    rows = []
    for gpus in GPUS:
        fits = [workers for workers in WORKERS if workers <= gpus]
        found = {workers: simulate(times[workers], gpus, workers, cluster) for workers in fits}
        best = min(fits, key=lambda workers: found[workers]["hours"])
        rows.append(
            {
                "GPUs": gpus,
                **found[1],
                "best GPUs a run": best,
                **{f"{key} then": found[best][key] for key in ("hours", "GPU-hours", "limit")},
                "step times": " and ".join(sorted({each.source for each in times[1]})),
            }
        )
    return rows


def scale_run(runs: Sequence[PlannedRun], store: Store, cluster: Cluster) -> list[dict[str, object]]:
    """Return a row for each backbone and number of workers of one run."""
    one_each = list({run.spec.backbone: run for run in reversed(runs)}.values())
    alone = {each.run: each.seconds for each in timed(one_each, 1, store, cluster)}
    rows = []
    for workers in WORKERS:
        for each in timed(one_each, workers, store, cluster):
            spec = each.run.spec
            reductions = _reductions(spec, workers, cluster)
            faster = alone[each.run] / each.seconds
            rows.append(
                {
                    "run": spec.backbone,
                    "workers": workers,
                    "hours": each.seconds / 3600,
                    "ms a step": 1e3 * each.seconds / spec.recipe.steps,
                    "of it all-reduce, % (assumed)": 100 * reductions / each.seconds,
                    "faster by": faster,
                    "efficiency, %": 100 * faster / workers,
                    "rest of the step": each.source,
                }
            )
    return sorted(rows, key=lambda row: str(row["run"]))


def stops_at(times: Sequence[Timed], cluster: Cluster) -> int:
    """Return the number of GPUs, one per run, beyond which more of them do not help."""
    seconds = [cluster.run_seconds + each.seconds for each in times]
    shortest = makespan(seconds, len(seconds))
    return next(gpus for gpus in range(1, len(seconds) + 1) if makespan(seconds, gpus) <= shortest)


def beside_steps(store: Store) -> float | None:
    """Return the median overhead of a store's done runs: from their start to their last score, less their steps."""
    scored = store.totals().group_by("run_id").aggregate([("scored", "max")])
    ends = dict(zip(scored["run_id"].to_pylist(), scored["scored_max"].to_pylist(), strict=True))
    took = [
        (ends[row["run_id"]] - row["started"]).total_seconds() - row["wall_seconds"]
        for row in store.runs().to_pylist()
        if row["status"] == "done" and row["kind"] == "train" and row["run_id"] in ends
    ]
    return statistics.median(took) if took else None


def measure_steps(runs: Sequence[PlannedRun], store: Store, cache: Path) -> None:
    """Time steps of each network with each share of a batch on the GPU of this machine, and record them as runs."""
    recipe = runs[0].spec.recipe
    source = resolve("demo", "train")
    packed = prepare(source, scale=recipe.scale, degradation=recipe.degradation, cache=cache)
    data = TrainingData(name=packed.name, sha256=packed.sha256)
    for backbone in dict.fromkeys(run.spec.backbone for run in runs):
        for share in dict.fromkeys(math.ceil(recipe.batch / workers) for workers in WORKERS):
            short = recipe.model_copy(update={"steps": STEPS, "batch": share, "window": None})
            seconds = harness.step_seconds(backbone, short, packed, store.storage)
            spec = RunSpec(backbone=backbone, loss="l1", seed=0, train=data, recipe=short)
            row = {"status": "done", "step": STEPS, "wall_seconds": STEPS * seconds, "device": harness.device_name()}
            store.write_run(identity_columns(spec) | row)


def _share(run: PlannedRun, workers: int) -> PlannedRun:
    """Return a run as it is for the worker that takes most of each batch."""
    recipe = run.spec.recipe
    share = recipe.model_copy(update={"batch": math.ceil(recipe.batch / workers)})
    return replace(run, spec=run.spec.model_copy(update={"recipe": share}))


def _assumed(expected: Expected, cluster: Cluster) -> Expected:
    """Return what is expected of a run that no store tells about; a multiplication and its addition count as two."""
    return replace(expected, training=Estimate(2 * expected.work / (1e12 * cluster.tflops), "assumed"), device=None)


def _reductions(spec: RunSpec, workers: int, cluster: Cluster) -> float:
    """Return the seconds that the workers of a run spend on summing up gradients."""
    return spec.recipe.steps * cluster.reduction(_parameters(spec.backbone, spec.recipe.scale), workers)


@functools.cache
def _parameters(backbone: str, scale: int) -> int:
    return measure(backbone, scale, side=8).parameters


def main() -> None:
    """Simulate, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", metavar="DIR", help="a store whose done runs tell the times of steps")
    for field in fields(Cluster):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=type(field.default), default=field.default, help="assumed (%(default)s)")
    arguments = parser.parse_args()
    cluster = Cluster(**{field.name: getattr(arguments, field.name) for field in fields(Cluster)})
    name, sweep = read_sweep("paper", Choices(seeds=SEEDS))
    with tempfile.TemporaryDirectory() as temporary:
        store = Store(Storage(arguments.results or f"{temporary}/store"))
        runs = make_plan(name, sweep, None, store, rerun=True).pending
        if not arguments.results and harness.device().type == "cuda":
            measure_steps(runs, store, Path(temporary))
        beside = beside_steps(store)
        cluster = cluster if beside is None else replace(cluster, run_seconds=beside)
        times = timed(runs, 1, store, cluster)
        sweeps, singles = scale_sweep(runs, store, cluster), scale_run(runs, store, cluster)
        devices = sorted({device for each in expect(runs, store) for device in [each.device] if device})
    longest, fewest = times[0], stops_at(times, cluster)
    steps = f"on {' and '.join(devices)}" if devices else f"by multiplications at {cluster.tflops:g} TFLOP/s, assumed"
    notes = [
        f"Steps without all-reduce: {steps}.",
        f"Beside its steps a run takes {cluster.run_seconds:.0f} s, {'assumed' if beside is None else 'measured'}.",
        f"Assumed: {cluster.once_seconds:.0f} s before the first run, all-reduce at {cluster.inside:g} GB/s among "
        f"{cluster.node} GPUs and at {cluster.between:g} GB/s among more.",
    ]
    whole = f"{name} with {len(SEEDS)} seeds: {len(runs)} runs of {sweep.recipe.steps:,} steps."
    end = (
        f"With one GPU a run it takes as long as the longest run, {longest.run.spec.backbone}'s "
        f"{longest.seconds / 3600:.1f} h, from {fewest} GPUs on."
    )
    harness.publish("scale", sweeps, notes=[whole, end, *notes])
    harness.publish("scale-one-run", singles, notes=notes)


if __name__ == "__main__":
    main()
