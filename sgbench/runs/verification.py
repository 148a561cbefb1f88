"""Checking a results store: every file by itself, and what its files say of each other."""

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.core.errors import InputError
from sgbench.core.status import ScoreStatus
from sgbench.spec import RunSpec
from sgbench.spec.stored import read_spec
from sgbench.store import Dataset, Store
from sgbench.store.files import Listing, TableFiles
from sgbench.store.layout import (
    RUN_ID,
    WEIGHTS,
    declarations,
    inits,
    kept_images,
    latest_step,
    sources,
    tunings,
    weights_of,
)
from sgbench.store.rows import RunEnd, RunKind, RunRow
from sgbench.store.schema import recipe_columns

UNCHECKED = "checkpoints, logs and the pixels of saved images"
"""What `verify` does not look at, in words."""

_ROUNDING = 1e-9
"""How much the mean of a set may differ from that of its images, relative to the largest of them."""


def verify(store: Store, checked: Counter[str] | None = None) -> Iterator[str]:
    """Check the rows of a store, and everything that belongs to them but `UNCHECKED`.

    What cannot be read is one fault; whatever does not depend on it is checked nevertheless.

    Args:
        store: The store.
        checked: Receives how many things were checked, by what they are called in the plural.

    Yields:
        One sentence for each fault.
    """
    return _Check(store, Counter() if checked is None else checked).faults()


class _Check:
    """One look at a store.

    Args:
        store: The store.
        checked: Counts what was checked.
    """

    def __init__(self, store: Store, checked: Counter[str]) -> None:
        self._store, self._storage, self._checked = store, store.storage, checked
        self._tables: dict[str, pa.Table] = {}
        self._unread: dict[str, set[str]] = {}
        self._rows: dict[str, RunRow] = {}

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each fault."""
        for table, files in self._store.tables.items():
            yield from self._file_faults(table, files)
        self._rows = {row["run_id"]: row for row in self._tables["runs"].to_pylist()}
        yield from self._run_faults()
        yield from self._owner_faults()
        yield from self._score_faults()
        yield from self._history_faults()
        yield from self._validation_faults()
        yield from self._weights_faults()
        yield from self._init_faults()
        yield from self._source_faults()
        yield from self._image_faults()
        yield from self._declaration_faults()
        yield from self._tuning_faults()
        yield from self._other_faults()

    def _file_faults(self, table: str, files: TableFiles) -> Iterator[str]:
        """Check each file by itself, and keep the rows of the good ones."""
        listing, parts = files.list(), dict[str, pa.Table]()
        for stem in listing.strays:
            path = self._storage.address(files.name(stem))
            yield f"'{path}' is ignored, as no store has files of such names; delete it if it is a copy."
        for stem in (*listing.small, *listing.compacted):
            path = self._storage.address(files.name(stem))
            if stem in listing.compacted[:-1]:
                yield f"'{path}' is left over from a killed compaction; 'sgbench results compact' deletes it."
                continue
            try:
                part = files.part(stem)
            except (InputError, OSError) as error:
                yield _sentence(error)
                continue
            if part is None:  # another process has just replaced it
                listing = Listing(tuple(other for other in listing.small if other != stem), listing.compacted)
                continue
            strange = [other for other in files.stems(part).unique().to_pylist() if other != stem]
            if strange and stem in listing.small:
                yield f"'{path}' has rows of '{strange[0]}'."
            else:
                parts[stem] = part
        self._unread[table] = set(listing.counting) - parts.keys()
        self._tables[table] = files.joined(listing, parts).unify_dictionaries()
        self._checked["files of rows"] += len(parts)

    def _run_faults(self) -> Iterator[str]:
        """Check that runs have what their specification says."""
        self._checked["runs"] += len(self._rows)
        for run_id, row in self._rows.items():
            if row["kind"] != RunKind.TRAIN:
                continue
            try:
                spec = read_spec(row["spec"], f"run {run_id}")
            except InputError as error:
                yield str(error)
                continue
            if spec.run_id != run_id:
                yield f"run {run_id} has the specification of run {spec.run_id}."
            ended: RunRow = {"step": spec.recipe.steps} if row["status"] == RunEnd.DONE else {}
            for column, value in (_described(spec) | ended).items():
                if row.get(column) != value:
                    yield f"run {run_id} has {row.get(column)!r} as its {column}, but its specification says {value!r}."

    def _owner_faults(self) -> Iterator[str]:
        """Check that everything belongs to a run that has a row."""
        weights = (re.fullmatch(rf"{WEIGHTS}/({RUN_ID})\.pt", name) for name in self._storage.sizes(WEIGHTS))
        owners = {
            "scores": _unique(self._tables["scores"], "run_id"),
            "a training curve": _unique(self._tables["history"], "run_id"),
            "scores of validation": _unique(self._tables["validation"], "run_id"),
            "final weights": [match[1] for match in weights if match],
            "saved images": [run_id for run_id, _, _ in kept_images(self._storage)],
        }
        lacking: defaultdict[str, list[str]] = defaultdict(list)
        for what, run_ids in owners.items():
            for run_id in dict.fromkeys(run_ids):
                if run_id not in self._rows and not self._may_have(run_id):
                    lacking[run_id].append(what)
        for run_id, found in lacking.items():
            yield (
                f"run {run_id} has {' and '.join(found)} but no row in 'runs'; repeat the command that was "
                f"interrupted, or delete the run with 'sgbench results rm {run_id}'."
            )

    def _may_have(self, run_id: str) -> bool:
        """Return whether a run without a row is in progress, or its row is in a file that cannot be read."""
        unread = self._unread["runs"]
        return run_id in unread or not all(map(_is_run_id, unread)) or latest_step(self._storage, run_id) > 0

    def _score_faults(self) -> Iterator[str]:
        """Check scores of sets against those of their images, and sets against their hashes."""
        scores = self._tables["scores"]
        of_set = pc.is_null(scores.column("image"))
        keys = ["run_id", "dataset", "dataset_sha256", "metric"]
        values = [("value", "count"), ("value", "mean"), ("value", "min"), ("value", "max"), ([], "count_all")]
        groups = scores.filter(pc.invert(of_set)).group_by(keys).aggregate(values).to_pylist()
        images = {tuple(group[key] for key in keys): group for group in groups}
        sizes: dict[tuple[str, str], tuple[int, str]] = {}
        for row in scores.filter(of_set).select([*keys, "n_images", "value", "status"]).to_pylist():
            who = f"run {row['run_id']}: {row['metric']} on {Dataset(row['dataset'], row['dataset_sha256']).versioned}"
            size, other = sizes.setdefault((row["dataset"], row["dataset_sha256"]), (row["n_images"], row["run_id"]))
            if row["n_images"] != size:
                yield f"{who} is of {row['n_images']} images, but of {size} in the scores of run {other}."
            if (row["value"] is None) is (row["status"] == ScoreStatus.OK):
                yield f"{who} is '{row['status']}' and has {'no' if row['value'] is None else 'a'} value."
            if (group := images.pop(tuple(row[key] for key in keys), None)) is not None:
                yield from (f"{who} {fault}." for fault in _set_faults(row, group))
        for run_id, dataset, sha256, metric in images:
            yield f"run {run_id}: {metric} on {Dataset(dataset, sha256).versioned} has images but no score of the set."
        self._checked["scores of sets"] += pc.sum(of_set).as_py() or 0
        self._checked["scores of images"] += pc.sum(pc.invert(of_set)).as_py() or 0

    def _history_faults(self) -> Iterator[str]:
        """Check that training curves end where their runs do."""
        history = self._tables["history"]
        last = {
            row["run_id"]: row["step_max"]
            for row in history.group_by("run_id").aggregate([("step", "max")]).to_pylist()
        }
        for run_id, row in self._rows.items():
            if row["kind"] != RunKind.TRAIN or row["status"] != RunEnd.DONE:
                continue
            if run_id in last and last[run_id] != row["step"]:
                yield f"run {run_id} has {row['step']} steps, but its training curve ends at {last[run_id]}."
            elif run_id not in last and not self._unread["history"]:
                yield f"run {run_id} is done, but has no training curve in 'history'."
        self._checked["points of training curves"] += history.num_rows

    def _validation_faults(self) -> Iterator[str]:
        """Check that scores of validation are of steps that were done, and have a value if they are ok."""
        for row in self._tables["validation"].drop_columns(["protocol"]).to_pylist():
            place = f"{row['metric']} on {Dataset(row['dataset'], row['dataset_sha256']).versioned}"
            who = f"run {row['run_id']}: the validation by {place} at step {row['step']}"
            run = self._rows.get(row["run_id"])
            if run and run["status"] == RunEnd.DONE and row["step"] > (run["step"] or 0):
                yield f"{who} is after the last of its {run['step']} steps."
            if (row["value"] is None) is (row["status"] == ScoreStatus.OK):
                yield f"{who} is '{row['status']}' and has {'no' if row['value'] is None else 'a'} value."
        self._checked["scores of validation"] += self._tables["validation"].num_rows

    def _weights_faults(self) -> Iterator[str]:
        """Check that the final weights of finished runs can be read and are theirs."""
        there = self._storage.sizes(WEIGHTS)
        done = [run_id for run_id, row in self._rows.items() if row["status"] == RunEnd.DONE]
        found = [run_id for run_id in done if weights_of(run_id) in there]
        if found:
            from sgbench.training import read_weights_file  # loads torch, which only stores with weights need
        for run_id in found:
            try:
                _, fields = read_weights_file(weights_of(run_id), self._storage)
                made = read_spec(fields or {}, f"'{weights_of(run_id)}'").run_id
            except InputError as error:
                yield str(error)
            else:
                if made != run_id:
                    yield f"the weights of run {run_id} belong to run {made}."
        self._checked["final weights"] += len(found)

    def _init_faults(self) -> Iterator[str]:
        """Check that the weights with which runs start are those of their hash."""
        found = inits(self._storage)
        if found:
            from sgbench.training import read_init  # loads torch
        for sha256 in found:
            try:
                read_init(self._storage, sha256)
            except InputError as error:
                yield str(error)
        self._checked["initial weights"] += len(found)

    def _source_faults(self) -> Iterator[str]:
        """Check that the code of plug-ins is that of its hash."""
        found = sources(self._storage)
        for digest in found:
            try:
                self._store.read_source(digest)
            except InputError as error:
                yield str(error)
        self._checked["sources of plug-ins"] += len(found)

    def _image_faults(self) -> Iterator[str]:
        """Check that saved images are of test sets, and images of them, that their runs were scored on."""
        scores = self._tables["scores"].select(["run_id", "dataset", "dataset_sha256", "image"])
        scored: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        saved: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for run_id, dataset, image in kept_images(self._storage):
            saved[run_id, dataset].append(image)
        savers = pa.array({run_id for run_id, _ in saved}, pa.string())
        of_savers = pc.is_in(scores.column("run_id").cast(pa.string()), savers)
        for row in scores.filter(of_savers).group_by(scores.column_names).aggregate([]).to_pylist():
            scored[row["run_id"], Dataset(row["dataset"], row["dataset_sha256"]).versioned].add(row["image"])
        for (run_id, dataset), images in saved.items():
            names = scored.get((run_id, dataset), set())
            unread = any(stem.startswith(f"{run_id}-") or not _is_small(stem) for stem in self._unread["scores"])
            if run_id not in self._rows or unread:
                continue
            if not names:
                yield f"run {run_id} has saved images of {dataset}, but no score on it."
            elif (strange := sorted({*images} - names)) and names != {None}:
                yield f"run {run_id} has a saved image {strange[0]!r} of {dataset}, but no score of it."
        self._checked["saved images"] += sum(map(len, saved.values()))

    def _declaration_faults(self) -> Iterator[str]:
        """Check that what was declared is what its digest says."""
        found = declarations(self._storage)
        for digest in found:
            try:
                self._store.read_declaration(digest)
            except InputError as error:
                yield str(error)
        self._checked["declarations"] += len(found)

    def _tuning_faults(self) -> Iterator[str]:
        """Check that searches are as they were fixed, and that trials are the runs that they name.

        The value of a trial is what was measured then; if its run has been trained again since, it may have another.
        """
        found = tunings(self._storage)
        for name in found:
            try:
                tuning = self._store.read_tuning(name)
            except InputError as error:
                yield str(error)
                continue
            for trial in tuning.trials:
                backbone = tuning.search.candidates[trial.candidate].backbone
                told: RunRow = {"backbone": backbone, "loss": trial.loss, "seed": trial.seed}
                row = self._rows.get(trial.run_id) or told
                for column, value in told.items():
                    if row.get(column) != value:
                        has = f"run {trial.run_id}, a trial of '{name}', has {row.get(column)!r} as its {column}"
                        yield f"{has}, but the search says {value!r}."
        self._checked["tunings"] += len(found)

    def _other_faults(self) -> Iterator[str]:
        """Check plans, labels, and the record of what is being replaced."""
        files = self._store.plan_files()
        reads: list[Callable[[], object]] = [functools.partial(self._store.read_plan, file) for file in files]
        for read in (*reads, self._store.replaced, self._store.labels):
            try:
                read()
            except (InputError, OSError) as error:
                yield _sentence(error)
        self._checked["plans"] += len(files)


def _set_faults(row: dict[str, Any], images: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the score of a set, given those of its images: the end of a sentence."""
    count, valid, mean = images["count_all"], images["value_count"], images["value_mean"]
    if row["n_images"] != count:
        yield f"is of {row['n_images']} images, but has {count}"
    if (row["value"] is None) is not (valid < count):
        yield f"has {'no' if row['value'] is None else 'a'} value, but {valid} of its {count} images have one"
    elif row["value"] is not None:
        largest = max(abs(images["value_min"]), abs(images["value_max"]))
        if not math.isclose(row["value"], mean, rel_tol=0, abs_tol=_ROUNDING * largest):
            yield f"is {row['value']:.6g}, but the mean of its images is {mean:.6g}"


def _described(spec: RunSpec) -> RunRow:
    """Return the columns of a run that follow from its specification."""
    own: RunRow = {
        "backbone": spec.backbone,
        "loss": str(spec.loss),
        "lambda": spec.lam,
        "varied": spec.varied,
        "seed": spec.seed,
        "train_sha256": spec.train.sha256,
    }
    return own | recipe_columns(spec.recipe)


def _unique(table: pa.Table, column: str) -> Iterable[str]:
    names: list[str] = table.column(column).cast(pa.string()).unique().to_pylist()
    return names


def _is_run_id(stem: str) -> bool:
    return re.fullmatch(RUN_ID, stem) is not None


def _is_small(stem: str) -> bool:
    return re.match(f"{RUN_ID}-", stem) is not None


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."
