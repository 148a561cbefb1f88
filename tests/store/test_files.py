"""Small files and a large one must always say together what the small ones alone would."""

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash_points import CUTS, NOW, EveryPoint, Frail, Killed, in_one_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from sgbench.analysis import load_results
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.runs.verification import verify
from sgbench.store import Store, files, whole_sets
from sgbench.store.schema import SCORES, TABLES, to_table

METRICS = ("my:psnr", "fid")
A, AB, B, C, CC = ("a" * 12, "ab" * 6, "b" * 12, "c" * 12, "c" * 11 + "d")


class Memory(Frail):
    """A store in memory that can be told what to do before anything is read."""

    def __init__(self) -> None:
        super().__init__()
        self.before_reading: Callable[[], None] = lambda: None

    def read(self, name: str) -> bytes:
        self.before_reading()
        return super().read(name)

    def open(self, name: str) -> Any:
        self.before_reading()
        return super().open(name)


def run_row(run_id: str, **columns: Any) -> dict[str, Any]:
    row = {"run_id": run_id, "kind": "train", "name": run_id, "backbone": "edsr-tiny", "loss": "l1", "seed": 0}
    return row | {"scale": 4, "status": "done"} | columns


def score_rows(run_id: str, dataset: str, metric: str, value: float, images: int = 2) -> list[dict[str, Any]]:
    row = {"run_id": run_id, "dataset": dataset, "dataset_sha256": "ab" * 32, "metric": metric, "metric_version": "1"}
    row |= {"protocol": "{}", "n_images": images, "value": value, "status": "ok", "scored": NOW}
    return [row | {"image": image} for image in (None, *(f"image{i}" for i in range(images)))]


def history_rows(run_id: str, loss: float) -> list[dict[str, Any]]:
    row = {"run_id": run_id, "loss": loss, "terms": {"l1": loss}, "lr": 1e-3, "steps_per_second": 9.0}
    return [row | {"step": step} for step in (10, 20)]


def validation_rows(run_id: str, value: float) -> list[dict[str, Any]]:
    row = {"run_id": run_id, "dataset": "Mine", "dataset_sha256": "cd" * 32, "metric": "psnr_y", "metric_version": "1"}
    row |= {"protocol": "{}", "n_images": 2, "value": value, "status": "ok"}
    return [row | {"step": step} for step in (10, 20)]


def write_all(store: Store, run_id: str, value: float) -> None:
    store.write_history(history_rows(run_id, value))
    store.write_validation(validation_rows(run_id, value))
    for metric in METRICS:
        store.write_scores(score_rows(run_id, "Set5", metric, value, images=0 if metric == "fid" else 2))
    store.write_run(run_row(run_id, wall_seconds=value))


def said(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Return all that a store says, having checked that each way to ask says the same."""
    tables = {
        "runs": store.runs(),
        "scores": store.scores(),
        "history": store.history(),
        "validation": store.validation(),
    }
    assert {name: table.schema for name, table in tables.items()} == TABLES
    assert store.totals().equals(whole_sets(tables["scores"]))
    for row in tables["runs"].to_pylist():
        assert store.run(row["run_id"]) == row
    return {name: table.to_pylist() for name, table in tables.items()}


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Three runs, the first two compacted, of which the second was done again since and the first scored again."""
    store = Store(Memory() if request.param == "memory" else Storage(str(tmp_path / "store")))
    write_all(store, A, 1.0)
    write_all(store, B, 2.0)
    store.compact()
    store.forget(B)
    write_all(store, B, 3.0)
    store.write_scores(score_rows(A, "Set5", "my:psnr", 4.0, images=1))
    write_all(store, C, 5.0)
    return store


@pytest.fixture
def memory() -> Store:
    return Store(Memory())


def test_compaction_leaves_one_file_a_table_that_says_the_same(store: Store) -> None:
    before = said(store)
    assert {row["value"] for row in before["scores"] if row["run_id"] == B} == {3.0}
    store.compact()
    assert said(store) == before
    for table in TABLES:
        assert store.storage.list(table) == [f"{table}/compacted-000002.parquet"]


def test_compacting_again_writes_nothing(store: Store) -> None:
    assert store.compact() == {"runs": 3, "scores": 6, "history": 3, "validation": 3}
    before = {name: store.storage.read(name) for name in store.storage.sizes()}
    assert store.compact() == dict.fromkeys(TABLES, 0)
    assert {name: store.storage.read(name) for name in store.storage.sizes()} == before


def test_what_is_written_while_a_compaction_merges_is_kept_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process that found its lock in order and then fell asleep before its request."""
    store, late, write = Store(Storage(str(tmp_path))), [run_row(A, status="failed")], Storage.write

    def writes(storage: Storage, name: str, content: bytes) -> None:
        write(storage, name, content)
        if late and "compacted" in name:
            Store(Storage(str(tmp_path))).write_run(late.pop())

    store.write_run(run_row(A, status="done"))
    store.write_run(run_row(B, status="done"))
    monkeypatch.setattr(Storage, "write", writes)
    assert store.compact()["runs"] == 1
    for _ in range(2):
        assert {run_id: row["status"] for run_id, row in store.rows().items()} == {A: "failed", B: "done"}
        store.compact()


def test_an_empty_store_is_compacted_to_nothing(memory: Store) -> None:
    assert set(memory.compact().values()) == {0}
    assert memory.storage.sizes() == {}


def test_a_compacted_file_has_the_schema_of_a_small_one_and_plain_text(store: Store, tmp_path: Path) -> None:
    store.compact()
    for table, schema in TABLES.items():
        content = store.storage.read(f"{table}/compacted-000002.parquet")
        (tmp_path / "file").write_bytes(content)
        assert pq.read_schema(tmp_path / "file").equals(schema)


def test_a_run_in_a_compacted_file_is_forgotten_and_stays_so(store: Store) -> None:
    store.compact()
    for run_id in (A, B):
        store.forget(run_id)
        assert store.run(run_id) is None
    left = {table: {row["run_id"] for row in rows} for table, rows in said(store).items()}
    assert left == {table: {C} for table in TABLES}
    store.compact()
    assert {row["run_id"] for rows in said(store).values() for row in rows} == {C}
    store.forget(C)
    store.compact()
    assert said(store) == {table: [] for table in TABLES}
    write_all(store, A, 9.0)
    assert {row["run_id"] for rows in said(store).values() for row in rows} == {A}


def test_forgetting_what_is_in_no_compacted_file_deletes_its_files_and_no_others(store: Store) -> None:
    write_all(store, CC, 6.0)
    store.forget(C)
    assert {row["run_id"] for row in store.scores().to_pylist()} == {A, B, CC}
    assert f"runs/{C}.parquet" not in store.storage.sizes()


def test_totals_do_not_read_rows_of_images(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROWS_A_GROUP", 4)
    store.compact()
    seen = []
    groups = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_groups",
        lambda self, which, **how: seen.append(groups(self, which, **how)) or seen[-1],
    )
    assert store.totals().num_rows == 6
    assert [part.num_rows for part in seen] == [6]


def test_results_of_a_compacted_store_are_read_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(Storage(str(tmp_path)))
    write_all(store, A, 1.0)
    store.compact()
    asked = []
    monkeypatch.setattr(files.TableFiles, "read", lambda self, **how: asked.append((self.table, how)) or part(self))

    def part(table: files.TableFiles) -> pa.Table:
        return to_table(table.table, [])

    results = load_results(str(tmp_path))
    assert asked == []
    assert results.totals.num_rows == 0
    assert asked == [("scores", {"totals": True})]
    assert results.runs.num_rows == 0
    assert results.totals.num_rows == 0
    assert asked[1:] == [("runs", {})]


# Whoever dies, whenever


def two_compacted() -> Store:
    store = Store(Memory())
    write_all(store, A, 1.0)
    write_all(store, B, 2.0)
    store.compact()
    return store


@in_one_thread
def test_a_compaction_that_is_cut_off_changes_nothing_and_the_next_one_ends_it() -> None:
    def make() -> Store:
        store = two_compacted()
        store.forget(A)
        store.write_scores(score_rows(B, "Set5", "fid", 7.0, images=0))
        write_all(store, C, 3.0)
        return store

    before, points = said(make()), EveryPoint(make, Store.compact, lambda store: store.storage)
    for store in points:
        assert said(store) == before
        store.forget(B)  # whatever was left, what is done now counts
        write_all(store, B, 8.0)
        store.forget(C)
        after = said(store)
        assert {row["run_id"] for row in after["runs"]} == {B}
        assert {row["value"] for row in after["scores"]} == {8.0}
        store.compact()
        assert said(store) == after
        assert len(store.storage.sizes()) == len(TABLES)
    assert points.tried == 19 * len(CUTS)  # 4 files written, and 4 compacted and 11 small ones deleted


@in_one_thread
@pytest.mark.parametrize("late", [1, 2, 4, 8])
def test_a_compaction_on_listings_that_are_late_loses_nothing(late: int) -> None:
    def make() -> Store:
        store = two_compacted()
        write_all(store, C, 3.0)
        return Store(Frail(store.storage.files(), late=late))

    points = EveryPoint(make, Store.compact, lambda store: store.storage, "dies")
    for store in points:
        for _ in range(3):
            with contextlib.suppress(OSError):
                store.compact()
        store.storage.settle()
        store.compact()
        assert said(store) == said(three_runs())
    assert points.tried


def three_runs() -> Store:
    store = two_compacted()
    write_all(store, C, 3.0)
    return store


@in_one_thread
def test_forgetting_that_is_cut_off_is_ended_by_the_next_call() -> None:
    def make() -> Store:
        store = two_compacted()
        store.write_scores(score_rows(A, "Set14", "fid", 7.0, images=0))
        return store

    points = EveryPoint(make, lambda store: store.forget(A), lambda store: store.storage)
    whole = make().storage.state()
    for store in points:
        assert store.storage.state() == whole or store.run(A) is None  # the row goes first: half a run is none
        store.forget(A)
        assert {row["run_id"] for rows in said(store).values() for row in rows} == {B}
    assert points.tried == 6 * len(CUTS)


RUN = st.sampled_from([A, AB, B])
VALUE = st.integers(0, 9).map(float)


class Serial:
    """Reads one file after the other, so that a failing example can be repeated."""

    def __init__(self, max_workers: int) -> None: ...

    def __enter__(self) -> "Serial":
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, function: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
        return list(map(function, names))


class Racing(Memory):
    """A store in which others change files between any two operations of a reader, and while it lists.

    Of what comes, goes or is replaced while it lists, a listing has some names and not others, as those of file systems
    and object stores; that a file is replaced during both listings is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changes_to_come: list[Callable[[], None]] = []
        self.turns: list[int] = []
        self.shown: list[bool] = []
        self.missed: set[str] = set()

    def others(self) -> None:
        """Let the others do some of what they have to do."""
        turns, self.turns = (self.turns.pop(0) if self.turns else 0), self.turns
        for _ in range(turns):
            if self.changes_to_come:
                self.changes_to_come.pop(0)()

    def list(self, folder: str, suffix: str = "") -> list[str]:
        before = {name: Frail.read(self, name) for name in super().list(folder, suffix)}
        self.others()
        after = {name: Frail.read(self, name) for name in super().list(folder, suffix)}
        replaced = {name for name in before.keys() & after.keys() - self.missed if before[name] != after[name]}
        unsure = sorted(before.keys() ^ after.keys() | replaced)
        missed = {name for name in unsure if not (self.shown and self.shown.pop(0))}
        self.missed |= missed & replaced
        return sorted((before.keys() | after.keys()) - missed)

    def read(self, name: str) -> bytes:
        self.others()
        return super().read(name)

    def open(self, name: str) -> Any:
        self.others()
        return super().open(name)


class Recorder(Memory):
    """A store that notes each change, to be made again in another one."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        for name, content in files.items():
            self.write(name, content)
        self.notes: list[tuple[str, bytes | None]] = []

    def write(self, name: str, content: bytes) -> None:
        super().write(name, content)
        if hasattr(self, "notes"):
            self.notes.append((name, content))

    def delete(self, name: str) -> None:
        super().delete(name)
        self.notes.append((name, None))


def made_of(score: tuple[str, float]) -> list[dict[str, Any]]:
    return score_rows(score[0], "Set5", "fid", score[1], images=0)


OTHERS = st.lists(
    st.one_of(
        st.tuples(st.just("scores"), RUN, VALUE),
        st.tuples(st.just("forget"), RUN),
        st.tuples(st.just("compact")),
    ),
    max_size=6,
)


@settings(max_examples=150)
@given(
    compacted=st.lists(RUN, max_size=3, unique=True),
    small=st.lists(RUN, max_size=3, unique=True),
    others=OTHERS,
    turns=st.lists(st.integers(0, 3), max_size=14),
    shown=st.lists(st.booleans(), max_size=12),
)
def test_a_reader_sees_each_row_once_however_others_write_compact_and_forget_meanwhile(
    compacted: list[str], small: list[str], others: list[tuple[Any, ...]], turns: list[int], shown: list[bool]
) -> None:
    racing = Racing()
    store = Store(racing)
    value = dict.fromkeys((*compacted, *small, CC), 100.0)
    for run_id in (*compacted, CC):  # a table that was never compacted: see the rules
        store.write_scores(made_of((run_id, 100.0)))
    store.tables["scores"].compact()
    for run_id in small:
        store.write_scores(made_of((run_id, 100.0)))
    recorder = Recorder(racing.files())
    writer, possible = Store(recorder), {run_id: {each} for run_id, each in value.items()}
    for what, *rest in others:
        if what == "scores":
            writer.write_scores(made_of((rest[0], rest[1])))
            possible.setdefault(rest[0], {None}).add(rest[1])
        elif what == "forget":
            writer.tables["scores"].forget(rest[0])
            possible.setdefault(rest[0], {None}).add(None)
        else:
            writer.tables["scores"].compact()
    racing.changes_to_come = [
        functools.partial(Memory.delete, racing, name)
        if content is None
        else functools.partial(Memory.write, racing, name, content)
        for name, content in recorder.notes
    ]
    racing.turns, racing.shown = turns, shown
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files.concurrent.futures, "ThreadPoolExecutor", Serial)
        rows = store.scores().to_pylist()
    seen = {row["run_id"]: row["value"] for row in rows}
    assert len(seen) == len(rows)
    for run_id, values in possible.items():
        assert seen.get(run_id) in values


def test_a_reader_ends_while_others_write_without_pause(memory: Store) -> None:
    for number in range(20):
        memory.write_run(run_row(f"{number:012x}"))
    memory.compact()
    for number in range(20, 40):
        memory.write_run(run_row(f"{number:012x}"))
    written, listings, listed = 40, 0, memory.storage.list

    def write_more() -> None:
        nonlocal written
        memory.write_run(run_row(f"{written:012x}"))
        written += 1

    def counted(folder: str, suffix: str = "") -> list[str]:
        nonlocal listings
        listings += 1
        return listed(folder, suffix)

    memory.storage.before_reading = write_more
    memory.storage.list = counted  # type: ignore[method-assign]
    assert set(memory.runs().column("run_id").to_pylist()) >= {f"{number:012x}" for number in range(40)}
    assert listings == 2
    assert written > 60


COPIES = ("{} (1)", "{} (conflicted copy 2026-01-02)", "{}-conflict", "{}.sync-conflict-20260102-030405-ABCDEFG", "{}~")


@pytest.mark.parametrize("copy", COPIES)
def test_copies_that_sync_tools_make_do_not_count_are_not_compacted_and_are_named(tmp_path: Path, copy: str) -> None:
    store = Store(Storage(str(tmp_path)))
    write_all(store, A, 1.0)
    write_all(store, B, 1.0)
    store.write_scores(score_rows(A, "Set5", "my-metric", 1.0))
    store.compact()
    store.write_scores(score_rows(A, "Set5", "my-metric", 2.0))
    write_all(store, B, 2.0)
    before = said(store)
    copies = [path.with_stem(copy.format(path.stem)) for path in tmp_path.rglob("*.parquet")]
    for path in copies:
        path.write_bytes(path.with_stem(path.stem.removesuffix(copy.format(""))).read_bytes())
    assert said(Store(store.storage)) == before
    assert len(copies) == 10
    ignored = [fault.split("'")[1] for fault in verify(store) if "is ignored" in fault]
    assert sorted(ignored) == sorted(map(str, copies))
    store.compact()
    assert said(store) == before
    assert all(path.exists() for path in copies)


@pytest.mark.parametrize("at", range(5))
def test_a_reader_sees_every_score_once_wherever_a_compaction_falls_into_its_reading(memory: Store, at: int) -> None:
    write_all(memory, A, 1.0)
    memory.compact()
    write_all(memory, B, 2.0)
    memory.write_scores(score_rows(A, "Set5", "fid", 3.0, images=0))
    before, files_read = said(memory), 0

    def meanwhile() -> None:
        nonlocal files_read
        if files_read == at:
            memory.storage.before_reading = lambda: None
            memory.compact()
            write_all(memory, C, 4.0)
            memory.compact()
        files_read += 1

    memory.storage.before_reading = meanwhile
    rows = memory.scores().to_pylist()
    assert [row for row in rows if row["run_id"] != C] == before["scores"]
    assert files_read == min(at + 1, 4)  # there are four to be read


@pytest.mark.parametrize("compacted", [True, False])
def test_a_reader_among_compactions_and_reruns_never_sees_a_run_twice_or_half(tmp_path: Path, compacted: bool) -> None:
    store = Store(Storage(str(tmp_path)))
    for run_id in (A, B):
        write_all(store, run_id, 1.0)
    stop = threading.Event()
    faults: list[BaseException] = []

    def change() -> None:
        try:
            value = 1.0
            while not stop.is_set():
                value += 1
                store.write_scores(score_rows(A, "Set5", "my:psnr", value))
                if compacted:
                    store.compact()
        except BaseException as error:
            faults.append(error)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(25):
            rows = store.scores().to_pylist()
            assert len(rows) == 8
            assert len({row["value"] for row in rows if row["run_id"] == A and row["metric"] == "my:psnr"}) == 1
    finally:
        stop.set()
        writer.join()
    assert not faults


# The model: what each stem says is what was last written of it


STEP = st.one_of(
    st.tuples(st.just("run"), RUN, VALUE),
    st.tuples(st.just("scores"), RUN, VALUE, st.sampled_from(["Set5", "S-5"]), st.sampled_from(METRICS)),
    st.tuples(st.just("history"), RUN, VALUE),
    st.tuples(st.just("validation"), RUN, VALUE),
    st.tuples(st.just("forget"), RUN),
    st.tuples(st.just("compact")),
    st.tuples(st.just("die compacting"), st.integers(0, 12)),
)


@in_one_thread
@settings(max_examples=30)
@given(st.lists(STEP, max_size=15))
def test_whatever_happens_a_store_says_what_was_last_written(steps: list[tuple[Any, ...]]) -> None:
    store = Store(Memory())
    model: dict[tuple[str, ...], float] = {}
    for what, *rest in steps:
        match what:
            case "run":
                store.write_run(run_row(rest[0], wall_seconds=rest[1]))
                model["runs", rest[0]] = rest[1]
            case "scores":
                run_id, value, dataset, metric = rest
                store.write_scores(score_rows(run_id, dataset, metric, value, images=1))
                model["scores", run_id, dataset, metric] = value
            case "history":
                store.write_history(history_rows(*rest))
                model["history", rest[0]] = rest[1]
            case "validation":
                store.write_validation(validation_rows(*rest))
                model["validation", rest[0]] = rest[1]
            case "forget":
                store.forget(rest[0])
                model = {key: value for key, value in model.items() if key[1] != rest[0]}
            case "compact":
                store.compact()
            case "die compacting":
                store.storage.switch.cut_off(rest[0], "dies")
                with contextlib.suppress(Killed):
                    store.compact()
                store.storage.switch.mend()
    says = said(store)
    found = [("runs", row["run_id"], row["wall_seconds"]) for row in says["runs"]]
    found += [("scores", *(row[key] for key in ("run_id", "dataset", "metric", "value"))) for row in says["scores"]]
    found += [("history", row["run_id"], row["loss"]) for row in says["history"]]
    found += [("validation", row["run_id"], row["value"]) for row in says["validation"]]
    rows = {"runs": 1, "scores": 2, "history": 2, "validation": 2}
    assert sorted(found) == sorted((*key, value) for key, value in model.items() for _ in range(rows[key[0]]))


# What cannot be read


def test_a_compacted_file_of_another_schema_version_is_told_in_a_sentence(tmp_path: Path) -> None:
    store = Store(Storage(str(tmp_path)))
    write_all(store, A, 1.0)
    store.compact()
    path = tmp_path / "scores" / "compacted-000001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, SCORES.field(0), pa.array([99] * table.num_rows, pa.int32())), path)
    for read in (store.scores, store.totals, store.compact):
        with pytest.raises(
            InputError, match=r"compacted-000001\.parquet' has schema version 99; this sgbench reads 1\.$"
        ):
            (store.write_scores(score_rows(B, "Set5", "fid", 1.0)), read())


def test_a_compacted_file_of_before_a_column_was_added_is_read(tmp_path: Path) -> None:
    store = Store(Storage(str(tmp_path)))
    write_all(store, A, 1.0)
    store.compact()
    before = said(store)
    for table, columns in (("scores", ["standard_error", "reason"]), ("runs", ["threads", "error"])):
        path = tmp_path / table / "compacted-000001.parquet"
        pq.write_table(pq.read_table(path).drop_columns(columns), path)
    after = said(store)
    assert after["scores"] == before["scores"]
    assert after["runs"][0]["threads"] == 1  # what a recipe without the field meant
    store.write_run(run_row(B))
    store.compact()
    assert said(store)["runs"][0] == after["runs"][0]


@pytest.mark.parametrize("table", TABLES)
def test_a_changed_bit_in_a_value_is_told_in_a_sentence(tmp_path: Path, table: str) -> None:
    store = Store(Storage(str(tmp_path)))
    write_all(store, "abcabcabcabc", 1.0)
    for path in (tmp_path / table).iterdir():
        content = bytearray(path.read_bytes())
        content[content.index(b"abcabcabcabc")] ^= 1
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"abcabcabc.*\.parquet' cannot be read: .*CRC"):
        store.tables[table].read()


def test_a_file_that_may_not_be_read_is_an_error_of_the_system(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(memory, A, 1.0)

    def refuse(name: str) -> bytes:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(memory.storage, "read", refuse)
    with pytest.raises(PermissionError):
        memory.runs()
