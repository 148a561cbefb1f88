"""Tables on a terminal and in a pipe."""

import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import rich.table
from rich import box
from rich.cells import cell_len
from rich.text import Text

from sgbench.analysis.baseline import SIGN
from sgbench.analysis.cells import Cell
from sgbench.report.shown import Part, paragraph
from sgbench.report.tables.model import EMPTY, Protocol, Table, mean_of, spans, spread_of, superscript

_PROTOCOLS = 7  # how many are stated on a terminal
_GAP = 2  # between columns: a padding and the divider of the box
_NARROW = 8  # characters of a label beyond which it is broken where width is short


def parts(shown: Table, width: int | None) -> Iterator[Part]:
    """Yield a table and its notes, without truncating numbers.

    On a terminal, a repeated label is printed once. If the terminal is too narrow, spreads go below their means, and
    columns that do not fit follow in further tables. If the width is unlimited, each line has all its labels.

    Args:
        shown: The table.
        width: Width of the terminal; None if unlimited.
    """
    layout = _Layout(shown, once=width is not None)
    if width is not None and layout.width() > width:
        layout = _Layout(shown, once=True, stacked=True)
    if shown.lines and shown.title:
        yield paragraph(shown.title, width, "bold")
        yield Text()
    for band in layout.bands(width) if shown.lines else ():
        yield layout.render(band)
        yield Text()
    notes = shown.notes if width is None else _brief(shown.notes)
    for note in notes if shown.lines else (*notes, EMPTY):
        yield paragraph(note, width, "dim")


def _brief(notes: Sequence[str]) -> list[str]:
    """Return notes with one sentence in place of the protocols of more than `_PROTOCOLS` metrics."""
    protocols = [note for note in notes if isinstance(note, Protocol)]
    if len(protocols) <= _PROTOCOLS:
        return list(notes)
    at = notes.index(protocols[0])
    left = [note for note in notes if note not in protocols]
    said = f"The protocols of {len(protocols)} metrics are left out; 'sgbench metrics show NAME' has one of them, and "
    return [*left[:at], f"{said}other formats have all, such as --format markdown.", *left[at:]]


class _Layout:
    """A table as columns of text, and how many of them fit side by side.

    Args:
        shown: The table.
        once: Print a label that spans several lines or columns only in the first of them.
        stacked: Save width: first labels become headings, and spreads go below means.
    """

    def __init__(self, shown: Table, *, once: bool = False, stacked: bool = False) -> None:
        self._once = once
        self._sections = [line.labels[0] for line in shown.lines] if len(shown.heads) > 1 else None
        self._headed = stacked and self._sections is not None
        self._titles = shown.titles[self._headed :]
        self._heads = list(_heads(shown, once=once))[self._headed :]
        self._labels = [tuple(_wrapped(label, stacked) for label in column.labels) for column in shown.columns]
        self._groups = [column.group for column in shown.columns]
        self._columns = [_cells([line.cells[at] for line in shown.lines], stacked) for at in range(len(shown.columns))]
        self._head_widths = [
            _fitting([title, *(text.plain for text in texts)], 14 if stacked else 40)
            for title, texts in zip(self._titles, self._heads, strict=True)
        ]
        self._column_widths = [
            _fitting([*labels, *(text.plain for text in texts)], 12 if stacked else 20)
            for labels, texts in zip(self._labels, self._columns, strict=True)
        ]
        if self._headed and self._sections:
            self._head_widths[0] = max([self._head_widths[0], *map(cell_len, self._sections)])

    def width(self) -> int:
        """Return the width of the whole table."""
        return _total([*self._head_widths, *self._column_widths])

    def bands(self, width: int | None) -> list[list[int]]:
        """Return the columns, by index, that fit side by side; a group is split only if it is too wide alone."""
        bands: list[list[int]] = [[]]
        for unit in self._units(width):
            if not self._fits([*bands[-1], *unit], width):
                bands.append([])
            bands[-1] += unit
        return [band for band in bands if band]

    def _units(self, width: int | None) -> Iterator[list[int]]:
        """Yield the groups of columns, with groups that are too wide as single columns."""
        for group, columns in itertools.groupby(range(len(self._columns)), key=lambda at: self._groups[at]):
            unit = list(columns)
            yield from [unit] if group and self._fits(unit, width) else [[at] for at in unit]

    def _fits(self, columns: Sequence[int], width: int | None) -> bool:
        return width is None or _total([*self._head_widths, *(self._column_widths[at] for at in columns)]) <= width

    def render(self, band: Sequence[int]) -> rich.table.Table:
        """Return some columns after the leading ones."""
        columns = [*self._heads, *(self._columns[at] for at in band)]
        widths = [*self._head_widths, *(self._column_widths[at] for at in band)]
        grid = rich.table.Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, _GAP - 1, 0, 0),
            pad_edge=False,
            width=_total(widths),
        )
        for title, width in zip([*self._titles, *self._over(band)], widths, strict=True):
            grid.add_column(Text(title), width=width, overflow="fold", header_style="bold")
        for at, texts in enumerate(zip(*columns, strict=True)):
            if self._sections and (at == 0 or self._sections[at] != self._sections[at - 1]):
                grid.add_section()
                if self._headed:
                    grid.add_row(Text(self._sections[at], "bold"))
            grid.add_row(*texts)
        return grid

    def _over(self, band: Sequence[int]) -> list[str]:
        """Return the headers of a band, with the same height for each level."""
        labels = [self._labels[at] for at in band]
        levels = range(len(labels[0]))
        heights = [max(label[level].count("\n") for label in labels) for level in levels]
        starts = [spans(labels, level) if self._once else [1] * len(labels) for level in levels]
        return [
            "\n".join(
                (label[level] if starts[level][at] else "") + "\n" * (heights[level] - label[level].count("\n"))
                for level in levels
            )
            for at, label in enumerate(labels)
        ]


def _heads(shown: Table, *, once: bool) -> Iterator[list[Text]]:
    labels = [line.labels for line in shown.lines]
    for level in range(len(shown.heads)):
        starts = spans(labels, level) if once and level < len(shown.heads) - 1 else [1] * len(labels)
        yield [Text(label[level] if start else "") for label, start in zip(labels, starts, strict=True)]


def _wrapped(label: str, stacked: bool) -> str:
    """Return a column's label, wrapped into short lines if it must be narrow: ``SwinIR`` above ``+SG``."""
    if not stacked or len(label) <= _NARROW:
        return label
    return textwrap.fill(re.sub(r"(?<=\w)\+", " +", label), _NARROW, break_long_words=False, break_on_hyphens=False)


def _cells(cells: Sequence[Cell], stacked: bool) -> list[Text]:
    """Return the cells of a column, with the decimal points of their means aligned."""
    before = max((mean_of(cell).find(".") for cell in cells), default=0)
    return [_text(cell, before, "\n" if stacked else " ") for cell in cells]


def _text(cell: Cell, before: int, gap: str) -> Text:
    if not cell.summary:
        return Text(f"{cell.reason}{superscript(cell.mark)}", "yellow")
    whole, point, rest = mean_of(cell).partition(".")
    mean = f"{whole.rjust(before)}{point}{rest}{SIGN * bool(cell.significant)}{superscript(cell.mark)}"
    return Text(f"{mean}{gap}± {spread_of(cell)}" if spread_of(cell) else mean, "bold" if cell.best else "")


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _fitting(texts: Iterable[str], wrapped: int) -> int:
    """Return the smallest width that breaks no word, and no text shorter than ``wrapped``."""
    lines = [line for text in texts for line in text.splitlines()]
    words = [word for line in lines for word in line.split()]
    return max(max(map(cell_len, words), default=0), max((min(cell_len(line), wrapped) for line in lines), default=0))
