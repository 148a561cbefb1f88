"""A table as data, built by every layout and rendered by every format."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sgbench.analysis.cells import Cell, best
from sgbench.metrics import display_of

ARROWS = {"lower": "↓", "higher": "↑"}

EMPTY = "There is nothing to show yet."

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Column:
    """A column of cells.

    Attributes:
        key: Its name for programs, with a part for each level of the header.
        labels: Its labels for people, from the top level to the lowest.
        group: Equal for neighbours that belong together, such as L1 and L1 + SG of one backbone.
    """

    key: tuple[str, ...]
    labels: tuple[str, ...]
    group: str = ""

    @property
    def name(self) -> str:
        """The key as one string."""
        return " · ".join(filter(None, self.key))


@dataclass(frozen=True)
class Line:
    """A line of cells.

    Attributes:
        labels: One for each leading column of the table.
        fields: The coordinates that all its cells share, by name, and ``seeds``, the number of runs.
        cells: One for each column of the table.
    """

    labels: tuple[str, ...]
    fields: Mapping[str, Any]
    cells: tuple[Cell, ...]


class Protocol(str):
    """A note that says how a metric of the table is computed; a terminal has no room for many."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: One line of text.
        heads: Fields of the leading columns.
        titles: Headers of the leading columns.
        columns: From left to right.
        lines: From top to bottom.
        notes: One sentence each.
        directions: For each metric ``lower``, ``higher``, or None if nothing has been scored by it yet.
    """

    title: str
    heads: tuple[str, ...]
    titles: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    directions: Mapping[str, str | None]

    @property
    def cells(self) -> list[Cell]:
        """All cells, line by line."""
        return [cell for line in self.lines for cell in line.cells]


def finished(lines: Iterable[Line], directions: Mapping[str, str | None]) -> tuple[tuple[Line, ...], list[str]]:
    """Return lines with best means marked and notes numbered, and the notes."""
    lines = tuple(lines)
    marks: dict[str, int] = {}
    bests = iter(best([cell for line in lines for cell in line.cells], directions))

    def marked(cell: Cell) -> Cell:
        mark = None if cell.note is None else marks.setdefault(cell.note, len(marks) + 1)
        return replace(cell, best=next(bests), mark=mark)

    lines = tuple(replace(line, cells=tuple(map(marked, line.cells))) for line in lines)
    return lines, [f"{superscript(mark)} {note}" for note, mark in marks.items()]


def mean_of(cell: Cell) -> str:
    """Return the mean as printed; empty if there is none."""
    return number(cell.place["metric"], cell.summary.mean) if cell.summary else ""


def spread_of(cell: Cell) -> str:
    """Return the standard deviation as printed; empty if there is none."""
    return number(cell.place["metric"], cell.summary.sd) if cell.summary and cell.summary.sd is not None else ""


def titled(metric: str, direction: str | None) -> str:
    """Return a metric's name with an arrow for its better direction."""
    return f"{metric} {ARROWS.get(direction or '', '')}".rstrip()


def number(metric: str, value: float, sign: str = "") -> str:
    """Format a value with the decimals of its metric; a value that rounds to zero has no minus.

    Args:
        metric: Name of the metric.
        value: The value.
        sign: With ``+``, values that are not negative have a sign too.
    """
    return display_of(metric).number(value, sign)


def superscript(mark: int | None) -> str:
    """Return a number in superscript digits; empty for None."""
    return "" if mark is None else str(mark).translate(_SUPERSCRIPTS)


def metric_order(metric: str) -> tuple[int, str]:
    """Return the key by which metrics are sorted."""
    return (display_of(metric).rank, metric)


def spans(labels: Iterable[tuple[str, ...]], level: int) -> list[int]:
    """Return how many places each label of a level spans; 0 if the label before it spans it too.

    A label continues as long as it and all labels above it stay the same.
    """
    found: list[int] = []
    start, last = 0, None
    for at, label in enumerate(labels):
        if label[: level + 1] == last:
            found[start] += 1
            found.append(0)
        else:
            start, last = at, label[: level + 1]
            found.append(1)
    return found
