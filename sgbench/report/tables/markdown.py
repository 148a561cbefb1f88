"""Tables in GitHub-flavoured Markdown, which most other tools can read."""

import re
from collections.abc import Iterable

from sgbench.analysis.baseline import SIGN
from sgbench.analysis.cells import Cell
from sgbench.core.words import printable
from sgbench.report.tables.model import EMPTY, Table, mean_of, spread_of, superscript


def to_markdown(shown: Table) -> str:
    """Return a table in Markdown: a title, the table, and the notes as a list."""
    head = [*shown.titles, *(" · ".join(filter(None, column.labels)) for column in shown.columns)]
    rows = [[*map(escaped, line.labels), *map(_cell, line.cells)] for line in shown.lines]
    table = [row(map(escaped, head)), row(["---"] * len(head)), *map(row, rows), ""] if rows else []
    title = [f"**{escaped(shown.title)}**", ""]
    notes = [f"- {escaped(note, code=True)}" for note in (shown.notes if rows else (*shown.notes, EMPTY))]
    return "\n".join([*title, *table, *notes]) + "\n"


def _cell(cell: Cell) -> str:
    if not cell.summary:
        return escaped(f"{cell.reason}{superscript(cell.mark)}")
    mean = f"**{mean_of(cell)}**" if cell.best else mean_of(cell)
    sign = escaped(SIGN) if cell.significant else ""
    return f"{mean}{sign}{superscript(cell.mark)}{f' ± {spread_of(cell)}' if spread_of(cell) else ''}"


def row(cells: Iterable[str]) -> str:
    """Return a line of a table from escaped cells."""
    return f"| {' | '.join(cells)} |"


def escaped(text: str, *, code: bool = False) -> str:
    """Escape text so that nothing in it is markup, except, if ``code``, text between backticks."""
    text = printable(text.replace("\n", " "))
    parts = re.split(r"((?<!`)`[^`]+`(?!`))", text) if code else [text]
    return "".join(part if at % 2 else re.sub(r"([\\|*`<[])", r"\\\1", part) for at, part in enumerate(parts))
