"""The keeping of a results store: merging another into it, checking it, throwing parts of it away.

Whoever calls what writes holds the lock of the store that is written. Each call may be killed at any moment and made
again, which ends it; until then the store says less than it did or will, and nothing that is not so.
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
"""Columns of which no two rows of a table have the same values."""


@dataclass(frozen=True)
class Merge:
    """What one store takes from another.

    A run that only the other has is taken. Of a run that was trained for each of them, the done one is better than the
    failed one, and the later than the earlier; the better one comes whole, with scores, history, weights and images. Of
    a run that is the same in both, scores that one lacks are taken; of others the better is, again done and then late.
    """

    into: Store
    source: Store
    added: tuple[str, ...]
    """Runs that only the source has."""
    replaced: tuple[str, ...]
    """Runs that the source has better."""
    shared: tuple[str, ...]
    """Runs that are the same in both."""
    scores: tuple[str, ...]
    """Stems of the scores that are taken; see `sgbench.store.files`."""
    plans: dict[str, list[Planned]]
    """What plans ask for in the source and not here, by name."""
    histories: tuple[str, ...]
    """Runs of which the history is taken."""
    remains: tuple[str, ...]
    """Runs of those added of which something is here without a row, be it a checkpoint or half of a merge that died."""
    remarks: tuple[str, ...]
    """On runs of both that differ, one sentence each."""

    @classmethod
    def of(cls, into: Store, source: Store) -> "Merge":
        """Find out what a merge would do.

        Raises:
            InputError: If both are one store, or a file cannot be read.
        """
        if into.storage.root.rstrip("/") == source.storage.root.rstrip("/"):
            raise InputError(f"'{into.storage}' cannot be merged into itself.")
        ours, theirs = into.rows(), source.rows()
        both = sorted(ours.keys() & theirs.keys())
        # The id of what was not trained is a hash of what it is.
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
        """Whether there is nothing to take but, perhaps, weights and images of runs that are the same."""
        return not (self.added or self.replaced or self.scores or self.plans)

    def apply(self) -> None:
        """Take it.

        The rows of runs of which nothing is here come last, so that a run whose copying broke off is none and is copied
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
            if rows.num_rows or len(files.list().compacted) > 1:  # more than one is what a merge that died leaves
                files.compact(rows)
        for name, planned in self.plans.items():
            self.into.write_plan(name, [*self.into.plans().get(name, []), *planned])

    def _replace(self, run_id: str, theirs: dict[str, pa.Table]) -> None:
        """Put a run in the place of what is here of it, of which nothing goes before all of its files are here too.

        Of two trainings nothing stands side by side at any moment: first all goes but the row, then that is replaced,
        then the rest comes. If that breaks off, it is a run that is the same in both and lacks what can be taken.
        """
        here, there = self.into.storage, self.source.storage
        (row,) = theirs["runs"].to_pylist()
        scratch = f"{SCRATCH}/{secrets.token_hex(4)}"
        done = row["status"] == RunEnd.DONE  # else a checkpoint may be here, from which it can be tried again
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
        """Copy those weights and images of a run that are not here."""
        here, there = self.into.storage, self.source.storage
        for name in _files_of(there, run_id):
            if not here.exists(name):
                here.write(name, there.read(name))


def verify(store: Store) -> Iterator[str]:
    """Check all of a store that its rows depend on.

    Yields:
        What is wrong, one sentence each: files that cannot be read or do not say what their name says, rows that are
        there twice, runs that are not what their id is a hash of, scores of no run, weights that are damaged.
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
                if not latest_step(store.storage, run_id):  # else a new training is about to replace them
                    yield f"run {run_id} has scores and no row in 'runs'."
    plans = [functools.partial(store.read_plan, name) for name in store.plan_files()]
    reads: list[Callable[[], object]] = [*plans, store.replaced]
    for read in reads:
        try:
            read()
        except InputError as error:
            yield str(error)


def without_weights(store: Store) -> list[str]:
    """Return the ids of runs that are done and of which a store, such as a published one, does not have the weights."""
    return [
        run_id
        for run_id, row in store.rows().items()
        if row["kind"] == RunKind.TRAIN and row["status"] == RunEnd.DONE and not has_weights(store.storage, run_id)
    ]


def find_runs(store: Store, beginnings: Sequence[str]) -> dict[str, str]:
    """Return the ids of runs and what is told of each, in the order in which they are named.

    Args:
        store: Where they are, or something of them without a row, such as a checkpoint.
        beginnings: Ids, or the beginnings of ids.

    Raises:
        InputError: If there is no such run, or more than one.
    """
    rows = store.rows()
    known = {run_id: f"{row['name']}  {row['status']}" for run_id, row in rows.items()}
    known |= dict.fromkeys(_without_rows(store, rows), "not done, or what is left of it")
    found: dict[str, str] = {}
    for beginning in beginnings:
        matching = [run_id for run_id in known if run_id.startswith(beginning)]
        if len(matching) != 1 or not beginning:
            how = f"{len(matching)} runs whose ids begin with it" if matching else "no such run"
            raise InputError(f"run '{beginning}': '{store.storage}' has {how}; 'sgbench query' lists them.")
        found[matching[0]] = known[matching[0]]
    return found


def remove(store: Store, run_id: str) -> None:
    """Delete all that there is of a run, its row last: until that is gone, the run is found and can be removed again.

    A plan that names it is left as it is: to the sweep, and in its table, the run is to be done again.
    """
    replaced = store.replaced()
    for table in ("scores", "history"):
        store.tables[table].forget(run_id)
    if run_id in replaced:
        store.write_replaced({other: each for other, each in replaced.items() if other != run_id})
    discard(store.storage, run_id)
    store.tables["runs"].forget(run_id)


def clean(store: Store, *, everything: bool = False) -> dict[str, int]:
    """Delete what no run needs: checkpoints of runs that are done, and what processes that were killed left.

    Args:
        store: The store.
        everything: Also checkpoints from which a run could be continued.

    Returns:
        The bytes that are free now, by what they were: a folder or file.

    Raises:
        InputError: If the folder is no store; see `Store.refuse_other_folders`.
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
    """Return the runs of which a store has something, but no row."""
    there = _run_ids(store, "scores") | _run_ids(store, "history") | runs_beside(store.storage)
    return {run_id for run_id in there if run_id not in rows}


def _of_runs(rows: pa.Table, run_ids: Sequence[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows.column("run_id").cast(pa.string()), pa.array(run_ids, pa.string())))


def _files_of(storage: Storage, run_id: str) -> list[str]:
    """Return the names of the weights and images that there are of a run."""
    weights = [weights_of(run_id)] if has_weights(storage, run_id) else []
    return [*weights, *(image_of(*each) for each in kept_images(storage, run_id))]


def _rank(row: RunRow) -> tuple[bool, datetime.datetime]:
    return row["status"] == RunEnd.DONE, row["finished"] or datetime.datetime.min.replace(tzinfo=datetime.UTC)


def _fate(row: RunRow) -> str:
    return f"{row['status']} at {row['finished']:%Y-%m-%d %H:%M:%S}" if row["finished"] else str(row["status"])


def _score_ranks(store: Store) -> dict[str, tuple[str, tuple[int, datetime.datetime]]]:
    """Return the run of each stem of scores, and what makes one better than another: to be ok, and to be late."""
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
        path = files.storage.path(files.name(stem))
        if stem in listing.compacted[:-1]:
            yield f"'{path}' is what a compaction left that died; 'sgbench results compact' deletes it."
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
            yield f"run {run_id} has {row.get(column)!r} as its {column}, and its specification says {value!r}."
    if row["status"] == RunEnd.DONE and has_weights(storage, run_id):
        yield from _weights_faults(storage, run_id)


def _weights_faults(storage: Storage, run_id: str) -> Iterator[str]:
    from sgbench.training import read_weights_file  # loads torch, for which only who has weights waits

    try:
        _, fields = read_weights_file(f"{storage.root}/{weights_of(run_id)}")
        made = read_spec(fields or {}, f"'{weights_of(run_id)}'").run_id
    except InputError as error:
        yield str(error)
    else:
        if made != run_id:
            yield f"the weights of run {run_id} are of run {made}."


def _described(spec: RunSpec) -> RunRow:
    """Return the columns of a run that follow from its specification."""
    own: RunRow = {
        "backbone": spec.backbone,
        "loss": str(spec.loss),
        "seed": spec.seed,
        "train_sha256": spec.train.sha256,
    }
    return own | recipe_columns(spec.recipe)
