"""The text formats of a table, and how it is displayed."""

from collections.abc import Callable

from sgbench.report.shown import Shown
from sgbench.report.tables.data import to_csv, to_json, to_rows
from sgbench.report.tables.html import to_html
from sgbench.report.tables.latex import to_latex
from sgbench.report.tables.markdown import to_markdown
from sgbench.report.tables.model import Table
from sgbench.report.tables.terminal import parts

FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": to_html,
    "json": to_json,
}
"""Each ends with a line break."""

RICH = "rich"
"""For a person to read; see `shown`."""


def shown(made: Table) -> Shown:
    """Return a table as terminals, notebooks and pandas show it."""
    return Shown(lambda width: parts(made, width), lambda: to_html(made), to_rows(made))
