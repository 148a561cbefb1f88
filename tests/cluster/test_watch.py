"""What a command does that cannot leave when its Ray has died; no Ray is started here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from place import wait_until

import sgbench

STUCK = """
import subprocess, sys, time
from sgbench.cluster import watch

watch.LEAVE_SECONDS = 0.5
vital, other = (subprocess.Popen([path, "60"]) for path in sys.argv[1:])
with watch.Watch() as watching:
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
