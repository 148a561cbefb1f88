"""The committed evidence in results/: whole, what it says it is, and what its READMEs show."""

import itertools
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import sgbench
from sgbench.analysis import load_results
from sgbench.core.storage import Storage
from sgbench.runs.verification import verify
from sgbench.spec import TrainingData, build, presets
from sgbench.store import Store

RESULTS = Path(sgbench.__file__).parents[1] / "results"
TABLES = {"history", "plans", "runs", "scores"}

Run = Callable[..., tuple[str, str]]


@dataclass(frozen=True)
class Evidence:
    """A committed store.

    Attributes:
        presets: The sweeps that made it.
        runs: Their number.
        images: Of each test set.
        missing: Metrics whose network was not available.
    """

    presets: tuple[str, ...]
    runs: int
    images: Mapping[str, int]
    missing: tuple[str, ...] = ()


STORES = {
    "mini": Evidence(("paper-mini", "operators"), 70, {"Set5": 5, "Set14": 14}, ("fid",)),
    "mini/fresh": Evidence((), 44, {"Set5": 5, "Set14": 14}),
    "operators/trials": Evidence((), 96, {"Set14": 14}),
    "operators/final": Evidence((), 116, {"BSDS400-held-out": 44}),
    "operators/longer": Evidence((), 52, {"BSDS400-held-out": 44}),
    "losses/trials": Evidence(("losses-trials",), 54, {"BSDS400-held-out": 20}),
    "losses/final": Evidence(("losses-mini",), 100, {"Set5": 5, "Set14": 14}),
}
FOLDERS = {
    "mini": ({"README.md", "fresh"} | TABLES, 2**21),
    "mini/fresh": ({"README.md", "declared"} | TABLES, 2**20),
    "operators": (
        {"README.md", "trials.yaml", "final.yaml", "longer.yaml", "trials", "final", "longer"},
        3 * 2**20,
    ),
    "operators/trials": (TABLES, 2**20),
    "operators/final": ({"declared"} | TABLES, 3 * 2**19),
    "operators/longer": ({"declared"} | TABLES, 2**20),
    "losses": (
        {"README.md", "scale.py", "psnr-lpips.png", "psnr-dists.png", "agreement.png", "trials", "final"},
        3 * 2**20,
    ),
    "losses/trials": (TABLES, 2**20),
    "losses/final": (TABLES, 2**21),
}
"""Of each folder in `RESULTS` what is in it, and the most bytes that it may have."""

READMES = {
    folder: (RESULTS / folder / "README.md").read_text(encoding="utf-8")
    for folder in ("mini", "mini/fresh", "operators", "losses")
}
COMMANDS = [
    (folder, command)
    for folder, text in READMES.items()
    for command in re.findall(r"^    sgbench (.*)$", text, re.MULTILINE)
]
every_store = pytest.mark.parametrize("name", STORES)


@pytest.mark.parametrize("folder", FOLDERS)
def test_only_rows_are_kept(folder: str) -> None:
    names, most = FOLDERS[folder]
    assert {path.name for path in (RESULTS / folder).iterdir()} == names
    assert sum(path.stat().st_size for path in (RESULTS / folder).rglob("*")) < most


@every_store
def test_the_store_is_sound(name: str) -> None:
    """Ids are hashes of what was run, no row is there twice."""
    assert list(verify(Store(Storage(str(RESULTS / name))))) == []


@pytest.mark.parametrize(("name", "preset"), [(name, each) for name, store in STORES.items() for each in store.presets])
def test_every_run_of_the_preset_is_done_and_no_cell_is_missing(name: str, preset: str) -> None:
    results = load_results(str(RESULTS / name))
    sweep = build(presets.load(preset)[1], preset)
    (data,) = {(row["train"], row["train_sha256"]) for row in results.runs.to_pylist()}
    named = {run.run_id for run in sweep.named_runs(TrainingData(name=data[0], sha256=data[1]))}
    done = {row["run_id"] for row in results.runs.to_pylist() if row["status"] == "done"}
    assert named <= done
    scored = {(row["run_id"], row["dataset"], row["metric"]): row["status"] for row in results.totals.to_pylist()}
    for run_id in named:
        for test in STORES[name].images:
            for metric in sweep.metrics:
                wanted = {"no weights"} if metric in STORES[name].missing else {"ok"}
                assert {scored[run_id, test, metric]} == wanted


@every_store
def test_nothing_else_is_there(name: str) -> None:
    results = load_results(str(RESULTS / name))
    assert {row["kind"] for row in results.runs.to_pylist()} == {"train"}
    assert results.runs.num_rows == STORES[name].runs
    assert {row["dataset"]: row["n_images"] for row in results.totals.to_pylist()} == STORES[name].images
    assert {row["git_revision"].endswith("+") for row in results.runs.to_pylist()} == {False}


@pytest.mark.parametrize(("folder", "command"), COMMANDS)
def test_what_the_readme_shows_is_what_the_command_prints(run: Run, folder: str, command: str) -> None:
    out, _ = run(*shlex.split(command.replace("results/", f"{RESULTS}/")))
    parts = itertools.groupby(
        out.splitlines(), lambda line: bool(re.match(r"\| |\|-|- .* (lowers|raises) |Of \d", line))
    )
    shown = ["\n".join(lines) for is_shown, lines in parts if is_shown]
    assert shown
    for part in shown:
        assert part in READMES[folder]


def test_the_coefficients_of_the_leaderboard_are_those_that_its_query_chooses(run: Run) -> None:
    (query,) = (command for folder, command in COMMANDS if folder == "losses" and "AS chosen" in command)
    out, _ = run(*shlex.split(query.replace("results/", f"{RESULTS}/").replace("--format markdown", "--json")))
    chosen = [row["chosen"] for row in json.loads(out)]
    assert sorted(chosen) == sorted(str(loss) for loss in build(presets.load("losses-mini")[1], "losses-mini").losses())


@pytest.mark.parametrize("folder", READMES)
def test_the_readme_shows_something(folder: str) -> None:
    assert [each for each, _ in COMMANDS].count(folder) >= 5
