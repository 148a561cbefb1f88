"""Maintenance of a results store: merging another into it, deleting parts of it.

Callers of functions that write must hold the lock of that store. Each call may be killed at any moment, and the same
call completes it. In between, the store may lack results, but never shows wrong ones.
"""

import datetime
import json
import re
import secrets
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.core.errors import InputError
from sgbench.core.status import ScoreStatus
from sgbench.core.storage import Storage
from sgbench.core.words import quoted
from sgbench.spec.stored import plugins_of
from sgbench.store import BESIDE_RUNS, Dataset, Declaration, Planned, Store, Tuning, earliest, stamp
from sgbench.store.layout import (
    CHECKPOINTS,
    IMAGES,
    INIT,
    RUN_ID,
    SCRATCH,
    SOURCES,
    WEIGHTS,
    checkpoints_of,
    discard,
    discard_progress,
    discard_scratch,
    has_weights,
    image_of,
    inits,
    kept_images,
    runs_beside,
    sources,
    unfinished,
    weights_of,
)
from sgbench.store.rows import RunEnd, RunKind, RunRow

Preferred = Literal["ours", "theirs"]
"""Whose results of a run that is done in both stores a merge takes: of the store that it writes, or of the source."""


@dataclass(frozen=True)
class Merge:
    """What one store takes from another, the source.

    Runs that only the source has are taken. If a run was trained separately for both stores, done beats failed and
    later beats earlier, and the better one is taken as a whole, with scores, curves, weights and images. Numbers that
    differ by machine or by the version of torch are no reason to keep two; a plug-in whose code may differ is one, as
    its name is all that a run's id has of it. If a run is the same in both, missing scores are taken; of scores in
    both, ok beats failed and later beats earlier.
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
    """What only the source's plans ask for, or asked for earlier, by name."""
    declarations: tuple[Declaration, ...]
    """What only the source's sweeps have declared, or declared before those here."""
    tunings: dict[str, Tuning]
    """Searches for settings that only the source has, or that have come further there, by the name they get here."""
    labels: dict[str, str]
    """Labels of the source for losses that have none here, by their text."""
    histories: tuple[str, ...]
    """Runs whose history is taken."""
    validations: tuple[str, ...]
    """Runs whose scores of validation are taken."""
    asked: dict[str, datetime.datetime | None]
    """When runs that stay were first asked for, if the source's row says that it was earlier."""
    remains: tuple[str, ...]
    """Added runs of which this store has something but no row, such as a checkpoint or part of a killed merge."""
    remarks: tuple[str, ...]
    """One sentence for each run that differs between the stores, and for each label."""

    @classmethod
    def of(cls, into: Store, source: Store, prefer: Preferred | None = None) -> "Merge":
        """Find out what a merge would do.

        Args:
            into: The store to write.
            source: The store to read.
            prefer: Whose run is taken if both stores trained it and it is done in both; by default the later one.

        Raises:
            InputError: If both are the same store, a file cannot be read or leads out of the source, or, unless
                ``prefer`` says whose is taken, a run of a plug-in has different results in both, and no record says
                that its code was the same.
        """
        if into.storage.is_same(source.storage):
            raise InputError(f"'{into.storage}' cannot be merged into itself.")
        _refuse_links(source.storage)
        ours, theirs = into.rows(), source.rows()
        both = sorted(ours.keys() & theirs.keys())
        # The id of an untrained subject is a hash of its content.
        untrained = {run_id for run_id in both if theirs[run_id]["kind"] != RunKind.TRAIN}
        shared = [run_id for run_id in both if _is_same(ours[run_id], theirs[run_id]) or run_id in untrained]
        apart = [run_id for run_id in both if run_id not in shared]
        twice = [run_id for run_id in apart if ours[run_id]["status"] == theirs[run_id]["status"] == RunEnd.DONE]
        if prefer is None:
            _refuse_other_code([(ours[run_id], theirs[run_id]) for run_id in twice], into, source)
        better = {
            run_id
            for run_id in apart
            if (prefer == "theirs" if prefer and run_id in twice else _rank(theirs[run_id]) > _rank(ours[run_id]))
        }
        remarks = [
            f"run {run_id} ({ours[run_id]['name']}): '{source.storage}' has it {_fate(theirs[run_id])}, which "
            f"{'replaces' if run_id in better else 'gives way to'} '{into.storage}', {_fate(ours[run_id])}."
            for run_id in apart
        ]
        labels, named = source.labels(), into.labels()
        free = {loss: label for loss, label in labels.items() if loss not in named and label not in named.values()}
        remarks += [
            f"label {quoted(label)} of '{source.storage}' for {loss} is not taken: here "
            f"{f'it is {quoted(named[loss])}' if loss in named else 'another loss has it'}."
            for loss, label in labels.items()
            if loss not in free and named.get(loss) != label
        ]
        stay = [run_id for run_id in both if run_id not in better]
        asked = {run_id: earliest([ours[run_id]["planned"], theirs[run_id]["planned"]]) for run_id in stay}
        added = theirs.keys() - ours.keys()
        here, there = _score_ranks(into), _score_ranks(source)
        scores = [
            stem
            for stem, (run_id, rank) in there.items()
            if run_id in added | better or (run_id in shared and (stem not in here or rank > here[stem][1]))
        ]
        taken = {
            table: _run_ids(source, table) & (added | better | set(shared) - _run_ids(into, table))
            for table in ("history", "validation")
        }
        return cls(
            into,
            source,
            added=tuple(sorted(added)),
            replaced=tuple(sorted(better)),
            shared=tuple(shared),
            scores=tuple(sorted(scores)),
            plans=_new_plans(into, source),
            declarations=_new_declarations(into, source),
            tunings=_new_tunings(into, source),
            labels=free,
            histories=tuple(sorted(taken["history"])),
            validations=tuple(sorted(taken["validation"])),
            asked={run_id: time for run_id, time in asked.items() if time != ours[run_id]["planned"]},
            remains=tuple(sorted(added & _without_rows(into, ours))),
            remarks=tuple(remarks),
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take, except perhaps weights and images of runs that are the same."""
        taken = (self.added, self.replaced, self.scores, self.plans, self.declarations, self.tunings, self.labels)
        return not any((*taken, self.asked))

    def apply(self) -> None:
        """Carry out the merge.

        Rows of entirely new runs are written last, so that a run whose copying was interrupted has no row and is copied
        again.
        """
        here, there = self.into.storage, self.source.storage
        for declaration in self.declarations:  # before the results that it was made before
            self.into.declare(declaration)
        for name in (*inits(there).values(), *sources(there).values()):
            if not here.exists(name):
                here.write(name, there.read(name))
        tables = {table: files.read() for table, files in self.source.tables.items()}
        inside = (*self.remains, *self.replaced)
        for run_id in inside:
            self._replace(run_id, {table: _of_runs(rows, [run_id]) for table, rows in tables.items()})
        fresh = [run_id for run_id in self.added if run_id not in inside]
        for run_id in (*fresh, *self.shared):
            self._copy_files(run_id)
        wanted = {
            "scores": self.scores,
            "history": self.histories,
            "validation": self.validations,
            "runs": fresh,
        }
        for table, stems in wanted.items():
            rows = _of_runs(tables[table], [*fresh, *self.shared])
            rows = rows.filter(pc.is_in(self.source.tables[table].stems(rows), pa.array(stems, pa.string())))
            files = self.into.tables[table]
            if rows.num_rows or len(files.list().compacted) > 1:  # more than one is left by a killed merge
                files.compact(rows)
        rows = self.into.rows() if self.asked else {}
        for run_id, time in self.asked.items():
            self.into.write_run(rows[run_id] | {"planned": time})
        for name, planned in self.plans.items():
            ours = self.into.plans().get(name, [])
            self.into.write_plan(name, [*{_text(each): each for each in (*ours, *planned)}.values()])
        for name, tuning in self.tunings.items():
            self.into.write_tuning(name, tuning)
        self.into.write_labels(self.labels)

    def _replace(self, run_id: str, theirs: dict[str, pa.Table]) -> None:
        """Replace a run; nothing of the old one is deleted before all files of the new one have been copied here.

        Results of the two trainings are never mixed: first everything but the old row is deleted, then the row is
        replaced, then the rest is added. If that is interrupted, the run is the same in both stores and only lacks
        what the next merge takes.
        """
        here, there = self.into.storage, self.source.storage
        (row,) = theirs["runs"].to_pylist()
        if before := self.into.run(run_id):
            row |= {"planned": earliest([before["planned"], row["planned"]])}
        scratch = f"{SCRATCH}/{secrets.token_hex(4)}"
        done = row["status"] == RunEnd.DONE  # otherwise there may be a checkpoint here from which to try again
        files = _files_of(there, run_id) if done else []
        for name in files:
            here.write(f"{scratch}/{name}", there.read(name))
        for table in BESIDE_RUNS:
            self.into.tables[table].forget(run_id)
        if done:
            discard(here, run_id)
        self.into.write_run(row)
        for name in files:
            here.move(f"{scratch}/{name}", name)
        self.into.write_history(theirs["history"].to_pylist())
        self.into.write_validation(theirs["validation"].to_pylist())
        self.into.write_scores(theirs["scores"].to_pylist())

    def _copy_files(self, run_id: str) -> None:
        """Copy the weights and images of a run that are missing here."""
        here, there = self.into.storage, self.source.storage
        for name in _files_of(there, run_id):
            if not here.exists(name):
                here.write(name, there.read(name))


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
    for table in BESIDE_RUNS:
        store.tables[table].forget(run_id)
    if run_id in replaced:
        store.write_replaced({other: each for other, each in replaced.items() if other != run_id})
    discard(store.storage, run_id)
    store.tables["runs"].forget(run_id)


def clean(store: Store, *, everything: bool = False) -> dict[str, int]:
    """Delete what no run needs: checkpoints of finished runs, and what killed processes left.

    Args:
        store: The store.
        everything: Also delete checkpoints from which a run could be resumed; not the one that is all that there is of
            a run whose old results have given way to it.

    Returns:
        The bytes freed, by folder or file.

    Raises:
        InputError: If the folder is not a store; see `Store.refuse_other_folders`.
    """
    store.refuse_other_folders()
    storage = store.storage
    replaced, rows = store.replaced(), store.rows()
    done = {
        run_id
        for run_id, row in rows.items()
        if row["status"] == RunEnd.DONE and not (run_id in replaced and replaced[run_id].row == stamp(row))
    }
    needed = {run_id for run_id, each in replaced.items() if each.row and run_id not in rows}
    freed = unfinished(storage)
    for name in freed:
        storage.delete(name)
    needless: dict[str, int] = {}
    for name, size in storage.sizes(CHECKPOINTS).items():
        run_id = name.split("/")[1]
        needless_here = run_id not in needed if everything else run_id in done and has_weights(storage, run_id)
        if re.fullmatch(RUN_ID, run_id) and needless_here:
            needless[run_id] = needless.get(run_id, 0) + size
    for run_id, size in needless.items():
        storage.delete_folder(checkpoints_of(run_id))
        freed[checkpoints_of(run_id)] = size
    freed |= discard_progress(storage)
    if scratch := discard_scratch(storage):
        freed[SCRATCH] = scratch
    return freed


def _run_ids(store: Store, table: str) -> set[str]:
    return set(store.tables[table].read().column("run_id").cast(pa.string()).unique().to_pylist())


def _without_rows(store: Store, rows: Container[str]) -> set[str]:
    """Return the runs of which a store has something but no row."""
    there = runs_beside(store.storage).union(*(_run_ids(store, table) for table in BESIDE_RUNS))
    return {run_id for run_id in there if run_id not in rows}


def _of_runs(rows: pa.Table, run_ids: Sequence[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows.column("run_id").cast(pa.string()), pa.array(run_ids, pa.string())))


def _files_of(storage: Storage, run_id: str) -> list[str]:
    """Return the names of a run's weights and images."""
    weights = [weights_of(run_id)] if has_weights(storage, run_id) else []
    return [*weights, *(image_of(*each) for each in kept_images(storage, run_id))]


def _refuse_links(storage: Storage) -> None:
    """Refuse files of a source that links lead out of it, as what they lead to would be copied."""
    if storage.is_local:
        root = Path(storage.path()).resolve()
        for name in (name for folder in (WEIGHTS, IMAGES, INIT, SOURCES) for name in storage.sizes(folder)):
            if not Path(storage.path(name)).resolve().is_relative_to(root):
                raise InputError(f"'{storage.address(name)}' is, or is below, a link that leads out of '{storage}'.")


def _refuse_other_code(pairs: Sequence[tuple[RunRow, RunRow]], into: Store, source: Store) -> None:
    """Refuse runs of plug-ins that have other results in another store, unless their code is known to be the same."""
    doubtful = [
        (ours, theirs) for ours, theirs in pairs if _code(ours) != _code(theirs) or None in _code(ours).values()
    ]
    if not doubtful:
        return
    here, there = _values(into), _values(source)
    differing = []
    for ours, theirs in doubtful:
        mine, others = here[ours["run_id"]], there[ours["run_id"]]
        if unlike := sorted(score for score in mine.keys() & others.keys() if mine[score] != others[score]):
            metric, test = unlike[0]
            said = [f"{metric} {values[unlike[0]]:.8g} on {test.partition('@')[0]}" for values in (mine, others)]
            differing.append((ours, theirs, said))
        elif not mine.keys() & others.keys() and not _same_weights(into, source, ours["run_id"]):
            differing.append((ours, theirs, ["other weights", "weights"]))
    if differing:
        ours, theirs, said = differing[0]
        first, second = (f"{words} (code {_told(row)})" for words, row in zip(said, (ours, theirs), strict=True))
        more = f", and {len(differing) - 1} more differ" if len(differing) > 1 else ""
        raise InputError(
            f"run {ours['run_id']} ({ours['loss']}) has {first} here and {second} in '{source.storage}'{more}: its "
            "plug-in may be other code; pass --prefer ours or --prefer theirs."
        )


def _code(row: RunRow) -> dict[str, str | None]:
    """Return the recorded hashes of the plug-ins of a run; None for one that has none."""
    recorded = json.loads(row["code"] or row["versions"] or "{}")  # which is where older stores have it
    names = (
        f"{kind} {name}" for kind, name in plugins_of(str(row["backbone"]), str(row["loss"]), row["optimizer_name"])
    )
    return {name: recorded.get(name) for name in names}


def _told(row: RunRow) -> str:
    return ", ".join(code or "not recorded" for code in dict.fromkeys(_code(row).values()))


def _values(store: Store) -> dict[str, dict[tuple[str, str], float]]:
    """Return the scores of each run by metric and test set."""
    found: defaultdict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in store.totals().to_pylist():
        if row["value"] is not None:
            test = Dataset(row["dataset"], row["dataset_sha256"]).versioned
            found[row["run_id"]][row["metric"], test] = row["value"]
    return found


def _same_weights(into: Store, source: Store, run_id: str) -> bool:
    there = [store.storage.read(weights_of(run_id)) for store in (into, source) if has_weights(store.storage, run_id)]
    return len(there) == 2 and there[0] == there[1]


def _is_same(ours: RunRow, theirs: RunRow) -> bool:
    """Return whether two rows of one id are of one training, whatever sweeps have varied in the loss since."""
    return {**ours, **dict.fromkeys(_OF_SWEEPS)} == {**theirs, **dict.fromkeys(_OF_SWEEPS)}


_OF_SWEEPS = ("lambda", "varied", "spec", "planned")
"""Columns in which a later sweep or merge may change the row of a run."""


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
        known = {_text(planned): planned.planned for planned in ours.get(name, [])}
        lacking = [planned for planned in theirs if not _is_known(planned, known)]
        if lacking or name not in ours:
            new[name] = lacking
    return new


def _is_known(planned: Planned, known: Mapping[str, datetime.datetime | None]) -> bool:
    """Return whether a plan, by `_text`, asks for it already and did not do so later."""
    text = _text(planned)
    return text in known and earliest([known[text], planned.planned]) == known[text]


def _new_declarations(into: Store, source: Store) -> tuple[Declaration, ...]:
    ours = {each.digest: each.declared for each in into.declarations()}
    theirs = source.declarations()
    return tuple(each for each in theirs if each.digest not in ours or each.declared < ours[each.digest])


def _new_tunings(into: Store, source: Store) -> dict[str, Tuning]:
    """Return the searches that a store takes: of one search that both have, the one of which more trials have ended.

    Two searches of one name are both kept; the other gets its digest after its name.
    """
    here, new = into.tunings(), dict[str, Tuning]()
    names = {tuning.digest: name for name, tuning in here.items()}
    for name, tuning in source.tunings().items():
        while name in here and tuning.digest not in names:
            name += f"-{tuning.digest}"
        ours = names.setdefault(tuning.digest, name)
        if ours not in here or _progress(tuning) > _progress(here[ours]):
            here[ours] = new[ours] = tuning
    return new


def _progress(tuning: Tuning) -> tuple[int, int]:
    return sum(trial.end is not None for trial in tuning.trials), len(tuning.trials)


def _text(planned: Planned) -> str:
    return json.dumps({**planned.to_data(), "planned": None}, sort_keys=True)
