"""Tables for programs: JSON and CSV, with full precision and no formatting."""

import csv
import io
import json
import re
from typing import Any

from sgbench.analysis.cells import Cell
from sgbench.core.words import printable_lines
from sgbench.report.tables.model import Table

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def to_data(shown: Table) -> dict[str, Any]:
    """Return a table as plain values for JSON.

    Returns:
        ``title``, ``metrics`` (name and direction), ``lines`` (what the cells of each have in common, and ``cells`` by
        column: mean, sd, n, reason, best, significant) and ``notes``.
    """
    lines = [
        {
            **line.fields,
            "cells": {column.name: _values(cell) for column, cell in zip(shown.columns, line.cells, strict=True)},
        }
        for line in shown.lines
    ]
    metrics = [{"metric": metric, "direction": direction} for metric, direction in shown.directions.items()]
    return {"title": shown.title, "metrics": metrics, "lines": lines, "notes": list(shown.notes)}


def to_rows(shown: Table) -> list[dict[str, Any]]:
    """Return one row per cell: its coordinates, and mean, sd, n, reason, best and significant."""
    return [{**cell.place, **_values(cell)} for cell in shown.cells]


def to_json(shown: Table) -> str:
    """Return `to_data` as text."""
    return json_text(to_data(shown)) + "\n"


def json_text(data: Any) -> str:
    """Return data as JSON for people and programs, with escapes for characters that act on a terminal."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str)
    return "\n".join(
        line if line.isprintable() else re.sub(r"[^ -~]+", _escaped_unless_printable, line) for line in text.split("\n")
    )


def _escaped_unless_printable(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def to_csv(shown: Table) -> str:
    """Return `to_rows` as CSV."""
    rows = to_rows(shown)
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def no_formula(text: str) -> str:
    """Return text for a cell of a CSV file, with an apostrophe before what a spreadsheet would run as a formula."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(_FORMULA) else text
    return text


def _values(cell: Cell) -> dict[str, Any]:
    numbers = vars(cell.summary) if cell.summary else {"mean": None, "sd": None, "n": 0}
    return {**numbers, "reason": cell.reason, "best": cell.best, "significant": cell.significant}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return no_formula(printable_lines(value))
    return str(value).lower() if isinstance(value, bool) else value
