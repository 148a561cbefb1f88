"""What a command does that has lost its Ray, and what is said in its place if Ray ends it; no Ray is started here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from place import wait_until

import sgbench
from sgbench.cluster import watch as module
from sgbench.cluster.watch import NOT_LEFT, SILENT_LOOKS, START_SECONDS, Watch

STUCK = """
import os, subprocess, sys, time
from sgbench.cluster import watch

watch.LEAVE_SECONDS = 0.5
environment = {**os.environ, "RAY_AUTH_TOKEN": "theirs-alone"}
vital, other = (subprocess.Popen([path, "60"], env=environment) for path in sys.argv[1:])
with watch.Watch(token="theirs-alone") as watching:
    watching.look()
    vital.kill()
    print(other.pid, flush=True)
    time.sleep(60)
"""


def test_a_command_that_does_not_leave_is_ended_with_a_sentence_and_its_processes(tmp_path: Path) -> None:
    shutil.copy(shutil.which("sleep") or "", tmp_path / "gcs_server")
    shutil.copy(shutil.which("sleep") or "", tmp_path / "other")
    done = subprocess.run(
        [sys.executable, "-c", STUCK, tmp_path / "gcs_server", tmp_path / "other"],
        env={**os.environ, "PYTHONPATH": str(Path(sgbench.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: Ray's process 'gcs_server' died; run the same command again to start a new Ray and resume.\n"
    )
    stat = Path("/proc") / done.stdout.strip() / "stat"
    # A zombie until whoever inherited it looks, and neither at once where the machine is busy.
    wait_until(lambda: not stat.exists() or ") Z " in stat.read_text(), 60)


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)", "pass"])
def test_whichever_way_a_command_ends_its_ray_ends_too_and_somebody_says_so_if_it_did_not_leave(end: str) -> None:
    code = f"""
import os, subprocess, sys
from sgbench.cluster.watch import Watch

with Watch(token="theirs-alone"):
    for token in "theirs-alone", "of-another":
        environment = {{**os.environ, "RAY_AUTH_TOKEN": token}}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        print(subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True, **pipes).pid, flush=True)
    {end}
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(sgbench.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ("" if end == "pass" else f"error: {NOT_LEFT}\n")
    theirs, of_another = map(int, done.stdout.split())
    assert not psutil.pid_exists(theirs) or psutil.Process(theirs).status() == psutil.STATUS_ZOMBIE
    psutil.Process(of_another).kill()


@pytest.mark.parametrize("address", [None, "head:6379"])
def test_a_ray_that_does_not_answer_for_too_long_is_lost(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(seconds: float) -> bool:
        raise OSError("no answer")

    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    watch = Watch(address)
    watch.connected(silent)
    for look in range(SILENT_LOOKS):
        assert not watch.lost.is_set()
        now[0] = 100.0 + look  # this process was stopped for longer than Ray may be silent
        watch.look()
    assert watch.lost.is_set()
    whose = f"the cluster at '{address}'" if address else "Ray"
    assert str(watch.error()).startswith(f"{whose} has not answered for 103 s; run the same command again to ")


def test_a_ray_that_takes_too_long_to_start_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    watch = Watch("head:6379")
    now[0] = START_SECONDS
    watch.look()
    assert not watch.lost.is_set()
    now[0] += 1
    watch.look()
    assert str(watch.error()).startswith("the cluster at 'head:6379' could not be joined within 180 s; run the same ")


def test_a_ray_that_gives_this_machine_up_is_lost_at_once() -> None:
    watch = Watch("head:6379")
    watch.connected(lambda seconds: True)
    watch.look()
    assert not watch.lost.is_set()
    watch.connected(lambda seconds: False)
    watch.look()
    assert str(watch.error()) == (
        "the cluster at 'head:6379' was restarted or lost this machine; run the same command again to resume, once the "
        "cluster is back."
    )
