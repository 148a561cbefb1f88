"""A table as data: what every layout makes and every format shows."""

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
        key: What a program calls it, a part for each level of the head.
        labels: What a person reads, from the top level to the lowest.
        group: Equal for neighbours that belong beside each other, such as L1 and L1 + SG of one backbone.
    """

    key: tuple[str, ...]
    labels: tuple[str, ...]
    group: str = ""

    @property
    def name(self) -> str:
        """The key as one text."""
        return " · ".join(filter(None, self.key))


@dataclass(frozen=True)
class Line:
    """A line of cells.

    Attributes:
        labels: One under each head of the table.
        fields: What all its cells have in common, by name, and ``seeds``, the number of runs.
        cells: One for each column of the table.
    """

    labels: tuple[str, ...]
    fields: Mapping[str, Any]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: One line of text.
        heads: Fields that lead each line.
        titles: What a person reads above these.
        columns: From left to right.
        lines: From top to bottom.
        notes: One sentence each.
        directions: For each metric ``lower``, ``higher``, or none while nothing has been scored by it.
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
    """Return lines in which the best means are marked and cells have numbers of notes, and these notes."""
    lines = tuple(lines)
    marks: dict[str, int] = {}
    bests = iter(best([cell for line in lines for cell in line.cells], directions))

    def marked(cell: Cell) -> Cell:
        mark = None if cell.note is None else marks.setdefault(cell.note, len(marks) + 1)
        return replace(cell, best=next(bests), mark=mark)

    lines = tuple(replace(line, cells=tuple(map(marked, line.cells))) for line in lines)
    return lines, [f"{superscript(mark)} {note}" for note, mark in marks.items()]


def mean_of(cell: Cell) -> str:
    """Return the mean as it is printed; empty where there is none."""
    return number(cell.place["metric"], cell.summary.mean) if cell.summary else ""


def spread_of(cell: Cell) -> str:
    """Return the standard deviation as it is printed; empty where there is none."""
    return number(cell.place["metric"], cell.summary.sd) if cell.summary and cell.summary.sd is not None else ""


def titled(metric: str, direction: str | None) -> str:
    """Return a metric's name with an arrow towards the better."""
    return f"{metric} {ARROWS.get(direction or '', '')}".rstrip()


def number(metric: str, value: float, sign: str = "") -> str:
    """Return a value with the decimals of its metric; what rounds to zero has no minus.

    Args:
        metric: Its name.
        value: The value.
        sign: ``+`` gives what is not negative a sign too.
    """
    return display_of(metric).number(value, sign)


def superscript(mark: int | None) -> str:
    """Return a number in raised digits; nothing for none."""
    return "" if mark is None else str(mark).translate(_SUPERSCRIPTS)


def metric_order(metric: str) -> tuple[int, str]:
    """Return the key by which metrics are sorted."""
    return (display_of(metric).rank, metric)


def spans(labels: Iterable[tuple[str, ...]], level: int) -> list[int]:
    """Return how many places each label of a level stands for; 0 where the one before stands for it too.

    A label goes on as long as it and all above it are the same.
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
