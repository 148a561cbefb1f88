"""What is computed, as a terminal, a notebook and pandas each show it."""

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich.table
from rich.console import Console, ConsoleOptions
from rich.text import Text

Part = Text | rich.table.Table
"""A paragraph, wrapped already, or a grid."""


@dataclass(frozen=True, repr=False)
class Shown:
    """Something to look at: it prints itself in a terminal and in a notebook, and gives its data to pandas.

    Attributes:
        parts: Makes it for a terminal of some width, so that no number is cut; for none, where width is free (a pipe, a
            file), each sentence is one line.
        html: Makes it an element of HTML.
        rows: Its data, every digit of them.
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
    """Return what a terminal of some width, or a file, receives."""
    file = io.StringIO()
    terminal = width is not None
    shown.print(Console(file=file, width=width, force_terminal=terminal, color_system=None))
    return file.getvalue().rstrip("\n")


def paragraph(text: str, width: int | None, style: str = "", indent: str = "") -> Text:
    """Return text in lines of a width, or in one.

    Args:
        text: Words; none of them is broken.
        width: In characters; none for one line.
        style: Of rich.
        indent: What all lines but the first begin with.
    """
    return Text(text if width is None else wrapped(text, width, indent), style)


def wrapped(text: str, width: int, indent: str = "") -> str:
    """Return text in lines of a width; no word is broken."""
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
