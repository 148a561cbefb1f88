"""What is printed where another program would read."""

import ctypes
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sgbench.core.streams import ERR, OUT, nothing_on_stdout, pointed


def print_in_every_way() -> None:
    sys.stdout.write("Python\n")
    ctypes.CDLL(None).printf(b"C\n")
    os.write(1, b"system\n")
    subprocess.run(["echo", "program"], check=True)
    warnings.warn("warning", stacklevel=1)


def test_nothing_on_standard_output_is_nothing_on_it(capfd: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("before\n")
    with nothing_on_stdout(), pytest.warns(UserWarning, match="^warning$"):
        print_in_every_way()
    sys.stdout.write("after\n")
    said = capfd.readouterr()
    assert said.out == "before\nafter\n"
    assert sorted(said.err.splitlines()) == ["C", "Python", "program", "system"]


def test_streams_point_back_in_the_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "log").open("w") as log, pointed(OUT, ERR, at=log.fileno()):
        ctypes.CDLL(None).printf(b"C\n")
        os.write(2, b"system\n")
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("after\n", "")
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["C", "system"]


def test_a_full_disk_does_not_hide_what_ended_the_context() -> None:
    code = """
import os, sys
from sgbench.core.streams import *
try:
    with open("/dev/full", "w") as full, pointed(OUT, ERR, at=full.fileno()):
        print("lost")
        raise KeyError("why")
except KeyError:
    os.write(1, b"why")
os._exit(0)
"""
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    answer = subprocess.run([sys.executable, "-c", code], env=buffered, capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("why", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    code = "from sgbench.core.streams import *\nwith nothing_on_stdout(): print('aside')\nprint('said')"
    answer = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == ("" if ">&-" in closed.split() else "said\n")
