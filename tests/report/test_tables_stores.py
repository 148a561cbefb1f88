"""Several stores side by side: a run that lies in two of them is one run."""

from typing import Any

import pytest
from table_rows import other, plan, results, run, score

from sgbench.analysis import Filters, Results, View
from sgbench.analysis.stores import labelled
from sgbench.core.errors import InputError
from sgbench.report import tables
from sgbench.report.tables import Table
from sgbench.report.tables.model import mean_of


def cells(table: Table) -> list[tuple[str | None, int]]:
    return [(mean_of(cell) or cell.reason, cell.summary.n if cell.summary else 0) for cell in table.cells]


def pivot(stores: dict[str, Results], filters: Filters | None = None, **axes: Any) -> Table:
    return tables.pivot(View(stores), filters or Filters(), **axes)


def one(value: float | None, **columns: Any) -> Results:
    return results([run("a")], [score("a", value, **columns)])


def test_a_run_in_two_stores_counts_once() -> None:
    shown = pivot({"x": one(0.3), "y": one(0.3)})
    assert cells(shown) == [("0.3000", 1)]
    assert not any("disagree" in note for note in shown.notes)


def test_seeds_of_two_stores_make_one_mean() -> None:
    second = results([run("b", seed=1)], [score("b", 0.4)])
    assert cells(pivot({"x": one(0.3), "y": second})) == [("0.3500", 2)]


def test_stores_that_disagree_say_so_and_the_first_is_shown() -> None:
    shown = pivot({"x": one(0.3), "y": one(0.31)})
    assert cells(shown) == [("0.3000", 1)]
    (note,) = [note for note in shown.notes if "disagree" in note]
    assert note == (
        "The stores disagree on 1 score of runs that they share, such as lpips_alex of a on Set5: 0.3 in x, "
        "0.31 in y; the first is shown."
    )


def test_a_number_is_taken_before_a_reason_and_what_is_done_before_what_failed() -> None:
    lacking = one(None, status="no weights", reason="bring them")
    assert cells(pivot({"x": lacking, "y": one(0.3)})) == [("0.3000", 1)]
    failed = results([run("a", status="failed", step=3, error="loss is NaN")], [], [plan("a")])
    assert cells(pivot({"x": failed, "y": one(0.3)})) == [("0.3000", 1)]
    assert cells(pivot({"x": results([], [], [plan("a")]), "y": one(0.3)})) == [("0.3000", 1)]


def test_a_label_is_the_first_stores_and_no_other_losses() -> None:
    runs = {"l1": run("a"), "l2": run("b", "l2"), "ssim": run("c", "ssim")}
    first = results([runs["l1"], runs["l2"]], [score("a", 0.3), score("b", 0.3)], labels={"l2": "ours"})
    second = results(list(runs.values()), [score("c", 0.3)], labels={"l1": "base", "l2": "theirs", "ssim": "ours"})
    shown = pivot({"x": first, "y": second})
    assert [line.labels[-1] for line in shown.lines] == ["base", "ours", "ssim"]
    assert [note for note in shown.notes if " is l" in note] == ["base is l1.", "ours is l2."]


def test_stores_may_be_columns() -> None:
    shown = pivot({"new": one(0.31), "ago": one(0.3)}, columns=["store"])
    assert [column.name for column in shown.columns] == ["new", "ago"]
    assert cells(shown) == [("0.3100", 1), ("0.3000", 1)]
    assert not any("disagree" in note for note in shown.notes)


def test_test_sets_of_one_name_and_other_pixels_are_told_apart_across_stores() -> None:
    shown = pivot({"x": one(0.3, dataset_sha256="1" * 64), "y": one(0.4, dataset_sha256="2" * 64)})
    assert [line.fields["dataset"] for line in shown.lines] == ["Set5@11111111", "Set5@22222222"]
    versioned = one(0.3, dataset="Set5@11111111", dataset_sha256="1" * 64)
    shown = pivot({"x": versioned, "y": one(0.3, dataset_sha256="1" * 64)})
    assert [line.fields["dataset"] for line in shown.lines] == ["Set5"]
    both = {"x": one(0.3, dataset_sha256="1" * 64), "y": one(0.4, dataset_sha256="2" * 64)}
    assert len(pivot(both, Filters(datasets=["Set5"])).lines) == 2


def test_what_was_not_trained_is_told_apart_across_stores() -> None:
    def checkpoint(run_id: str) -> Results:
        return results([other(run_id, "checkpoint", "edsr.pt")], [score(run_id, 0.3)])

    shown = pivot({"x": checkpoint("a" * 12), "y": checkpoint("b" * 12)})
    assert [line.fields["backbone"] for line in shown.lines] == ["edsr.pt@aaaaaaaa", "edsr.pt@bbbbbbbb"]
    assert len(pivot({"x": checkpoint("a" * 12), "y": checkpoint("a" * 12)}).lines) == 1


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["/r/mini"], ["mini"]),
        (["/r/a", "/r/b"], ["a", "b"]),
        (["/r/a/mini", "/r/b/mini"], ["a/mini", "b/mini"]),
        (["s3://bucket/mini", "/r/mini"], ["bucket/mini", "r/mini"]),
    ],
)
def test_stores_are_called_after_their_folders(paths: list[str], labels: list[str]) -> None:
    assert labelled(paths) == dict(zip(labels, paths, strict=True))


def test_one_store_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"--results '/r/a' is given twice\."):
        labelled(["/r/a", "/r/b", "/r/a"])
