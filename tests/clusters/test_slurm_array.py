"""The job array: what shellcheck says of its script, what it does when it is told to stop, and a sweep in two tasks."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from programs import program

from sgbench.core.storage import Storage
from sgbench.runs.verification import verify
from sgbench.store import Store

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "clusters" / "slurm-array.sbatch"
OPTIONS = {
    *("account", "partition", "job-name", "array", "nodes", "ntasks", "gpus", "cpus-per-task", "mem", "time", "signal"),
    *("requeue", "open-mode", "output"),
}
"""Of sbatch, that the script uses."""

TOLD = """
echo "$*" >> PLACE/shards
trap 'echo told >> PLACE/shards; exit 130' TERM
while [[ -e PLACE/goes-on ]]; do sleep 0.05; done
exit $CODE
"""


def test_the_script_is_valid() -> None:
    for command in (["bash", "-n"], [program("shellcheck"), "--norc"]):
        answer = subprocess.run([*command, str(SCRIPT)], capture_output=True, text=True, check=False)
        assert answer.stdout + answer.stderr == ""
    text = SCRIPT.read_text(encoding="utf-8")
    assert set(re.findall(r"^#SBATCH --([\w-]+)", text, re.MULTILINE)) == OPTIONS
    assert re.findall("^#+ *SBATCH(?! --).*|^# +SBATCH.*", text, re.MULTILINE) == []


class Array:
    """An array of two tasks, in which Slurm only notes how it is called.

    Args:
        folder: For the stand-ins of programs.
        sgbench: What stands for sgbench.
    """

    def __init__(self, folder: Path, sgbench: str) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "bin" / "activate").touch()
        for name, line in {"scontrol": 'echo "$*" >> PLACE/said', "sgbench": sgbench}.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\n{line}\n".replace("PLACE", str(folder)))
            (folder / "bin" / name).chmod(0o755)

    @contextlib.contextmanager
    def task(self, number: int, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Start a task, which has ended at the end of the context."""
        own = {"SLURM_JOB_ID": f"{70 + number}", "SLURM_ARRAY_JOB_ID": "72", "SLURM_ARRAY_TASK_ID": f"{number}"}
        own |= {"SLURM_ARRAY_TASK_MAX": "2", "SGBENCH_ENV": str(self.folder), "CODE": "0"}
        path = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            env=dict(os.environ) | own | path | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        yield process
        process.wait(300)

    def has(self, name: str) -> list[str]:
        """Return the lines of a file of the stand-ins."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).read_text().splitlines()
        return []


@pytest.mark.parametrize(
    ("notice", "environment", "code", "requeued"),
    [
        (signal.SIGUSR1, {}, 130, ["requeue 72_2"]),
        (signal.SIGUSR1, {"SLURM_RESTART_COUNT": "3", "SGBENCH_REQUEUES": "3"}, 130, []),
        (signal.SIGTERM, {}, 130, []),
        (None, {}, 0, []),
        (None, {"CODE": "1", "SGBENCH_SHARDS": "8"}, 1, []),
    ],
)
def test_a_task_that_is_told_to_stop_writes_checkpoints_and_comes_back_if_its_time_is_over(
    tmp_path: Path, notice: signal.Signals | None, environment: dict[str, str], code: int, requeued: list[str]
) -> None:
    array = Array(tmp_path, TOLD)
    if notice:
        (tmp_path / "goes-on").touch()
    with array.task(2, "paper mini.yaml", "--results", "x", **environment) as task:
        if notice:
            while not array.has("shards"):
                time.sleep(0.05)
            task.send_signal(notice)
    assert task.returncode == code
    assert array.has("said") == requeued
    first, *told = array.has("shards")
    assert first == f"sweep paper mini.yaml --results x --shard 2/{environment.get('SGBENCH_SHARDS', '2')}"
    assert told == ["told"] * (notice is not None)


def test_two_tasks_at_once_do_a_sweep_without_ray(
    tmp_path: Path, train_folder: Path, test_folder: Path, cache: Path
) -> None:
    grid = {"backbones": ["edsr-tiny"], "losses": ["l1", "l2", "charbonnier"]}
    fields = {"grids": [grid], "train": f"Mine={train_folder}", "tests": [f"Few={test_folder}"], "metrics": ["psnr_y"]}
    file = tmp_path / "three.yaml"
    file.write_text(yaml.safe_dump(fields | {"recipe": {"steps": 3, "batch": 2, "patch": 8}}))
    without_ray = f'PYTHONPATH={ROOT}:{tmp_path / "without"} exec {sys.executable} -m sgbench "$@"'
    (tmp_path / "without" / "ray").mkdir(parents=True)
    (tmp_path / "without" / "ray" / "__init__.py").write_text("raise ImportError('there is no Ray')")
    array, words = Array(tmp_path, without_ray), (str(file), "--results", str(tmp_path / "store"))
    with array.task(1, *words) as one, array.task(2, *words) as two:
        said = [task.communicate()[0] for task in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0), said
    assert sorted(text.count("started ") for text in said) == [1, 2]
    store = Store(Storage(str(tmp_path / "store")))
    assert [row["status"] for row in store.rows().values()] == ["done"] * 3
    assert list(verify(store)) == []
