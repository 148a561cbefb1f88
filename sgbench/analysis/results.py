"""What a store holds, for programs: one name for one thing, each table read when it is first asked for."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.store import RUNS, SCORES, Dataset, Planned, Store, by_key, whole_sets


@dataclass(frozen=True)
class Results:
    """What a store holds, for programs; see `load_results`.

    A name stands for one thing: where a store has two test sets called Set5, of other pixels, ``dataset`` is
    ``Set5@1a2b3c4d`` with the beginning of their hash, and so is the ``name`` of two checkpoints with that of their id.
    """

    runs: pa.Table
    """One row a run that is done or has failed: `sgbench.store.schema.RUNS`."""
    scores: pa.Table
    """One row a score: `sgbench.store.schema.SCORES`."""
    history: pa.Table
    """The course of training: `sgbench.store.schema.HISTORY`."""
    planned: list[Planned] = field(default_factory=list)
    """What sweeps on the store asked for."""

    @functools.cached_property
    def totals(self) -> pa.Table:
        """The scores of whole test sets; of a compacted store they are read without those of images."""
        return whole_sets(self.scores)

    @functools.cached_property
    def encoded_scores(self) -> pa.Table:
        """`scores` in any order and with text as dictionaries, which takes a fifth of the memory."""
        return self.scores

    def query(self, sql: str) -> pa.Table:
        """Answer a question in SQL; see `sgbench.analysis.query.query`."""
        from sgbench.analysis.query import query

        return query(self, sql)

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


class _Stored(Results):
    """Results whose tables are read when they are first asked for."""

    _store: Store

    @classmethod
    def of(cls, store: Store) -> "_Stored":
        """Return what a store holds, of which nothing is read yet."""
        stored = cls.__new__(cls)
        vars(stored)["_store"] = store
        return stored

    @functools.cached_property
    def runs(self) -> pa.Table:
        return _runs_told_apart(self._store.runs())

    @functools.cached_property
    def totals(self) -> pa.Table:
        return super().totals if "scores" in vars(self) else _told_apart(self._raw_totals, self._ambiguous)

    @functools.cached_property
    def scores(self) -> pa.Table:
        return by_key(self.encoded_scores)

    @functools.cached_property
    def encoded_scores(self) -> pa.Table:
        return super().encoded_scores if "scores" in vars(self) else _told_apart(self._raw, self._ambiguous)

    @functools.cached_property
    def history(self) -> pa.Table:
        return self._store.history()

    @functools.cached_property
    def planned(self) -> list[Planned]:
        return [
            dataclasses.replace(plan, tests=tuple(_label(test, self._ambiguous) for test in plan.tests))
            for plan in self._plans
        ]

    @functools.cached_property
    def _raw(self) -> pa.Table:
        return self._store.encoded_scores()

    @functools.cached_property
    def _raw_totals(self) -> pa.Table:
        return self._store.totals() if self._store.tables["scores"].list().newest else by_key(whole_sets(self._raw))

    @functools.cached_property
    def _plans(self) -> list[Planned]:
        return self._store.planned()

    @functools.cached_property
    def _ambiguous(self) -> set[str]:
        """Names of test sets that stand for more than one."""
        pairs = self._raw_totals.select(["dataset", "dataset_sha256"]).group_by(["dataset", "dataset_sha256"])
        there = {Dataset(*row.values()) for row in pairs.aggregate([]).to_pylist()}
        counts = Counter(test.name for test in there.union(*(plan.tests for plan in self._plans)))
        return {name for name, count in counts.items() if count > 1}


def load_results(path: str) -> Results:
    """Open the results of a sweep.

    Args:
        path: A store: a folder such as ``results/quick``, or a URI.

    Returns:
        The tables ``runs``, ``scores`` and ``history``, their join through ``to_arrow``, ``to_pandas`` and
        ``to_polars``, and answers to SQL through ``query``. A table is read when it is first asked for, and whoever
        asks has the `InputError` for a file that is damaged or of another version.

    Raises:
        InputError: If there is no store.
    """
    storage = Storage(path)
    if not storage.exists("runs") and not storage.exists("plans"):
        raise InputError(f"'{path}' holds no results: it has neither a folder 'runs' nor 'plans'.")
    return _Stored.of(Store(storage))


def labels_of(name: str, there: Iterable[str]) -> set[str]:
    """Return those labels of `Results` that a name stands for: itself, and all versions of it."""
    return {label for label in there if name in (label, label.partition("@")[0])}


def _told_apart(scores: pa.Table, ambiguous: set[str]) -> pa.Table:
    """Return scores with test sets whose names stand for more than one called after their hashes."""
    if not ambiguous:
        return scores
    at = scores.schema.get_field_index("dataset")
    names, hashes = (scores.column(name).cast(pa.string()) for name in ("dataset", "dataset_sha256"))
    versioned = pc.binary_join_element_wise(names, pc.utf8_slice_codeunits(hashes, 0, 8), "@")
    renamed = pc.if_else(pc.is_in(names, pa.array(sorted(ambiguous), pa.string())), versioned, names)
    return scores.set_column(at, SCORES.field("dataset"), renamed)


def _label(test: Dataset, ambiguous: set[str]) -> Dataset:
    return test._replace(name=test.versioned) if test.name in ambiguous else test


def _runs_told_apart(runs: pa.Table) -> pa.Table:
    """Return runs with what was not trained here, and shares its name with something else, called after its id."""
    rows = runs.select(["kind", "name", "run_id"]).to_pylist()
    counts = Counter(row["name"] for row in rows if row["kind"] != "train")
    names = [
        f"{row['name']}@{row['run_id'][:8]}" if row["kind"] != "train" and counts[row["name"]] > 1 else row["name"]
        for row in rows
    ]
    return runs.set_column(runs.schema.get_field_index("name"), RUNS.field("name"), pa.array(names, pa.string()))
