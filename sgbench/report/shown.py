"""Showing results in terminals and notebooks, and passing them to pandas."""

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich.table
from rich.console import Console, ConsoleOptions
from rich.text import Text

Part = Text | rich.table.Table
"""A paragraph that is already wrapped, or a grid."""


@dataclass(frozen=True, repr=False)
class Shown:
    """A result that terminals and notebooks can display, and that pandas can read.

    Attributes:
        parts: Renders it for the width of a terminal, without truncating numbers. For None, as in a pipe or file, width
            is unlimited and each sentence is one line.
        html: Renders it as an HTML element.
        rows: Its data, with full precision.
    """

    parts: Callable[[int | None], Iterator[Part]]
    html: Callable[[], str]
    rows: Sequence[Mapping[str, Any]]

    def to_pandas(self) -> Any:
        """Return `rows` as a pandas data frame."""
        import pandas

        return pandas.DataFrame(self.rows)

    def print(self, console: Console) -> None:
        """Print it."""
        for part in self.parts(console.width if console.is_terminal else None):
            console.print(part, crop=False, soft_wrap=isinstance(part, Text), highlight=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Part]:
        yield from self.parts(options.max_width)

    def __str__(self) -> str:
        return _text(self, None)

    def __repr__(self) -> str:
        return _text(self, Console().width)

    def _repr_html_(self) -> str:
        return self.html()


def _text(shown: Shown, width: int | None) -> str:
    """Return the output for a terminal of some width, or for a file."""
    file = io.StringIO()
    terminal = width is not None
    # In a notebook rich would display what it is to write into the file.
    shown.print(Console(file=file, width=width, force_terminal=terminal, color_system=None, force_jupyter=False))
    return file.getvalue().rstrip("\n")


def paragraph(text: str, width: int | None, style: str = "", indent: str = "") -> Text:
    """Wrap text to a width, or return it as one line.

    Args:
        text: The text; no word is broken.
        width: In characters; None for one line.
        style: A rich style.
        indent: Prefix of every line but the first.
    """
    return Text(text if width is None else wrapped(text, width, indent), style)


def wrapped(text: str, width: int, indent: str = "") -> str:
    """Wrap text to a width, without breaking words."""
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
