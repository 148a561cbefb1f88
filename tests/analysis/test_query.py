"""SQL over a store: what it sees, and that it reaches nothing else."""

import datetime
import signal
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgbench.analysis import Results, load_results, paper
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.store import HISTORY, RUNS, SCORES, Store
from sgbench.store.schema import to_table

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
A, B, C = ("a" * 12, "b" * 12, "c" * 12)
SCORE = {"dataset": "Set5", "dataset_sha256": "ab" * 32, "metric_version": "1", "protocol": "{}", "n_images": 1}


def fill(store: Store) -> None:
    for seed, (run_id, loss) in enumerate(((A, "l1"), (B, "l1"), (C, "l1 + 1.0*sg"))):
        row = {"run_id": run_id, "kind": "train", "name": run_id, "scale": 4, "status": "done", "started": NOW}
        store.write_run({**row, "backbone": "edsr-tiny", "loss": loss, "seed": seed})
        score = {**SCORE, "run_id": run_id, "metric": "psnr_y", "status": "ok", "scored": NOW, "value": 28.0 + seed}
        store.write_scores([score | {"image": image} for image in (None, "baby")])
    terms = {"l1": 0.1, "sg": 0.2}
    row = {"run_id": A, "step": 10, "loss": 0.3, "terms": terms, "lr": 1e-3, "steps_per_second": 9.0}
    store.write_history([row])


@pytest.fixture(params=["small files", "compacted", "in memory"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Results:
    store = Store(Storage(str(tmp_path / "store")))
    fill(store)
    if request.param == "compacted":
        store.compact()
    if request.param == "in memory":
        return Results.of(store.runs(), store.scores(), store.history())
    return load_results(str(store.storage))


@pytest.fixture
def memory() -> Results:
    return Results.of(*(to_table(table, []) for table in ("runs", "scores", "history")))


def test_a_question_over_runs_and_scores(results: Results) -> None:
    answer = results.query(
        "SELECT loss, avg(value) AS psnr, count(*) AS n FROM scores JOIN runs USING (run_id) "
        "WHERE image IS NULL GROUP BY loss ORDER BY loss"
    )
    assert answer.to_pylist() == [
        {"loss": "l1", "psnr": 28.5, "n": 2},
        {"loss": "l1 + 1.0*sg", "psnr": 30.0, "n": 1},
    ]


def test_each_view_has_the_columns_and_rows_of_its_table(results: Results) -> None:
    for name, schema in (("runs", RUNS), ("scores", SCORES), ("history", HISTORY)):
        answer = results.query(f"SELECT * FROM {name} ORDER BY ALL")
        assert answer.column_names == schema.names
        for ours, field in zip(answer.schema, schema, strict=True):  # DuckDB's times have microseconds
            assert ours.type == (pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(field.type) else field.type)
        expected = {"runs": results.runs, "scores": results.scores, "history": results.history}[name]
        assert sorted(map(str, answer.to_pylist())) == sorted(map(str, expected.to_pylist()))


def test_the_paper_is_beside_the_store(results: Results) -> None:
    answer = results.query("SELECT count(*) AS n, min(value) AS least FROM paper")
    assert answer.to_pylist() == [{"n": 150, "least": min(paper().column("value").to_pylist())}]


def test_terms_of_a_loss_are_taken_from_their_map(results: Results) -> None:
    assert results.query("SELECT terms['sg'] AS sg FROM history").to_pylist() == [{"sg": 0.2}]


def test_test_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    store = Store(Storage(str(tmp_path)))
    fill(store)
    score = {**SCORE, "run_id": A, "metric": "psnr_y", "status": "ok", "scored": NOW, "image": None, "value": 1.0}
    store.write_scores([score | {"dataset_sha256": "cd" * 32}])
    for _ in range(2):
        answer = load_results(str(tmp_path)).query("SELECT DISTINCT dataset FROM scores ORDER BY 1")
        assert answer.column(0).to_pylist() == ["Set5@abababab", "Set5@cdcdcdcd"]
        store.compact()


def test_times_are_utc_whatever_the_zone_of_the_machine(results: Results) -> None:
    (row,) = results.query("SELECT max(started) AS at FROM runs").to_pylist()
    assert row["at"] == NOW


@pytest.mark.parametrize("sql", ["DESCRIBE scores", "SHOW TABLES", "SUMMARIZE runs", "FROM runs", "VALUES (1)"])
def test_what_else_only_reads_is_answered(results: Results, sql: str) -> None:
    assert results.query(sql).num_rows > 0


def test_a_query_reads_only_the_tables_that_it_names(tmp_path: Path) -> None:
    store = Store(Storage(str(tmp_path)))
    fill(store)
    (tmp_path / "scores" / f"{'e' * 12}-set@00000000-metric.parquet").write_bytes(b"damaged")
    results = load_results(str(tmp_path))
    assert results.query("SELECT count(*) AS n FROM Runs").to_pylist() == [{"n": 3}]
    with pytest.raises(InputError, match=r"metric\.parquet' is not a results file"):
        results.query("SELECT count(*) FROM scores")


NOT_READING = {
    "CREATE TABLE x AS SELECT 1": "CREATE",
    "CREATE VIEW runs2 AS FROM runs": "CREATE",
    "CREATE MACRO m() AS TABLE FROM 'secret.csv'": "CREATE",
    "DROP VIEW runs": "DROP",
    "INSERT INTO runs (run_id) VALUES ('x')": "INSERT",
    "UPDATE runs SET seed = 1": "UPDATE",
    "DELETE FROM runs": "DELETE",
    "COPY runs TO 'runs.csv'": "COPY",
    "EXPORT DATABASE 'here'": "EXPORT",
    "ATTACH 'other.db'": "ATTACH",
    "INSTALL httpfs": "LOAD",
    "LOAD httpfs": "LOAD",
    "SET enable_external_access = true": "SET",
    "RESET enable_external_access": "VARIABLE_SET|SET|RESET",
    "PRAGMA enable_profiling": "PRAGMA",
    "CALL pragma_version()": "CALL",
    "EXPLAIN ANALYZE SELECT 1": "EXPLAIN",
    "PREPARE x AS SELECT 1": "PREPARE",
    "BEGIN": "TRANSACTION",
}


@pytest.mark.parametrize("sql", NOT_READING)
def test_what_is_no_select_is_refused_by_its_kind(memory: Results, sql: str) -> None:
    message = rf"^the query is a statement of type ({NOT_READING[sql]}); a store is read-only, so a SELECT is needed\.$"
    with pytest.raises(InputError, match=message):
        memory.query(sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "has no statements"),
        ("-- nothing", "has no statements"),
        ("SELECT 1; SELECT 2", "has 2 statements"),
        ("SELECT 1; COPY runs TO 'x.csv'", "has 2 statements"),
        ("SELCT 1", 'syntax error at or near "SELCT".'),
        ("SELECT los FROM runs", 'Referenced column "los" not found .* Candidate bindings: "loss"'),
        ("SELECT * FROM rnus", r'Table with name rnus does not exist! Did you mean "runs"\?$'),
        ("SELECT 'a'::INT", "Could not convert string 'a' to INT32"),
        ("SELECT $1", "Values were not provided for the following parameters: 1"),
        ("SELECT error('one\ntwo')", "one two"),
    ],
)
def test_a_question_that_is_wrong_is_told_in_a_sentence(memory: Results, sql: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        memory.query(sql)
    assert "\n" not in str(caught.value)
    assert "LINE 1" not in str(caught.value)


def test_columns_of_one_name_are_refused(memory: Results) -> None:
    with pytest.raises(InputError, match=r"^the answer has several columns 'run_id'; "):
        memory.query("SELECT runs.run_id, scores.run_id FROM runs, scores")


def test_no_query_reaches_a_file(memory: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text("word\nswordfish\n")
    pq.write_table(pa.table({"word": ["swordfish"]}), tmp_path / "secret.parquet")
    before = sorted(tmp_path.iterdir())
    for sql in (
        "FROM 'secret.csv'",
        "FROM 'secret.parquet'",
        f"FROM '{tmp_path}/secret.csv'",
        "FROM read_csv('secret.csv')",
        "FROM read_csv_auto('secret.csv')",
        "FROM sniff_csv('secret.csv')",
        "FROM read_parquet('*.parquet')",
        "FROM parquet_metadata('secret.parquet')",
        "FROM read_text('secret.csv')",
        "FROM read_blob('secret.csv')",
        "FROM read_json('secret.csv')",
        "FROM glob('*')",
        "FROM duckdb_secrets()",
        "FROM duckdb_extensions()",
        "FROM which_secret('s3://bucket', 's3')",
        "FROM query('FROM ''secret.csv''')",
        "FROM query_table('secret.csv')",
        "FROM read_parquet('https://example.org/x.parquet')",
        "FROM read_parquet('s3://bucket/x.parquet')",
        "FROM sqlite_scan('secret.csv', 'x')",
        "SELECT getenv('HOME')",
        "WITH x AS (COPY runs TO 'x.csv') SELECT 1",
        "WITH x AS (INSERT INTO runs (run_id) VALUES ('x') RETURNING *) FROM x",
        "WITH x AS (DELETE FROM runs RETURNING *) FROM x",
    ):
        with pytest.raises(InputError, match=r"^the query cannot be answered: ") as caught:
            memory.query(sql)
        assert "swordfish" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_no_query_reaches_a_variable_of_the_process(memory: Results) -> None:
    secret = pa.table({"word": ["swordfish"]})
    assert secret.num_rows == 1
    for name in ("secret", "results", "sql", "TABLES"):
        with pytest.raises(InputError, match=f"Table with name {name} does not exist"):
            memory.query(f"FROM {name}")


def test_what_would_take_too_much_memory_is_told_in_a_sentence_and_writes_nothing(
    memory: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgbench.analysis import query

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(query._CLOSED, "memory_limit", "20MB")
    with pytest.raises(InputError, match=r"^the query cannot be answered: .*(allocate|memory)"):
        memory.query("SELECT list(range) FROM range(100000000)")
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_would_take_too_much_memory_is_refused(memory: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    from sgbench.analysis import query

    monkeypatch.setitem(query._CLOSED, "memory_limit", "20MB")
    with pytest.raises(InputError, match=r"^the answer takes more than 19\.0 MiB of memory; ask for less"):
        memory.query("SELECT * FROM range(10000000000)")


@pytest.mark.parametrize("sql", ["SELECT count(*) FROM range(1000000000000)", "SELECT * FROM range(1000000000000)"])
def test_a_query_ends_when_its_time_is_up_or_it_is_interrupted(memory: Results, sql: str) -> None:
    from sgbench.analysis.query import is_running

    with pytest.raises(InputError, match=r"^the query took longer than 0\.2 s, the limit that was set"):
        memory.query(sql, timeout=0.2)
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        memory.query(sql)
    assert not is_running()


@pytest.mark.parametrize(
    ("value", "kind"),
    [("1::UHUGEINT", "UHUGEINT"), ("[1::UHUGEINT]", "UHUGEINT"), ("'10:00+02'::TIMETZ", "TIME WITH TIME ZONE")],
)
def test_a_type_that_would_lose_its_value_is_refused(memory: Results, value: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"^column 'x' is of type {kind}, which answers cannot hold; CAST it"):
        memory.query(f"SELECT {value} AS x")


def test_the_package_is_imported_without_duckdb() -> None:
    assert "sgbench.analysis.query" not in sys.modules["sgbench.store.store"].__dict__
