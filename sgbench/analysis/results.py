"""The contents of a store, for programs: unambiguous names, and tables that are read on first use."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.store import (
    HISTORY,
    RUNS,
    SCORES,
    VALIDATION,
    Dataset,
    Declaration,
    Planned,
    Store,
    Tuning,
    by_key,
    whole_sets,
)
from sgbench.store.layout import SIGNS
from sgbench.store.rows import RunEnd, RunKind


class Source:
    """Tables as they are stored, each read once, on first use.

    Args:
        name: A name for people.
        runs: Reads `sgbench.store.schema.RUNS`.
        scores: Reads `sgbench.store.schema.SCORES`, in any order.
        history: Reads `sgbench.store.schema.HISTORY`.
        validation: Reads `sgbench.store.schema.VALIDATION`.
        planned: Reads the runs that sweeps asked for.
        totals: Reads the scores of whole sets, if that is less work than reading all scores.
        labels: Reads what tables call losses, by their text.
        declarations: Reads what sweeps declared before the first look.
        tunings: Reads the searches for the settings of losses, by name.
    """

    def __init__(
        self,
        name: str,
        runs: Callable[[], pa.Table],
        scores: Callable[[], pa.Table],
        history: Callable[[], pa.Table],
        validation: Callable[[], pa.Table],
        planned: Callable[[], Sequence[Planned]],
        totals: Callable[[], pa.Table] | None = None,
        labels: Callable[[], Mapping[str, str]] = dict,
        declarations: Callable[[], Sequence[Declaration]] = tuple,
        tunings: Callable[[], Mapping[str, Tuning]] = dict,
    ) -> None:
        self.name = name
        self._runs, self._scores, self._history, self._validation = runs, scores, history, validation
        self._planned, self._totals, self._labels, self._declarations = planned, totals, labels, declarations
        self._tunings = tunings

    @functools.cached_property
    def runs(self) -> pa.Table:
        """Runs that are done or have failed."""
        return self._runs()

    @functools.cached_property
    def scores(self) -> pa.Table:
        """All scores, in any order."""
        return self._scores()

    @functools.cached_property
    def totals(self) -> pa.Table:
        """The scores of whole sets, sorted."""
        apart = self._totals if "scores" not in vars(self) else None
        return apart() if apart else by_key(whole_sets(self.scores))

    @functools.cached_property
    def history(self) -> pa.Table:
        """The training curves."""
        return self._history()

    @functools.cached_property
    def validation(self) -> pa.Table:
        """The scores of validation."""
        return self._validation()

    @functools.cached_property
    def planned(self) -> list[Planned]:
        """The runs that sweeps asked for."""
        return list(self._planned())

    @functools.cached_property
    def labels(self) -> Mapping[str, str]:
        """What tables call losses, by their text."""
        return self._labels()

    @functools.cached_property
    def declarations(self) -> list[Declaration]:
        """What sweeps declared before the first look, in the order of time."""
        return sorted(self._declarations(), key=lambda each: (each.declared, each.digest))

    @functools.cached_property
    def tunings(self) -> Mapping[str, Tuning]:
        """The searches for the settings of losses, by name, in the order of time."""
        return self._tunings()


class Results:
    """The contents of a store, for programs; see `load_results`.

    Names are unambiguous: if a store has two test sets called Set5 with different pixels, ``dataset`` is
    ``Set5@1a2b3c4d``, with the beginning of the hash. The ``name`` of checkpoints gets the beginning of their id.

    Args:
        source: The tables.
        beside: Other sources shown with this one, so that names are unambiguous across all of them.
    """

    def __init__(self, source: Source, beside: Sequence[Source] = ()) -> None:
        self.source = source
        self.beside = tuple(beside) or (source,)

    @classmethod
    def of(
        cls,
        runs: pa.Table,
        scores: pa.Table,
        history: pa.Table | None = None,
        planned: Sequence[Planned] = (),
        validation: pa.Table | None = None,
        labels: Mapping[str, str] | None = None,
        declarations: Sequence[Declaration] = (),
        tunings: Mapping[str, Tuning] | None = None,
    ) -> "Results":
        """Return results from tables of the schemas of `sgbench.store.schema`."""
        course = HISTORY.empty_table() if history is None else history
        validated = VALIDATION.empty_table() if validation is None else validation
        return cls(
            Source(
                "tables in memory",
                lambda: runs,
                lambda: scores,
                lambda: course,
                lambda: validated,
                lambda: planned,
                labels=lambda: labels or {},
                declarations=lambda: declarations,
                tunings=lambda: tunings or {},
            )
        )

    def __repr__(self) -> str:
        return f"<Results of {self.source.name}>"

    @functools.cached_property
    def runs(self) -> pa.Table:
        """One row per run that is done or has failed: `sgbench.store.schema.RUNS`."""
        others = {other for source in self.beside for other in _others(source.runs)}
        return _runs_with_labels(self.source.runs, _repeated(name for name, _ in others))

    @functools.cached_property
    def scores(self) -> pa.Table:
        """One row per score: `sgbench.store.schema.SCORES`."""
        return by_key(self.encoded_scores)

    @functools.cached_property
    def encoded_scores(self) -> pa.Table:
        """`scores` in any order; from a store, text is dictionary-encoded, which takes a fifth of the memory."""
        return _scores_with_labels(self.source.scores, self._labels)

    @functools.cached_property
    def totals(self) -> pa.Table:
        """The scores of whole test sets; from a compacted store, they are read without the scores of images."""
        return _scores_with_labels(self.source.totals, self._labels)

    @functools.cached_property
    def history(self) -> pa.Table:
        """The training curves: `sgbench.store.schema.HISTORY`."""
        return self.source.history

    @functools.cached_property
    def validation(self) -> pa.Table:
        """The scores of networks on validation sets while they were trained: `sgbench.store.schema.VALIDATION`."""
        return self.source.validation

    @functools.cached_property
    def planned(self) -> list[Planned]:
        """The runs that sweeps on the store asked for."""
        return [
            dataclasses.replace(plan, tests=tuple(_label(test, self._ambiguous) for test in plan.tests))
            for plan in self.source.planned
        ]

    @property
    def labels(self) -> Mapping[str, str]:
        """What tables call losses, by their text, as far as sweeps have given them a label."""
        return self.source.labels

    @property
    def declarations(self) -> Sequence[Declaration]:
        """What sweeps on the store declared before the first look, in the order of time."""
        return self.source.declarations

    @property
    def tunings(self) -> Mapping[str, Tuning]:
        """The searches for the settings of losses, by name, in the order of time."""
        return self.source.tunings

    @functools.cached_property
    def _ambiguous(self) -> frozenset[str]:
        """Names that test sets with different pixels share."""
        return _repeated(test.name for test in {test for source in self.beside for test in _tests(source)})

    @functools.cached_property
    def _labels(self) -> dict[Dataset, str]:
        return {test: _label(test, self._ambiguous).name for test in _scored_sets(self.source)}

    @functools.cached_property
    def hashes(self) -> Mapping[str, str]:
        """The hash of the pixels of each scored test set, by its name."""
        return {name: test.sha256 for test, name in self._labels.items()}

    @property
    def failed(self) -> dict[str, str]:
        """Why runs failed, by their ids."""
        rows = self.runs.filter(pc.equal(self.runs.column("status"), RunEnd.FAILED)).select(["run_id", "error"])
        return {row["run_id"]: row["error"] for row in rows.to_pylist()}

    def of_runs(self, run_ids: Iterable[str]) -> "Results":
        """Return the results of some runs, by their ids."""
        ids, source = set(run_ids), self.source

        def of_them(read: Callable[[], pa.Table]) -> Callable[[], pa.Table]:
            wanted = pa.array(sorted(ids), pa.string())
            return lambda: (table := read()).filter(pc.is_in(table.column("run_id").cast(pa.string()), wanted))

        some = Source(
            f"{len(ids)} runs of {source.name}",
            of_them(lambda: source.runs),
            of_them(lambda: source.scores),
            of_them(lambda: source.history),
            of_them(lambda: source.validation),
            lambda: [run for run in source.planned if run.run_id in ids],
            of_them(lambda: source.totals),
            lambda: source.labels,
            lambda: source.declarations,
            lambda: source.tunings,
        )
        return Results(some, self.beside)

    def query(self, sql: str, *, timeout: float | None = None) -> pa.Table:
        """Answer an SQL query, in at most ``timeout`` seconds if that is given; see `sgbench.analysis.query.query`."""
        from sgbench.analysis.query import LABELS, query
        from sgbench.analysis.tunings import trials_table

        tables = {
            "runs": lambda: self.runs,
            "scores": lambda: self.encoded_scores,
            "history": lambda: self.history,
            "validation": lambda: self.validation,
            "labels": lambda: pa.table([[*self.labels], [*self.labels.values()]], schema=LABELS),
            "trials": lambda: trials_table(self.tunings),
        }
        return query(tables, sql, timeout=timeout)

    def to_arrow(self) -> pa.Table:
        """Return one table: each score with the columns of its run."""
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
            ImportError: If polars is not installed; ``pip install sgbench[polars]`` installs it.
        """
        import polars

        return polars.from_arrow(self.to_arrow())


def load_results(path: str) -> Results:
    """Open the results of a sweep.

    Args:
        path: A store: a folder such as ``results/quick``, or a URI.

    Returns:
        The tables ``runs``, ``scores``, ``history`` and ``validation``, the join of the first two by ``to_arrow``,
        ``to_pandas`` and ``to_polars``, and SQL queries by ``query``. A table is read on first use; that is when a file
        that is damaged or of another version raises an `InputError`.

    Raises:
        InputError: If there is no store.
    """
    storage = Storage(path)
    if not any(map(storage.exists, SIGNS)):
        raise InputError(f"'{path}' holds no results: it has no folder 'runs' or 'plans'.")
    store = Store(storage)
    compacted = store.tables["scores"].list().newest
    totals = store.totals if compacted else None  # small files have both kinds and are read only once
    tables = (store.runs, store.encoded_scores, store.history, store.validation)
    return Results(Source(path, *tables, store.planned, totals, store.labels, store.declarations, store.tunings))


def _tests(source: Source) -> set[Dataset]:
    planned = {test for plan in source.planned for test in plan.tests}
    return {_plain(test) for test in {*_scored_sets(source), *planned}}


def _scored_sets(source: Source) -> list[Dataset]:
    pairs = source.totals.group_by(["dataset", "dataset_sha256"]).aggregate([]).to_pylist()
    return [Dataset(row["dataset"], row["dataset_sha256"]) for row in pairs]


def _others(runs: pa.Table) -> set[tuple[str, str]]:
    """Return names and ids of rows that are not trained runs."""
    rows = runs.filter(pc.not_equal(runs["kind"], RunKind.TRAIN)).select(["name", "run_id"]).to_pylist()
    return {(_without(row["name"], row["run_id"]), row["run_id"]) for row in rows}


def _repeated(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name, count in Counter(names).items() if count > 1)


def _plain(test: Dataset) -> Dataset:
    return test._replace(name=_without(test.name, test.sha256))


def _without(name: str, digest: str) -> str:
    """Return a name without the digits that make it unambiguous."""
    return name.removesuffix(f"@{digest[:8]}")


def _label(test: Dataset, ambiguous: frozenset[str]) -> Dataset:
    plain = _plain(test)
    return test._replace(name=plain.versioned if plain.name in ambiguous else plain.name)


def _scores_with_labels(scores: pa.Table, labels: Mapping[Dataset, str]) -> pa.Table:
    """Return scores with the label of each test set."""
    if all(test.name == label for test, label in labels.items()):
        return scores
    names, hashes = (scores[column].cast(pa.string()) for column in ("dataset", "dataset_sha256"))
    keys = pa.array(["\n".join(test) for test in labels], pa.string())
    at = pc.index_in(pc.binary_join_element_wise(names, hashes, "\n"), keys)
    labelled = pa.array(list(labels.values()), pa.string()).take(at.combine_chunks())
    return scores.set_column(scores.schema.get_field_index("dataset"), SCORES.field("dataset"), labelled)


def _runs_with_labels(runs: pa.Table, ambiguous: frozenset[str]) -> pa.Table:
    """Return runs in which a name shared by several untrained subjects is followed by the beginning of their ids."""
    labels = {run_id: f"{name}@{run_id[:8]}" if name in ambiguous else name for name, run_id in _others(runs)}
    if not labels:
        return runs
    names = [labels.get(*each) for each in zip(runs["run_id"].to_pylist(), runs["name"].to_pylist(), strict=True)]
    return runs.set_column(runs.schema.get_field_index("name"), RUNS.field("name"), pa.array(names, pa.string()))
