"""Tables of scores: a layout builds a table as data, and each format renders it.

    view ─► outcomes ─► cells ─► table ─► terminal, Markdown, LaTeX, HTML, CSV, JSON

The layouts are `pivot`, with any rows and columns, and `paper_table`.
"""

from sgbench.report.tables.data import to_data
from sgbench.report.tables.formats import FORMATS, RICH, shown
from sgbench.report.tables.html import to_html
from sgbench.report.tables.model import ARROWS, Column, Line, Table
from sgbench.report.tables.paper import OURS, PAPER, paper_table
from sgbench.report.tables.pivot import COLUMNS, ROWS, pivot

__all__ = [
    "ARROWS",
    "COLUMNS",
    "FORMATS",
    "OURS",
    "PAPER",
    "RICH",
    "ROWS",
    "Column",
    "Line",
    "Table",
    "paper_table",
    "pivot",
    "shown",
    "to_data",
    "to_html",
]
