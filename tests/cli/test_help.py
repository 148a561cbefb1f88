"""What the command line says of itself."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer.main
from rich.text import Text

from sgbench.cli import app
from sgbench.core.errors import InputError


def below(command: Any, path: tuple[str, ...]) -> dict[tuple[str, ...], Any]:
    """Return a command and all that it has below it."""
    found = {path: command}
    for name, child in getattr(command, "commands", {}).items():
        found |= below(child, (*path, name))
    return found


ROOT = typer.main.get_command(app)
COMMANDS = {path: command for path, command in below(ROOT, ()).items() if path}


def parses(words: list[str]) -> None:
    """Parse a command line as sgbench does, and run nothing."""
    command: Any = ROOT
    context = command.make_context("sgbench", [], resilient_parsing=True)
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):  # some groups run alone
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_every_option_has_help(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help
    options = [option for option in command.params if option.param_type_name == "option"]
    assert [option.name for option in options if not option.help] == []
    for text in (command.help, *(option.help for option in options)):
        assert Text.from_markup(text).plain == text  # typer shows what is in brackets as a style, and not at all


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_examples_that_parse(path: tuple[str, ...]) -> None:
    head, *examples = COMMANDS[path].epilog.splitlines()
    assert head == "Examples:"
    assert examples
    assert all(example.startswith(f"sgbench {' '.join(path)}") for example in examples)
    for example in examples:
        parses(shlex.split(example)[1:])


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_option_that_holds_one_value_is_refused_if_it_is_given_twice(path: tuple[str, ...]) -> None:
    for option in (each for each in COMMANDS[path].params if each.param_type_name == "option"):
        flag, twice = option.opts[0], [*path, option.opts[0], "a", option.opts[-1], "b"]
        if not option.is_flag and not option.multiple:
            with pytest.raises(InputError) as refusal:
                parses(twice)
            assert str(refusal.value) == f"{flag} is given 2 times, as 'a' and 'b'; it takes one value."


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_paragraphs_of_help_are_wrapped_by_the_terminal_alone(path: tuple[str, ...]) -> None:
    assert not [paragraph for paragraph in COMMANDS[path].help.split("\n\n") if "\n" in paragraph]


def test_help_shows_each_example_on_a_line(
    run: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.strip() for line in run("compare", "--help")[0].splitlines()]
    examples = lines[lines.index("Examples:") :]
    assert examples[1:3] == [
        "sgbench compare l1 'l1 + 1.0*sg'",
        "sgbench compare l1 'l1 + sg' --metric psnr_y --metric ssim_y",
    ]


def test_help_is_printed_by_the_module_and_no_arguments_print_it_too() -> None:
    def sgbench(*arguments: str) -> tuple[int, str]:
        answer = subprocess.run(
            [sys.executable, "-m", "sgbench", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        return answer.returncode, answer.stdout + answer.stderr

    status, said = sgbench("--help")
    assert status == 0
    assert all(path[0] in said for path in COMMANDS)
    assert "Exit codes: 0 done, 1 a run failed, 2 bad input, 130 interrupted." in " ".join(said.split())
    assert sgbench()[1].strip() == said.strip()


@pytest.mark.parametrize("words", [["losses"], ["losses", "--json"], ["losses", "--help"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_failure(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "sgbench", *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (answer.returncode, answer.stderr) == (0, b"")


def test_an_unknown_option_and_an_unknown_command_are_bad_input() -> None:
    for words in (["swep"], ["sweep", "--sedes", "1"]):
        answer = subprocess.run(
            [sys.executable, "-m", "sgbench", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert answer.returncode == 2
        assert "Traceback" not in answer.stderr
        assert answer.stdout == ""
