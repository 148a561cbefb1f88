"""``sgbench table`` on stores in the current folder: what is printed, and which flags do not go together."""

import csv
import datetime
import functools
import hashlib
import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from sgbench.core.storage import Storage
from sgbench.store import Store

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
SG = "l1 + 1.0*sg"

Run = Callable[..., tuple[str, str]]


def fill(root: str, loss: str = SG) -> None:
    """Two seeds of L1 and of another loss with a small EDSR on Set5."""
    store = Store(Storage(root))
    for weight, each in ((0.0, "l1"), (1.0, loss)):
        for seed in (0, 1):
            name = hashlib.sha256(f"{each}{seed}".encode()).hexdigest()[:12]
            run = {"run_id": name, "kind": "train", "name": "run", "backbone": "edsr-tiny", "loss": each, "seed": seed}
            run |= {
                "lambda": weight,
                "scale": 4,
                "status": "done",
                "train": "demo",
                "steps": 10,
                "batch": 2,
                "patch": 8,
            }
            store.write_run(run)
            row = {"run_id": name, "dataset": "Set5", "dataset_sha256": "5" * 64, "metric_version": "1", "n_images": 5}
            row |= {"protocol": '{"direction":"lower"}', "status": "ok", "scored": NOW}
            metrics = {"lpips_alex": 0.3 - weight / 10 + seed / 100, "fd_alex": 20.0 - weight}
            store.write_scores([{**row, "metric": metric, "value": value} for metric, value in metrics.items()])


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Run:
    """Runs ``sgbench table`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(run, "table")


def test_the_only_store_is_shown(table: Run) -> None:
    fill("results/a")
    out, _ = table()
    (sg,) = [line for line in out.splitlines() if SG in line]
    assert sg.split() == ["Set5", "edsr-tiny", "l1", "+", "1.0*sg", "0.2050*", "±", "0.0071", "19.000*", "±", "0.000"]


def test_a_table_of_the_paper(table: Run) -> None:
    fill("results/a")
    out, _ = table("1", "--show", "both", "--metric", "lpips_alex", "--metric", "fd_alex")
    rows = [line.split() for line in out.splitlines()[1:] if line.startswith(("DataSet", "Set5"))]
    assert rows[:4] == [
        ["DataSet", "Metric", "EDSR", "EDSR+SG"],
        ["Set5", "LPIPS", "↓", "ours", "0.3050", "±", "0.0071", "0.2050*", "±", "0.0071"],
        ["Set5", "LPIPS", "↓", "paper", "0.1728", "0.1446"],
        ["Set5", "fd_alex", "↓", "ours", "20.000", "±", "0.000", "19.000*", "±", "0.000"],
    ]


def test_a_short_name_of_a_metric_is_that_of_the_papers_column_and_the_command_says_so_once(table: Run) -> None:
    fill("results/a")
    note = "note: metric 'lpips' is lpips_alex, the column that papers call so; 'sgbench metrics' lists all\n"
    for rest in (("--rank", "lpips"), (), ("1",)):
        full = [each.replace("lpips", "lpips_alex") for each in rest]
        expected, quiet = table(*full, "--metric", "lpips_alex")
        with warnings.catch_warnings():  # each command is a process of its own
            assert table(*rest, "--metric", "lpips") == (expected, note + quiet)


def test_the_papers_own_numbers_need_no_store(table: Run) -> None:
    data = json.loads(table("5", "--show", "paper", "--json")[0])
    assert [line["cells"]["edsr-paper · fid"]["mean"] for line in data["lines"]] == [25.56, 25.04, 24.98, 25.37, 23.1]


def test_rows_columns_and_filters(table: Run) -> None:
    fill("results/a")
    flags = ("--rows", "loss,metric", "--columns", "seed", "--lambda", "1", "--seeds", "0", "--metric", "lpips_alex")
    out, _ = table(*flags, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["loss"], row["seed"], row["lambda"], float(row["mean"])) == (SG, "0", "1.0", 0.3 - 0.1)


def test_stores_side_by_side(table: Run) -> None:
    fill("results/a")
    fill("results/b", "l2")
    out, _ = table("--results", "results/a", "--results", "results/b", "--columns", "store", "--metric", "lpips_alex")
    assert "loss         a                b" in out
    (l1,) = [line for line in out.splitlines() if " l1  " in line]
    assert l1.count("0.3050") == 2
    (l2,) = [line for line in out.splitlines() if " l2  " in line]
    assert "no run" in l2


def test_json_is_a_format(table: Run) -> None:
    fill("results/a")
    assert table("--json") == table("--format", "json") == table("--json", "--format", "json")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["4"], "unknown table '4'"),
        (["--show", "paper"], "--show needs a table of the paper, such as 'sgbench table 1 --show paper'."),
        (["1", "--show", "theirs"], "unknown choice of --show 'theirs'"),
        (["1", "--loss", "l1"], "table 1 has fixed rows, columns, losses and seeds; leave out --loss."),
        (["1", "--rows", "loss"], "table 1 has fixed rows, columns, losses and seeds; leave out --rows."),
        (["--json", "--format", "csv"], "--json and --format csv contradict each other; leave one out."),
        (["--format", "latx"], "unknown format 'latx': did you mean 'latex'?"),
        (["--rows", "los"], "unknown dimension of a table 'los': did you mean 'loss'?"),
        (["--rows", ""], "unknown dimension of a table ''"),
        (["--rows", "metric"], "--rows and --columns name 'metric' twice; name it once."),
        (["--lambda", "x"], "--lambda is 'x'; a list of numbers such as 0,0.1,1 is needed."),
        (["--lambda", "0.5"], "unknown λ '0.5'"),
        (["--seeds", "9"], "unknown seed '9'"),
        (["--results", "results/a", "--results", "results/a"], "results/a' is given twice."),
        (["--results", "results/none"], "none' holds no results"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "says",
)
def test_bad_input_is_one_sentence(table: Run, arguments: list[str], sentence: str) -> None:
    fill("results/a")
    out, err = table(*arguments, code=2)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err


def test_the_papers_numbers_are_there_without_torch_and_ray() -> None:
    code = (
        "import sys, sgbench.report.tables as t; t.FORMATS['latex'](t.paper_table('1', {}, 'paper'));"
        "print({'torch', 'ray'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
