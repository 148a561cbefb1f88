"""The committed evidence in results/mini: whole, what it says it is, and what its README shows."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import sgbench
from sgbench.analysis import Results, load_results
from sgbench.core.storage import Storage
from sgbench.runs.verification import verify
from sgbench.spec import TrainingData, build, presets
from sgbench.store import Store

MINI = Path(sgbench.__file__).parents[1] / "results" / "mini"
README = (MINI / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    sgbench (.*)$", README, re.MULTILINE)

Run = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def results() -> Results:
    return load_results(str(MINI))


def test_only_rows_are_kept() -> None:
    assert {path.name for path in MINI.iterdir()} == {"README.md", "history", "plans", "runs", "scores"}
    assert sum(path.stat().st_size for path in MINI.rglob("*")) < 2**21


def test_the_store_is_sound() -> None:
    """Ids are hashes of what was run, no row is there twice."""
    assert list(verify(Store(Storage(str(MINI))))) == []


@pytest.mark.parametrize("preset", ["paper-mini", "operators"])
def test_every_run_of_the_preset_is_done_and_no_cell_is_missing(results: Results, preset: str) -> None:
    sweep = build(presets.load(preset)[1], preset)
    (data,) = {(row["train"], row["train_sha256"]) for row in results.runs.to_pylist()}
    named = {run.run_id for run in sweep.named_runs(TrainingData(name=data[0], sha256=data[1]))}
    done = {row["run_id"] for row in results.runs.to_pylist() if row["status"] == "done"}
    assert named <= done
    scored = {(row["run_id"], row["dataset"], row["metric"]): row["status"] for row in results.totals.to_pylist()}
    for run_id in named:
        for test in sweep.tests:
            for metric in sweep.metrics:
                wanted = {"no weights"} if metric == "fid" else {"ok"}
                assert {scored[run_id, test, metric]} == wanted


def test_nothing_else_is_there(results: Results) -> None:
    assert {row["kind"] for row in results.runs.to_pylist()} == {"train"}
    assert results.runs.num_rows == 70
    assert {row["dataset"]: row["n_images"] for row in results.totals.to_pylist()} == {"Set5": 5, "Set14": 14}
    assert {row["git_revision"].endswith("+") for row in results.runs.to_pylist()} == {False}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_readme_shows_is_what_the_command_prints(run: Run, command: str) -> None:
    out, _ = run(*shlex.split(command.replace("results/mini", str(MINI))))
    shown = [line for line in out.splitlines() if line.startswith(("| ", "|-", "- l1"))]
    assert shown
    assert "\n".join(shown) in README


def test_the_readme_shows_something() -> None:
    assert len(COMMANDS) >= 5
