"""The sweeps that sgbench ships, as YAML beside this file, and the reading of a person's own."""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from sgbench.core.errors import InputError, unknown
from sgbench.core.storage import PART, PART_IN_WORDS
from sgbench.core.words import quoted, shortened
from sgbench.spec.text import read_file, read_yaml


def names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


NAMELESS = "sweep"
"""What a sweep is called that is neither a preset nor a file."""


def load(what: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Read a preset, a sweep file or the fields of a sweep.

    A sweep that ``extends`` a preset has that one's fields where it gives none of its own, and among its ``grids`` the
    name of a preset stands for the grids of that.

    Args:
        what: A preset's name, the path of a YAML file, or what such a file would hold.

    Returns:
        A short name for the sweep (the preset's, the file's without its ending, or `NAMELESS`) and its fields, not yet
        validated, which the caller may change.

    Raises:
        InputError: If there is no such preset or file, or it is not a YAML mapping.
    """
    if not isinstance(what, str):
        name, fields = NAMELESS, copy.deepcopy(dict(what))
    else:
        name, fields = (what, _preset(what)) if what in names() else _file(what)
    while "extends" in fields:
        fields = _merged(_preset(fields.pop("extends")), fields)
    if isinstance(grids := fields.get("grids"), list):
        fields["grids"] = list(_grids(grids))
    return name, fields


def _file(what: str) -> tuple[str, dict[str, Any]]:
    path = Path(what)
    if path.suffix not in (".yaml", ".yml"):
        with contextlib.suppress(OSError):  # such as that of a name that is too long
            if what and path.is_dir():
                raise InputError(f"{quoted(what)} is a folder; a preset or a sweep file in YAML is needed.")
        raise unknown("preset", what, names())
    if not re.fullmatch(PART, path.stem):
        raise InputError(f"sweep file {quoted(what)} gives the sweep its name; {PART_IN_WORDS} is needed.")
    return path.stem, _parse(read_file(what, "sweep file"), shortened(what))


def _preset(name: object) -> dict[str, Any]:
    if name not in names():
        raise unknown("preset", str(name), names())
    return _parse((_folder() / f"{name}.yaml").read_text(encoding="utf-8"), f"preset {name}")


def _grids(grids: list[Any]) -> Iterator[Any]:
    for grid in grids:
        if isinstance(grid, str):
            yield from _grids(_preset(grid)["grids"])
        else:
            yield grid


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return a base's fields with a sweep's own fields over them, mappings merged field by field."""
    merged = dict(base)
    for key, value in own.items():
        below = base.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _folder() -> resources.abc.Traversable:
    return resources.files(__name__)


def _parse(text: str, source: str) -> dict[str, Any]:
    fields = read_yaml(text, source)
    if not isinstance(fields, dict):
        there = "is empty" if fields is None else "holds a list" if isinstance(fields, list) else "holds a single value"
        raise InputError(f"{source} {there}; the keys of a sweep are expected, such as 'grids'.")
    return fields
