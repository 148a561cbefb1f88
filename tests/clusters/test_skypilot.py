"""The task of SkyPilot, strictly, and what its commands come to on the first machine and on another.

The model was written from SkyPilot's reference, and SkyPilot 0.14's own check accepted the file; it is not a package of
the environment, as it brings a hundred others.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from programs import program
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from ray.scripts.scripts import cli

FILE = Path(__file__).parents[2] / "clusters" / "skypilot.yaml"


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Accelerators(Model):
    L4: int


class Resources(Model):
    accelerators: Accelerators
    use_spot: bool
    job_recovery: Literal["EAGER_NEXT_REGION", "FAILOVER"]
    image_id: Annotated[str, StringConstraints(pattern="^docker:")]
    disk_size: int


class Envs(Model):
    SWEEP: str
    RESULTS: str


class Secrets(Model):
    RAY_AUTH_TOKEN: None


class Task(Model):
    name: str
    num_nodes: int
    resources: Resources
    envs: Envs
    secrets: Secrets
    run: str


def read() -> dict[str, Any]:
    fields: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return fields


def test_the_file_is_valid_and_a_planted_typo_is_caught_wherever_it_is(
    misspelled: Callable[[Any], Iterator[Any]],
) -> None:
    Task.model_validate(read())
    changed = list(misspelled(read()))
    assert len(changed) > 10
    for each in changed:
        with pytest.raises(ValidationError):
            Task.model_validate(each)


def test_its_commands_are_valid(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text(f"#!/bin/bash\n{read()['run']}")
    answer = subprocess.run([program("shellcheck"), "--norc", str(script)], capture_output=True, text=True, check=False)
    assert answer.stdout == ""
    flags = {
        flag for name in ("start", "health-check") for parameter in cli.commands[name].params for flag in parameter.opts
    }
    used = set(re.findall(r"(?<=\s)--[\w-]+", read()["run"].partition("sgbench sweep")[0]))
    assert used <= flags


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a task on three machines, in which Ray's and our commands only note how they were called."""
    said = tmp_path / "said"
    ray = f"""
        trap 'echo ended >> {said}; exit 0' TERM
        echo "ray $RAY_AUTH_MODE $*" >> {said}
        while [[ $* == *--head* ]]; do sleep 0.05; done
        [[ $1 == health-check ]] && {{ [[ $SKYPILOT_NODE_RANK != 0 ]] || grep -q -e --head {said}; }}"""
    commands = {"ray": ray, "sgbench": f'echo "sgbench $*" >> {said}; exit "${{SGBENCH_CODE:-0}}"'}
    (tmp_path / "bin").mkdir()
    for name, line in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    given = {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8\n10.0.0.9", "SKYPILOT_NUM_GPUS_PER_NODE": "1"}
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **given, **read()["envs"]}


def run(environment: dict[str, str], **more: str) -> int:
    return subprocess.run(
        ["bash", "-c", read()["run"]], env={**environment, **more}, timeout=60, check=False
    ).returncode


PORTS = "--num-gpus=1 --object-manager-port=8076 --node-manager-port=8077 --dashboard-agent-listen-port=52366"


@pytest.mark.parametrize("code", [0, 1])
def test_the_first_machine_runs_the_sweep_whose_exit_code_is_that_of_the_task(
    tmp_path: Path, machine: dict[str, str], code: int
) -> None:
    assert run(machine, SKYPILOT_NODE_RANK="0", SGBENCH_CODE=str(code)) == code
    *ray, sweep, ended = (tmp_path / "said").read_text().splitlines()
    assert (
        f"ray token start --block --node-ip-address=10.0.0.7 {PORTS} --head --port=6379 --dashboard-host=127.0.0.1"
        in ray
    )
    assert "ray token health-check --address 10.0.0.7:6379" in ray
    assert sweep == "sgbench sweep paper-mini --results s3://REPLACE-BUCKET/results --address 10.0.0.7:6379"
    assert ended == "ended"


def test_another_machine_joins_and_its_end_is_no_fault_of_the_task(tmp_path: Path, machine: dict[str, str]) -> None:
    assert run(machine, SKYPILOT_NODE_RANK="2") == 0
    health, joined = (tmp_path / "said").read_text().splitlines()
    assert health == "ray token health-check --address 10.0.0.7:6379"
    assert joined == f"ray token start --block --node-ip-address=10.0.0.9 {PORTS} --address=10.0.0.7:6379"
