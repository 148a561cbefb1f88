"""The common part of all benchmarks: timing that is fair to both sides, and a table that says where it was measured.

These machines are noisy. Candidates therefore take turns, round by round, and the reported number is the median over
rounds of the ratio within a round, so that a slow minute slows both.
"""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import sgbench
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.spec import Recipe, RunSpec, TrainingData
from sgbench.training import Checkpoints, train

RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")
"""Where the tables are written as JSON, a file for each table and kind of device."""

DRY_RUN = "BENCHMARK_DRY_RUN" in os.environ
"""Whether to do everything once, as small as it can be, to see that it works; the numbers then mean nothing."""

PACKAGES = ("torch", "numpy")

AIM = "aim"
"""The column for the target, in words such as ``≥ 20×``."""

LOAD_BEFORE = os.getloadavg()[0]
"""How many processes wanted a CPU in the minute before; the load after it includes the benchmark itself."""


def take_turns(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, calls: int = 1
) -> dict[str, list[float]]:
    """Time each candidate in every round, after one untimed call each; in a dry run, call each once.

    Args:
        candidates: What to call, by name.
        rounds: How often each has its turn; the order is reversed every other round.
        calls: Calls per turn; more if one is too short for the clock.

    Returns:
        Seconds per call, one value per round, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    rounds, calls = (1, 1) if DRY_RUN else (rounds, calls)
    for candidate in () if DRY_RUN else candidates.values():
        candidate()
    for turn in range(rounds):
        order = list(candidates.items())
        for name, candidate in order if turn % 2 == 0 else reversed(order):
            wait_for_device()
            began = time.perf_counter()
            for _ in range(calls):
                candidate()
            wait_for_device()
            seconds[name].append((time.perf_counter() - began) / calls)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], of: str, to: str) -> dict[str, float]:
    """Return the median, least and greatest over the rounds of one candidate's time divided by another's."""
    ratios = [a / b for a, b in zip(seconds[of], seconds[to], strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)}


def step_seconds(backbone: str, recipe: Recipe, images: PackedImages, scratch: Storage) -> float:
    """Return the median time of a step of the training loop, with L1 alone, over a run with a recipe."""
    data = TrainingData(name=images.name, sha256=images.sha256)
    spec = RunSpec(backbone=backbone, loss="l1", seed=0, train=data, recipe=recipe)
    checkpoints = Checkpoints(scratch, f"{spec.run_id}")
    history = train(spec, images, checkpoints, device=device(), checkpoint_seconds=math.inf).history
    return statistics.median(1 / row["steps_per_second"] for row in history)


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Return the name of the GPU if there is one, else of the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()


def wait_for_device() -> None:
    """Wait until a GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def publish(name: str, rows: Sequence[Mapping[str, Any]], *, notes: Sequence[str] = (), **packages: str) -> None:
    """Print rows as a table and write them, with what they were measured on, to `RESULTS`.

    Args:
        name: The script's name, followed by that of the table if the script has several.
        rows: Rows with the same keys; floats are printed with three digits, and None stands for what does not apply. A
            row with a target has it under `AIM`.
        notes: Sentences below the table.
        packages: Versions of the packages compared with, by name.
    """
    where = {
        "device": device_name(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {"sgbench": sgbench.__version__} | {name: version(name) for name in PACKAGES} | packages,
        "load before": round(LOAD_BEFORE, 1),
        "load after": round(os.getloadavg()[0], 1),
        "measured": time.strftime("%Y-%m-%d"),
    }
    table = Table(*rows[0], title=f"{name}: {where['device']}, threads: {where['threads']}")
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    console = Console(width=140)
    console.print(table)
    versions = ", ".join(f"{package} {number}" for package, number in where["packages"].items())
    for note in (*notes, f"{versions}; load {where['load before']} before and {where['load after']} after."):
        console.print(note, markup=False)
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{name}-{'gpu' if torch.cuda.is_available() else 'cpu'}.json"
    file.write_text(json.dumps({"where": where, "rows": rows, "notes": notes}, indent=1) + "\n")


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else str(value)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
