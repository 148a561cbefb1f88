"""How names and values are put in order, counted, listed and quoted in a sentence."""

import functools
import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import category


@functools.cache
def natural(text: str) -> tuple[Any, ...]:
    """Return a key by which Set5 comes before Set14 and a weight of 0.1 before one of 10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple(float(part) if index % 2 else part for index, part in enumerate(parts))


def plural(count: int, what: str) -> str:
    """Return ``1 seed`` or ``2 seeds``."""
    return f"{count} {what}{'s' * (count != 1)}"


def in_bytes(count: int) -> str:
    """Return a number of bytes for a person: ``512 B``, ``71 MB`` or ``1.2 GB``, in powers of 1000."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if round(size) < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}" if unit != "B" and round(size, 1) < 10 else f"{size:.0f} {unit}"


def listed(words: Iterable[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    words = list(words)
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def some(words: Sequence[str], most: int = 5) -> str:
    """Return ``a, b, c``, and of more than ``most`` words so many and how many are left: ``a, b and 3 more``."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def duration(seconds: float) -> str:
    """Return ``1:36`` for minutes and seconds, ``8:30:13`` with hours, ``2 d 08:30:13`` with days."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


MOST_QUOTED = 80
"""Characters of a value that a sentence quotes at most."""

_briefly = reprlib.Repr()
_briefly.maxstring = _briefly.maxother = _briefly.maxlong = 2 * MOST_QUOTED


def printable(text: str) -> str:
    r"""Return a text with escapes such as ``\x1b`` for characters that are not seen or that act on a terminal.

    Spaces of all kinds are kept.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or category(each) == "Zs" else ascii(each)[1:-1] for each in text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def without_credentials(text: str) -> str:
    """Return a text in which the user and password of each URI are replaced by ``…``."""
    return re.sub(r"(?<=://)[^/\s@'\"]+@", "…@", text)


def shortened(text: str, most: int = MOST_QUOTED) -> str:
    """Return a text of at most ``most`` characters, without its middle if it has more."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[len(text) + 1 - (most + 1) // 2 :]}"


def quoted(value: object, most: int = MOST_QUOTED) -> str:
    """Return a value as a sentence quotes it, whatever it is: printable, and shortened to ``most`` characters.

    A text stands between quotation marks; anything else is written as Python does.
    """
    if isinstance(value, str):
        return f"'{shortened(printable(shortened(value, 2 * most)), most)}'"
    try:
        return shortened(printable(_briefly.repr(value)))
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of too many digits"
