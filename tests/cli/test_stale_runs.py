"""What commands say once the code of a plug-in is another than runs were trained with."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sgbench.core.storage import Storage
from sgbench.metrics import METRICS

Run = Callable[..., tuple[str, str]]

SWEEP = """
grids:
- backbones: [edsr-tiny]
  losses: [l1, of_commands:Aging]
train: mine=train
tests: [few=test]
metrics: [psnr_y]
recipe: {steps: 3, batch: 2, patch: 8}
"""

LOSS = """import torch


class Aging(torch.nn.Module):
    def forward(self, sr, hr):
        return (sr - hr).abs().mean()
"""

ONE = ("tiny.yaml", "--loss", "of_commands:Aging")

CHANGED = "the code of loss 'of_commands:Aging' has changed since"


def test_every_command_says_that_runs_are_stale(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(place)
    loss = place / "of_commands.py"
    loss.write_text(LOSS)
    run("sweep", "tiny.yaml", "--shard", "1/1")
    (row,) = json.loads(run("query", "SELECT run_id, code FROM runs WHERE loss <> 'l1'", "--json")[0])
    run_id, (digest,) = row["run_id"], json.loads(row["code"]).values()
    loss.write_text(LOSS.replace("        return", "        # of pixels\n        return"))
    assert run("plan", *ONE)[1].endswith("tiny: 1 run: 1 done\n")
    table = run("table")[0]
    assert "Stale" not in table
    assert "the same now" in run("results", "source", run_id[:5])[0]

    loss.write_text(LOSS.replace("return", "return 1000 *"))
    before = Storage(str(place / "results" / "tiny")).sizes()
    said = (
        f"{CHANGED} 1 run was trained, the first {run_id}; --rerun-stale repeats them, and --keep-stale takes them as"
    )
    assert run("plan", *ONE)[1] == f"tiny: 1 run: 1 stale\n{said} they are.\n"
    (planned,) = json.loads(run("plan", *ONE, "--json")[0])
    assert (planned["status"], planned["error"]) == ("stale", CHANGED)
    assert run("sweep", *ONE, "--shard", "1/1", code=2) == ("", f"error: {said} they are.\n")
    assert run("train", *ONE, code=2)[1] == f"error: {said} they are.\n"
    assert Storage(str(place / "results" / "tiny")).sizes() == before
    out, err = run("train", *ONE, "--keep-stale")
    assert f"note: {CHANGED} 1 run was trained, the first {run_id}; they are kept." in err
    assert f"¹ Stale: {CHANGED} this was trained." in out
    marked = run("table", "--format", "markdown")[0]
    assert f"- ¹ Stale: {CHANGED} this was trained." in marked
    assert f"Stale: {CHANGED} runs were trained." in run("compare", "l1", "of_commands:Aging", "--metric", "psnr_y")[0]
    assert f"Stale: {CHANGED} runs were trained." in run("metrics", "agree")[0]
    (sweep,) = json.loads(run("status", "--json")[0])["sweeps"]
    assert (sweep["stale"], sweep["done"]) == (1, 1)
    assert f"1 run of plug-ins whose code is another now (stale): {run_id}." in run("results", "verify")[1]
    out, _ = run("results", "source", run_id[:5])
    assert out == f"# loss of_commands:Aging: code {digest}, another now\n# of_commands.py\n{LOSS}\n"
    (source,) = json.loads(run("results", "source", run_id, "--json")[0])
    assert source["modules"] == {"of_commands.py": LOSS}
    assert source["now"] != source["code"] == digest

    loss.unlink()
    monkeypatch.delitem(sys.modules, "of_commands")
    assert run("table")[0] == table
    assert "not on this machine" in run("results", "source", run_id)[0]


METRIC = """from sgbench.metrics import ImageMetric


class Mean(ImageMetric):
    def score(self, pair, runtime):
        return float(pair.sr.luma.mean())


mean = Mean(
    name="of_scores:mean", direction="lower", version="1", protocol={}, needs_hr=False, description="", source="test"
)
"""


def test_scores_of_a_metric_whose_code_is_another_are_computed_anew(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(METRICS, "_loaded", dict(METRICS._loaded))
    metric, ask = place / "of_scores.py", ("eval", "bicubic", "--test", "few=test", "--metric", "of_scores:mean")

    def written(text: str) -> tuple[float, str]:
        metric.write_text(text)
        METRICS._loaded.pop("of_scores:mean", None)
        sys.modules.pop("of_scores", None)
        run(*ask)
        sql = "SELECT value, metric_code FROM scores WHERE image IS NULL"
        (row,) = json.loads(run("query", sql, "--results", "results/eval", "--json")[0])
        return row["value"], row["metric_code"]

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    first = written(METRIC)
    before = {path: path.stat().st_mtime_ns for path in place.glob("results/eval/scores/*")}
    assert written(METRIC.replace("class Mean(ImageMetric):", 'class Mean(ImageMetric):\n    """Of Y."""')) == first
    assert {path: path.stat().st_mtime_ns for path in place.glob("results/eval/scores/*")} == before
    changed = METRIC.replace("luma.mean()", "luma.mean() + 1000")
    metric.write_text(changed)
    said = "of_scores:mean has scores of other code than it has now, which a sweep or eval computes anew."
    assert said in run("table", "--results", "results/eval")[0]
    value, code = written(changed)
    assert value == pytest.approx(first[0] + 1000)
    assert code != first[1]
    assert said not in run("table", "--results", "results/eval")[0]
