"""Files to begin a loss, a backbone or a metric with."""

import importlib.util
import keyword
import re
from importlib.resources import files
from pathlib import Path
from typing import Literal

from sgbench.core.errors import InputError
from sgbench.core.files import replacing
from sgbench.core.words import quoted

Kind = Literal["loss", "backbone", "metric"]


def new(kind: Kind, name: str, folder: Path) -> tuple[str, list[Path]]:
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
        text = files("sgbench.testing.templates").joinpath(f"{template}.py").read_text(encoding="utf-8")
        with replacing(path) as part:
            part.write_text(re.sub("|".join(names), lambda found: names[found[0]], text), encoding="utf-8")
    return names["TARGET"], paths
