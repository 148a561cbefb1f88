import errno
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sgbench.analysis import Results
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.store import Store
from sgbench.store.schema import to_table

Run = Callable[..., tuple[str, str]]
SQL = "SELECT run_id, seed FROM runs ORDER BY seed"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    store = Store(Storage("results/quick"))
    row = {"kind": "train", "backbone": "edsr-tiny", "loss": "l1", "scale": 4, "status": "done"}
    rows = [{**row, "run_id": f"{seed:012x}", "name": str(seed), "seed": seed} for seed in range(120)]
    store.tables["runs"].compact(to_table("runs", rows))
    return store


def test_an_answer_for_a_person_is_its_first_rows_and_how_many_more_there_are(run: Run) -> None:
    out, err = run("query", SQL)
    assert out.split()[:2] == ["run_id", "seed"]
    assert f"{99:012x}" in out
    assert f"{100:012x}" not in out
    assert "20 more rows are not shown" in err


@pytest.mark.parametrize("flags", [["--json"], ["--format", "json"]])
def test_json_has_all_rows_and_nothing_beside_them(run: Run, flags: list[str]) -> None:
    out, err = run("query", SQL, *flags)
    assert json.loads(out) == [{"run_id": f"{seed:012x}", "seed": seed} for seed in range(120)]
    assert err == ""


def test_a_question_comes_from_standard_input_and_the_answer_goes_to_a_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SQL.encode())))
    assert run("query", "-", "--results", "results/quick", "--format", "csv", "--out", "x.csv") == ("", "")
    assert (tmp_path / "x.csv").read_text().splitlines()[:2] == ["run_id,seed", "000000000000,0"]
    run("query", SQL, "--format", "parquet", "--out", "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 120


def test_an_answer_takes_the_place_of_another_when_it_is_complete(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("old.csv")

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        _, err = run("query", SQL, "--format", "csv", "--out", "old.csv", code=2)
    assert err == "error: 'old.csv': No space left on device.\n"
    assert (tmp_path / "old.csv").read_text() == "old"
    run("query", SQL, "--format", "csv", "--out", "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "old.csv").read_text().startswith("run_id,seed")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"link.csv", "old.csv"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["DROP VIEW runs"], "error: the query is a statement of type DROP; a store is read-only"),
        (["SELECT los FROM runs"], 'error: the query cannot be answered: Referenced column "los" not found'),
        ([SQL, "--format", "jsn"], "error: unknown format 'jsn': did you mean 'json'?"),
        ([SQL, "--format", "parquet"], "error: --format parquet is binary; name a file with --out."),
        ([SQL, "--out", "x.txt"], "error: --format is rich, which is only for terminals, and --out is given; valid: "),
        ([SQL, "--format", "csv", "--out", "no/such/x.csv"], "error: 'no/such/x.csv': No such file or directory."),
        ([SQL, "--format", "parquet", "--out", "no/such/x.parquet"], "error: 'no/such"),
        ([SQL, "--results", "nowhere"], "holds no results"),
        ([SQL, "--timeout", "0"], "error: --timeout is 0; a number of seconds above 0 is needed."),
        (["SELECT count(*) FROM range(1000000000000)", "--timeout", "0.1"], "error: the query took longer than 0.1 s"),
        (
            ["SELECT INTERVAL 1 DAY AS x", "--format", "parquet", "--out", "x.parquet"],
            "error: Parquet cannot hold column 'x' of type month_day_nano_interval; CAST it to another type.",
        ),
    ],
)
def test_bad_input_is_a_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    out, err = run("query", *arguments, code=2)
    assert sentence in err
    assert (out, err.count("\n")) == ("", 1)


def test_an_interrupted_query_ends_with_130_and_no_traceback(run: Run) -> None:
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    assert run("query", "SELECT count(*) FROM range(1000000000000)", code=130) == ("", "")


@pytest.mark.parametrize("end", [KeyboardInterrupt(), InputError("it took too long.")])
def test_a_query_that_cannot_be_stopped_does_not_hold_up_the_end(
    run: Run, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    def ended(*arguments: object, **options: object) -> None:
        raise end

    monkeypatch.setattr(Results, "query", ended)
    monkeypatch.setattr("sgbench.analysis.query.is_running", lambda: True)
    monkeypatch.setattr(os, "_exit", sys.exit)
    code, said = (2, "error: it took too long.\n") if isinstance(end, InputError) else (130, "")
    assert run("query", SQL, code=code) == ("", said)
