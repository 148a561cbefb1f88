"""The sweeps that sgbench ships, as YAML beside this file, and the reading of a person's own."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sgbench.errors import InputError, unknown


def names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load(what: str) -> tuple[str, dict[str, Any]]:
    """Read a preset or a sweep file.

    Args:
        what: A preset's name, or the path of a YAML file.

    Returns:
        A short name for the sweep (the preset's, or the file's without its ending) and its fields, not yet validated.

    Raises:
        InputError: If there is no such preset or file, or it is not a YAML mapping.
    """
    if what in names():
        return what, _parse((_folder() / f"{what}.yaml").read_text(encoding="utf-8"), f"preset {what}")
    path = Path(what)
    if path.suffix not in (".yaml", ".yml"):
        raise unknown("preset", what, names())
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"sweep file '{what}' cannot be read: {error}.") from error
    return path.stem, _parse(text, what)


def _folder() -> resources.abc.Traversable:
    return resources.files(__name__)


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        fields = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{source} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(fields, dict):
        raise InputError(f"{source} holds {type(fields).__name__} where the keys of a sweep are expected.")
    return fields


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, which YAML forbids and PyYAML lets pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep)
