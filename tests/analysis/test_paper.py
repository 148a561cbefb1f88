"""The paper's numbers, against the tables as they were handed over, where these are at hand, and against each other."""

import csv
from pathlib import Path

import pytest

from sgbench.analysis import PAPER, paper
from sgbench.spec import check_backbone, expression

TABLES = Path(__file__).parents[3] / "shared" / "paper_tables.csv"
LOSSES = {"l1+sg": "l1 + {}*sg"}
METRICS = {"lpips": "lpips_alex", "fid": "fid"}


@pytest.mark.skipif(not TABLES.exists(), reason="the transcript of the paper's tables is not available here")
def test_every_cell_is_that_of_the_transcript():
    with TABLES.open() as file:
        expected = {
            (
                int(row["table"]),
                row["dataset"],
                METRICS[row["metric"]],
                check_backbone(row["backbone"].lower()),
                str(expression.parse(LOSSES.get(row["loss"], row["loss"]).format(row["weight"]))),
                int(row["trial"]) - 1 if row["trial"] else None,
                float(row["value"]),
            )
            for row in csv.DictReader(file)
        }
    assert {tuple(row.values()) for row in paper().to_pylist()} == expected
    assert paper().num_rows == len(expected) == 150


def test_losses_and_backbones_are_spelled_as_in_a_store():
    assert paper().schema == PAPER
    for row in paper().to_pylist():
        assert str(expression.parse(row["loss"])) == row["loss"]
        assert check_backbone(row["backbone"]) == row["backbone"]


def test_a_cell_that_several_tables_print_has_one_value():
    cells = {}
    for row in paper().to_pylist():
        if row["seed"] is None:
            cells.setdefault((row["dataset"], row["metric"], row["backbone"], row["loss"]), set()).add(row["value"])
    assert all(len(values) == 1 for values in cells.values())
