"""Tables in HTML: unstyled fragments for a page with its own style."""

import re
from collections.abc import Iterable, Iterator
from html import escape

from sgbench.analysis.baseline import SIGN
from sgbench.analysis.cells import Cell
from sgbench.core.words import printable, printable_lines
from sgbench.report.tables.model import EMPTY, Column, Line, Table, mean_of, spans, spread_of


def to_html(shown: Table) -> str:
    """Return a table as a ``table`` element with a caption, and the notes in its footer.

    Classes are ``sgbench`` (the table), ``sd`` (a spread), and for cells ``best`` (mean), ``significant`` (difference
    from L1) and ``none`` (no number).
    """
    width = len(shown.heads) + len(shown.columns)
    notes = shown.notes if shown.lines else (*shown.notes, EMPTY)
    lines = [
        '<table class="sgbench">',
        f"<caption>{escape(shown.title)}</caption>",
        *(_body(shown) if shown.lines else ()),
        "<tfoot>",
        *(f'<tr><td colspan="{max(width, 1)}">{_note(note)}</td></tr>' for note in notes),
        "</tfoot>",
        "</table>",
    ]
    return "\n".join(lines) + "\n"


def plain_table(heads: Iterable[str], rows: Iterable[Iterable[str]], caption: str = "") -> str:
    """Return a ``table`` element of the class ``sgbench`` from text."""
    title = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    head = "".join(f'<th scope="col">{escape(printable(name))}</th>' for name in heads)
    cells = ([escape(printable_lines(text)) for text in row] for row in rows)
    body = "".join(f"<tr>{''.join(f'<td>{text}</td>' for text in row)}</tr>\n" for row in cells)
    return f'<table class="sgbench">\n{title}<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}</tbody>\n</table>\n'


def _body(shown: Table) -> Iterator[str]:
    yield "<thead>"
    yield from _head(shown)
    yield "</thead>"
    labels = [line.labels for line in shown.lines]
    levels = [spans(labels, level) for level in range(len(shown.heads) - 1)] + [[1] * len(labels)] * bool(shown.heads)
    for at, line in enumerate(shown.lines):
        first = not levels or levels[0][at]
        if first and (at == 0 or len(levels) > 1):
            yield "</tbody>\n<tbody>" if at else "<tbody>"
        yield f"<tr>{_labels(line, [starts[at] for starts in levels])}{''.join(map(_cell, line.cells))}</tr>"
    yield "</tbody>"


def _head(shown: Table) -> Iterator[str]:
    depth = len(shown.columns[0].labels)
    for level in range(depth):
        below = f' rowspan="{depth}"' if depth > 1 else ""
        titles = [f'<th scope="col"{below}>{escape(title)}</th>' for title in shown.titles] if level == 0 else []
        widths = spans([column.labels for column in shown.columns], level)
        cells = [_title(column, level, width) for column, width in zip(shown.columns, widths, strict=True) if width]
        yield f"<tr>{''.join([*titles, *cells])}</tr>"


def _title(column: Column, level: int, width: int) -> str:
    return f"<th{_over('col', width)}>{escape(column.labels[level])}</th>"


def _labels(line: Line, starts: list[int]) -> str:
    return "".join(
        f"<th{_over('row', height)}>{escape(label)}</th>"
        for label, height in zip(line.labels, starts, strict=True)
        if height
    )


def _over(what: str, count: int) -> str:
    """Return the attributes of a header that spans rows or columns."""
    span = {"row": "rowspan", "col": "colspan"}[what]
    return f' scope="{what}group" {span}="{count}"' if count > 1 else f' scope="{what}"'


def _cell(cell: Cell) -> str:
    mark = "" if cell.mark is None else f"<sup>{cell.mark}</sup>"
    if not cell.summary:
        return f'<td class="none">{escape(str(cell.reason))}{mark}</td>'
    names = " ".join(name for name, there in (("best", cell.best), ("significant", cell.significant)) if there)
    opening = f'<td class="{names}">' if names else "<td>"
    spread = f' <span class="sd">± {spread_of(cell)}</span>' if spread_of(cell) else ""
    return f"{opening}{mean_of(cell)}{SIGN * bool(cell.significant)}{mark}{spread}</td>"


def _note(note: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(note))
