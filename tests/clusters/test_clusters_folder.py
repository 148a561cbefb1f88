"""What holds for all cluster files: one Ray, and a README that knows each of them and whose commands exist."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from packaging.requirements import Requirement

from sgbench.cli import app

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
README = (CLUSTERS / "README.md").read_text(encoding="utf-8")
FILES = [path for path in sorted(CLUSTERS.rglob("*")) if path.is_file()]
COMMANDS = sorted(set(re.findall(r"^sgbench .*$", README, re.MULTILINE)))


def test_every_file_has_the_ray_of_the_project() -> None:
    (version,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (ray,) = [each for each in map(Requirement, project["dependencies"]) if each.name == "ray"]
    assert version in ray.specifier
    pattern = r"rayproject/ray:([\d.]+)|rayVersion: ([\d.]+)|sgbench:ray-([\d.]+)"
    found = {path.name: re.findall(pattern, path.read_text(encoding="utf-8")) for path in FILES}
    assert {"".join(match) for matches in found.values() for match in matches} == {version}
    assert {name for name, matches in found.items() if matches} >= {"aws.yaml", "gcp.yaml", "Dockerfile", "rayjob.yaml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_readme_knows_every_file(path: Path) -> None:
    name = str(path.relative_to(CLUSTERS))
    assert path.name == "README.md" or f"clusters/{name}" in README


def parse(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    context = command.make_context("sgbench", [], resilient_parsing=True)
    while getattr(command, "commands", None):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_readme_parse(line: str) -> None:
    parse(line)


def test_the_sweep_of_the_rayjob_parses() -> None:
    text = (CLUSTERS / "kuberay" / "rayjob.yaml").read_text(encoding="utf-8")
    (line,) = re.findall(r"entrypoint: (sgbench .*)", text)
    parse(line)
