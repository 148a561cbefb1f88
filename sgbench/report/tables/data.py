"""Tables for programs: JSON and CSV, with full precision and no formatting."""

import csv
import io
import json
from typing import Any

from sgbench.analysis.cells import Cell
from sgbench.report.tables.model import Table


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
    return json.dumps(to_data(shown), indent=2, ensure_ascii=False) + "\n"


def to_csv(shown: Table) -> str:
    """Return `to_rows` as CSV."""
    rows = to_rows(shown)
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _values(cell: Cell) -> dict[str, Any]:
    numbers = vars(cell.summary) if cell.summary else {"mean": None, "sd": None, "n": 0}
    return {**numbers, "reason": cell.reason, "best": cell.best, "significant": cell.significant}


def _plain(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
