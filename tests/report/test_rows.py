"""The answer to a query as text: every format against a program that reads it."""

import csv
import datetime
import decimal
import io
import json
import xml.etree.ElementTree as ElementTree

import pyarrow as pa
import pytest
from rich.console import Console

from sgbench.report.rows import FORMATS, ROWS, print_rows

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

ODD = pa.table(
    {
        "name": pa.array(["l1 + 1.0*sg", 'a|b_c & <d> "e" 100% $x$', None]),
        "value": pa.array([0.1 + 0.2, float("nan"), None]),
        "sum": pa.array([decimal.Decimal(2**70), decimal.Decimal(3), None], pa.decimal128(38, 0)),
        "at": pa.array([NOW, NOW, None], pa.timestamp("us", tz="UTC")),
        "terms": pa.array([{"l1": 0.5}, {}, None], pa.map_(pa.string(), pa.float64())),
        "list": pa.array([[1, None], [], None], pa.list_(pa.int64())),
        "bytes": pa.array([b"\0\xff", b"", None]),
        "is": pa.array([True, False, None]),
        "took": pa.array([datetime.timedelta(seconds=90), None, None]),
    }
)


def shown(rows: pa.Table, width: int = 200) -> str:
    stream = io.StringIO()
    print_rows(rows, Console(file=stream, width=width))
    return stream.getvalue()


def test_json_has_the_values_themselves_and_is_json() -> None:
    first, second, third = json.loads(FORMATS["json"](ODD), parse_constant=pytest.fail)
    assert first == {
        "name": "l1 + 1.0*sg",
        "value": 0.1 + 0.2,
        "sum": 2**70,
        "at": "2026-01-02 03:04:05+00:00",
        "terms": {"l1": 0.5},
        "list": [1, None],
        "bytes": "00ff",
        "is": True,
        "took": "0:01:30",
    }
    assert (second["value"], second["terms"]) == (None, {})
    assert set(third.values()) == {None}


def test_csv_is_read_back_with_every_digit() -> None:
    head, first, second, third = csv.reader(io.StringIO(FORMATS["csv"](ODD)))
    assert head == ODD.column_names
    assert (float(first[1]), first[2], json.loads(first[4]), first[7]) == (0.1 + 0.2, str(2**70), {"l1": 0.5}, "true")
    assert second[0] == 'a|b_c & <d> "e" 100% $x$'
    assert third == [""] * 9


def test_markdown_has_as_many_cells_in_every_line() -> None:
    lines = FORMATS["markdown"](ODD).splitlines()
    assert r"| l1 + 1.0\*sg |" in lines[2]
    assert len(lines) == 5
    assert {line.replace("\\|", "").count("|") for line in lines} == {10}


def test_html_is_well_formed_and_says_the_same() -> None:
    table = ElementTree.fromstring(FORMATS["html"](ODD))
    assert table.attrib == {"class": "sgbench"}
    assert [head.attrib for head in table.iter("th")] == [{"scope": "col"}] * 9
    cells = [[cell.text or "" for cell in row] for row in table.iter("tr")]
    assert cells[0] == ODD.column_names
    assert cells[2][0] == 'a|b_c & <d> "e" 100% $x$'
    assert len(cells) == 4


def test_latex_escapes_what_is_markup() -> None:
    text = FORMATS["latex"](ODD)
    assert r"a$|$b\_c \& $<$d$>$ ''e'' 100\% \$x\$" in text
    assert r"\begin{tabular}{@{}lrrllllll@{}}" in text
    assert text.startswith("% \\usepackage{booktabs}")
    assert {line.replace(r"\&", "").count("&") for line in text.splitlines() if line.endswith(r"\\")} == {8}


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_and_no_wide_or_long_answer_are_too_much(form: str) -> None:
    assert FORMATS[form](ODD.slice(0, 0)).endswith("\n")
    many = pa.table({f"column{i}": pa.array(["x" * 300] * 50) for i in range(20)})
    assert FORMATS[form](many).count("x" * 300) == 1000


def test_a_person_sees_rows_side_by_side_where_they_fit() -> None:
    text = shown(pa.table({"loss": ["l1", "l1 + 1.0*sg"], "psnr": [28.123456789, None]}))
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["loss", "psnr"],
        ["─" * len(text.splitlines()[2].strip())],
        ["l1", "28.1235"],
        ["l1", "+", "1.0*sg"],
        [],
    ]


def test_a_person_sees_wide_rows_as_lists_of_columns_with_nothing_cut() -> None:
    wide = pa.table({f"column{i}": [f"value{i}" * 20] for i in range(10)})
    text = "".join(shown(wide, width=60).split())
    assert all(f"column{i}" + f"value{i}" * 20 in text for i in range(10))


def test_a_person_is_shown_the_first_rows_only_and_told_of_none() -> None:
    assert shown(pa.table({"n": range(1000, 1000 + 10 * ROWS)})).count("  1") == ROWS
    assert "no rows" in shown(ODD.slice(0, 0))


def test_markup_in_a_value_is_text() -> None:
    assert "[bold]x[/bold]" in shown(pa.table({"[red]": ["[bold]x[/bold]"]}))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (pa.scalar(2**31 - 1, pa.date32()), "infinity"),
        (pa.scalar(-(2**63 - 1), pa.timestamp("us", tz="UTC")), "-infinity"),
        (pa.scalar(9089348860800000000, pa.timestamp("us")), "290000-01-01 00:00:00"),
        (pa.scalar(-2545000, pa.date32()), "-4998-01-11"),
        (pa.scalar([None, 2**31 - 1], pa.list_(pa.date32())), [None, "infinity"]),
        (
            pa.scalar({"a": 2**31 - 1, "b": 1}, pa.struct({"a": pa.date32(), "b": pa.int8()})),
            {"a": "infinity", "b": 1},
        ),
        (pa.scalar([([1], 2)], pa.map_(pa.list_(pa.int8()), pa.int8())), {"[1]": 2}),
        (pa.scalar([(1, 2), (1, 3)], pa.map_(pa.int8(), pa.int8())), {"1": 3}),
        (pa.scalar(10**38, pa.decimal256(39)), 10**38),
        (pa.scalar(b"\xff\x00"), "ff00"),
    ],
)
def test_what_python_has_no_value_for_is_text_in_every_format(value: pa.Scalar, shown: object) -> None:
    rows = pa.table({"x": pa.array([value, None], value.type), "y": ["before", "after"]})
    first, second = json.loads(FORMATS["json"](rows))
    assert (first, second) == ({"x": shown, "y": "before"}, {"x": None, "y": "after"})
    for written in FORMATS.values():
        assert "before" in written(rows)
    print_rows(rows, Console(file=(file := io.StringIO())))
    assert "before" in file.getvalue()
