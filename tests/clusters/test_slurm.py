"""The Slurm script: what bash and shellcheck say, what Slurm and Ray know, and what it comes to when it is run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ray.scripts.scripts import start
from ray.scripts.symmetric_run import symmetric_run

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sbatch"
OPTIONS = {
    *("job-name", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "exclusive", "time", "requeue"),
    *("open-mode", "output"),
}
"""Of sbatch, that the script uses."""


def shellcheck() -> str:
    beside = Path(sys.executable).with_name("shellcheck")
    return str(beside) if beside.exists() else shutil.which("shellcheck") or pytest.skip("no shellcheck here")


def faults(script: Path) -> str:
    """Return what is wrong with a script; nothing if nothing is."""
    found = ""
    for command in (["bash", "-n"], [shellcheck(), "--norc"]):
        answer = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
        found += (answer.stdout + answer.stderr) if answer.returncode else ""
    text = script.read_text(encoding="utf-8")
    options = re.findall(r"^#SBATCH --([\w-]+)", text, re.MULTILINE)
    found += "".join(f"sbatch has no --{option}\n" for option in options if option not in OPTIONS)
    found += "".join(
        f"not a directive: {line}\n" for line in re.findall("^#+ *SBATCH(?! --).*|^# +SBATCH.*", text, re.MULTILINE)
    )
    (call,) = re.findall(r"ray symmetric-run \\\n(.*?)\n *-- ", text, re.DOTALL)
    flags = {flag for command in (symmetric_run, start) for parameter in command.params for flag in parameter.opts}
    return found + "".join(f"ray has no {flag}\n" for flag in re.findall(r"--[\w-]+", call) if flag not in flags)


def test_the_script_is_valid() -> None:
    assert faults(SCRIPT) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ('hostnames "$SLURM_JOB_NODELIST"', 'hostnames "$SLURM_JOB_NODELIST', "unexpected EOF"),
        ('source "$SGBENCH_ENV/bin/activate"', "source $SGBENCH_ENV/bin/activate", "SC2086"),
        ("hosts=$(", "host=$(", "SC2154"),
        ('"$head:6379" --min', '"$haed:6379" --min', "SC2154"),
        ("#SBATCH --gpus-per-node", "#SBATCH --gpu-per-nodes", "sbatch has no --gpu-per-nodes"),
        ("#SBATCH --nodes", "# SBATCH --nodes", "not a directive"),
        ("--min-nodes", "--min-node", "ray has no --min-node"),
        ("--num-gpus", "--num-gpu", "ray has no --num-gpu"),
    ],
)
def test_a_planted_typo_is_caught(tmp_path: Path, right: str, wrong: str, sentence: str) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert text.count(right) == 1
    changed = tmp_path / "changed.sbatch"
    changed.write_text(text.replace(right, wrong), encoding="utf-8")
    assert sentence in faults(changed)


@pytest.fixture
def allocation(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on three nodes, in which Slurm's and Ray's commands only note how they were called."""
    said = tmp_path / "said"
    commands = {
        "scontrol": 'printf "node7\\nnode8\\nnode9\\n"',
        "srun": f'echo "srun $*" >> {said}; while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "hostname": 'echo "10.0.0.7 172.17.0.1 "',
        "ray": f'echo "ray $RAY_AUTH_MODE $*" >> {said}',
    }
    (tmp_path / "bin").mkdir()
    for name, line in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin" / "activate").touch()
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SGBENCH_ENV": str(tmp_path),
        "SGBENCH_CACHE": "/shared/cache",
        "SLURM_JOB_NODELIST": "node[7-9]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "2",
    }


def test_it_starts_ray_on_every_node_and_the_sweep_on_the_first(tmp_path: Path, allocation: dict[str, str]) -> None:
    words = ["paper-mini", "--results", "/shared/my results"]
    subprocess.run(["bash", str(SCRIPT), *words], env=allocation, check=True)
    token, first, every, ray = (tmp_path / "said").read_text().splitlines()
    assert token == "ray token get-auth-token --generate"
    assert first == "srun --nodes=1 --ntasks=1 --nodelist=node7 hostname -I"
    assert every == f"srun --kill-on-bad-exit=0 {ray.replace('ray token', 'ray')}"
    assert ray == (
        "ray token symmetric-run --address 10.0.0.7:6379 --min-nodes 3 --num-cpus=16 --num-gpus=2 "
        "--object-manager-port=8076 --node-manager-port=8077 --dashboard-host=127.0.0.1 "
        "-- sgbench sweep paper-mini --results /shared/my results --address 10.0.0.7:6379"
    )


@pytest.mark.parametrize("variable", ["SGBENCH_ENV", "SGBENCH_CACHE"])
def test_it_says_what_is_missing(allocation: dict[str, str], variable: str) -> None:
    del allocation[variable]
    answer = subprocess.run(["bash", str(SCRIPT)], env=allocation, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert f"{variable}: is to name" in answer.stderr
