"""What the README and the pages in docs/ show is what the software does."""

import datetime
import functools
import re
import shlex
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import typer.main
import yaml

import sgbench
from sgbench.cli import app
from sgbench.core.registry import DISCRIMINATORS, LOSSES, METRICS
from sgbench.core.storage import Storage
from sgbench.metrics import Pair, Runtime
from sgbench.spec import build, check_loss, override, read_setting
from sgbench.store import HISTORY, RUNS, SCORES, VALIDATION, Store

ROOT = Path(__file__).parent.parent
PAGES = {
    page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store ``results/quick`` of two losses and two seeds, in the current folder."""
    monkeypatch.chdir(tmp_path)
    store = Store(Storage("results/quick"))
    for number, (loss, seed, lpips) in enumerate([("l1", 0, 0.4), ("l1", 1, 0.42), ("l1 + 1.0*sg", 0, 0.3)]):
        run = {"run_id": f"{number:012x}", "kind": "train", "name": "run", "backbone": "edsr-tiny", "loss": loss}
        store.write_run({**run, "seed": seed, "scale": 4, "status": "done"})
        score = {"run_id": run["run_id"], "dataset": "demo", "dataset_sha256": "ab" * 32, "metric": "lpips_alex"}
        score |= {"metric_version": "1", "protocol": "{}", "n_images": 1, "status": "ok", "scored": NOW}
        store.write_scores([{**score, "image": image, "value": lpips} for image in (None, "cat")])
    return store


@pytest.mark.parametrize("page", ["README.md", "results.md"])
def test_the_python_block_runs(page: str, quick: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python", page)
    exec(block, {})
    printed = capsys.readouterr().out
    assert re.search(r"demo\s+edsr-tiny\s+l1\s+0\.41\s+0\.014142\s+2", printed), printed


def test_the_python_blocks_with_a_loss_a_metric_and_a_discriminator_run(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for registry in (LOSSES, DISCRIMINATORS, METRICS):
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    settings = {"recipe.steps": 1, "recipe.batch": 1, "recipe.patch": 8}
    quick = functools.partial(sgbench.sweep, settings=settings, metrics=["psnr_y"], local=True)
    monkeypatch.setattr("sgbench.api.sweep", quick)
    (block,) = blocks("python", "python.md")
    exec(block, {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "A is l1, B is l1 + 0.1*sharp." in printed
    assert re.search(r"blur ↓ *\n─+\ndemo +edsr-tiny +l1", printed), printed
    (block,) = (block for block in blocks("python", "losses.md") if "register_discriminator" in block)
    exec(block, names := {})
    runs = names["results"].runs.to_pylist()
    assert "0.005*gan(discriminator=shallow, features=8) + 1.0*l1" in {row["loss"] for row in runs}
    assert {row["status"] for row in runs} == {"done"}


def test_the_python_blocks_with_metrics_run(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(METRICS, "_loaded", dict(METRICS._loaded))
    names: dict[str, Any] = {"__name__": "__main__"}
    section = PAGES["metrics.md"].partition("## Your own metric")[2].partition("\n## ")[0]
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    values = {row["metric"]: row["value"] for row in names["results"].scores.to_pylist() if row["image"] is None}
    assert values.keys() == {"edges", "psnr_y"}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 9, 9), np.uint8)
    mse = names["mse"].score(Pair("a", *pixels, crop=4), Runtime())
    assert mse == pytest.approx(np.mean((pixels[0] / 255 - pixels[1] / 255) ** 2))


def test_the_sql_line_runs(quick: Store) -> None:
    (line,) = blocks("sql", "results.md")
    assert line.count("\n") == 1
    rows = duckdb.sql(line).fetchall()
    assert [row[:3] for row in rows] == [("demo", "edsr-tiny", "l1 + 1.0*sg"), ("demo", "edsr-tiny", "l1")]
    assert [row[3] for row in rows] == pytest.approx([0.3, 0.41])


def test_the_sweep_file_is_valid() -> None:
    block, question, search = map(yaml.safe_load, blocks("yaml", "sweeps.md"))
    assert len(build(block, "sweeps.md").grids) == 1
    assert [asked.question.sets for asked in build(block | question, "sweeps.md").asked()] == [("Set5",)]
    validate = {"validate": {"sets": ["held-out=/data/held-out"], "every": 500}}
    assert build(block | search | validate, "sweeps.md").tune


def test_what_basicsr_says_can_be_said_here() -> None:
    (block,) = blocks("yaml", "basicsr.md")
    rows = [line.split("|")[2] for line in PAGES["basicsr.md"].splitlines() if line.startswith("|")]
    codes = [code for row in rows for code in re.findall("`([^`]+)`", row)]
    settings = [code for code in codes if re.match(r"[a-z_.]+=", code)]
    losses = [code for code in codes if re.match(rf"([0-9.]+\*)?({'|'.join(LOSSES.names())})\b", code)]
    assert (len(settings), len(losses)) >= (20, 14)
    for setting in ("recipe.steps=400000", *settings):
        fields = yaml.safe_load(block)
        override(fields, *read_setting(setting))
        build(fields, setting)
    for loss in losses:
        check_loss(loss)


COMMANDS = [
    line
    for page in PAGES
    for block in blocks("sh", page)
    for line in block.replace("\\\n", "").splitlines()
    if line[:8] == "sgbench "
]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_flags_exist(line: str) -> None:
    words = shlex.split(line, comments=True)
    command = typer.main.get_command(app)
    context = typer.Context(command)
    words = words[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    with typer.Context(command, parent=context) as inner:
        command.parse_args(inner, words)


def test_every_column_of_the_small_tables_is_documented() -> None:
    for schema, table in ((SCORES, "scores"), (HISTORY, "history"), (VALIDATION, "validation")):
        (row,) = re.findall(rf"\| `{table}/\*\.parquet` \|.*", PAGES["results.md"])
        assert [name for name in schema.names if name != "schema_version" and f"`{name}`" not in row] == []
    (row,) = re.findall(r"\| `runs/\*\.parquet` \|.*", PAGES["results.md"])
    assert [name for name in re.findall(r"`(\w+)`", row.partition("| a run |")[2]) if name not in RUNS.names] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    folder = ROOT if page == "README.md" else ROOT / "docs"
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", PAGES[page])
    assert [target for target in targets if not (folder / target).exists()] == []
