"""``sgbench new``: a loss, a backbone or a metric to begin with, and its test."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = ("sgbench new loss MyLoss", "sgbench new backbone my_net", "sgbench new metric sharpness")

USES = {
    "loss": ("sweep", "quick", "--loss", "l1", "--loss", "l1 + 0.1*{}"),
    "backbone": ("sweep", "quick", "--backbone", "{}"),
    "metric": ("sweep", "quick", "--metric", "psnr_y", "--metric", "{}"),
}
"""A first command with what is written."""


def new(
    kind: Annotated[
        Literal["loss", "backbone", "metric"], typer.Argument(metavar="KIND", help="loss, backbone or metric.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it, such as MyLoss.")],
) -> None:
    """Write a module with a loss, a backbone or a metric that works, and its test, into the current folder.

    MyLoss, or my_loss, gives the file my_loss.py and, in it, my_loss:MyLoss, which is its name in every command. The
    test uses the checks of 'sgbench check' and is run by pytest. Files that exist are left as they are.
    """
    from sgbench.testing.new import new as write

    target, paths = write(kind, name, Path())
    for path in paths:
        typer.echo(f"written: {path}")
    typer.echo("Next, in this folder:")
    for words in (("sgbench", "check", target), ("pytest", str(paths[1])), ("sgbench", *USES[kind])):
        typer.echo(f"  {shlex.join(word.format(target) for word in words)}")
