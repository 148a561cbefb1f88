"""Maintenance of a results store: merging another into it, checking it, deleting parts of it.

Callers of functions that write must hold the lock of that store. Each call may be killed at any moment, and the same
call completes it. In between, the store may lack results, but never shows wrong ones.
"""

import dataclasses
import datetime
import functools
import json
import re
import secrets
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.core.errors import InputError
from sgbench.core.status import ScoreStatus
from sgbench.core.storage import Storage
from sgbench.spec import RunSpec
from sgbench.spec.stored import read_spec
from sgbench.store import Planned, Store, stamp
from sgbench.store.files import TableFiles
from sgbench.store.layout import (
    CHECKPOINTS,
    RUN_ID,
    SCRATCH,
    checkpoints_of,
    discard,
    discard_scratch,
    has_weights,
    image_of,
    kept_images,
    latest_step,
    runs_beside,
    unfinished,
    weights_of,
)
from sgbench.store.rows import RunEnd, RunKind, RunRow
from sgbench.store.schema import recipe_columns

_KEYS = {
    "runs": ["run_id"],
    "history": ["run_id", "step"],
    "scores": ["run_id", "dataset", "dataset_sha256", "metric", "image"],
}
"""Columns that are unique for each row of a table."""


@dataclass(frozen=True)
class Merge:
    """What one store takes from another, the source.

    Runs that only the source has are taken. If a run was trained separately for both stores, done beats failed and
    later beats earlier, and the better one is taken as a whole, with scores, history, weights and images. If a run is
    the same in both, missing scores are taken; of scores in both, ok beats failed and later beats earlier.
    """

    into: Store
    source: Store
    added: tuple[str, ...]
    """Runs that only the source has."""
    replaced: tuple[str, ...]
    """Runs of which the source has the better one."""
    shared: tuple[str, ...]
    """Runs that are the same in both."""
    scores: tuple[str, ...]
    """Stems of the scores to take; see `sgbench.store.files`."""
    plans: dict[str, list[Planned]]
    """What only the source's plans ask for, by name."""
    histories: tuple[str, ...]
    """Runs whose history is taken."""
    remains: tuple[str, ...]
    """Added runs of which this store has something but no row, such as a checkpoint or part of a killed merge."""
    remarks: tuple[str, ...]
    """One sentence for each run that differs between the stores."""

    @classmethod
    def of(cls, into: Store, source: Store) -> "Merge":
        """Find out what a merge would do.

        Raises:
            InputError: If both are the same store, or a file cannot be read.
        """
        if into.storage.is_same(source.storage):
            raise InputError(f"'{into.storage}' cannot be merged into itself.")
        ours, theirs = into.rows(), source.rows()
        both = sorted(ours.keys() & theirs.keys())
        # The id of an untrained subject is a hash of its content.
        untrained = {run_id for run_id in both if theirs[run_id]["kind"] != RunKind.TRAIN}
        shared = [run_id for run_id in both if ours[run_id] == theirs[run_id] or run_id in untrained]
        apart = [run_id for run_id in both if run_id not in shared]
        better = {run_id for run_id in apart if _rank(theirs[run_id]) > _rank(ours[run_id])}
        remarks = [
            f"run {run_id} ({ours[run_id]['name']}): '{source.storage}' has it {_fate(theirs[run_id])}, which "
            f"{'replaces' if run_id in better else 'gives way to'} '{into.storage}', {_fate(ours[run_id])}."
            for run_id in apart
        ]
        added = theirs.keys() - ours.keys()
        here, there = _score_ranks(into), _score_ranks(source)
        scores = [
            stem
            for stem, (run_id, rank) in there.items()
            if run_id in added | better or (run_id in shared and (stem not in here or rank > here[stem][1]))
        ]
        histories = _run_ids(source, "history") & (added | better | set(shared) - _run_ids(into, "history"))
        return cls(
            into,
            source,
            added=tuple(sorted(added)),
            replaced=tuple(sorted(better)),
            shared=tuple(shared),
            scores=tuple(sorted(scores)),
            plans=_new_plans(into, source),
            histories=tuple(sorted(histories)),
            remains=tuple(sorted(added & _without_rows(into, ours))),
            remarks=tuple(remarks),
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take, except perhaps weights and images of runs that are the same."""
        return not (self.added or self.replaced or self.scores or self.plans)

    def apply(self) -> None:
        """Carry out the merge.

        Rows of entirely new runs are written last, so that a run whose copying was interrupted has no row and is copied
        again.
        """
        tables = {table: files.read() for table, files in self.source.tables.items()}
        inside = (*self.remains, *self.replaced)
        for run_id in inside:
            self._replace(run_id, {table: _of_runs(rows, [run_id]) for table, rows in tables.items()})
        fresh = [run_id for run_id in self.added if run_id not in inside]
        for run_id in (*fresh, *self.shared):
            self._copy_files(run_id)
        wanted = {"scores": self.scores, "history": self.histories, "runs": fresh}
        for table, stems in wanted.items():
            rows = _of_runs(tables[table], [*fresh, *self.shared])
            rows = rows.filter(pc.is_in(self.source.tables[table].stems(rows), pa.array(stems, pa.string())))
            files = self.into.tables[table]
            if rows.num_rows or len(files.list().compacted) > 1:  # more than one is left by a killed merge
                files.compact(rows)
        for name, planned in self.plans.items():
            self.into.write_plan(name, [*self.into.plans().get(name, []), *planned])

    def _replace(self, run_id: str, theirs: dict[str, pa.Table]) -> None:
        """Replace a run; nothing of the old one is deleted before all files of the new one have been copied here.

        Results of the two trainings are never mixed: first everything but the old row is deleted, then the row is
        replaced, then the rest is added. If that is interrupted, the run is the same in both stores and only lacks
        what the next merge takes.
        """
        here, there = self.into.storage, self.source.storage
        (row,) = theirs["runs"].to_pylist()
        scratch = f"{SCRATCH}/{secrets.token_hex(4)}"
        done = row["status"] == RunEnd.DONE  # otherwise there may be a checkpoint here from which to try again
        files = _files_of(there, run_id) if done else []
        for name in files:
            here.write(f"{scratch}/{name}", there.read(name))
        for table in ("scores", "history"):
            self.into.tables[table].forget(run_id)
        if done:
            discard(here, run_id)
        self.into.write_run(row)
        for name in files:
            here.move(f"{scratch}/{name}", name)
        self.into.write_history(theirs["history"].to_pylist())
        self.into.write_scores(theirs["scores"].to_pylist())

    def _copy_files(self, run_id: str) -> None:
        """Copy the weights and images of a run that are missing here."""
        here, there = self.into.storage, self.source.storage
        for name in _files_of(there, run_id):
            if not here.exists(name):
                here.write(name, there.read(name))


def verify(store: Store) -> Iterator[str]:
    """Check the rows of a store and everything that they depend on.

    Yields:
        One sentence for each fault: files that are unreadable or do not match their name, duplicate rows, runs that do
        not match their id, scores without a run, damaged weights.
    """
    whole = {}
    for table, files in store.tables.items():
        faults = list(_file_faults(files))
        yield from faults
        if not faults:
            whole[table] = files.read()
    if "runs" in whole:
        rows = whole["runs"].to_pylist()
        for row in rows:
            yield from _run_faults(store.storage, row)
        if "scores" in whole:
            known = pa.array([row["run_id"] for row in rows], pa.string())
            scored = whole["scores"].column("run_id").cast(pa.string()).unique()
            for run_id in scored.filter(pc.invert(pc.is_in(scored, known))).to_pylist():
                if not latest_step(store.storage, run_id):  # otherwise a new training is about to replace them
                    yield f"run {run_id} has scores but no row in 'runs'."
    plans = [functools.partial(store.read_plan, name) for name in store.plan_files()]
    reads: list[Callable[[], object]] = [*plans, store.replaced]
    for read in reads:
        try:
            read()
        except InputError as error:
            yield str(error)


def without_weights(store: Store) -> list[str]:
    """Return the ids of finished runs whose weights a store, such as a published one, does not have."""
    return [
        run_id
        for run_id, row in store.rows().items()
        if row["kind"] == RunKind.TRAIN and row["status"] == RunEnd.DONE and not has_weights(store.storage, run_id)
    ]


def find_runs(store: Store, beginnings: Sequence[str]) -> dict[str, str]:
    """Return the ids of runs with a description of each, in the order given.

    Args:
        store: The store with these runs, or with parts of them without a row, such as checkpoints.
        beginnings: Ids, or the beginnings of ids.

    Raises:
        InputError: If there is no such run, or more than one.
    """
    rows = store.rows()
    known = {run_id: f"{row['name']}  {row['status']}" for run_id, row in rows.items()}
    known |= dict.fromkeys(_without_rows(store, rows), "not done, or remains of a run")
    found: dict[str, str] = {}
    for beginning in beginnings:
        matching = [run_id for run_id in known if run_id.startswith(beginning)]
        if len(matching) != 1 or not beginning:
            how = f"{len(matching)} runs whose ids begin with it" if matching else "no such run"
            raise InputError(f"run '{beginning}': '{store.storage}' has {how}; 'sgbench query' lists them.")
        found[matching[0]] = known[matching[0]]
    return found


def remove(store: Store, run_id: str) -> None:
    """Delete everything of a run, its row last: until then, the run is found and can be removed again.

    Plans that name it stay as they are, so that sweeps and tables show the run as pending.
    """
    replaced = store.replaced()
    for table in ("scores", "history"):
        store.tables[table].forget(run_id)
    if run_id in replaced:
        store.write_replaced({other: each for other, each in replaced.items() if other != run_id})
    discard(store.storage, run_id)
    store.tables["runs"].forget(run_id)


def clean(store: Store, *, everything: bool = False) -> dict[str, int]:
    """Delete what no run needs: checkpoints of finished runs, and what killed processes left.

    Args:
        store: The store.
        everything: Also delete checkpoints from which a run could be resumed.

    Returns:
        The bytes freed, by folder or file.

    Raises:
        InputError: If the folder is not a store; see `Store.refuse_other_folders`.
    """
    store.refuse_other_folders()
    storage = store.storage
    replaced = store.replaced()
    done = {
        run_id
        for run_id, row in store.rows().items()
        if row["status"] == RunEnd.DONE and not (run_id in replaced and replaced[run_id].row == stamp(row))
    }
    freed = unfinished(storage)
    for name in freed:
        storage.delete(name)
    needless: dict[str, int] = {}
    for name, size in storage.sizes(CHECKPOINTS).items():
        run_id = name.split("/")[1]
        if re.fullmatch(RUN_ID, run_id) and (everything or (run_id in done and has_weights(storage, run_id))):
            needless[run_id] = needless.get(run_id, 0) + size
    for run_id, size in needless.items():
        storage.delete_folder(checkpoints_of(run_id))
        freed[checkpoints_of(run_id)] = size
    if scratch := discard_scratch(storage):
        freed[SCRATCH] = scratch
    return freed


def _run_ids(store: Store, table: str) -> set[str]:
    return set(store.tables[table].read().column("run_id").cast(pa.string()).unique().to_pylist())


def _without_rows(store: Store, rows: Container[str]) -> set[str]:
    """Return the runs of which a store has something but no row."""
    there = _run_ids(store, "scores") | _run_ids(store, "history") | runs_beside(store.storage)
    return {run_id for run_id in there if run_id not in rows}


def _of_runs(rows: pa.Table, run_ids: Sequence[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows.column("run_id").cast(pa.string()), pa.array(run_ids, pa.string())))


def _files_of(storage: Storage, run_id: str) -> list[str]:
    """Return the names of a run's weights and images."""
    weights = [weights_of(run_id)] if has_weights(storage, run_id) else []
    return [*weights, *(image_of(*each) for each in kept_images(storage, run_id))]


def _rank(row: RunRow) -> tuple[bool, datetime.datetime]:
    return row["status"] == RunEnd.DONE, row["finished"] or datetime.datetime.min.replace(tzinfo=datetime.UTC)


def _fate(row: RunRow) -> str:
    return f"{row['status']} at {row['finished']:%Y-%m-%d %H:%M:%S}" if row["finished"] else str(row["status"])


def _score_ranks(store: Store) -> dict[str, tuple[str, tuple[int, datetime.datetime]]]:
    """Return the run of each stem of scores, and its rank: ok beats failed, then later beats earlier."""
    files = store.tables["scores"]
    rows = files.read()
    columns = {
        "stem": files.stems(rows),
        "run_id": rows.column("run_id").cast(pa.string()),
        "ok": pc.equal(rows.column("status").cast(pa.string()), ScoreStatus.OK).cast(pa.int8()),
        "scored": rows.column("scored"),
    }
    best = pa.table(columns).group_by(["stem", "run_id"]).aggregate([("ok", "max"), ("scored", "max")])
    return {row["stem"]: (row["run_id"], (row["ok_max"], row["scored_max"])) for row in best.to_pylist()}


def _new_plans(into: Store, source: Store) -> dict[str, list[Planned]]:
    ours, new = into.plans(), {}
    for name, theirs in source.plans().items():
        known = set(map(_text, ours.get(name, [])))
        lacking = [planned for planned in theirs if _text(planned) not in known]
        if lacking or name not in ours:
            new[name] = lacking
    return new


def _text(planned: Planned) -> str:
    return json.dumps(dataclasses.asdict(planned), sort_keys=True)


def _file_faults(files: TableFiles) -> Iterator[str]:
    listing = files.list()
    for stem in (*listing.small, *listing.compacted):
        path = files.storage.address(files.name(stem))
        if stem in listing.compacted[:-1]:
            yield f"'{path}' is left over from a killed compaction; 'sgbench results compact' deletes it."
            continue
        try:
            part = files.part(stem)
        except InputError as error:
            yield str(error)
            continue
        if part is None:
            continue
        strange = [other for other in files.stems(part).unique().to_pylist() if other != stem]
        if strange and stem not in listing.compacted:
            yield f"'{path}' has rows of '{strange[0]}'."
        keys = _KEYS[files.table]
        plain = part.select(keys).cast(pa.schema([files.schema.field(key) for key in keys]))
        counts = plain.group_by(keys).aggregate([([], "count_all")])
        if twice := counts.filter(pc.greater(counts.column("count_all"), 1)).slice(0, 1).to_pylist():
            yield f"'{path}' has {twice[0].pop('count_all')} rows of {', '.join(map(str, twice[0].values()))}."


def _run_faults(storage: Storage, row: RunRow) -> Iterator[str]:
    if row["kind"] != RunKind.TRAIN:
        return
    run_id = row["run_id"]
    try:
        spec = read_spec(row["spec"], f"run {run_id}")
    except InputError as error:
        yield str(error)
        return
    if spec.run_id != run_id:
        yield f"run {run_id} has the specification of run {spec.run_id}."
    for column, value in _described(spec).items():
        if row.get(column) != value:
            yield f"run {run_id} has {row.get(column)!r} as its {column}, but its specification says {value!r}."
    if row["status"] == RunEnd.DONE and has_weights(storage, run_id):
        yield from _weights_faults(storage, run_id)


def _weights_faults(storage: Storage, run_id: str) -> Iterator[str]:
    from sgbench.training import read_weights_file  # loads torch, which only stores with weights need

    try:
        _, fields = read_weights_file(storage.address(weights_of(run_id)))
        made = read_spec(fields or {}, f"'{weights_of(run_id)}'").run_id
    except InputError as error:
        yield str(error)
    else:
        if made != run_id:
            yield f"the weights of run {run_id} belong to run {made}."


def _described(spec: RunSpec) -> RunRow:
    """Return the columns of a run that follow from its specification."""
    own: RunRow = {
        "backbone": spec.backbone,
        "loss": str(spec.loss),
        "seed": spec.seed,
        "train_sha256": spec.train.sha256,
    }
    return own | recipe_columns(spec.recipe)
