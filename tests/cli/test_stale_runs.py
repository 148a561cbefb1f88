"""What commands say once the code of a plug-in is another than runs were trained with."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sgbench.core.storage import Storage

Run = Callable[..., tuple[str, str]]

SWEEP = """
grids:
- backbones: [edsr-tiny]
  losses: [of_commands:Aging]
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

CHANGED = "the code of loss 'of_commands:Aging' has changed since"


def test_every_command_says_that_runs_are_stale(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(place)
    loss = place / "of_commands.py"
    loss.write_text(LOSS)
    run("sweep", "tiny.yaml", "--shard", "1/1")
    (row,) = json.loads(run("query", "SELECT run_id, code FROM runs", "--json")[0])
    run_id, (digest,) = row["run_id"], json.loads(row["code"]).values()
    loss.write_text(LOSS.replace("        return", "        # of pixels\n        return"))
    assert run("plan", "tiny.yaml")[1].endswith("tiny: 1 run: 1 done\n")
    table = run("table")[0]
    assert "Stale" not in table
    assert "the same now" in run("results", "source", run_id[:5])[0]

    loss.write_text(LOSS.replace("return", "return 1000 *"))
    before = Storage(str(place / "results" / "tiny")).sizes()
    said = (
        f"{CHANGED} 1 run was trained, the first {run_id}; --rerun-stale repeats them, and --keep-stale takes them as"
    )
    assert run("plan", "tiny.yaml")[1] == f"tiny: 1 run: 1 stale\n{said} they are.\n"
    (planned,) = json.loads(run("plan", "tiny.yaml", "--json")[0])
    assert (planned["status"], planned["error"]) == ("stale", CHANGED)
    assert run("sweep", "tiny.yaml", "--shard", "1/1", code=2) == ("", f"error: {said} they are.\n")
    assert run("train", "tiny.yaml", code=2)[1] == f"error: {said} they are.\n"
    assert Storage(str(place / "results" / "tiny")).sizes() == before
    out, err = run("train", "tiny.yaml", "--keep-stale")
    assert f"note: {CHANGED} 1 run was trained, the first {run_id}; they are kept." in err
    assert f"¹ Stale: {CHANGED} this was trained." in out
    marked = run("table", "--format", "markdown")[0]
    assert f"- ¹ Stale: {CHANGED} this was trained." in marked
    (sweep,) = json.loads(run("status", "--json")[0])["sweeps"]
    assert (sweep["stale"], sweep["done"]) == (1, 0)
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
