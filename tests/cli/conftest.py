from pathlib import Path

import pytest


@pytest.fixture
def place(
    tmp_path: Path,
    train_folder: Path,
    test_folder: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A current folder with the test module's ``SWEEP``, training images in ``train`` and test images in ``test``."""
    assert (train_folder, test_folder) == (tmp_path / "train", tmp_path / "test")
    (tmp_path / "tiny.yaml").write_text(request.module.SWEEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("SGBENCH_DATA", raising=False)
    return tmp_path
