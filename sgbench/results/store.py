"""A results store: a folder of small Parquet files, one writer a file, readable by anything that reads Parquet."""

import concurrent.futures
import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sgbench.errors import InputError
from sgbench.results.schema import RUNS, SCHEMA_VERSION, SCORES, TABLES, of_today, to_table
from sgbench.storage import Storage


class Dataset(NamedTuple):
    """A test set: what people call it, and what it is."""

    name: str
    sha256: str
    """Hash of the packed pixels."""

    @property
    def versioned(self) -> str:
        """The name with the beginning of the hash, which tells it from others of that name."""
        return f"{self.name}@{self.sha256[:8]}"


@dataclass(frozen=True)
class Planned:
    """A run that some sweep on this store asked for, whether it has a row yet or not."""

    run: dict[str, Any]
    """Its columns of `sgbench.results.schema.identity_columns`."""
    tests: tuple[Dataset, ...]
    """What it is to be scored on."""
    metrics: tuple[str, ...]

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self.run["run_id"])


class Store:
    """The rows of one or many sweeps, below a local folder or a URI.

    Writing is idempotent: the same rows written again replace themselves.

    Args:
        storage: Where the tables lie.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def write_run(self, row: dict[str, Any]) -> None:
        """Write the row of one run, replacing what was known of it."""
        self._write("runs", row["run_id"], [row])

    def write_scores(self, rows: list[dict[str, Any]]) -> None:
        """Write scores; those of one run, test set and metric replace all that were there."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            dataset = Dataset(row["dataset"], row["dataset_sha256"]).versioned
            groups.setdefault(f"{row['run_id']}-{dataset}-{row['metric'].replace(':', '.')}", []).append(row)
        for name, group in groups.items():
            self._write("scores", name, group)

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write the whole history of one run; no rows write nothing."""
        if rows:
            self._write("history", rows[0]["run_id"], rows)

    def forget(self, run_id: str) -> None:
        """Delete the row, the history and the scores of a run, which are about to be another's."""
        names = [f"runs/{run_id}.parquet", f"history/{run_id}.parquet"]
        scores = [name for name in self.storage.list("scores") if name.startswith(f"scores/{run_id}-")]
        for name in names + scores:
            self.storage.delete(name)

    def write_plan(self, name: str, planned: list[Planned]) -> None:
        """Write what a sweep asks for, replacing what a sweep of that name asked for before."""
        rows = [dataclasses.asdict(run) for run in planned]
        self.storage.write(f"plans/{name}.json", json.dumps(rows, indent=1).encode())

    def planned(self) -> list[Planned]:
        """Return what all sweeps on this store asked for; a run of two sweeps comes twice."""
        return [planned for name in self.storage.list("plans", ".json") for planned in self._read_plan(name)]

    def run(self, run_id: str) -> dict[str, Any] | None:
        """Return the row of one run, or None."""
        name = f"runs/{run_id}.parquet"
        rows = self._read_file(name).to_pylist() if self.storage.exists(name) else []
        return rows[0] if rows else None

    def runs(self) -> pa.Table:
        """Return the table `sgbench.results.schema.RUNS`, by run id."""
        return self._read("runs").sort_by("run_id")

    def scores(self) -> pa.Table:
        """Return the table `sgbench.results.schema.SCORES`."""
        return self._read("scores").sort_by([(key, "ascending") for key in ("run_id", "dataset", "metric", "image")])

    def history(self) -> pa.Table:
        """Return the table `sgbench.results.schema.HISTORY`, by run and step."""
        return self._read("history").sort_by([("run_id", "ascending"), ("step", "ascending")])

    def _write(self, table: str, name: str, rows: list[dict[str, Any]]) -> None:
        buffer = io.BytesIO()
        pq.write_table(to_table(table, rows), buffer, compression="zstd")
        self.storage.write(f"{table}/{name}.parquet", buffer.getvalue())

    def _read(self, table: str) -> pa.Table:
        names = self.storage.list(table, ".parquet")
        with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
            parts = list(pool.map(self._read_if_there, names))
        return pa.concat_tables([TABLES[table].empty_table(), *filter(None, parts)])

    def _read_if_there(self, name: str) -> pa.Table | None:
        try:
            return self._read_file(name)
        except FileNotFoundError:  # a run that is being done again since the folder was listed
            return None

    def _read_plan(self, name: str) -> list[Planned]:
        try:
            rows = json.loads(self.storage.read(name))
            return [
                Planned(row["run"], tuple(Dataset(*test) for test in row["tests"]), tuple(row["metrics"]))
                for row in rows
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"'{self.storage.path(name)}' is not a plan of sgbench: {error!r}.") from error

    def _read_file(self, name: str) -> pa.Table:
        try:
            part = pq.read_table(io.BytesIO(self.storage.read(name)))
            version = part.column("schema_version")[0].as_py() if part.num_rows else SCHEMA_VERSION
            if version != SCHEMA_VERSION:
                raise InputError(
                    f"'{self.storage.path(name)}' has schema version {version}; this sgbench reads {SCHEMA_VERSION}."
                )
            return of_today(name.partition("/")[0], part)
        except (pa.ArrowException, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"'{self.storage.path(name)}' is not a results file of sgbench: {error}.") from error


@dataclass(frozen=True)
class Results:
    """What a store holds, for programs; see `load_results`.

    A name stands for one thing: where a store has two test sets called Set5, of other pixels, ``dataset`` is
    ``Set5@1a2b3c4d`` with the beginning of their hash, and so is the ``name`` of two checkpoints with that of their id.
    """

    runs: pa.Table
    """One row a run that is done or has failed: `sgbench.results.schema.RUNS`."""
    scores: pa.Table
    """One row a score: `sgbench.results.schema.SCORES`."""
    history: pa.Table
    """The course of training: `sgbench.results.schema.HISTORY`."""
    planned: list[Planned] = field(default_factory=list)
    """What sweeps on the store asked for."""

    def to_arrow(self) -> pa.Table:
        """Return one table: each score beside the columns of its run."""
        run_columns = self.runs.drop_columns(["schema_version"]).rename_columns(
            {"status": "run_status", "error": "run_error"}
        )
        joined = self.scores.join(run_columns, keys="run_id", join_type="inner")
        order = [("backbone", "ascending"), ("loss", "ascending"), ("seed", "ascending"), ("dataset", "ascending")]
        return joined.sort_by([*order, ("metric", "ascending"), ("image", "ascending")])

    def to_pandas(self) -> Any:
        """Return `to_arrow` as a pandas data frame."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """Return `to_arrow` as a polars data frame.

        Raises:
            ImportError: If polars is not installed; ``pip install sgbench[polars]`` brings it.
        """
        import polars

        return polars.from_arrow(self.to_arrow())


def load_results(path: str) -> Results:
    """Open the results of a sweep.

    Args:
        path: A store: a folder such as ``results/quick``, or a URI.

    Returns:
        The tables ``runs``, ``scores`` and ``history``, and their join through ``to_arrow``, ``to_pandas`` and
        ``to_polars``.

    Raises:
        InputError: If there is no store, or a file in it is not sgbench's.
    """
    storage = Storage(path)
    if not storage.exists("runs") and not storage.exists("plans"):
        raise InputError(f"'{path}' holds no results: it has neither a folder 'runs' nor 'plans'.")
    store = Store(storage)
    scores, planned = _told_apart(store.scores(), store.planned())
    return Results(_runs_told_apart(store.runs()), scores, store.history(), planned)


def labels_of(name: str, there: Iterable[str]) -> set[str]:
    """Return those labels of `Results` that a name stands for: itself, and all versions of it."""
    return {label for label in there if name in (label, label.partition("@")[0])}


def _told_apart(scores: pa.Table, planned: list[Planned]) -> tuple[pa.Table, list[Planned]]:
    """Return scores and plans with test sets of one name and other pixels called after their hashes."""
    pairs = scores.select(["dataset", "dataset_sha256"]).group_by(["dataset", "dataset_sha256"]).aggregate([])
    datasets = {Dataset(*row.values()) for row in pairs.to_pylist()} | {test for plan in planned for test in plan.tests}
    counts = Counter(dataset.name for dataset in datasets)
    ambiguous = [name for name, count in counts.items() if count > 1]
    if not ambiguous:
        return scores, planned
    names, hashes = scores.column("dataset"), scores.column("dataset_sha256")
    versioned = pc.binary_join_element_wise(names, pc.utf8_slice_codeunits(hashes, 0, 8), "@")
    renamed = pc.if_else(pc.is_in(names, pa.array(ambiguous, pa.string())), versioned, names)
    scores = scores.set_column(scores.schema.get_field_index("dataset"), SCORES.field("dataset"), renamed)

    def named(test: Dataset) -> Dataset:
        return test._replace(name=test.versioned) if test.name in ambiguous else test

    return scores, [dataclasses.replace(plan, tests=tuple(map(named, plan.tests))) for plan in planned]


def _runs_told_apart(runs: pa.Table) -> pa.Table:
    """Return runs with what was not trained here, and shares its name with something else, called after its id."""
    rows = runs.select(["kind", "name", "run_id"]).to_pylist()
    counts = Counter(row["name"] for row in rows if row["kind"] != "train")
    names = [
        f"{row['name']}@{row['run_id'][:8]}" if row["kind"] != "train" and counts[row["name"]] > 1 else row["name"]
        for row in rows
    ]
    return runs.set_column(runs.schema.get_field_index("name"), RUNS.field("name"), pa.array(names, pa.string()))


def whole_sets(scores: pa.Table) -> pa.Table:
    """Return the rows of `SCORES` that speak for a whole test set."""
    return scores.filter(pc.is_null(scores.column("image")))
