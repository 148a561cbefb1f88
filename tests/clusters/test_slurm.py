"""The Slurm script: what bash and shellcheck say, what Slurm and Ray know, and what it does with its sweep."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import program
from ray.scripts.scripts import start

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sbatch"
OPTIONS = {
    *("account", "partition", "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time"),
    *("signal", "requeue", "no-kill", "open-mode", "output"),
}
"""Of sbatch, that the script uses."""


def faults(script: Path) -> str:
    """Return what is wrong with a script; nothing if nothing is."""
    found = ""
    for command in (["bash", "-n"], [program("shellcheck"), "--norc"]):
        answer = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
        found += (answer.stdout + answer.stderr) if answer.returncode else ""
    text = script.read_text(encoding="utf-8")
    options = re.findall(r"^#SBATCH --([\w-]+)", text, re.MULTILINE)
    found += "".join(f"sbatch has no --{option}\n" for option in options if option not in OPTIONS)
    found += "".join(
        f"not a directive: {line}\n" for line in re.findall("^#+ *SBATCH(?! --).*|^# +SBATCH.*", text, re.MULTILINE)
    )
    (call,) = re.findall(r"  ray start (.*?)>", text, re.DOTALL)
    (head,) = re.findall(r"^head=\((.*?)\)$.*^  head\+=\((.*?)\)$", text, re.DOTALL | re.MULTILINE)
    flags = {flag for parameter in start.params for flag in parameter.opts}
    used = re.findall(r"--[\w-]+", " ".join([call, *head]))
    return found + "".join(f"ray has no {flag}\n" for flag in used if flag not in flags)


def test_the_script_is_valid() -> None:
    assert faults(SCRIPT) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ('hostnames "$SLURM_JOB_NODELIST"', 'hostnames "$SLURM_JOB_NODELIST', "unexpected EOF"),
        ('source "$SGBENCH_ENV/bin/activate"', "source $SGBENCH_ENV/bin/activate", "SC2086"),
        ("mapfile -t hosts", "mapfile -t host", "SC2154"),
        ("#SBATCH --gpus-per-node", "#SBATCH --gpu-per-nodes", "sbatch has no --gpu-per-nodes"),
        ("#SBATCH --nodes", "# SBATCH --nodes", "not a directive"),
        ("--head ", "--heads ", "ray has no --heads"),
        ("--temp-dir", "--tmp-dir", "ray has no --tmp-dir"),
        ("--ray-client-server-port", "--ray-client-port", "ray has no --ray-client-port"),
    ],
)
def test_a_planted_typo_is_caught(tmp_path: Path, right: str, wrong: str, sentence: str) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert text.count(right) == 1
    changed = tmp_path / "changed.sbatch"
    changed.write_text(text.replace(right, wrong), encoding="utf-8")
    assert sentence in faults(changed)


RAY = """
for word; do case $word in --temp-dir=*) folder=${word#*=} ;; esac; done
mkdir -m 777 -p "$folder"
trap 'exit 0' TERM
stat -c '%a %n' "${folder%/ray}" >> PLACE/folders
printf 10.0.0.7:1234 > "$folder/ray_current_cluster"
while :; do sleep 0.05; done
"""

SGBENCH = """
trap 'exit 130' TERM
until [[ $(wc -l < PLACE/folders) == 3 ]]; do sleep 0.05; done
touch PLACE/sweeps
while [[ -e PLACE/goes-on ]]; do sleep 0.05; done
exit $CODE
"""

COMMANDS = {
    "scontrol": '[[ $1 == requeue ]] || printf "node7\\nnode8\\nnode9\\n"',
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scancel": "kill $(cat PLACE/steps) 2>/dev/null",
    "ip": 'echo "ib0 UP 10.0.0.7/24 fe80::1/64"',
    "getent": 'printf "10.1.0.7 STREAM node7\\n10.1.0.7 DGRAM\\n"',
    "python": f'exec {sys.executable} "$@"',
    "ray": RAY,
    "sgbench": SGBENCH,
}


class Allocation:
    """A job on three nodes, in which Slurm's and Ray's commands only note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, line in COMMANDS.items():
            noted = f'printf "%s\\n" "{name} $*" >> {folder}/said\n'
            own = f"echo $$ >> {folder}/steps\n" if name == "srun" else ""
            (folder / "bin" / name).write_text(f"#!/bin/bash\n{noted}{own}{line}\n".replace("PLACE", str(folder)))
            (folder / "bin" / name).chmod(0o755)
        (folder / "bin" / "activate").touch()
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "SGBENCH_ENV": str(folder),
            "SLURM_JOB_ID": "12345",
            "SLURM_JOB_NODELIST": "node[7-9]",
            "SLURMD_NODENAME": "node7",
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_GPUS_ON_NODE": "4",
            "CODE": "0",
        }

    def run(self, *words: str, notice: signal.Signals | None = None, **environment: str) -> tuple[int, str]:
        """Run the script, send it a signal once its sweep runs, and return its exit code and what it says itself."""
        if notice:
            (self.folder / "goes-on").touch()
        command = ["bash", str(SCRIPT), *words]
        variables = self.environment | environment
        process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if notice:
            deadline = time.monotonic() + 60
            while not (self.folder / "sweeps").exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(notice)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def said(self, name: str) -> list[str]:
        """Return how a command was called, each time."""
        lines = (self.folder / "said").read_text().splitlines()
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


@pytest.fixture
def job(tmp_path: Path) -> Allocation:
    return Allocation(tmp_path)


def test_ray_runs_on_every_node_in_private_folders_and_at_free_ports_and_the_sweep_beside_it(job: Allocation) -> None:
    assert job.run("paper-mini", "--results", "/shared/my results") == (0, "")
    assert job.said("sgbench") == ["sweep paper-mini --results /shared/my results --address 10.0.0.7:1234"]
    one, *steps = job.said("srun")
    assert one == "--nodes=1 --ntasks=1 --export=ALL --nodelist=node9 getent ahostsv4 node7"
    assert len(steps) == 2
    head, *workers = job.said("ray")
    common = (
        "--num-cpus=16 --num-gpus=4 --object-store-memory=268435456 --min-worker-port=0 --max-worker-port=0 "
        "--dashboard-agent-listen-port=0 --include-log-monitor=false"
    )
    folders = [line.split() for line in (job.folder / "folders").read_text().splitlines()]
    assert [mode for mode, _ in folders] == ["700"] * 3
    temporary = {f"--temp-dir={folder}/ray" for _, folder in folders}
    assert {re.findall(r"--temp-dir=\S+", line)[0] for line in (head, *workers)} == temporary
    assert not any(Path(folder).exists() for _, folder in folders)
    of_head = "--head --node-ip-address=10.1.0.7 --port=0 --include-dashboard=false --dashboard-port=0 --no-monitor"
    assert (
        re.sub(r"--temp-dir=\S+ ", "", head)
        == f"start --block --node-name=node7 {of_head} --ray-client-server-port=22345 {common}"
    )
    assert {re.sub(r"--temp-dir=\S+ ", "", line) for line in workers} == {
        f"start --block --node-name=node7 --address=10.0.0.7:1234 {common}"
    }


def test_the_network_may_be_chosen(job: Allocation) -> None:
    assert job.run("quick", SGBENCH_INTERFACE="ib0") == (0, "")
    assert job.said("ip") == ["-4 -brief address show dev ib0"]
    assert "--node-ip-address=10.0.0.7 " in job.said("ray")[0]


@pytest.mark.parametrize("code", [1, 2])
def test_a_sweep_that_fails_fails_the_job_and_is_not_queued_again(job: Allocation, code: int) -> None:
    assert job.run("quick", CODE=str(code)) == (code, "")
    assert not any("requeue" in line for line in job.said("scontrol"))
    assert job.said("scancel") == ["--signal=TERM 12345"]


def test_when_its_time_is_nearly_over_it_asks_for_checkpoints_and_queues_itself_again(job: Allocation) -> None:
    assert job.run("quick", notice=signal.SIGUSR1) == (130, "")
    assert "requeue 12345" in job.said("scontrol")


def test_it_does_so_as_often_as_it_may(job: Allocation) -> None:
    code, said = job.run("quick", notice=signal.SIGUSR1, SLURM_RESTART_COUNT="3", SGBENCH_REQUEUES="3")
    assert code == 130
    assert said == "this job was queued again 3 times, as SGBENCH_REQUEUES allows; submit it again to resume\n"
    assert "requeue 12345" not in job.said("scontrol")


def test_a_job_that_is_cancelled_writes_checkpoints_and_does_not_come_back(job: Allocation) -> None:
    assert job.run("quick", notice=signal.SIGTERM) == (130, "")
    assert "requeue 12345" not in job.said("scontrol")


def test_it_says_what_is_missing(job: Allocation) -> None:
    del job.environment["SGBENCH_ENV"]
    code, said = job.run("quick")
    assert code != 0
    assert "SGBENCH_ENV: is to name" in said
