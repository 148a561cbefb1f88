"""The rows of a query as text, for people and in formats for programs."""

import csv
import datetime
import decimal
import io
import json
import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sgbench.core.errors import InputError
from sgbench.core.words import printable, printable_lines
from sgbench.report.tables import latex, markdown
from sgbench.report.tables.data import json_text, no_formula
from sgbench.report.tables.html import plain_table

ROWS = 100
"""The most rows shown to a person."""

WIDTH = 48
"""Maximum width of a cell on a terminal, in characters."""


def print_rows(rows: pa.Table, console: Console) -> None:
    """Show the first `ROWS` rows to a person; if they are too wide, show each as a list of its columns."""
    shown = [[_short(value) for value in row.values()] for row in _values(rows.slice(0, ROWS))]
    table = Table(box=box.SIMPLE_HEAD)
    for name, kind in zip(rows.column_names, rows.schema.types, strict=True):
        table.add_column(
            Text(printable(name)), justify="right" if _is_numeric(kind) else "left", max_width=WIDTH, overflow="fold"
        )
    for cells in shown:
        table.add_row(*map(Text, cells))
    needed = console.measure(table, options=console.options.update(max_width=100 * console.width)).maximum
    if needed <= console.width:
        console.print(table)
    else:
        for cells in shown:
            console.print(_record(rows.column_names, cells), "")
    if not shown:
        console.print("no rows")


def to_csv(rows: pa.Table) -> str:
    """Return rows as CSV; nested values are JSON, and null is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(rows.column_names)
    writer.writerows([no_formula(printable_lines(text)) for text in line] for line in _texts(rows))
    return buffer.getvalue()


def to_markdown(rows: pa.Table) -> str:
    """Return rows as a table in Markdown."""
    head, *body = ([markdown.escaped(text) for text in line] for line in (rows.column_names, *_texts(rows)))
    return "".join(f"{markdown.row(line)}\n" for line in (head, ["---"] * len(head), *body))


def to_json(rows: pa.Table) -> str:
    """Return rows as a JSON list of objects; numbers that are not finite are null."""
    return json_text(_values(rows)) + "\n"


def to_parquet(rows: pa.Table) -> bytes:
    """Return rows as a Parquet file.

    Raises:
        InputError: If Parquet has no such type.
    """
    for name, kind in zip(rows.column_names, rows.schema.types, strict=True):
        try:
            pq.write_table(pa.table({name: pa.array([], kind)}), io.BytesIO())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(f"Parquet cannot hold column '{name}' of type {kind}; CAST it to another type.") from error
    pq.write_table(rows, buffer := io.BytesIO(), compression="zstd")
    return buffer.getvalue()


def to_html(rows: pa.Table) -> str:
    """Return rows as an unstyled ``table`` element of the class ``sgbench``."""
    return plain_table(rows.column_names, _texts(rows))


def to_latex(rows: pa.Table) -> str:
    """Return rows as a LaTeX ``tabular`` in the style of the tables of scores, without a float."""
    head, *body = (latex.row(map(latex.escaped, line)) for line in (rows.column_names, *_texts(rows)))
    alignment = "".join("r" if _is_numeric(kind) else "l" for kind in rows.schema.types)
    return "\n".join([latex.PREAMBLE, *latex.tabular(alignment, [head], body)]) + "\n"


FORMATS: dict[str, Callable[[pa.Table], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": to_html,
    "json": to_json,
}
"""Each ends with a line break."""


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _record(names: list[str], cells: list[str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, cell in zip(names, cells, strict=True):
        table.add_row(Text(printable(name)), Text(cell))
    return table


def _values(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as JSON-compatible values."""
    columns = [_column(column) for column in rows.columns]
    return [dict(zip(rows.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _column(column: pa.ChunkedArray) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    except (OverflowError, ValueError, TypeError, KeyError):  # of all values, as one cannot be a Python object
        return [_scalar(value) for value in column]
    return [_plain(value) for value in values]


def _scalar(value: pa.Scalar) -> Any:
    """Return a value, whatever it holds; dates that Python does not have are text, and so are keys of maps."""
    if not value.is_valid:
        return None
    match value:
        case pa.MapScalar():
            pairs = [(_scalar(each["key"]), _scalar(each["value"])) for each in value.values]
            return {_text(key): each for key, each in pairs}
        case pa.ListScalar():
            return [_scalar(each) for each in value.values]
        case pa.StructScalar():
            return {name: _scalar(each) for name, each in value.items()}
    try:
        return _plain(value.as_py())
    except (OverflowError, ValueError):
        return _INFINITE.get(value.value) or _date(value)


def _date(value: pa.Scalar) -> str:
    """Return a date or time before the year 1 or after 9999; the calendar repeats itself every 400 years."""
    day, rest = (value.value, 0) if pa.types.is_date32(value.type) else divmod(value.value, _A_DAY[value.type.unit])
    cycles, day = divmod(day, 146_097)
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=day)
    text = f"{date.year + 400 * cycles:04}-{date:%m-%d}"
    if pa.types.is_date32(value.type):
        return text
    time = datetime.datetime.min + datetime.timedelta(days=rest / _A_DAY[value.type.unit])
    return f"{text} {time:%H:%M:%S}"


_A_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
"""How many units of a time are a day."""

_INFINITE = {sign * (2**bits - 1): text for bits in (31, 63) for sign, text in ((1, "infinity"), (-1, "-infinity"))}
"""What DuckDB has for infinite dates and times."""


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case decimal.Decimal():  # DuckDB's sums of integers
            return int(value) if value == value.to_integral_value() else float(value)
        case float():
            return value if math.isfinite(value) else None
        case datetime.datetime():
            return value.isoformat(sep=" ", timespec="seconds")
        case None | bool() | int() | str():
            return value
        case bytes():
            return value.hex()
    return str(value)


def _texts(rows: pa.Table) -> list[list[str]]:
    return [[_text(value) for value in row.values()] for row in _values(rows)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else printable_lines(_text(value))
