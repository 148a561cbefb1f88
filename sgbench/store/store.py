"""A results store: what sweeps write and readers read; `sgbench.store.files` handles the files."""

import contextlib
import dataclasses
import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.core.errors import InputError, MissingDataError
from sgbench.core.sources import DIGITS, Source
from sgbench.core.storage import PART, PART_IN_WORDS, Storage
from sgbench.core.words import quoted
from sgbench.spec.expression import is_label
from sgbench.spec.text import read_json, read_time
from sgbench.store.declarations import Declaration
from sgbench.store.files import TableFiles
from sgbench.store.layout import (
    FOLDERS,
    LABELS,
    MARK,
    PLANS,
    REPLACED,
    declaration_of,
    declarations,
    plan_of,
    runs_beside,
    source_of,
    tuning_of,
    tunings,
)
from sgbench.store.rows import HistoryRow, RunRow, ScoreRow, ValidationRow
from sgbench.store.schema import HISTORY, RUNS, SCORES, TABLES, VALIDATION, check_names
from sgbench.store.tunings import Tuning

FORMAT = 1
"""Format of a store, recorded in its mark. Raised when older versions of sgbench must no longer write to it."""


class Dataset(NamedTuple):
    """A test set: its name, and the hash of its content."""

    name: str
    sha256: str
    """Hash of the packed pixels."""

    @property
    def versioned(self) -> str:
        """The name with the beginning of the hash, which distinguishes it from others of that name."""
        return f"{self.name}@{self.sha256[:8]}"


@dataclass(frozen=True)
class Planned:
    """A run that a sweep on this store asked for, whether or not it has a row yet."""

    run: RunRow
    """Its columns of `sgbench.store.schema.identity_columns`."""
    tests: tuple[Dataset, ...]
    """The test sets to score it on."""
    metrics: tuple[str, ...]
    planned: datetime.datetime | None = None
    """When it was first asked for in this store; None = not known, in a plan that older versions wrote."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Planned":
        """Read what `to_data` returns, after JSON.

        Raises:
            ValueError: If it is something else; also a KeyError or TypeError.
        """
        tests, metrics = tuple(Dataset(*test) for test in fields["tests"]), tuple(fields["metrics"])
        planned = fields.get("planned")
        return cls(fields["run"], tests, metrics, None if planned is None else read_time(planned))

    def to_data(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**dataclasses.asdict(self), "planned": self.planned and self.planned.isoformat()}

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.run["run_id"]


class Replaced(NamedTuple):
    """The old results of a run that is retrained, which stay until the new training is complete."""

    row: str | None
    """When its old row was written, which distinguishes it from the new one; None if it has none."""
    rerun: bool
    """Whether the training started from scratch although the run was done, as with ``--rerun``."""
    scores: tuple[tuple[str, str, str], ...] = ()
    """Its scores with a value, which must be recomputed: name and hash of the test set, and metric."""

    @classmethod
    def of(cls, fields: Sequence[Any]) -> "Replaced":
        """Parse its JSON form."""
        row, rerun, scores = fields
        return cls(row, rerun, tuple((name, sha256, metric) for name, sha256, metric in scores))


def relabelled(labels: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of losses, by their text, with newer ones; no two losses have one label.

    Args:
        labels: As they are.
        new: Newer ones. One that another loss had is that one's no longer; the text of the loss itself is no label.
    """
    kept = {loss: label for loss, label in labels.items() if label not in new.values()} | dict(new)
    return {loss: label for loss, label in sorted(kept.items()) if label != loss}


def earliest(times: Iterable[datetime.datetime | None]) -> datetime.datetime | None:
    """Return the earliest of the times at which a run was asked for; None, which is not known, is before all others."""
    known = [*times]
    return None if None in known else min(time for time in known if time)


def now() -> datetime.datetime:
    """Return the time, in milliseconds like all times of a store."""
    time = datetime.datetime.now(datetime.UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def stamp(row: RunRow | None) -> str | None:
    """Return when the row of a run was written, as `Replaced` has it."""
    return str(row["finished"]) if row else None


class Store:
    """The rows of one or more sweeps, in a local folder or at a URI.

    Writing is idempotent: rows written again replace themselves.

    Args:
        storage: Where the tables are.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.tables = {table: TableFiles(storage, table) for table in TABLES}

    @contextlib.contextmanager
    def writing(self, purpose: str, *, brief: bool = False) -> Iterator[None]:
        """Hold the exclusive right to change the store, and mark the folder as a store.

        Args:
            purpose: The command, such as ``"sgbench sweep quick"``, which refused processes are told.
            brief: See `sgbench.core.storage.Storage.lock`.

        Raises:
            InputError: If another process holds it, or as in `refuse_other_folders`; then nothing is changed.
        """
        with self._marked(self.storage.lock(purpose, brief=brief)):
            yield

    @contextlib.contextmanager
    def writing_runs(self, purpose: str) -> Iterator[None]:
        """Hold the right to change some runs of the store side by side with others; see `Storage.register`.

        The runs are booked with `Storage.book`. What is of more than one run, `REPLACED`, is only changed within
        `Storage.alone`; a plan is replaced as a whole.

        Args:
            purpose: As of `writing`, such as ``"shard 1/8 of paper"``.

        Raises:
            InputError: As in `writing`.
        """
        with self._marked(self.storage.register(purpose)):
            yield

    @contextlib.contextmanager
    def _marked(self, lock: AbstractContextManager[None]) -> Iterator[None]:
        self.refuse_other_folders()
        with lock:
            if not self.storage.exists(MARK):
                self.storage.write(MARK, json.dumps({"format": FORMAT}).encode())
            yield

    def refuse_other_folders(self) -> None:
        """Protect folders that are not stores from being written to or cleaned.

        A folder without the mark counts as a store if it has what only a store has. A folder without any of a store's
        subfolders may hold anything else, such as a README, which is left alone.

        Raises:
            InputError: If it has such a subfolder but nothing else of a store, or the store has a newer format.
        """
        if (found := self._format()) is None:
            there = [folder for folder in FOLDERS if self.storage.exists(folder)]
            if there and self._format() is None and not self._has_content():  # others may have made it meanwhile
                raise InputError(
                    f"'{self.storage}' is no results store and has a folder '{there[0]}' already; give --results a "
                    "folder that is new or empty."
                )
        elif found != FORMAT:
            raise InputError(f"'{self.storage}' is a store of format {found}; this sgbench writes {FORMAT}.")

    def _format(self) -> Any:
        """Return the format in the mark; None if there is no mark."""
        try:
            return read_json(self.storage.read(MARK))["format"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"'{self.storage.address(MARK)}' is not the mark of a results store: {error!r}."
            ) from error

    def _has_content(self) -> bool:
        """Return whether the folder has anything that only a store has."""
        for table in self.tables.values():
            for stem in table.list().counting:
                with contextlib.suppress(InputError):
                    if table.part(stem) is not None:
                        return True
        for file in self.plan_files():
            with contextlib.suppress(InputError):
                if self.read_plan(file):
                    return True
        return bool(runs_beside(self.storage))

    def write_run(self, row: RunRow) -> None:
        """Write the row of one run, replacing the previous one."""
        self.tables["runs"].write(row["run_id"], [row])

    def write_scores(self, rows: Iterable[ScoreRow]) -> None:
        """Write scores; those of one run, test set and metric replace all previous ones."""
        groups: dict[str, list[ScoreRow]] = {}
        for row in rows:
            dataset = Dataset(row["dataset"], row["dataset_sha256"]).versioned
            groups.setdefault(f"{row['run_id']}-{dataset}-{row['metric'].replace(':', '.')}", []).append(row)
        for stem, group in groups.items():
            self.tables["scores"].write(stem, group)

    def write_history(self, rows: Sequence[HistoryRow]) -> None:
        """Write the whole history of one run; no rows write nothing."""
        if rows:
            self.tables["history"].write(rows[0]["run_id"], rows)

    def write_validation(self, rows: Sequence[ValidationRow]) -> None:
        """Write all scores of the validation of one run; no rows write nothing."""
        if rows:
            self.tables["validation"].write(rows[0]["run_id"], rows)

    def forget(self, run_id: str) -> None:
        """Delete all rows of a run, which are about to be replaced, its row in ``runs`` first."""
        for table in TABLES:
            self.tables[table].forget(run_id)

    def write_plan(self, name: str, planned: list[Planned]) -> None:
        """Write the plan of a sweep, replacing the previous plan of that name.

        Raises:
            InputError: If the name is not valid for a file.
        """
        _check_plan_name(name)
        self.storage.write(plan_of(name), json.dumps([run.to_data() for run in planned], indent=1).encode())

    def ask(self, name: str, planned: Iterable[Planned]) -> None:
        """Write the plan of a sweep; what was asked for before keeps the time of that, and the rest is asked for now.

        Raises:
            InputError: As in `write_plan`.
        """
        with self.storage.alone():
            before, time = self.asked(), now()
            self.write_plan(name, [replace(each, planned=before.get(each.run_id, time)) for each in planned])

    def asked(self) -> dict[str, datetime.datetime | None]:
        """Return when each run was first asked for, by id: as its row says or, without a row, as plans say."""
        plans: dict[str, list[datetime.datetime | None]] = {}
        for each in self.planned():
            plans.setdefault(each.run_id, []).append(each.planned)
        rows = self.tables["runs"].read().select(["run_id", "planned"]).to_pylist()
        return {run: earliest(times) for run, times in plans.items()} | {row["run_id"]: row["planned"] for row in rows}

    def planned(self) -> list[Planned]:
        """Return the runs that all sweeps on this store asked for; a run in two sweeps appears twice."""
        return [planned for plan in self.plans().values() for planned in plan]

    def plans(self) -> dict[str, list[Planned]]:
        """Return the plan of each sweep on this store, by name."""
        return {_plan_name(file): self.read_plan(file) for file in self.plan_files()}

    def plan_files(self) -> list[str]:
        """Return the names of the files of `plans`."""
        return self.storage.list(PLANS, ".json")

    def read_plan(self, file: str) -> list[Planned]:
        """Return what one of `plan_files` asks for.

        Raises:
            InputError: If it is damaged.
        """
        _check_plan_name(_plan_name(file))
        try:
            rows = read_json(self.storage.read(file))
            if not isinstance(rows, list):
                raise TypeError("a list of runs is needed")
            plan = [Planned.of(row) for row in rows]
            tests = {test for planned in plan for test in planned.tests}
            _check_names(
                run_id={planned.run["run_id"] for planned in plan},
                dataset={test.name for test in tests},
                dataset_sha256={test.sha256 for test in tests},
                metric={metric for planned in plan for metric in planned.metrics},
            )
            return plan
        except (ValueError, KeyError, TypeError) as error:
            why = error if isinstance(error, ValueError) else repr(error)
            raise InputError(f"'{self.storage.address(file)}' is not a plan of sgbench: {why}.") from error

    def write_source(self, source: Source) -> None:
        """Keep the code of a plug-in, unless the store has it."""
        if not self.storage.exists(name := source_of(source.digest)):
            self.storage.write(name, source.to_json().encode())

    def read_source(self, digest: str) -> Source:
        """Return the code of a plug-in by its hash.

        Raises:
            MissingDataError: If the store does not have it.
            InputError: If it is damaged, or other code.
        """
        if not re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", digest):
            raise InputError(f"the code of a plug-in has the hash {digest[:80]!r}; {DIGITS} of 0-9 and a-f are needed.")
        place = self.storage.address(name := source_of(digest))
        try:
            source = Source.from_json(read_json(self.storage.read(name)))
        except FileNotFoundError as error:
            raise MissingDataError(f"'{place}', the code of a plug-in, does not exist.") from error
        except ValueError as error:
            raise InputError(f"'{place}' cannot be read: {error}.") from error
        if source.digest != digest:
            raise InputError(f"'{place}' does not hold the code of that hash; delete it.")
        return source

    def labels(self) -> dict[str, str]:
        """Return what tables call losses, by their text, as far as sweeps have given them a label.

        Raises:
            InputError: If the file is damaged.
        """
        try:
            labels = read_json(self.storage.read(LABELS))
            if not isinstance(labels, dict):
                raise TypeError("an object is needed")
            for label in labels.values():
                if not is_label(label):
                    raise ValueError(f"{quoted(label)} is no label; printable text is needed")
            if len({*labels.values()}) < len(labels):
                raise ValueError("two losses have one label")
            return labels
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError) as error:
            raise InputError(f"'{self.storage.address(LABELS)}' cannot be read: {error}.") from error

    def write_labels(self, new: Mapping[str, str]) -> None:
        """Give losses labels, besides those that others have; see `relabelled`."""
        with self.storage.alone():
            before = self.labels()
            if (labels := relabelled(before, new)) != before:
                self.storage.write(LABELS, json.dumps(labels, indent=1, ensure_ascii=False).encode())

    def declare(self, declaration: Declaration) -> None:
        """Keep what is declared; if the store has it, what was declared first, when and by whom, stays."""
        name = declaration_of(digest := declaration.digest)
        if not self.storage.exists(name) or declaration.declared < self.read_declaration(digest).declared:
            self.storage.write(name, json.dumps(declaration.to_data(), indent=1).encode())

    def declarations(self) -> list[Declaration]:
        """Return what sweeps have declared before the first look at its results, in the order of time.

        Raises:
            InputError: If a file is damaged, or does not hold what its name says.
        """
        found = map(self.read_declaration, declarations(self.storage))
        return sorted(found, key=lambda each: (each.declared, each.digest))

    def read_declaration(self, digest: str) -> Declaration:
        """Return what a sweep has declared, by its digest.

        Raises:
            InputError: If the file is damaged, or does not hold what its name says.
        """
        name = declaration_of(digest)
        try:
            declaration = Declaration.of(read_json(self.storage.read(name)))
            if declaration.digest != digest:
                raise ValueError(f"it has been changed, and its digest is {declaration.digest} now")
            return declaration
        except (ValueError, KeyError, TypeError) as error:
            why = error if isinstance(error, ValueError) else repr(error)
            raise InputError(f"'{self.storage.address(name)}' is not what a sweep declared: {why}.") from error

    def write_tuning(self, name: str, tuning: Tuning) -> None:
        """Write a search for the settings of losses, replacing the previous state of that name.

        Raises:
            InputError: If the name is not valid for a file.
        """
        _check_plan_name(name)
        self.storage.write(tuning_of(name), json.dumps(tuning.to_data(), indent=1, ensure_ascii=False).encode())

    def tunings(self) -> dict[str, Tuning]:
        """Return the searches for the settings of losses, by name, in the order of time.

        Raises:
            InputError: If a file is damaged.
        """
        found = {name: self.read_tuning(name) for name in tunings(self.storage)}
        return dict(sorted(found.items(), key=lambda each: (each[1].begun, each[0])))

    def read_tuning(self, name: str) -> Tuning:
        """Return a search for the settings of losses, by its name.

        Raises:
            InputError: If the file is damaged.
        """
        file = tuning_of(name)
        try:
            tuning = Tuning.of(read_json(self.storage.read(file)))
            _check_names(
                run_id={trial.run_id for trial in tuning.trials},
                dataset={tuning.search.dataset},
                dataset_sha256={tuning.search.dataset_sha256},
                metric={tuning.search.metric},
            )
            return tuning
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = error if isinstance(error, ValueError) else repr(error)
            raise InputError(f"'{self.storage.address(file)}' is not a search of 'sgbench tune': {why}.") from error

    def replaced(self) -> dict[str, Replaced]:
        """Return what is being replaced, by run, including runs that are retrained but not yet scored.

        Raises:
            InputError: If the file that records it is damaged.
        """
        try:
            replaced = {run: Replaced.of(each) for run, each in read_json(self.storage.read(REPLACED)).items()}
            scores = {score for each in replaced.values() for score in each.scores}
            _check_names(
                run_id=replaced,
                dataset={name for name, _, _ in scores},
                dataset_sha256={sha256 for _, sha256, _ in scores},
                metric={metric for _, _, metric in scores},
            )
            return replaced
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"'{self.storage.address(REPLACED)}' cannot be read: {error}.") from error

    def write_replaced(self, replaced: dict[str, Replaced]) -> None:
        """Write what is being replaced; the caller has read it before within the same lock, or `Storage.alone`."""
        if replaced:
            self.storage.write(REPLACED, json.dumps(replaced, indent=1).encode())
        else:
            self.storage.delete(REPLACED)

    def run(self, run_id: str) -> RunRow | None:
        """Return the row of one run, or None."""
        rows = self.tables["runs"].part(run_id)
        if rows is None:
            runs = self.runs()
            rows = runs.filter(pc.equal(runs.column("run_id"), run_id))
        return next(iter(rows.to_pylist()), None)

    def rows(self) -> dict[str, RunRow]:
        """Return the rows of all runs, by id."""
        return {row["run_id"]: row for row in self.runs().to_pylist()}

    def runs(self) -> pa.Table:
        """Return the table `sgbench.store.schema.RUNS`, by run id."""
        return self.tables["runs"].read().cast(RUNS).sort_by("run_id")

    def scores(self) -> pa.Table:
        """Return the table `sgbench.store.schema.SCORES`."""
        return by_key(self.encoded_scores())

    def encoded_scores(self) -> pa.Table:
        """Return `scores` in any order, with dictionary-encoded text, which takes a fraction of the memory."""
        return self.tables["scores"].read()

    def totals(self) -> pa.Table:
        """Return the rows of `scores` for whole test sets; if compacted, those of images are not read."""
        return by_key(self.tables["scores"].read(totals=True))

    def history(self) -> pa.Table:
        """Return the table `sgbench.store.schema.HISTORY`, by run and step."""
        return self.tables["history"].read().cast(HISTORY).sort_by([("run_id", "ascending"), ("step", "ascending")])

    def validation(self) -> pa.Table:
        """Return the table `sgbench.store.schema.VALIDATION`, by run, step, set and metric."""
        keys = ("run_id", "step", "dataset", "metric")
        return self.tables["validation"].read().cast(VALIDATION).sort_by([(key, "ascending") for key in keys])

    def compact(self) -> dict[str, int]:
        """Merge the small files of each table into one large file, which is much faster to read.

        The caller holds the lock of the storage. If this is killed at any moment, the store has the same content as
        before, and the next call cleans up.

        Returns:
            The number of merged files, by table.
        """
        return {table: files.compact() for table, files in self.tables.items()}


def _check_names(**values: Iterable[str]) -> None:
    """Check names by their column; see `check_names`."""
    check_names({column: pa.chunked_array([list(names)], pa.string()) for column, names in values.items()})


def _plan_name(file: str) -> str:
    return file.removeprefix(f"{PLANS}/").removesuffix(".json")


def _check_plan_name(name: str) -> None:
    if not re.fullmatch(PART, name):
        raise InputError(f"a sweep is called {name[:80]!r}; {PART_IN_WORDS} is needed.")


def by_key(scores: pa.Table) -> pa.Table:
    """Return scores with plain text, sorted."""
    keys = ("run_id", "dataset", "metric", "image")
    return scores.cast(SCORES).sort_by([(key, "ascending") for key in keys])
