"""The formats in which a table is text."""

from collections.abc import Callable

from sgbench.report.tables.data import to_csv, to_json
from sgbench.report.tables.html import to_html
from sgbench.report.tables.latex import to_latex
from sgbench.report.tables.markdown import to_markdown
from sgbench.report.tables.model import Table

FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": to_html,
    "json": to_json,
}
"""Each ends with a line break."""

RICH = "rich"
"""For a person to read; see `sgbench.report.tables.table.shown`."""
