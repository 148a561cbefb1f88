"""``sgbench check`` and ``sgbench new``, from the first command to what fails."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sgbench.core.registry import LOSSES

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; a module called ``mine`` in it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LOSSES, "_loaded", {})
    yield tmp_path
    sys.modules.pop("mine", None)


def test_what_is_new_is_checked_and_then_broken(folder: Path, run: Run) -> None:
    out, _ = run("new", "loss", "Mine")
    assert out.splitlines() == [
        "written: mine.py",
        "written: test_mine.py",
        "Next, in this folder:",
        "  sgbench check mine:Mine",
        "  pytest test_mine.py",
        "  sgbench sweep quick --loss l1 --loss 'l1 + 0.1*mine:Mine'",
    ]
    _, err = run("new", "loss", "mine", code=2)
    assert err == "error: 'mine.py' exists and is left as it is; choose another name.\n"

    out, err = run("check", "mine:Mine", "--patch", "8")
    lines = out.splitlines()
    assert lines[0] == "loss 'mine:Mine'"
    assert all(line.startswith("✓ ") for line in lines[1:])
    assert "(mine:Mine(distance=1))" in out
    assert err == "All 16 checks passed.\n"

    text = (folder / "mine.py").read_text()
    (folder / "mine.py").write_text(text.replace("return self._compare", "print('hi')\n        return self._compare"))
    sys.modules.pop("mine")
    LOSSES._loaded.clear()
    out, err = run("check", "mine:Mine(distance=40)", "--patch", "8", code=1)
    failure, fix, rest = out.splitlines()[1:]
    assert failure.startswith("✗ call        loss 'mine:Mine(distance=40)': RuntimeError: ")
    assert fix == "              fix: write forward(self, sr, hr) and return a mean"
    assert rest.startswith("– not tried   images, value, gradient, ")
    assert err.splitlines()[-1] == "1 of 16 checks failed."
    assert "hi" not in out


def test_json_has_a_row_for_each_check(run: Run) -> None:
    rows = json.loads(run("check", "l1", "psnr_y", "--patch", "8", "--json")[0])
    assert {(row["kind"], row["name"]) for row in rows} == {("loss", "l1"), ("metric", "psnr_y")}
    assert all(row["passed"] is True and row["fix"] is None for row in rows)
    assert rows[0] == {
        "kind": "loss",
        "name": "l1",
        "check": "call",
        "rule": "returns a scalar for SR and HR",
        "passed": True,
        "said": None,
        "fix": None,
    }


def test_a_name_that_is_nothing_is_bad_input(run: Run) -> None:
    _, err = run("check", "l1", "psnr_x", code=2)
    assert err.startswith("error: unknown loss, backbone or metric 'psnr_x': did you mean 'psnr_y'?")
