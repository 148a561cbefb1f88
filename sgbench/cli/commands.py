"""How a command enters the command line: with its docstring for help, and examples below."""

import inspect
from collections.abc import Callable
from typing import TypeVar

import typer

Command = TypeVar("Command", bound=Callable[..., None])


def command(app: typer.Typer, *examples: str, name: str | None = None) -> Callable[[Command], Command]:
    """Add a function to the commands of an app.

    Args:
        app: The app.
        examples: Command lines.
        name: Of the command, by default the function's.
    """

    def add(function: Command) -> Command:
        return app.command(name=name, help=_flowing(function.__doc__ or ""), epilog=below(*examples))(function)

    return add


def below(*examples: str) -> str:
    """Return what help shows below everything else: each example on a line."""
    return "\n".join(("Examples:", *examples))


def _flowing(docstring: str) -> str:
    """Return a docstring with each paragraph in one line, which typer then wraps to the width of the terminal."""
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in inspect.cleandoc(docstring).split("\n\n"))
