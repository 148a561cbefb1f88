import datetime
import io
import threading
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sgbench
from sgbench.analysis import View, load_results
from sgbench.analysis.view import labels_of
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.store import HISTORY, RUNS, SCORES, Dataset, Planned, Store, whole_sets
from sgbench.store.schema import TABLES, to_table

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
A, B, C = ("a" * 12, "b" * 12, "c" * 12)


def run_row(run_id: str, **columns: Any) -> dict[str, Any]:
    row = {"run_id": run_id, "kind": "train", "name": run_id, "backbone": "edsr-tiny", "loss": "l1", "seed": 0}
    return row | {"scale": 4, "status": "done"} | columns


def score_row(run_id: str, image: str | None = None, metric: str = "psnr_y", **columns: Any) -> dict[str, Any]:
    row = {"run_id": run_id, "dataset": "Set5", "dataset_sha256": "ab" * 32, "image": image, "metric": metric}
    row |= {"metric_version": "1", "protocol": "{}", "n_images": 2, "value": 28.0, "status": "ok", "scored": NOW}
    return row | columns


def history_row(run_id: str, step: int) -> dict[str, Any]:
    terms = {"l1": 0.1, "sg": 0.2}
    return {"run_id": run_id, "step": step, "loss": 0.3, "terms": terms, "lr": 1e-3, "steps_per_second": 9.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "quick"


@pytest.fixture
def store(folder: Path) -> Store:
    """Two runs, one with scores of two images and the set."""
    store = Store(Storage(str(folder)))
    store.write_run(run_row(B, backbone="edsr-tiny", loss="l1 + 1.0*sg", seed=0))
    store.write_run(run_row(A, backbone="edsr-tiny", loss="l1", seed=0, optimizer_beta2=0.999))
    store.write_scores([score_row(A, "baby", value=30.0), score_row(A, "bird", value=26.0), score_row(A)])
    store.write_scores([score_row(B, metric="fid", value=None, status="no weights", reason="bring the file")])
    store.write_history([history_row(A, 20), history_row(A, 10)])
    return store


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_rows_come_back_sorted_and_with_the_schema(store: Store) -> None:
    assert store.runs().schema.equals(RUNS)
    assert store.scores().schema.equals(SCORES)
    assert store.history().schema.equals(HISTORY)
    assert store.runs().column("run_id").to_pylist() == [A, B]
    assert store.history().column("step").to_pylist() == [10, 20]
    assert dict(store.history().column("terms")[0].as_py()) == {"l1": 0.1, "sg": 0.2}
    assert store.scores().column("value").to_pylist() == [30.0, 26.0, 28.0, None]
    assert whole_sets(store.scores()).column("run_id").to_pylist() == [A, B]


def test_the_names_of_files(store: Store, folder: Path) -> None:
    assert set(snapshot(folder)) == {
        f"runs/{A}.parquet",
        f"runs/{B}.parquet",
        f"scores/{A}-Set5@abababab-psnr_y.parquet",
        f"scores/{B}-Set5@abababab-fid.parquet",
        f"history/{A}.parquet",
    }


def test_writing_the_same_rows_again_changes_nothing(store: Store, folder: Path) -> None:
    before = snapshot(folder)
    store.write_run(run_row(A, backbone="edsr-tiny", loss="l1", seed=0, optimizer_beta2=0.999))
    store.write_scores([score_row(A, "baby", value=30.0), score_row(A, "bird", value=26.0), score_row(A)])
    store.write_history([history_row(A, 20), history_row(A, 10)])
    assert snapshot(folder) == before


def test_new_rows_replace_the_old_ones(store: Store) -> None:
    store.write_run(run_row(A, status="failed", error="loss is NaN", step=812))
    store.write_scores([score_row(A, value=31.0)])
    (row,) = [row for row in store.runs().to_pylist() if row["run_id"] == A]
    assert (row["status"], row["error"], row["step"], row["optimizer_beta2"]) == ("failed", "loss is NaN", 812, None)
    assert [row["value"] for row in store.scores().to_pylist() if row["run_id"] == A] == [31.0]


def test_a_row_without_a_value_that_must_be_there_is_not_written(store: Store, folder: Path) -> None:
    before = snapshot(folder)
    with pytest.raises(pa.ArrowInvalid, match="kind"):
        store.write_run({"run_id": A, "name": A, "scale": 4, "status": "done"})
    assert snapshot(folder) == before


def test_no_rows_write_nothing(folder: Path) -> None:
    store = Store(Storage(str(folder)))
    store.write_scores([])
    store.write_history([])
    assert snapshot(folder) == {}
    assert store.runs().num_rows == store.scores().num_rows == store.history().num_rows == 0


def test_files_of_a_writer_that_died_are_not_read(store: Store, folder: Path) -> None:
    (folder / "runs" / ".a.parquet.1234abcd").write_bytes(b"half")
    (folder / "runs" / ".b.parquet").write_bytes(b"half")
    (folder / "runs" / "notes.txt").write_text("not a table")
    assert store.runs().num_rows == 2


def test_a_reader_among_writers_sees_whole_files(store: Store) -> None:
    store.write_scores([score_row(A, "baby", value=9.0), score_row(A, value=9.0)])
    stop = threading.Event()
    faults: list[BaseException] = []

    def write(value: float) -> None:
        try:
            while not stop.is_set():
                store.write_scores([score_row(A, "baby", value=value), score_row(A, value=value)])
        except BaseException as error:
            faults.append(error)

    writers = [threading.Thread(target=write, args=(float(value),)) for value in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(60):
            values = [row["value"] for row in store.scores().to_pylist() if row["run_id"] == A]
            assert len(values) == 2
            assert len(set(values)) == 1  # both rows are of one writer, whichever it was
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not faults


def test_another_schema_version_is_told_in_a_sentence(store: Store, folder: Path) -> None:
    table = to_table("runs", [run_row(C)])
    at = table.schema.get_field_index("schema_version")
    pq.write_table(table.set_column(at, RUNS.field(at), pa.array([99], pa.int32())), folder / "runs" / f"{C}.parquet")
    with pytest.raises(InputError, match=rf"{C}\.parquet' has schema version 99; this sgbench reads 1\.$"):
        store.runs()


def foreign() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"x": [1, 2]}), buffer)
    return buffer.getvalue()


def truncated() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(to_table("runs", [run_row(C)]), buffer)
    return buffer.getvalue()[:-20]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", truncated(), foreign()])
def test_a_file_that_is_not_ours_is_told_in_a_sentence(store: Store, folder: Path, content: bytes) -> None:
    (folder / "runs" / f"{C}.parquet").write_bytes(content)
    with pytest.raises(InputError, match=rf"{C}\.parquet' is not a results file of sgbench") as caught:
        store.runs()
    assert "\n" not in str(caught.value)


def test_a_plan_comes_back(store: Store) -> None:
    planned = [Planned({"run_id": A, "backbone": "edsr-tiny"}, (Dataset("Set5", "ab" * 32),), ("psnr_y", "fid"))]
    store.write_plan("quick", [])
    store.write_plan("quick", planned)
    store.write_plan("other", planned)
    assert store.planned() == planned * 2
    assert load_results(str(store.storage)).planned == planned * 2


def test_the_newest_label_of_a_loss_counts_and_no_two_losses_have_one(store: Store, folder: Path) -> None:
    assert store.labels() == {}
    store.write_labels({"l1": "base", "l1 + 1.0*sg": "ours"})
    store.write_labels({"l2": "ours"})
    assert store.labels() == load_results(str(folder)).labels == {"l1": "base", "l2": "ours"}
    before = (folder / "plans" / "labels").stat()
    store.write_labels({"l2": "ours"})
    assert (folder / "plans" / "labels").stat() == before
    store.write_labels({"l1": "l1"})  # which takes its label away
    assert store.labels() == {"l2": "ours"}
    assert store.plans() == {}


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"l1": 5}', b'{"l1": "\\u001b[2J"}', b'{"l1": "a", "l2": "a"}'])
def test_labels_that_are_damaged_are_told_in_a_sentence(store: Store, folder: Path, content: bytes) -> None:
    store.storage.write("plans/labels", content)
    with pytest.raises(InputError, match=r"plans/labels' cannot be read: "):
        store.labels()
    with pytest.raises(InputError, match=r"plans/labels' cannot be read: "):
        View(load_results(str(folder))).runs()


def test_scores_on_other_pixels_of_the_same_name_stand_beside_the_first(store: Store) -> None:
    store.write_scores([score_row(A, dataset_sha256="cd" * 32, value=20.0)])
    rows = whole_sets(load_results(str(store.storage)).scores).to_pylist()
    values = {row["dataset"]: row["value"] for row in rows if row["run_id"] == A}
    assert values == {"Set5@abababab": 28.0, "Set5@cdcdcdcd": 20.0}
    assert set(store.scores().column("dataset").to_pylist()) == {"Set5"}


def test_a_plan_for_other_pixels_is_another_test_set(store: Store) -> None:
    tests = (Dataset("Set5", "cd" * 32), Dataset("B100", "12" * 32))
    store.write_plan("quick", [Planned({"run_id": A}, tests, ("fid",))])
    results = load_results(str(store.storage))
    assert [test.name for test in results.planned[0].tests] == ["Set5@cdcdcdcd", "B100"]
    assert set(results.scores.column("dataset").to_pylist()) == {"Set5@abababab"}


def test_two_checkpoints_of_one_name_are_called_after_their_ids(store: Store) -> None:
    for run_id in ("c" * 12, "d" * 12):
        store.write_run({"run_id": run_id, "kind": "checkpoint", "name": "net.pt", "scale": 4, "status": "done"})
    names = load_results(str(store.storage)).runs.column("name").to_pylist()
    assert names[2:] == ["net.pt@cccccccc", "net.pt@dddddddd"]


def test_a_name_stands_for_all_its_versions() -> None:
    there = ["Set5@1a", "Set5@2b", "Set14"]
    assert labels_of("Set5", there) == ["Set5@1a", "Set5@2b"]
    assert labels_of("Set5@2b", there) == ["Set5@2b"]
    assert labels_of("Set14", there) == ["Set14"]
    assert labels_of("Set1", there) == []


def test_load_results_gives_each_score_beside_its_run(store: Store, folder: Path) -> None:
    results = sgbench.load_results(str(folder))
    joined = results.to_arrow()
    assert joined.num_rows == results.scores.num_rows == 4
    assert set(joined.column_names) == {*SCORES.names, *RUNS.names, "run_status", "run_error"} - {"error"}
    assert joined.column("loss").to_pylist() == ["l1", "l1", "l1", "l1 + 1.0*sg"]
    assert joined.column("status").to_pylist() == ["ok", "ok", "ok", "no weights"]
    assert joined.column("run_status").to_pylist() == ["done"] * 4


def test_arrow_pandas_and_polars_agree(store: Store, folder: Path) -> None:
    results = load_results(str(folder))
    arrow, pandas, polars = results.to_arrow(), results.to_pandas(), results.to_polars()
    assert list(pandas.columns) == polars.columns == arrow.column_names
    rows = arrow.to_pylist()
    assert polars.to_dicts() == rows
    assert pandas.shape == polars.shape == arrow.shape
    for name in ("run_id", "dataset", "metric", "loss", "status"):
        assert pandas[name].tolist() == arrow.column(name).to_pylist()
    assert pandas["value"].dropna().tolist() == [row["value"] for row in rows if row["value"] is not None]
    assert pandas["image"].isna().tolist() == [row["image"] is None for row in rows]


def test_no_store_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        load_results(str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; a folder is needed"):
        load_results(str(tmp_path / "file"))


def test_duckdb_reads_the_files_with_one_line(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rows = duckdb.sql(
        "SELECT loss, metric, avg(value) FROM 'results/quick/scores/*.parquet' "
        "JOIN 'results/quick/runs/*.parquet' USING (run_id) WHERE image IS NULL GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert rows == [("l1", "psnr_y", 28.0), ("l1 + 1.0*sg", "fid", None)]


def test_each_file_has_every_column(store: Store, folder: Path) -> None:
    for table, schema in TABLES.items():
        for path in (folder / table).glob("*.parquet"):
            described = duckdb.sql(f"DESCRIBE SELECT * FROM '{path}'").fetchall()
            assert [name for name, *_ in described] == schema.names
            assert pq.read_schema(path).equals(schema)


def test_a_file_of_before_a_column_was_added_is_read(store: Store, folder: Path) -> None:
    before = store.runs()
    for column in ("threads", "peak_memory_bytes"):
        for path in (folder / "runs").iterdir():
            pq.write_table(pq.read_table(path).drop_columns([column]), path)
        assert store.runs().schema.equals(RUNS)
    assert store.runs().drop_columns(["threads"]).equals(before.drop_columns(["threads"]))
    assert store.runs().column("threads").to_pylist() == [1, 1]  # what a recipe without the field meant


def test_a_file_of_after_a_column_was_added_is_refused_with_a_sentence(store: Store, folder: Path) -> None:
    path = folder / "runs" / f"{A}.parquet"
    pq.write_table(pq.read_table(path).append_column("colour", pa.array(["red"])), path)
    with pytest.raises(InputError, match="its column colour is not known; a newer sgbench may have written it"):
        store.runs()


def test_a_run_is_forgotten_whole_and_alone(store: Store, folder: Path) -> None:
    store.forget(A)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
    assert left == {f"runs/{B}.parquet", f"scores/{B}-Set5@abababab-fid.parquet"}
