"""The overhead of a sweep over its training and scoring: for `quick`, and for runs that do nothing.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --steps 100 --runs 16 --groups 2      # in a hurry

A lane is the room for one run. Its time, from when Ray has started to the end of the sweep, goes into

- training and scoring: the time in the training loop, and from the end of a run's training to its last score;
- the first start: until the first run begins, in which processes start and import torch;
- the runs: reading, checking and writing outside the loop, and reports;
- the rest: between two runs, and while others still run at the end.

A run that does nothing trains one step on one patch and is scored by PSNR on two small images. With worker groups each
run is a Ray Train job, which is prepared while it waits for its lane, so the time in runs is not broken down.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import numpy as np

from sgbench.assets.locator import Locator
from sgbench.cluster import connect, run_sweep
from sgbench.cluster.placement import place
from sgbench.core.storage import Storage
from sgbench.data import write_png
from sgbench.runs.execute import Job
from sgbench.runs.forecast import expect, longest_first
from sgbench.runs.plan import Choices, make_plan, pack, read_sweep
from sgbench.store import Store


class Clock:
    """Notes when runs begin, are trained and end; called by `run_sweep`."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.trained: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    def started(self, run_id: str, label: str) -> None:
        """A run has begun."""
        self.began[run_id] = time.perf_counter()

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        """A run has done some of its steps."""

    def scoring(self, run_id: str) -> None:
        """A run is trained."""
        self.trained[run_id] = time.perf_counter()

    def finished(self, run_id: str, end: str, message: str) -> None:
        """A run has ended."""
        if end != "done":
            raise SystemExit(f"run {run_id} has {end}: {message}")
        self.ended[run_id] = time.perf_counter()


def measure(case: str, choices: Choices, store: Path, aim: str) -> dict[str, Any]:
    """Do `quick`, as the choices change it, from scratch, and return where its time went, in seconds."""
    name, sweep = read_sweep("quick", choices)
    storage, clock = Storage(str(store)), Clock()
    data = pack(sweep, lambda *_: None)
    plan = make_plan(name, sweep, data, Store(storage), locator=Locator(download=False))
    order = longest_first(expect(plan.pending, Store(storage)))
    jobs = [Job.of(run, data, sweep, storage) for run in order]
    before = time.perf_counter()
    with connect(None):
        began = time.perf_counter()
        lanes = place(sweep).lanes()
        run_sweep(name, jobs, sweep, storage, clock)
        wall = time.perf_counter() - began
    training = sum(Store(storage).runs().column("wall_seconds").to_pylist())
    pure = training + sum(clock.ended[run] - clock.trained[run] for run in clock.ended)
    start = lanes * (min(clock.began.values()) - began)
    runs = sum(clock.ended[run] - clock.began[run] for run in clock.ended) - pure
    return {
        "sweep": case,
        "runs": len(jobs),
        "lanes": lanes,
        "Ray's start": began - before,
        "wall": wall,
        "a run a lane": wall * lanes / len(jobs),
        "over training and scoring": f"{wall * lanes / pure:.2f}×",
        "training and scoring": pure,
        "first start": start,
        "in runs": None if sweep.workers else runs,
        "rest": wall * lanes - pure - start - (0.0 if sweep.workers else runs),
        harness.AIM: aim,
    }


def nothing(folder: Path, seeds: int, settings: Mapping[str, Any] | None = None) -> Choices:
    """Return the choices that turn `quick` into runs that do nothing, one per seed."""
    random = np.random.default_rng(0)
    for name in ("train", "test"):
        for number in range(2):
            write_png(folder / name / f"{number}.png", random.integers(0, 256, (44, 40, 3), dtype=np.uint8))
    return Choices(
        losses=["l1"],
        seeds=range(seeds),
        train=f"made-up={folder}/train",
        tests=[f"made-up={folder}/test"],
        metrics=["psnr_y"],
        settings={"recipe.steps": 1, "recipe.batch": 1, "recipe.patch": 8, **(settings or {})},
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="of each run of quick; all by default")
    parser.add_argument("--runs", type=int, default=64, help="that do nothing, one process each lane")
    parser.add_argument("--groups", type=int, default=4, help="that do nothing, with a worker group of one")
    options = parser.parse_args()
    steps = {"recipe.steps": options.steps} if options.steps else {}
    with tempfile.TemporaryDirectory() as place_for_all:
        folder = Path(place_for_all)
        short = f" of {options.steps} steps" if steps else ""
        rows = [
            measure(f"quick{short}", Choices(settings=steps), folder / "quick", "≤ 1.15×"),
            measure("nothing", nothing(folder, options.runs), folder / "nothing", "≤ 0.5 s a run a lane"),
            measure(
                "nothing, worker groups",
                nothing(folder, options.groups, {"workers": 1}),
                folder / "groups",
                "≤ 5 s a run a lane",
            ),
        ]
    harness.publish(
        "sweep", rows, notes=["Seconds; those of training and scoring, and after it, are of all lanes together."]
    )


if __name__ == "__main__":
    main()
