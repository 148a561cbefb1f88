"""A results store: a folder of small Parquet files, one writer a file, readable by anything that reads Parquet."""

import concurrent.futures
import dataclasses
import io
import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sgbench.errors import InputError
from sgbench.results.schema import SCHEMA_VERSION, TABLES, of_today, to_table
from sgbench.storage import Storage


@dataclass(frozen=True)
class Planned:
    """A run that some sweep on this store asked for, whether it has a row yet or not."""

    run: dict[str, Any]
    """Its columns of `sgbench.results.schema.identity_columns`."""
    tests: tuple[str, ...]
    """Names of the test sets that it is to be scored on."""
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
            groups.setdefault(f"{row['run_id']}-{row['dataset']}-{row['metric'].replace(':', '.')}", []).append(row)
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
            return [Planned(row["run"], tuple(row["tests"]), tuple(row["metrics"])) for row in rows]
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
    """What a store holds, for programs; see `load_results`."""

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
    return Results(store.runs(), store.scores(), store.history(), store.planned())


def whole_sets(scores: pa.Table) -> pa.Table:
    """Return the rows of `SCORES` that speak for a whole test set."""
    return scores.filter(pc.is_null(scores.column("image")))
