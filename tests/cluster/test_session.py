"""What a command that has joined a cluster, or started one, lets Ray say; none is started here."""

import logging
import os
import sys

import pytest
import ray
from ray._private import worker
from ray.exceptions import RaySystemError, RayTaskError

from sgbench.cluster import connect, session
from sgbench.core.errors import InputError, InterruptionError


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever a Ray that is started finds in PYTHONPATH; none is."""
    found: list[str] = []
    monkeypatch.setattr(ray, "init", lambda *_, **__: found.append(os.environ["PYTHONPATH"]))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "node_check", lambda: lambda seconds: True)
    return found


def test_neither_ray_nor_its_raylets_print_anything(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "_worker_logs_enabled", True)
    with connect(None):
        said = {"lines": ["WARNING: 8 PYTHON worker processes have been started"], "pid": "raylet", "is_err": False}
        worker.print_worker_logs({**said, "ip": "127.0.0.1"}, sys.stdout)
        logging.getLogger("ray.tune").error("a banner")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("address", "words"), [(None, "starting Ray…"), ("10.0.0.1:6379", "joining the Ray cluster at 10.0.0.1:6379…")]
)
def test_what_takes_seconds_is_said_before_it_begins(
    address: str | None, words: str, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(session, "_knock", lambda at: said.append(f"reaching {at}"))
    monkeypatch.setattr(ray, "init", lambda *_, **__: said.append("init"))
    with connect(address, said.append):
        assert said == [words, *([f"reaching {address}"] if address else []), "init"]


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.\nIts log is long.")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(InputError, match=r"^Ray cannot be started here: The current node timed out during startup\.$"),
        connect(None),
    ):
        pass


@pytest.mark.parametrize("before", [None, "/theirs"])
def test_a_ray_that_is_started_imports_what_this_process_can_and_the_environment_stays_as_it_was(
    before: str | None, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before:
        monkeypatch.setenv("PYTHONPATH", before)
    with connect(None):
        assert os.environ.get("PYTHONPATH") == before
    assert os.environ.get("PYTHONPATH") == before
    (path,) = paths
    assert set(filter(None, sys.path)) <= set(path.split(os.pathsep))


def test_a_process_that_is_connected_already_is_told_so_and_its_ray_stays(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("it was shut down"))
    with (
        pytest.raises(InputError, match=r"^this process is already connected to a Ray; call ray\.shutdown"),
        connect(None),
    ):
        pass
    assert paths == []


def test_what_ray_raises_of_itself_ends_a_command_in_a_sentence(paths: list[str]) -> None:
    said = "RPC error: WrongClusterID: Perhaps the client is accessing GCS after it has restarted."
    with (
        pytest.raises(
            InterruptionError, match=r"^Ray failed: RaySystemError: .*restarted.*; run the same command again"
        ),
        connect(None),
    ):
        raise RaySystemError(said)


def test_what_our_code_raises_in_a_task_stays_what_it_is(paths: list[str]) -> None:
    error = RayTaskError("score", "a metric is refused", InputError("a metric is refused.")).as_instanceof_cause()
    with pytest.raises(InputError, match="a metric is refused"), connect(None):
        raise error
