"""What the commands that list losses, backbones and metrics have in common."""

from typing import Any

from sgbench.core.errors import InputError, described


def first_line(entry: Any) -> str | None:
    """Return the first line of a docstring, if there is one."""
    lines = (entry.__doc__ or "").strip().splitlines()
    return lines[0] if lines else None


def reason(error: BaseException) -> str:
    """Return why an entry cannot be used, in a line."""
    return str(error) if isinstance(error, InputError) else described(error)
