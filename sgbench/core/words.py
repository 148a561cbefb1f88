"""How names are put in order, counted and listed in a sentence."""

import functools
import re
from collections.abc import Iterable
from typing import Any


@functools.cache
def natural(text: str) -> tuple[Any, ...]:
    """Return a key by which Set5 comes before Set14 and a weight of 0.1 before one of 10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple(float(part) if index % 2 else part for index, part in enumerate(parts))


def plural(count: int, what: str) -> str:
    """Return ``1 seed`` or ``2 seeds``."""
    return f"{count} {what}{'s' * (count != 1)}"


def listed(words: Iterable[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    words = list(words)
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
