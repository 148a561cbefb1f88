"""What a command that has joined a cluster, or started one, lets Ray say; none is started here."""

import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants, worker
from ray.exceptions import RaySystemError, RayTaskError

from sgbench.cluster import connect, session
from sgbench.cluster.ray_internals import asks_for_token, own_token
from sgbench.core.errors import InputError, InterruptionError
from sgbench.core.packages import to_send


@dataclass
class Started:
    """How a Ray was started: what it was told, and the environment that its processes have."""

    options: dict[str, Any]
    environment: dict[str, str]
    on_loopback: bool


@pytest.fixture
def rays(monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    """Each Ray that would have been started; none is."""
    found: list[Started] = []

    def init(*_: object, **options: Any) -> None:
        found.append(Started(options, dict(os.environ), not ray_constants.ENABLE_RAY_CLUSTER))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "node_check", lambda: lambda seconds: True)
    return found


@pytest.fixture
def no_token() -> Iterator[pytest.MonkeyPatch]:
    """Neither a token in the environment nor a mode; Ray reads both again afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.delenv(name)
        yield patch
    with own_token():
        pass
    assert asks_for_token()


def test_neither_ray_nor_its_raylets_print_anything(
    rays: list[Started], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    address: str | None, words: str, rays: list[Started], monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.parametrize("mode", ["token", None])
def test_a_cluster_that_lets_nobody_in_is_one_sentence_that_says_where_its_token_belongs(
    mode: str | None, no_token: pytest.MonkeyPatch
) -> None:
    def init(*_: object, **__: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at auto")

    no_token.setattr(ray, "init", init)
    if mode:
        no_token.setenv("RAY_AUTH_MODE", mode)
    with own_token():  # which lets Ray read the environment again when it ends
        pass
    with pytest.raises(InputError, match=r"^--address: no Ray cluster .* 'auto': Failed to") as error, connect("auto"):
        pass
    told = "it may require another token than that in" if mode else "set RAY_AUTH_MODE=token."
    assert told in str(error.value)
    assert len(str(error.value)) < 300


def test_packages_are_where_all_that_a_cluster_runs_for_this_process_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[bool, dict[str, Any]]] = []

    def init(*_: object, runtime_env: dict[str, Any], **__: object) -> None:
        folder = Path(runtime_env.get("working_dir", "nowhere"))
        sent.append(((folder / "packages/sortedcontainers/__init__.py").is_file(), runtime_env["env_vars"]))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "node_check", lambda: lambda seconds: True)
    for packages in ((), to_send(["sortedcontainers"], "--with")):
        with connect("auto", packages=packages):
            pass
    (without, variables), (there, more) = sent
    assert (without, there) == (False, True)
    assert more == {**variables, "PYTHONPATH": "packages"}


@pytest.mark.parametrize("before", [None, "/theirs"])
def test_a_ray_that_is_started_imports_what_this_process_can_and_the_environment_stays_as_it_was(
    before: str | None, rays: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before:
        monkeypatch.setenv("PYTHONPATH", before)
    with connect(None):
        assert os.environ.get("PYTHONPATH") == before
    assert os.environ.get("PYTHONPATH") == before
    (started,) = rays
    assert set(filter(None, sys.path)) <= set(started.environment["PYTHONPATH"].split(os.pathsep))


@pytest.mark.parametrize("theirs", [None, "their-token"])
def test_a_ray_that_is_started_is_this_user_s_alone_and_nothing_is_left_of_that(
    theirs: str | None, rays: list[Started], no_token: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_token.setenv("RAY_TMPDIR", str(tmp_path / "so-long-that-no-socket-would-fit-below-it"))
    if theirs:
        no_token.setenv("RAY_AUTH_TOKEN", theirs)
    for _ in range(2):
        with connect(None):
            folder = Path(rays[-1].options["_temp_dir"]).parent
            assert folder.stat().st_mode & 0o777 == 0o700
            assert asks_for_token()
        assert not folder.exists()
        assert not asks_for_token()
        assert os.environ.get("RAY_AUTH_TOKEN") == theirs
    assert all(started.on_loopback and started.environment["RAY_AUTH_MODE"] == "token" for started in rays)
    assert {started.environment[f"{each}_SOCKET_IFNAME"] for started in rays for each in ("GLOO", "NCCL")} <= {
        "lo",
        "lo0",
    }
    assert ray_constants.ENABLE_RAY_CLUSTER
    tokens = {started.environment["RAY_AUTH_TOKEN"] for started in rays}
    assert len(tokens - {theirs}) == 2
    assert all(len(token) == 64 for token in tokens)


def test_without_a_folder_for_its_files_a_ray_is_not_started(
    rays: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    with pytest.raises(InputError, match=r"^Ray cannot be started here: .*'/proc/none'\.$"), connect(None):
        pass
    assert rays == []


def test_a_process_that_is_connected_already_is_told_so_and_its_ray_stays(
    rays: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("it was shut down"))
    with (
        pytest.raises(InputError, match=r"^this process is already connected to a Ray; call ray\.shutdown"),
        connect(None),
    ):
        pass
    assert rays == []


def test_what_ray_raises_of_itself_ends_a_command_in_a_sentence(rays: list[Started]) -> None:
    said = "RPC error: WrongClusterID: Perhaps the client is accessing GCS after it has restarted."
    with (
        pytest.raises(
            InterruptionError, match=r"^Ray failed: RaySystemError: .*restarted.*; run the same command again"
        ),
        connect(None),
    ):
        raise RaySystemError(said)


def test_what_our_code_raises_in_a_task_stays_what_it_is(rays: list[Started]) -> None:
    error = RayTaskError("score", "a metric is refused", InputError("a metric is refused.")).as_instanceof_cause()
    with pytest.raises(InputError, match="a metric is refused"), connect(None):
        raise error
