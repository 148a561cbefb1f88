"""What the command line says of itself."""

import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer.main

from sgbench.cli import app


def leaves(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    children = getattr(command, "commands", None)
    if children is None:
        return {path: command}
    return {key: leaf for name, child in children.items() for key, leaf in leaves(child, (*path, name)).items()}


ROOT = typer.main.get_command(app)
LEAVES = leaves(ROOT)


def parses(words: list[str]) -> None:
    """Parse a command line as sgbench does, and run nothing."""
    command: Any = ROOT
    context = command.make_context("sgbench", [], resilient_parsing=True)
    while getattr(command, "commands", None):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_and_every_option_has_help(path: tuple[str, ...]) -> None:
    command = LEAVES[path]
    assert command.help
    options = [option for option in command.params if option.param_type_name == "option"]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_examples_that_parse(path: tuple[str, ...]) -> None:
    examples = LEAVES[path].epilog.removeprefix("Examples: ").split(" | ")
    assert all(example.startswith(f"sgbench {' '.join(path)}") for example in examples)
    for example in examples:
        parses(shlex.split(example)[1:])


def test_help_is_printed_by_the_module_and_no_arguments_print_it_too() -> None:
    def sgbench(*arguments: str) -> tuple[int, str]:
        answer = subprocess.run(
            [sys.executable, "-m", "sgbench", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        return answer.returncode, answer.stdout + answer.stderr

    status, said = sgbench("--help")
    assert status == 0
    assert all(path[0] in said for path in LEAVES)
    assert "Exit codes: 0 done, 1 some run failed, 2 bad input, 130 interrupted." in " ".join(said.split())
    assert sgbench()[1].strip() == said.strip()


def test_an_unknown_option_and_an_unknown_command_are_bad_input() -> None:
    for words in (["swep"], ["sweep", "--sedes", "1"]):
        answer = subprocess.run(
            [sys.executable, "-m", "sgbench", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert answer.returncode == 2
        assert "Traceback" not in answer.stderr
        assert answer.stdout == ""
