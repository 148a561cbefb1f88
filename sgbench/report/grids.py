"""Tables of text with notes, for terminals, notebooks and documents."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple

import rich.table
from rich import box
from rich.cells import cell_len
from rich.text import Text

from sgbench.report.shown import Part, paragraph
from sgbench.report.tables import latex, markdown
from sgbench.report.tables.html import plain_table


class Grid(NamedTuple):
    """A table of text.

    Attributes:
        title: One line.
        heads: Headers of the columns.
        rows: Their cells.
        after: Sentences below it, or none.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    after: str = ""


def to_markdown(grids: Iterable[Grid], notes: Sequence[str]) -> str:
    """Return tables in Markdown, each with a title, and notes as a list."""
    lines = []
    for grid in grids:
        head, *body = (markdown.row(map(markdown.escaped, cells)) for cells in (grid.heads, *grid.rows))
        lines += [f"**{markdown.escaped(grid.title)}**", "", head, markdown.row(["---"] * len(grid.heads)), *body, ""]
        lines += [markdown.escaped(grid.after), ""] * bool(grid.after)
    return "\n".join([*lines, *(f"- {markdown.escaped(note, code=True)}" for note in notes)]) + "\n"


def to_latex(grids: Iterable[Grid]) -> str:
    """Return tables as a LaTeX ``tabular`` each, below its title and without a float."""
    lines = [latex.PREAMBLE]
    for grid in grids:
        head, *body = (latex.row(map(latex.escaped, cells)) for cells in (grid.heads, *grid.rows))
        lines += [rf"\noindent {latex.escaped(grid.title)}\\", *latex.tabular("l" * len(grid.heads), [head], body), ""]
    return "\n".join(lines) + "\n"


def to_html(grids: Iterable[Grid], notes: Sequence[str]) -> str:
    """Return a ``table`` element for each table, the sentences below it, and notes."""
    parts = []
    for grid in grids:
        parts.append(plain_table(grid.heads, grid.rows, grid.title))
        parts += [f"<p>{escape(grid.after)}</p>\n"] * bool(grid.after)
    return "".join([*parts, *(f"<p><small>{escape(note)}</small></p>\n" for note in notes)])


def parts(grids: Iterable[Grid], notes: Iterable[str], width: int | None) -> Iterator[Part]:
    """Yield tables and notes for the width of a terminal; None is unlimited."""
    for grid in grids:
        yield paragraph(grid.title, width, "bold")
        yield _table(grid, width)
        yield Text()
        yield paragraph(grid.after, width)
        yield Text()
    for note in notes:
        yield paragraph(note, width, "dim")


def _table(grid: Grid, width: int | None) -> rich.table.Table:
    """Return a table as wide as its text; if a terminal is narrower, the widest columns are wrapped between words."""
    columns = [*zip(grid.heads, *grid.rows, strict=True)]
    widths = [max(map(cell_len, column)) for column in columns]
    least = [max(cell_len(word) for text in column for word in (*text.split(), "")) for column in columns]
    gaps = 2 * (len(columns) - 1)
    while width is not None and sum(widths) + gaps > width and widths != least:
        widths[max(range(len(widths)), key=lambda at: (widths[at] > least[at], widths[at]))] -= 1
    table = rich.table.Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, width=sum(widths) + gaps
    )
    for head, across in zip(grid.heads, widths, strict=True):
        table.add_column(Text(head), width=across, header_style="bold")
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table
