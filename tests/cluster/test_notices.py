"""Notices that a machine will be taken away, from stand-ins of metadata services; no Ray is started.

``test_raylets.py`` passes one on to a Ray, whose runs move.
"""

import functools
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest
from stand_ins import Metadata, metadata

from sgbench.cluster import notices
from sgbench.cluster.notices import aws, gcp, leave, main, watch
from sgbench.cluster.ray_internals import Raylet


@pytest.fixture
def service() -> Iterator[Metadata]:
    with metadata() as service:
        yield service


@pytest.fixture
def raylet() -> Iterator[Raylet]:
    """A process that stands in for a raylet."""
    process = subprocess.Popen(["sleep", "60"])
    yield Raylet(psutil.Process(process.pid), "ab", "127.0.0.1:1")
    process.kill()
    process.wait()


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """In how many seconds ends were announced; a raylet then ends, as when its runs have left."""
    seconds: list[float] = []

    def announce_end(raylet: Raylet, left: float) -> None:
        seconds.append(left)
        raylet.process.kill()

    monkeypatch.setattr(notices, "announce_end", announce_end)
    monkeypatch.setattr(notices, "LOOK_SECONDS", 0.01)
    return seconds


def test_ec2_says_when_a_spot_instance_ends(service: Metadata) -> None:
    assert aws(service.url) is None
    service.end_in(120)
    assert aws(service.url) == pytest.approx(120, abs=2)


def test_compute_engine_says_that_a_spot_instance_ends(service: Metadata) -> None:
    assert gcp(service.url) is None
    service.end_in(30)
    assert gcp(service.url) == 30


@pytest.mark.parametrize("cloud", [aws, gcp])
def test_the_end_is_announced_once_whatever_the_service_answered_before(
    cloud: Callable[[str], float | None], raylet: Raylet, announced: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with metadata(broken=2) as service:
        service.end_in(30)
        watch(functools.partial(cloud, service.url), [raylet])
    assert announced == [pytest.approx(30, abs=2)]
    first, second = capsys.readouterr().err.splitlines()
    assert "no answer, asking on: HTTP Error 503" in first
    assert "this machine ends in" in second


def test_the_program_ends_with_the_last_raylet(raylet: Raylet, announced: list[float]) -> None:
    def notice() -> None:
        raylet.process.kill()

    watch(notice, [raylet])
    assert announced == []


def test_an_announcement_that_fails_is_repeated_until_the_time_is_over(
    raylet: Raylet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[float] = []

    def announce_end(raylet: Raylet, left: float) -> None:
        tried.append(left)
        raise ConnectionError("nobody there")

    monkeypatch.setattr(notices, "announce_end", announce_end)
    leave([raylet], 0.5)
    assert len(tried) > 1
    assert capsys.readouterr().err.count("not announced, trying again: nobody there") == 1
    assert raylet.process.is_running()


def test_a_container_that_is_to_end_waits_for_the_runs_of_its_node(
    raylet: Raylet, announced: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "own_raylets", lambda: [raylet])
    main(["now", "--seconds", "20"])
    assert announced == [pytest.approx(20, abs=1)]
