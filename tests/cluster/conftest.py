import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from place import Place, a_place
from raylets import Nodes, a_cluster

from sgbench.cluster.ray_internals import ENVIRONMENT
from sgbench.runs.delivery import Packed
from sgbench.runs.execute import Job
from sgbench.spec import RunSpec, TrainingData


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A run of data that nobody has, with a store of its own."""
    spec = RunSpec(backbone="edsr-tiny", loss="l1", seed=0, train=TrainingData(name="a", sha256="0" * 64))
    return Job(spec, str(tmp_path / "store"), Packed("", "0" * 64), (), (), recompute=False, checkpoint_seconds=10.0)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Where the tests of this folder run commands; each has stores of its own."""
    with a_place(tmp_path_factory.mktemp("place")) as place:
        yield place


@pytest.fixture(scope="session")
def head(place: Place) -> Iterator[Nodes]:
    """A cluster for all tests that kill nothing which others need; it wants a token, and its jobs find ``sgbench``."""
    program = place.folder / "bin" / "sgbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sgbench "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    with a_cluster(place, cpus=2, dashboard=True, PATH=path, **ENVIRONMENT) as head:
        yield head
