r"""Tables in LaTeX, with booktabs."""

import re
from collections.abc import Iterable, Iterator

from sgbench.analysis.baseline import SIGN
from sgbench.analysis.cells import Cell
from sgbench.core.words import printable
from sgbench.report.tables.model import EMPTY, Table, mean_of, spans, spread_of

PREAMBLE = r"% \usepackage{booktabs} \usepackage{graphicx}"

_NARROW = 6
"""The most columns of a table that fit in one column of a two-column paper."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "{}$&#%_"},
    **{character: f"${character}$" for character in "<>|*"},
    '"': "''",
    "[": "{[}",  # which would be an option of the line break before it
    "-": "{-}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "−": "$-$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "÷": r"$\div$",
    "→": r"$\to$",
    "λ": r"$\lambda$",
    "σ": r"$\sigma$",
    "…": r"\ldots{}",
    **{raised: rf"\textsuperscript{{{digit}}}" for digit, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}


def to_latex(shown: Table) -> str:
    """Return a table as a float, scaled down if it is wider than the text.

    In a two-column paper, a table of more than `_NARROW` columns spans both.

    The document needs booktabs and graphicx, as a comment says. Letters of non-Latin scripts need a LaTeX that supports
    them, such as LuaLaTeX.
    """
    notes = shown.notes if shown.lines else (*shown.notes, EMPTY)
    place = "table" if len(shown.heads) + len(shown.columns) <= _NARROW else "table*"
    lines = [
        PREAMBLE,
        rf"\begin{{{place}}}",
        r"\centering",
        rf"\caption{{{escaped(shown.title)}}}",
        *(_tabular(shown) if shown.lines else ()),
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright\smallskip",
        " \\\\\n".join(map(_note, notes)),
        r"\end{minipage}",
        rf"\end{{{place}}}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Escape text so that nothing in it is markup."""
    return "".join(_SPECIAL.get(character, character) for character in printable(text.replace("\n", " ")))


def tabular(alignment: str, head: Iterable[str], body: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a ``tabular`` that is scaled down if it is wider than the text.

    Args:
        alignment: A letter for each column, such as ``llc``.
        head: Lines above the rule; see `row`.
        body: Lines below it.
    """
    yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}"
    yield r"\toprule"
    yield from head
    yield r"\midrule"
    yield from body
    yield r"\bottomrule"
    yield r"\end{tabular}}"


def row(cells: Iterable[str]) -> str:
    """Return a line of a ``tabular`` from escaped cells."""
    return f"{' & '.join(cells)} \\\\"


def _tabular(shown: Table) -> Iterator[str]:
    alignment = "l" * len(shown.heads) + "c" * len(shown.columns)
    return tabular(alignment, _head(shown), _body(shown))


def _body(shown: Table) -> Iterator[str]:
    labels = [line.labels for line in shown.lines]
    levels = [spans(labels, level) for level in range(len(shown.heads))]
    for at, line in enumerate(shown.lines):
        if at and len(levels) > 1 and levels[0][at]:
            yield r"\addlinespace"
        last = len(levels) - 1
        heads = [
            escaped(label) if starts[at] or level == last else ""
            for level, (label, starts) in enumerate(zip(line.labels, levels, strict=True))
        ]
        yield row([*heads, *map(_cell, line.cells)])


def _head(shown: Table) -> Iterator[str]:
    """Yield a row for each level, with a rule below each label that spans several columns."""
    depth = len(shown.columns[0].labels)
    for level in range(depth):
        titles = [escaped(title) if level == depth - 1 else "" for title in shown.titles]
        cells, rules, at = list(titles), [], len(titles)
        for column, width in zip(shown.columns, spans([each.labels for each in shown.columns], level), strict=True):
            if width:
                label = escaped(column.labels[level])
                cells.append(label if level == depth - 1 else rf"\multicolumn{{{width}}}{{c}}{{{label}}}")
                rules.append(rf"\cmidrule(lr){{{at + 1}-{at + width}}}")
                at += width
        yield row(cells)
        if level < depth - 1:
            yield "".join(rules)


def _cell(cell: Cell) -> str:
    mark = "" if cell.mark is None else rf"\textsuperscript{{{cell.mark}}}"
    if not cell.summary:
        return rf"{escaped(str(cell.reason))}{mark}"
    mean = escaped(mean_of(cell))
    mean = rf"\textbf{{{mean}}}" if cell.best else mean
    sign = f"$^{{{SIGN}}}$" if cell.significant else ""
    return mean + sign + mark + (rf"{{\scriptsize{{}} $\pm$ {escaped(spread_of(cell))}}}" if spread_of(cell) else "")


def _note(note: str) -> str:
    parts = re.split(r"`([^`]*)`", note)
    return "".join(rf"\texttt{{{escaped(part)}}}" if at % 2 else escaped(part) for at, part in enumerate(parts))
