"""Tables and comparisons for programs: in a terminal, in a notebook, and as data frames."""

import io
import math
from html.parser import HTMLParser

import pytest
from rich.console import Console
from table_rows import results, run, score

from sgbench import compare, table
from sgbench.analysis import Results
from sgbench.core.errors import InputError
from sgbench.report.shown import Shown

SG = "l1 + 1.0*sg"


@pytest.fixture
def store() -> Results:
    """Two losses, three seeds, six images; SG lowers each score by about 0.1."""
    runs = [run(f"{loss} {seed}", loss, seed) for loss in ("l1", SG) for seed in range(3)]
    rows = []
    for at, each in enumerate(runs):
        values = [0.4 - 0.1 * (each["loss"] == SG) + 0.001 * math.sin(7 * at + image) for image in range(6)]
        rows += [score(each["run_id"], value, image=f"i{image}") for image, value in enumerate(values)]
        rows.append(score(each["run_id"], sum(values) / 6))
    return results(runs, rows)


def text(shown: Shown, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, _environ={})
    console.print(shown)
    return console.file.getvalue()


def words(html: str) -> str:
    """Return the text of a fragment of HTML."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append
    parser.feed(html)
    return " ".join(found)


def test_a_table_is_shown_everywhere_and_has_a_row_for_each_cell(store: Results) -> None:
    shown = table(store, metrics=["lpips_alex"])
    assert "lpips_alex ↓" in text(shown, 100)
    assert repr(shown).startswith("Scores by dataset, backbone, loss and metric\n")
    assert "± is the sample standard deviation over seeds." in words(shown._repr_html_())
    frame = shown.to_pandas()
    assert frame["loss"].tolist() == ["l1", SG]
    assert frame["n"].tolist() == [3, 3]
    assert frame["mean"].tolist() == pytest.approx([0.4, 0.3], abs=0.001)
    assert frame["significant"].tolist()[1]


def test_in_a_notebook_nothing_is_displayed_but_the_result(store: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = repr(table(store)), str(compare(store, "l1", SG))
    displayed: list[object] = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda segments, text: displayed.append(text))
    assert (repr(table(store)), str(compare(store, "l1", SG))) == expected
    assert displayed == []


def test_tables_of_the_paper_and_several_stores_are_made_by_the_same_function(store: Results) -> None:
    assert "EDSR+SG" in text(table(store, 1, metrics=["lpips_alex"]), 100)
    assert "paper" in text(table(store, 1, show="both", metrics=["lpips_alex"]), 100)
    beside = table({"a": store, "b": store}, columns=["store"]).to_pandas()
    assert beside["store"].tolist() == ["a", "b", "a", "b"]
    with pytest.raises(InputError, match="unknown loss 'l2'"):
        table(store, losses=["l2"])


@pytest.mark.parametrize("width", [80, 200])
def test_a_comparison_is_shown_everywhere_and_has_a_row_for_each_cell(store: Results, width: int) -> None:
    shown = compare(store, "l1", "sg + l1")
    printed = text(shown, width)
    assert max(map(len, printed.splitlines())) <= width
    assert f"A is l1, B is {SG}." in printed
    assert f"{SG} lowers lpips_alex on Set5" in " ".join(repr(shown).split())
    assert f"{SG} lowers lpips_alex on Set5 with edsr-tiny by 0." in words(shown._repr_html_())
    (row,) = shown.to_pandas().to_dict("records")
    assert (row["verdict"], row["better"], row["dataset"], row["images"]) == ("significant", True, "Set5", 6)
    assert row["overall_low"] < row["difference"] < row["overall_high"] < 0
    assert row["by_image_floor"] == 0.03125


def test_the_representation_of_results_is_short(store: Results) -> None:
    assert repr(store) == "<Results of tables in memory>"
