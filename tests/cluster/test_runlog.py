"""The log of a run: what goes into it from where, and how it is read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sgbench
from sgbench.cluster.runlog import into_log, log_address, read_log
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.runs.execute import Job

TALKATIVE = """
import os, subprocess, sys
from sgbench.cluster.runlog import into_log
from sgbench.runs.execute import Job

print("before")
try:
    with into_log(Job.from_json(sys.argv[1])):
        print("from Python")
        os.write(1, b"from C\\n")
        os.write(2, b"on standard error\\n")
        subprocess.run(["echo", "from a child"], check=True)
        print(1 // 0)
except ZeroDivisionError:
    print("after")
"""


def test_what_python_c_and_children_print_goes_into_the_log_and_not_to_the_screen(job: Job) -> None:
    said = subprocess.run(
        [sys.executable, "-c", TALKATIVE, job.to_json()],
        env={**os.environ, "PYTHONPATH": str(Path(sgbench.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (said.stdout, said.stderr) == ("before\nafter\n", "")
    first, *lines = Path(log_address(Storage(job.store), job.run_id)).read_text().splitlines()
    assert re.fullmatch(r"── edsr-tiny · l1 · seed 0, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, process \d+ on \S+", first)
    assert {"from C", "from Python", "from a child", "on standard error"} < set(lines)
    assert "ZeroDivisionError: integer division or modulo by zero" in lines


@pytest.mark.parametrize("local", [True, False])
def test_an_attempt_adds_to_what_those_before_it_left(job: Job, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(log_address(Storage(job.store), job.run_id)).parent.mkdir(parents=True)  # an object store needs no folder
    monkeypatch.setattr(Storage, "is_local", local)  # false: as an object store, to which files are sent whole
    for attempt in (b"first\n", b"second\n"):
        with into_log(job):
            os.write(1, attempt)
    lines = read_log(Storage(job.store), job.run_id[:4]).splitlines()
    assert [line for line in lines if not line.startswith("──")] == ["first", "second"]
    assert len(lines) == 4


def test_processes_of_one_run_have_a_file_each_and_are_read_together(job: Job) -> None:
    with into_log(job):
        os.write(1, b"of the run\n")
    with into_log(job, "worker0"):
        os.write(1, b"of a worker\n")
    text = read_log(Storage(job.store), job.run_id)
    assert re.sub("──.*\n", "", text) == (
        f"logs/{job.run_id}/run.log\nof the run\n\nlogs/{job.run_id}/worker0.log\nof a worker\n\n"
    )


def test_a_beginning_that_names_no_run_or_several_is_bad_input(job: Job) -> None:
    storage = Storage(job.store)
    with pytest.raises(InputError, match=r"^run 'ab': '.*' has no log of a run\.$"):
        read_log(storage, "ab")
    for run_id in ("ab" + "0" * 10, "ab" + "1" * 10):
        storage.write(f"logs/{run_id}/run.log", "── l1, 2026-01-02 03:04:05 UTC, process 7 on host\nhello".encode())
    there = r"ab0000000000 \(l1\) and ab1111111111 \(l1\)"
    with pytest.raises(InputError, match=rf"^run 'ab': '.*' has logs of 2 runs whose ids begin with it: {there}\.$"):
        read_log(storage, "ab")
