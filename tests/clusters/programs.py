"""Programs that check cluster files."""

import shutil
import sys
from pathlib import Path

import pytest


def program(name: str) -> str:
    """Return where a program is, beside the Python of the tests or elsewhere; the test is skipped if it is nowhere."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or pytest.skip(f"no {name} here")
