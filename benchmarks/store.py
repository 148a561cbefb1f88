"""How fast a results store is read: as the small files that runs write, compacted, and with DuckDB alone.

    python benchmarks/store.py
    python benchmarks/store.py --runs 1000

The store is synthetic: runs of five networks with twenty losses, each scored by six metrics on four test sets with 219
images in total. The query is that of a table: the mean and the standard deviation over seeds of every score of a whole
set. DuckDB alone reads the same Parquet files with one SELECT over ``scores/*.parquet`` and ``runs/*.parquet``.
"""

import argparse
import datetime
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import harness
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sgbench.analysis import load_results
from sgbench.core.storage import Storage
from sgbench.spec import RunSpec, TrainingData
from sgbench.store import Store, identity_columns
from sgbench.store.schema import SCORES, to_table

SETS = {"Set5": 5, "Set14": 14, "B100": 100, "Urban100": 100}
METRICS = ("lpips_alex", "fd_alex", "psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb")
BACKBONES = ("edsr-tiny", "rcan-tiny", "rdn-tiny", "swinir-tiny", "edsr-light")
LOSSES = ("l1", *(f"l1 + {weight / 10}*sg" for weight in range(1, 20)))
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

SMALL = 60
"""Runs of the store of small files; all of them would be a quarter of a million files."""

QUESTION = """
SELECT dataset, backbone, loss, metric, avg(value) AS mean, stddev_samp(value) AS sd, count(*) AS n
FROM {scores} JOIN {runs} USING (run_id) WHERE image IS NULL GROUP BY ALL ORDER BY ALL
"""


def made_up_runs(count: int) -> pa.Table:
    """Return the rows of runs, as many seeds of each network and loss as needed."""
    spec = RunSpec(backbone=BACKBONES[0], loss="l1", seed=0, train=TrainingData(name="DIV2K", sha256="ab" * 32))
    row = identity_columns(spec) | {"status": "done", "step": 1000, "wall_seconds": 100.0, "finished": NOW}
    return to_table(
        "runs",
        [
            row
            | {
                "run_id": f"{number * 0x9E3779B97F4A % 2**48:012x}",
                "backbone": BACKBONES[number % len(BACKBONES)],
                "loss": LOSSES[number // len(BACKBONES) % len(LOSSES)],
                "seed": number // len(BACKBONES) // len(LOSSES),
            }
            for number in range(count)
        ],
    )


def made_up_scores(run_ids: pa.ChunkedArray) -> pa.Table:
    """Return the scores of runs, by image and of whole sets."""
    of_a_run = np.array(
        [
            (dataset, metric, image)
            for dataset, images in enumerate(SETS.values())
            for metric in range(len(METRICS))
            for image in range(-1, images)
        ]
    )
    datasets, metrics, images = np.tile(of_a_run.T, len(run_ids))
    rows = len(images)

    def text(codes: np.ndarray, words: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=codes < 0), pa.array(words))

    def constant(name: str, value: object) -> pa.Array:
        return pa.repeat(pa.scalar(value, SCORES.field(name).type), rows)

    runs = np.repeat(np.arange(len(run_ids)), len(of_a_run))
    protocol = '{"direction": "higher", "colour": "%s", "border": 4, "rounding": "8 bits", "peak": 255, "package": "x"}'
    columns = {
        "schema_version": constant("schema_version", 1),
        "run_id": text(runs, run_ids.to_pylist()),
        "dataset": text(datasets, list(SETS)),
        "dataset_sha256": text(datasets, [digit * 64 for digit in "abcd"]),
        "image": text(images, [f"image{number:03d}" for number in range(max(SETS.values()))]),
        "metric": text(metrics, list(METRICS)),
        "metric_version": constant("metric_version", "1"),
        "protocol": text(metrics, [protocol % metric for metric in METRICS]),
        "n_images": pa.array(np.array(list(SETS.values()))[datasets], pa.int32()),
        "value": pa.array(np.random.default_rng(0).normal(28, 1, rows)),
        "standard_error": constant("standard_error", None),
        "status": constant("status", "ok"),
        "reason": constant("reason", None),
        "scored": constant("scored", NOW),
    }
    return pa.table(columns).cast(pa.schema([field.with_type(columns[field.name].type) for field in SCORES]))


def write_small(store: Store, runs: pa.Table, scores: pa.Table) -> None:
    """Write runs as a sweep does."""
    for row in runs.drop_columns(["schema_version"]).to_pylist():
        store.write_run(row)
    of_a_run = scores.num_rows // runs.num_rows
    for start in range(0, scores.num_rows, of_a_run):
        store.write_scores(scores.slice(start, of_a_run).drop_columns(["schema_version"]).to_pylist())


def by_sgbench(root: Path) -> pa.Table:
    """Run the query as ``sgbench query`` does."""
    return load_results(str(root)).query(QUESTION.format(scores="scores", runs="runs"))


def by_duckdb(root: Path) -> pa.Table:
    """Run the query with DuckDB over the files."""
    scores, runs = (f"'{root}/{table}/*.parquet'" for table in ("scores", "runs"))
    return duckdb.sql(QUESTION.format(scores=scores, runs=runs)).to_arrow_table()


def what_a_table_reads(root: Path) -> pa.Table:
    """Read what ``sgbench table`` reads."""
    results = load_results(str(root))
    return results.totals.join(results.runs.select(["run_id", "backbone", "loss", "seed"]), "run_id")


def check(answers: list[pa.Table]) -> None:
    """Refuse answers that differ.

    Raises:
        AssertionError: If they do.
    """
    first, *others = answers
    for other in others:
        for name in first.column_names:
            if name in ("mean", "sd"):
                np.testing.assert_allclose(first[name].to_numpy(), other[name].to_numpy(), rtol=1e-9, err_msg=name)
            else:
                assert first[name].to_pylist() == other[name].to_pylist(), name


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000, help="of the large store")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as temporary:
        small, compacted, large = (Path(temporary) / name for name in ("small", "compacted", "large"))
        runs = made_up_runs(SMALL)
        scores = made_up_scores(runs["run_id"])
        write_small(Store(Storage(str(small))), runs, scores)
        write_small(Store(Storage(str(compacted))), runs, scores)
        began = time.perf_counter()
        gathered = Store(Storage(str(compacted))).compact()
        notes.append(f"Compacting {sum(gathered.values()):,} files took {time.perf_counter() - began:.1f} s.")
        runs = made_up_runs(arguments.runs)
        scores = made_up_scores(runs["run_id"])
        began = time.perf_counter()
        store = Store(Storage(str(large)))
        store.tables["scores"].compact(scores)
        store.tables["runs"].compact(runs)
        megabytes = sum(store.storage.sizes().values()) / 1e6
        notes.append(
            f"Writing the compacted store of {arguments.runs:,} runs, {scores.num_rows:,} scores, {megabytes:,.0f} MB, "
            f"took {time.perf_counter() - began:.0f} s."
        )
        totals = pc.sum(pc.is_null(scores["image"])).as_py()
        del scores
        for name, root in (
            (f"{SMALL} runs, small files", small),
            (f"{SMALL} runs, compacted", compacted),
            ("large", large),
        ):
            candidates: dict[str, Callable[[], pa.Table]] = {
                "table": partial(what_a_table_reads, root),
                "query": partial(by_sgbench, root),
                "duckdb": partial(by_duckdb, root),
            }
            check([candidates["query"](), candidates["duckdb"]()])
            seconds = harness.take_turns(candidates, rounds=arguments.rounds)
            rows.append(
                {
                    "store": f"{arguments.runs:,} runs, compacted" if root == large else name,
                    "what a table reads, s": float(np.median(seconds["table"])),
                    "sgbench query, s": float(np.median(seconds["query"])),
                    "DuckDB alone, s": float(np.median(seconds["duckdb"])),
                    "table reads faster than DuckDB by": harness.ratio(seconds, "duckdb", "table")["median"],
                    harness.AIM: "a table ≤ 2 s" if root == large else None,
                }
            )
    notes.append(f"A table reads the {totals:,} scores of whole sets; a query may use all of them.")
    notes.append(f"The most memory was {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB.")
    harness.publish("store", rows, notes=notes, duckdb=duckdb.__version__, pyarrow=pa.__version__)


if __name__ == "__main__":
    main()
