"""``sgbench new``: a loss, a backbone or a metric to begin with, and its test."""

import importlib.util
import keyword
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import typer

from sgbench.core.errors import InputError
from sgbench.core.files import replacing
from sgbench.core.words import quoted

Kind = Literal["loss", "backbone", "metric"]

EXAMPLES = ("sgbench new loss MyLoss", "sgbench new backbone my_net", "sgbench new metric sharpness")

USES = {
    "loss": ("sweep", "quick", "--loss", "l1", "--loss", "l1 + 0.1*{}"),
    "backbone": ("sweep", "quick", "--backbone", "{}"),
    "metric": ("sweep", "quick", "--metric", "psnr_y", "--metric", "{}"),
}
"""A first command with what is written."""


def new(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="loss, backbone or metric.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it, such as MyLoss.")],
) -> None:
    """Write a module with a loss, a backbone or a metric that works, and its test, into the current folder.

    MyLoss, or my_loss, gives the file my_loss.py and, in it, my_loss:MyLoss, which is its name in every command. The
    test uses the checks of 'sgbench check' and is run by pytest. Files that exist are left as they are.
    """
    target, paths = write(kind, name, Path())
    for path in paths:
        typer.echo(f"written: {path}")
    typer.echo("Next, in this folder:")
    for words in (("sgbench", "check", target), ("pytest", str(paths[1])), ("sgbench", *USES[kind])):
        typer.echo(f"  {shlex.join(word.format(target) for word in words)}")


def write(kind: Kind, name: str, folder: Path) -> tuple[str, list[Path]]:
    """Write a module that works, and its test.

    Args:
        kind: What it has.
        name: That of the class, such as ``MyLoss``, or of the module, ``my_loss``; each follows from the other.
        folder: Where they are written.

    Returns:
        The name by which a sweep knows what is in the module, and the two files.

    Raises:
        InputError: If the name cannot be that of a module, another module or a file has it, or the folder is missing.
    """
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    if not (re.fullmatch(r"[a-z][a-z0-9_]*", module) and name.isascii()) or keyword.iskeyword(module):
        raise InputError(f"the name is {quoted(name)}; letters, digits and underscores are needed, as in MyLoss.")
    paths = [folder / f"{module}.py", folder / f"test_{module}.py"]
    if taken := [path for path in paths if path.exists()]:
        raise InputError(f"{quoted(str(taken[0]))} exists and is left as it is; choose another name.")
    if not folder.is_dir():
        raise InputError(f"there is no folder {quoted(str(folder))}.")
    if importlib.util.find_spec(module):
        raise InputError(f"there is a module {quoted(module)} already, which would be hidden; choose another name.")
    class_name = "".join(part[:1].upper() + part[1:] for part in (module if name == module else name).split("_"))
    target = f"{module}:{module if kind == 'metric' else class_name}"
    names = {"my_module": module, "MyClass": class_name, "TARGET": f"{target}{'-tiny' * (kind == 'backbone')}"}
    for path, template in zip(paths, (kind, "test"), strict=True):
        text = files("sgbench.cli.templates").joinpath(f"{template}.py").read_text(encoding="utf-8")
        with replacing(path) as part:
            part.write_text(re.sub("|".join(names), lambda found: names[found[0]], text), encoding="utf-8")
    return names["TARGET"], paths
