import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from sgbench.cli import main

SWEEP = """
grids:
- backbones: [edsr-tiny]
  losses: [l1, l1 + 1.0*sg]
  seeds: [0, 1]
train: mine=train
tests: [few=test]
metrics: [psnr_y]
recipe: {steps: 3, batch: 2, patch: 8}
"""
"""Four runs of three steps."""


@pytest.fixture
def place(
    tmp_path: Path,
    train_folder: Path,
    test_folder: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A current folder with training images in ``train``, test images in ``test`` and a sweep of them, ``tiny.yaml``.

    The sweep is `SWEEP`, or what the test module has under that name.
    """
    assert (train_folder, test_folder) == (tmp_path / "train", tmp_path / "test")
    (tmp_path / "tiny.yaml").write_text(getattr(request.module, "SWEEP", SWEEP))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("SGBENCH_DATA", raising=False)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str]]:
    """Runs a command, checks its exit code, and returns what it prints on standard output and standard error."""

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["sgbench", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert (end.value.code or 0) == code, said.err
        return said.out, said.err

    return run
