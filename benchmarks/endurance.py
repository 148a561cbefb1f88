"""What commands take in time and memory on a store of ten thousand runs: compacted, and of small files.

    python benchmarks/endurance.py
    python benchmarks/endurance.py --runs 1000 --recipes 5 --store DIR

The store is synthetic: four networks with fifty losses or recipes over seeds, each scored by three metrics on two test
sets with their images, and with a hundred points of its training curve. Seconds are those of the CPU that the process
of a command uses, so that other work on the machine counts less than by the clock, and memory is the most that it holds
at once. A store with ten thousand runs is a hundred thousand small files, two gigabytes on most disks.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sgbench.core.storage import Storage
from sgbench.metrics import METRICS
from sgbench.runs.plan import Data, make_plan, pack, read_sweep
from sgbench.spec import canonical_json
from sgbench.store import SCORES, Store, identity_columns
from sgbench.store.layout import MARK
from sgbench.store.schema import HISTORY, SCHEMA_VERSION, to_table
from sgbench.store.store import FORMAT

NETWORKS = ("edsr-tiny", "rdn-tiny", "rcan-tiny", "swinir-tiny")
MEASURES = ("lpips_alex", "psnr_y", "ssim_y")
VARIANTS = 50
"""Losses times recipes."""

IMAGES = 14
"""Images of the test set beside ``demo``."""

POINTS = 100
"""Rows of a training curve."""

STEPS = 1000
NOW = datetime(2026, 1, 1, tzinfo=UTC)

AIMS = {"compacted": (3.0, 1.0), "small files": (20.0, 1.5)}
"""Seconds and GB that a command should take at most."""

COMMANDS = {
    "status": ["status"],
    "table": ["table"],
    "compare": ["compare", "l1", "l1 + 0.01*sg"],
    "query": ["query", "SELECT loss, avg(value) FROM scores JOIN runs USING (run_id) GROUP BY ALL ORDER BY ALL"],
    "plan": ["plan", "sweep0.yaml"],
    "verify": ["results", "verify"],
    "report": ["report", "--out", "page.html"],
    "clean": ["results", "clean"],
    "compact": ["results", "compact"],
}
"""Arguments by what is measured; the last one changes the store."""


def write_sweeps(folder: Path, runs: int, recipes: int) -> list[Path]:
    """Write the files of the sweeps whose runs the store has, one for each recipe, and their second test set."""
    images = folder / "more"
    images.mkdir()
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(images / f"image{number:02}.png")
    losses = ["l1", *(f"l1 + {number / 100}*sg" for number in range(1, VARIANTS // recipes))]
    seeds = list(range(runs // len(NETWORKS) // len(losses) // recipes))
    files = [folder / f"sweep{number}.yaml" for number in range(recipes)]
    for number, file in enumerate(files):
        sweep = {
            "grids": [{"backbones": list(NETWORKS), "losses": losses, "seeds": seeds}],
            "train": "demo",
            "tests": ["demo", f"more={images}"],
            "metrics": list(MEASURES),
            "recipe": {"steps": STEPS + number, "batch": 8, "patch": 32},
        }
        file.write_text(json.dumps(sweep))  # which is YAML too
    return files


def write_plans(store: Store, files: Sequence[Path]) -> tuple[list[dict[str, Any]], Data]:
    """Write the plans of sweeps, and return the rows of their runs and the images."""
    rows: list[dict[str, Any]] = []
    for file in files:
        name, sweep = read_sweep(str(file))
        data = pack(sweep)
        plan = make_plan(name, sweep, data, store)
        store.write_plan(name, plan.records())
        rows += [identity_columns(run.spec) for run in plan.runs]
    for at, row in enumerate(rows):
        row |= {"status": "done", "step": row["steps"], "parameters": 100_000, "steps_per_second": 10.0 + at % 7}
        row |= {"wall_seconds": 100.0 + at % 7, "peak_memory_bytes": 2**28, "workers": 0, "device": "AMD EPYC"}
        row |= {"host": f"node{at % 4}", "versions": '{"sgbench": "1.0", "torch": "2.14.1"}', "git_revision": "27d0b6c"}
        row |= {"started": NOW, "finished": NOW}
    return rows, data


def made_up_scores(rows: Sequence[dict[str, Any]], data: Data) -> pa.Table:
    """Return scores of images and of whole sets, run by run; losses differ a little, and seeds and images more."""
    metrics = [METRICS.load(name) for name in MEASURES]
    places = [
        (dataset, metric, image)
        for dataset, test in enumerate(data.tests)
        for metric in range(len(metrics))
        for image in range(-1, len(test))
    ]
    dataset, metric, image = np.tile(np.array(places).T, len(rows))
    run = np.repeat(np.arange(len(rows)), len(places))
    random = np.random.default_rng(0)
    of_runs = random.normal([row["lambda"] for row in rows], 0.5)
    of_images = random.normal(28, 2, (len(data.tests), len(metrics), max(map(len, data.tests)) + 1))
    values = of_runs[run] + of_images[dataset, metric, image] + random.normal(0, 0.1, len(run))
    counts = np.array([len(test) for test in data.tests], np.int32)[dataset]
    whole = np.flatnonzero(image < 0)  # each is followed by its images, whose mean it is
    values[whole] = 0
    values[whole] = np.add.reduceat(values, whole) / counts[whole]
    names = [image.name for test in data.tests for image in test.images]
    first = np.cumsum([0, *map(len, data.tests)])[dataset]

    columns = {
        "schema_version": SCHEMA_VERSION,
        "run_id": text(run, [row["run_id"] for row in rows]),
        "dataset": text(dataset, [test.name for test in data.tests]),
        "dataset_sha256": text(dataset, [test.sha256 for test in data.tests]),
        "image": text(np.where(image < 0, -1, first + image), names),
        "metric": text(metric, MEASURES),
        "metric_version": text(metric, [each.version for each in metrics]),
        "protocol": text(metric, [canonical_json({"direction": each.direction}) for each in metrics]),
        "n_images": counts,
        "value": values,
        "standard_error": None,
        "status": "ok",
        "reason": None,
        "scored": NOW,
    }
    return as_table(columns, SCORES, len(run))


def made_up_history(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return training curves, run by run."""
    count = len(rows) * POINTS
    steps = np.tile(np.arange(1, POINTS + 1) * (STEPS // POINTS), len(rows))
    losses = 0.1 + np.random.default_rng(1).random(count) / np.sqrt(steps)
    terms = pa.MapArray.from_arrays(
        pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32)),
        pa.array(["l1", "sg"] * count),
        pa.array(np.repeat(losses, 2)),
    )
    columns = {
        "schema_version": SCHEMA_VERSION,
        "run_id": np.repeat([row["run_id"] for row in rows], POINTS),
        "step": steps,
        "loss": losses,
        "terms": terms,
        "lr": 1e-4,
        "steps_per_second": 10.0,
    }
    return as_table(columns, HISTORY, count)


def text(codes: np.ndarray, words: Sequence[str]) -> pa.Array:
    """Return the words with some indices; a negative one stands for null."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))


def as_table(columns: dict[str, Any], schema: pa.Schema, rows: int) -> pa.Table:
    """Return columns, some of them one value for all rows, as a table; text may be dictionary-encoded."""
    arrays = {
        name: pa.array(values)
        if isinstance(values, np.ndarray | pa.Array)
        else pa.repeat(pa.scalar(values, schema.field(name).type), rows)
        for name, values in columns.items()
    }
    return pa.table(arrays).cast(schema)


def write_small(root: str, name: str, table: pa.Table, runs: int) -> None:
    """Write the files of a table as a sweep does, but without waiting for the disk."""
    files = Store(Storage(root)).tables[name]
    of_a_run = table.num_rows // runs
    for at in range(runs):
        rows = table.slice(at * of_a_run, of_a_run)
        stems = files.stems(rows).to_pylist()
        starts = [row for row, stem in enumerate(stems) if not row or stem != stems[row - 1]]
        for start, end in zip(starts, [*starts[1:], len(stems)], strict=True):
            path = files.storage.path(files.name(stems[start]))
            pq.write_table(rows.slice(start, end - start), path, compression="snappy", write_page_checksum=True)


def write_store(folder: Path, runs: int, recipes: int, kind: str) -> None:
    """Write a store, and the sweeps that asked for its runs, into a folder, in which commands find it by themselves."""
    store = Store(Storage(str(folder / "results" / "made")))
    rows, data = write_plans(store, write_sweeps(folder, runs, recipes))
    store.storage.write(MARK, json.dumps({"format": FORMAT}).encode())
    tables = {"runs": to_table("runs", rows), "scores": made_up_scores(rows, data), "history": made_up_history(rows)}
    for name, files in store.tables.items():
        if kind == "compacted":
            files.compact(tables[name])
        else:
            Path(store.storage.path(name)).mkdir()
            write_small(store.storage.root, name, tables[name], len(rows))


COMMAND = """
import atexit, runpy, sys
atexit.register(lambda: sys.stderr.write("\\n" + open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]))
runpy.run_module("sgbench", run_name="__main__", alter_sys=True)
"""
"""The command line, which says at its end how many KiB it held at most; the system's count has the parent's too."""


def measure(arguments: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command in a folder, and return the seconds of CPU and the GB that it took."""
    command = [sys.executable, "-c", COMMAND, *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {said}")
    return used.ru_utime, int(said.split()[-1]) * 1024 / 1e9


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--recipes", type=int, default=1, help="of the fifty losses and recipes")
    parser.add_argument("--store", choices=AIMS, action="append", help="which of the two (repeatable)")
    parser.add_argument("--command", choices=COMMANDS, action="append", help="what to measure (repeatable)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="where the stores are written, or were before")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for kind in arguments.store or AIMS:
            folder = (arguments.keep or Path(temporary)) / f"{arguments.runs} {arguments.recipes} {kind}"
            if not folder.exists():
                folder.mkdir(parents=True)
                write_store(folder, arguments.runs, arguments.recipes, kind)
            for name in arguments.command or COMMANDS:
                seconds, memory = measure(COMMANDS[name], folder)
                rows.append(
                    {
                        "store": f"{arguments.runs:,} runs, {kind}",
                        "command": name,
                        "CPU, s": seconds,
                        "memory, GB": memory,
                        harness.AIM: "at most {:g} s and {:g} GB".format(*AIMS[kind]),
                    }
                )
    harness.publish("endurance", rows, pyarrow=pa.__version__)


if __name__ == "__main__":
    main()
