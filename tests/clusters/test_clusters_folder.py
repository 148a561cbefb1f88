"""What holds for all cluster files: one Ray, and a README that knows each of them and whose commands exist."""

import os
import re
import shlex
import subprocess
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
FILES = [path for path in sorted(CLUSTERS.rglob("*")) if path.is_file() and path.name != "README.md"]
SECTIONS = dict(re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL))
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = sorted({line.strip() for line in LINES if line.startswith("sgbench ")})


def test_every_file_has_the_ray_of_the_project() -> None:
    (version,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (ray,) = [each for each in map(Requirement, project["dependencies"]) if each.name == "ray"]
    assert version in ray.specifier
    pattern = r"rayproject/ray:([\d.]+)|rayVersion: ([\d.]+)|:ray-([\d.]+)"
    texts = {path.name: path.read_text(encoding="utf-8") for path in (*FILES, CLUSTERS / "README.md")}
    found = {name: re.findall(pattern, text) for name, text in texts.items()}
    assert {"".join(match).rstrip(".") for matches in found.values() for match in matches} == {version}
    assert {name for name, matches in found.items() if matches} >= {"Dockerfile", "README.md", "rayjob.yaml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_readme_knows_every_file(path: Path) -> None:
    assert f"]({path.relative_to(CLUSTERS)})" in README


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_to_be_replaced_in_a_file_is_replaced_by_a_command_or_explained_beside_it(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        for mark in re.findall(r"REPLACE-[A-Z]+", line):
            assert f"s|{mark}|" in README, mark
        if re.search(r"REPLACE(?!-)", line):
            assert "#" in line, line


@pytest.mark.parametrize("line", [line for line in LINES if re.search(r"REPLACE(?!-)", line)])
def test_what_is_to_be_replaced_in_a_command_is_explained_beside_it(line: str) -> None:
    assert re.search(r"REPLACE.* # \w", line)


def test_the_blocks_are_shell_and_the_files_that_they_name_exist() -> None:
    for block in BLOCKS:
        subprocess.run(["bash", "-n", "-c", block], check=True)
    named = {word for line in LINES for word in re.findall(r"(?<![\w-])clusters/[\w./-]+\w", line)}
    assert named
    assert [word for word in named if not (ROOT / word).exists()] == []


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


ANSWERS = {
    "aws": "case $* in *Repository*) echo 1.dkr.ecr.aws/sgbench;; *Ami*) echo ami-1;; *) echo sg-1;; esac",
    "gcloud": "echo common-cu129",
    "docker": "cat >/dev/null",
    "git": ":",
    "sky": ":",
    "sgbench": ":",
}
"""What programs of other people answer to the blocks that fill in files."""


@pytest.mark.parametrize(
    ("section", "copies"),
    [
        ("AWS", ["aws.yaml"]),
        ("Google Cloud", ["gcp.yaml"]),
        ("SkyPilot", ["skypilot.yaml"]),
        ("Kubernetes", ["raycluster.yaml", "rayjob.yaml"]),
    ],
)
def test_a_block_makes_files_in_which_nothing_is_to_be_replaced(
    section: str, copies: list[str], tmp_path: Path
) -> None:
    (block,) = [each for each in re.findall(r"```sh\n(.*?)```", SECTIONS[section], re.DOTALL) if ">my-" in each]
    (tmp_path / "bin").mkdir()
    for name, answer in ANSWERS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{answer}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "clusters").symlink_to(CLUSTERS)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a token")
    given = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PROJECT": "my-project", "HOME": str(tmp_path)}
    filled = block.replace("=REPLACE", "=mine")
    subprocess.run(["bash", "-euo", "pipefail", "-c", filled], env=given, cwd=tmp_path, check=True)
    for name in copies:
        lines = (tmp_path / f"my-{name}").read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if "REPLACE" in line.partition("#")[0]] == []
