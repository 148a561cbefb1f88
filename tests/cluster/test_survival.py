"""What sweeps survive: signals, and storage that is full, read-only or not to be relied on."""

import contextlib
import os
import random
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos import KINDS, STORM, Log, bound, chaos, draw, draw_for_s3, summary
from place import Place, assert_clean, has_tune, kill
from raylets import Nodes

import sgbench

RUN = ("tiny.yaml", "--loss", "odd_losses:Slow", "--seeds", "0")


@pytest.fixture(scope="module")
def calm(place: Place) -> dict[str, Any]:
    """What the run leaves without Ray and without trouble."""
    place.call("train", *RUN, "--results", "calm")
    return place.outcome("calm")


@pytest.mark.ray
@pytest.mark.slow
def test_whatever_is_killed_the_same_command_ends_with_the_same_bits(tmp_path: Path) -> None:
    kinds = [(victim, False) for victim in ("driver", "sweep", "worker", "RPCs")]
    blows = chaos(tmp_path, len(kinds), seed=224, kinds=kinds)
    assert {(blow.victim, blow.joins) for blow in blows} == set(kinds)
    assert all(blow.was in ("starting", "training", "scoring") for blow in blows)


def test_a_seed_draws_the_same_blows_and_each_kind_as_often_as_the_others() -> None:
    count = 4 * len(KINDS)
    blows = draw(count, random.Random(3))
    assert blows == draw(count, random.Random(3))
    assert blows != draw(count, random.Random(4))
    assert Counter((blow.victim, blow.joins) for blow in blows) == dict.fromkeys(KINDS, 4)
    assert any(not blow.in_runs for blow in blows)


def test_of_five_blows_to_a_store_on_s3_three_kill_one_is_an_outage_and_one_a_sleeper() -> None:
    blows = draw_for_s3(STORM, random.Random(3))
    assert blows == draw_for_s3(STORM, random.Random(3))
    kinds = Counter(blow.victim.partition(" ")[0] if blow.is_outage else blow.victim for blow in blows)
    assert (kinds["server"], kinds["driver asleep"], kinds.total()) == (2, 2, STORM)
    assert all(blow.in_runs and blow.is_last for blow in blows if blow.victim == "driver asleep")


def test_a_log_adds_up_what_storms_have_dealt_and_says_what_that_proves(tmp_path: Path) -> None:
    for seed in (1, 2):
        Log(tmp_path / "log").add(seed, draw(STORM, random.Random(seed)))
    log = Log(tmp_path / "log")
    assert {seed: storm == draw(STORM, random.Random(seed)) for seed, storm in log.storms.items()} == {1: True, 2: True}
    assert len(log.blows) == 2 * STORM
    assert [f"{bound(count):.1%}" for count in (30, 300)] == ["9.5%", "1.0%"]
    assert "20 blows, no loss" in str(summary(log.blows).caption)


VITAL = {"gcs_server": "ray/core/src/ray/gcs/gcs_server", "raylet": "ray/core/src/ray/raylet/raylet"}

MOMENTS: dict[str, Callable[[Place, str], bool]] = {
    "no run has begun": lambda place, said: has_tune(place.processes(VITAL["raylet"])),
    "a run trains": lambda place, said: ": step " in said,
}


def assert_alone(place: Place) -> Path:
    """Check that nobody else can reach the Ray of a command that runs here, or read its files; return their folder."""
    sockets, words, raylet = [], [], None
    for process in map(psutil.Process, place.processes()):
        with contextlib.suppress(psutil.NoSuchProcess):  # such as a worker that nobody needs
            sockets += process.net_connections("inet")
            words += process.cmdline()
            raylet = process if process.name() == "raylet" else raylet
    assert raylet is not None
    listening = {each.laddr for each in sockets if each.status == psutil.CONN_LISTEN or each.type == socket.SOCK_DGRAM}
    assert len(listening) >= 4
    assert {each.ip.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}
    token = raylet.environ()["RAY_AUTH_TOKEN"]
    assert token != os.environ["RAY_AUTH_TOKEN"]
    assert not any(token in word for word in words)
    (log,) = (word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--log_dir="))
    folder = Path(log).parents[2]
    assert folder.stat().st_mode & 0o777 == 0o700
    files = [path for root in (folder, place.folder) for path in root.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if token.encode() in path.read_bytes()]
    return folder


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_that_loses_a_process_ends_the_sweep_in_a_sentence_and_the_same_command_resumes(
    place: Place, calm: dict[str, Any], tmp_path: Path
) -> None:
    sweep, reached = ("sweep", *RUN, "--results", "vital", "--set", "checkpoint_seconds=0.2"), [1]
    without_token = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": ""}

    def resumed_at(said: str) -> int:
        return int(re.findall(r": step (\d+)/", said)[0])

    for process, moment, workers in (
        ("raylet", "no run has begun", 0),
        ("gcs_server", "a run trains", 0),
        ("raylet", "a run trains", 1),
    ):
        command = place.start(*sweep, "--set", f"workers={workers}", slow=0.5, **without_token)
        command.wait_until(lambda err, moment=moment: MOMENTS[moment](place, err))
        folder = assert_alone(place)
        kill(place.processes(VITAL[process]))
        assert command.end(60) == 1, command.stderr[-2000:]
        last = f"\nerror: Ray's process '{process}' died; run the same command again to start a new Ray and resume.\n"
        assert command.stderr.endswith(last)
        assert "Traceback" not in command.stderr
        place.assert_no_processes(60)
        assert not folder.exists()
        assert not list(tmp_path.iterdir())  # the home folder
        reached += [resumed_at(command.stderr)] if moment == "a run trains" else []

    reached.append(resumed_at(place.run(*sweep).stderr))
    assert reached[0] == reached[1] < reached[2] < reached[3]
    assert place.outcome("vital") == calm
    assert_clean(place, "vital")


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_reaches_worker_groups_and_the_sweep_goes_on_from_where_they_were(
    place: Place, calm: dict[str, Any], head: Nodes
) -> None:
    sweep = ("sweep", *RUN, "--results", "groups", "--set", "workers=1")
    command = place.start(*sweep, "--address", head.address, slow=0.5)
    command.wait_until(lambda err: ": step " in err)
    command.signal_group(signal.SIGINT)
    assert command.end(60) == 130, command.stderr[-2000:]
    assert command.stderr.endswith("Interrupted; run the same command to resume.\n")
    assert "Traceback" not in command.stderr
    place.assert_no_processes()
    head.assert_idle()
    (run,) = place.plan(*RUN, "--results", "groups")
    assert run["status"] == "resumable"

    last = head.call(*sweep)
    (step,) = re.findall(r": step (\d+)/", last.stderr)[:1]
    assert int(step) > 1
    assert place.outcome("groups") == calm
    assert_clean(place, "groups")


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once(place: Place) -> None:
    command = place.start("sweep", *RUN, "--results", "twice", slow=0.5)
    command.wait_until(lambda err: "\nstarted " in err)
    place.slow_down(30)  # from now on a step is longer than anybody waits
    time.sleep(2)
    command.signal_group(signal.SIGINT)
    time.sleep(1)
    assert command.process.poll() is None
    command.signal_group(signal.SIGINT)
    assert command.end(20) == 130, command.stderr[-2000:]
    assert "Traceback" not in command.stderr
    place.assert_no_processes()


@pytest.mark.ray
@pytest.mark.slow
def test_a_full_disk_interrupts_the_sweep_in_a_sentence_and_with_room_the_same_command_completes_it(
    place: Place, calm: dict[str, Any], head: Nodes, disk: Path, fill: Callable[..., Path]
) -> None:
    filler = fill(but=100_000)  # enough for rows, not for weights
    sweep = ("sweep", *RUN, "--results", str(disk / "store"), "--set", "checkpoint_seconds=0")
    command = head.call(*sweep, code=1)
    assert "Traceback" not in command.stderr
    (last,) = re.findall(r"\nerror: (.*)\n$", command.stderr)
    assert re.fullmatch(r"1 of 1 runs were interrupted: .*No space left on device.*; run the same .* to resume\.", last)
    filler.unlink()
    head.call(*sweep)
    assert place.outcome(str(disk / "store")) == calm
    assert_clean(place, str(disk / "store"))


FLAKY = """
import errno, itertools, os
real, calls = os.fsync, itertools.count(1)

def fsync(file):
    if next(calls) % 3 == 0:
        open(os.environ["FAULTS"], "a").write("x")
        raise OSError(errno.EIO, "Input/output error")
    real(file)

os.fsync = fsync
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_storage_that_fails_every_third_write_changes_nothing(place: Place, calm: dict[str, Any]) -> None:
    (place.folder / "flaky").mkdir()
    (place.folder / "flaky" / "sitecustomize.py").write_text(FLAKY)  # which every Python process imports first
    paths = f"{place.folder / 'flaky'}:{Path(sgbench.__file__).parent.parent}"
    faults = place.folder / "faults"
    sweep = ("sweep", *RUN, "--results", "third", "--set", "checkpoint_seconds=0.2")
    place.run(*sweep, PYTHONPATH=paths, FAULTS=str(faults), slow=0.05)
    assert len(faults.read_text()) >= 2
    assert place.outcome("third") == calm
    place.call("results", "verify", "third")
    assert_clean(place, "third")
