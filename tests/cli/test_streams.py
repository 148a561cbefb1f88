"""Standard streams that are closed, full or no longer read end nothing, and never in a traceback."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from sgbench import cli

STORE = Path(__file__).parents[1] / "stores/27d0b6c"

SCRIPT = "'{python}' -m sgbench table --results '{store}' {redirected}; echo $? >{code}"


@pytest.mark.parametrize(
    ("redirected", "code", "out", "err"),
    [
        ("2>&- <&-", 0, True, ""),
        ("2>/dev/full", 0, True, ""),
        (">/dev/full", 2, False, "error: No space left on device.\n"),
        ("--json | head -n 1", 0, True, ""),
    ],
)
def test_a_command_whose_streams_fail(tmp_path, redirected, code, out, err):
    script = SCRIPT.format(python=sys.executable, store=STORE, redirected=redirected, code=tmp_path / "code")
    if "|" in redirected:
        script = f"set -o pipefail; {script}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ, check=True)
    assert (int((tmp_path / "code").read_text()), bool(ended.stdout), ended.stderr) == (code, out, err)


def test_a_terminal_says_at_once_that_a_sweep_is_being_read(place, run, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    first = run("plan", "tiny.yaml")[1].partition("tiny: 4 runs")[0]
    assert "reading tiny.yaml…" in first
    assert "\x1b[2K" in first.partition("…")[2]  # it is erased


def test_a_warning_is_printed_above_a_live_display_and_not_into_it(capsys):
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    with Live("running", console=console):
        cli._warn(UserWarning("no run has been at work for 60 s"))
    assert "\x1b[2Kwarning: no run has been at work for 60 s\n" in console.file.getvalue()
    assert capsys.readouterr().err == ""
