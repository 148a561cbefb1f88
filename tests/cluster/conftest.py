from pathlib import Path

import pytest

from sgbench.runs.delivery import Packed
from sgbench.runs.execute import Job
from sgbench.spec import RunSpec, TrainingData


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A run of data that nobody has, with a store of its own."""
    spec = RunSpec(backbone="edsr-tiny", loss="l1", seed=0, train=TrainingData(name="a", sha256="0" * 64))
    return Job(spec, str(tmp_path / "store"), Packed("", "0" * 64), (), (), recompute=False, checkpoint_seconds=10.0)
