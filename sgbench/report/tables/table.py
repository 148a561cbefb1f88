"""A table as a terminal, a notebook and pandas show it."""

from sgbench.report.shown import Shown
from sgbench.report.tables.data import to_rows
from sgbench.report.tables.html import to_html
from sgbench.report.tables.model import Table
from sgbench.report.tables.terminal import parts


def shown(made: Table) -> Shown:
    """Return a table as terminals, notebooks and pandas show it."""
    return Shown(lambda width: parts(made, width), lambda: to_html(made), to_rows(made))
