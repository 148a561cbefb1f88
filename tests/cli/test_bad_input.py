"""Bad input that is no data: permissions, locks, processes, disks. All other is in `tests/bad_input`."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sgbench.cli import main
from sgbench.core.storage import Storage

Refused = Callable[..., str]

SWEEP = """
grids:
- backbones: [edsr-tiny]
  losses: [l1 + 1.0*sg]
train: mine=train
tests: [few=test]
metrics: [psnr_y]
recipe: {steps: 3, batch: 2, patch: 8}
"""


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Refused]:
    """Runs a command that must be refused, and returns what it says."""

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in place.rglob("*") if "cache" not in path.parts}

    def refused(*arguments: str) -> str:
        before = files()
        monkeypatch.setattr(sys, "argv", ["sgbench", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 2
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.endswith(".\n")
        assert said.err.count("\n") == 1
        assert files() == before  # neither a store nor a lock nor anything else
        assert not list(place.glob("cache/data/.*"))
        return said.err.removeprefix("error: ").removesuffix(".\n")

    return refused


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_folders_without_permission_are_refused(place: Path, refused: Refused) -> None:
    (place / "train").chmod(0)
    assert "train': Permission denied" in refused("sweep", "tiny.yaml")
    (place / "train").chmod(0o700)
    (place / "closed").mkdir(mode=0o500)
    assert "Permission denied" in refused("sweep", "tiny.yaml", "--results", "closed/store")


def test_a_store_in_use_names_who_uses_it(place: Path, refused: Refused) -> None:
    with Storage(str(place / "busy")).lock("sgbench sweep quick"):
        for command in (["sweep", "tiny.yaml"], ["train", "tiny.yaml"], ["eval", "bicubic", "--test", "few=test"]):
            said = refused(*command, "--results", "busy")
            assert f"busy' is in use by 'sgbench sweep quick' (process {os.getpid()} on " in said


def test_a_process_prints_no_traceback_either(place: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "sgbench", "sweep", "tiny.yaml", "--backbone", "edrs"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1


def test_a_full_disk_is_told_in_a_sentence(
    place: Path, disk: Path, fill: Callable[..., Path], run: Callable[..., tuple[str, str]]
) -> None:
    fill(but=0)
    _, said = run("sweep", "tiny.yaml", "--results", str(disk), code=2)
    assert re.fullmatch(rf"error: '{disk}/\S+': No space left on device\.\n", said)


def test_a_read_only_store_is_refused_in_a_sentence_and_can_be_read(
    place: Path, disk: Path, run: Callable[..., tuple[str, str]]
) -> None:
    run("train", "tiny.yaml", "--results", str(disk))
    shown = run("table", "--results", str(disk))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    _, said = run("sweep", "tiny.yaml", "--results", str(disk), code=2)
    assert said == f"error: '{disk}/.lock': Read-only file system.\n"
    assert run("table", "--results", str(disk)) == shown
