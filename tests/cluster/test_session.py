"""What a command that has joined a cluster, or started one, lets Ray say; none is started here."""

import logging
import sys

import pytest
import ray
from ray._private import worker

from sgbench.cluster import connect
from sgbench.core.errors import InputError


def test_neither_ray_nor_its_raylets_print_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "init", lambda *_, **__: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(worker, "_worker_logs_enabled", True)
    monkeypatch.setenv("PYTHONPATH", "")
    with connect(None):
        said = {"lines": ["WARNING: 8 PYTHON worker processes have been started"], "pid": "raylet", "is_err": False}
        worker.print_worker_logs({**said, "ip": "127.0.0.1"}, sys.stdout)
        logging.getLogger("ray.tune").error("a banner")
    assert capsys.readouterr() == ("", "")


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.\nIts log is long.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("PYTHONPATH", "")
    with (
        pytest.raises(InputError, match=r"^Ray cannot be started here: The current node timed out during startup\.$"),
        connect(None),
    ):
        pass
