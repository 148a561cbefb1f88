import io
import json
import math
import re
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console
from table_rows import LOWER, other, pivot, plan, printed, results, run, score

from sgbench.analysis import Results
from sgbench.analysis.cells import Cell
from sgbench.analysis.stats import Summary
from sgbench.core.errors import InputError
from sgbench.report import tables
from sgbench.report.tables import Table, to_data


def four(**second: Any) -> Results:
    """Two losses, two seeds, one metric; the second seed of the second loss may be changed."""
    runs = [run("a0"), run("a1", seed=1), run("b0", "l1 + 1.0*sg"), run("b1", "l1 + 1.0*sg", 1)]
    values = {"a0": 0.28, "a1": 0.30, "b0": 0.20, "b1": 0.22}
    scores = [score(run_id, value) for run_id, value in values.items()]
    scores[-1] |= second
    return results(runs, scores)


def labels(table: Table) -> list[tuple[str, str, str]]:
    return [(line.fields["dataset"], line.fields["backbone"], line.fields["loss"]) for line in table.lines]


def cell(table: Table, loss: str = "l1", metric: str = "lpips_alex", dataset: str = "Set5") -> Cell:
    (line,) = [line for line in table.lines if line.fields["loss"] == loss and line.fields["dataset"] == dataset]
    return line.cells[[column.name for column in table.columns].index(metric)]


def test_seeds_are_summarised() -> None:
    table = pivot(four())
    assert labels(table) == [("Set5", "edsr-tiny", "l1"), ("Set5", "edsr-tiny", "l1 + 1.0*sg")]
    l1, sg = (line.cells[0].summary for line in table.lines)
    assert l1 is not None
    assert sg is not None
    assert (l1.mean, l1.sd, l1.n) == (pytest.approx(0.29), pytest.approx(math.sqrt(2e-4)), 2)
    assert sg.mean == pytest.approx(0.21)
    assert "Each trained line has 2 seeds." in table.notes
    assert "± is the sample standard deviation over seeds." in table.notes
    assert "0.2900 ± 0.0141" in printed(table, 200)


def test_values_of_single_images_do_not_enter() -> None:
    table = pivot(results([run("a")], [score("a", 0.9, image="baby"), score("a", 0.3)]))
    assert cell(table).summary == Summary(0.3, None, 1)
    assert "±" not in printed(table, 200)


def test_the_best_mean_follows_the_direction_of_the_metric() -> None:
    runs = [run("a"), run("b", "l1 + 1.0*sg")]
    scores = [score("a", 0.3), score("b", 0.2), score("a", 28.0, "psnr_y"), score("b", 26.0, "psnr_y")]
    table = pivot(results(runs, scores))
    assert [column.labels[0] for column in table.columns] == ["lpips_alex ↓", "psnr_y ↑"]
    assert [[cell.best for cell in line.cells] for line in table.lines] == [[False, True], [True, False]]


def test_a_lone_line_is_not_the_best_of_anything() -> None:
    table = pivot(results([run("a"), other("c", "builtin", "bicubic")], [score("a", 0.3), score("c", 0.4)]))
    assert not any(cell.best for line in table.lines for cell in line.cells)


def test_bold_is_within_a_backbone_and_a_test_set() -> None:
    runs = [run("a"), run("b", "sg"), run("c", backbone="rdn-tiny"), run("d", "sg", backbone="rdn-tiny")]
    scores = [score("a", 0.30), score("b", 0.20), score("c", 0.10), score("d", 0.15)]
    table = pivot(results(runs, scores))
    assert [line.cells[0].best for line in table.lines] == [False, True, True, False]
    file = io.StringIO()
    tables.shown(table).print(Console(file=file, width=120, force_terminal=True, color_system="standard", _environ={}))
    assert re.search(r"\x1b\[1m0\.2000 *\x1b", file.getvalue())
    assert not re.search(r"\x1b\[1m0\.3000", file.getvalue())


def test_columns_and_lines_come_in_reading_order() -> None:
    metrics = ["ssim_rgb", "zeta", "psnr_rgb", "kid", "ssim_y", "psnr_y", "fd_alex", "alpha", "fid", "lpips_vgg"]
    losses = ["l1 + 10.0*sg", "l1 + 0.05*sg", "l1", "l1 + 0.5*sg", "sg"]
    runs = [run(f"r{i}", loss) for i, loss in enumerate(losses)] + [other("z", "builtin", "bicubic")]
    scores = [
        score(row["run_id"], 1.0, metric, dataset) for row in runs for metric in metrics for dataset in ("Set14",)
    ]
    scores += [score("z", 1.0, "lpips_alex", dataset) for dataset in ("Set14", "Set5")]
    table = pivot(results(runs, scores))
    assert " ".join(column.name for column in table.columns) == (
        "lpips_alex lpips_vgg fid kid fd_alex psnr_y psnr_rgb ssim_y ssim_rgb alpha zeta"
    )
    expected = ["", "l1", "l1 + 0.05*sg", "l1 + 0.5*sg", "l1 + 10.0*sg", "sg"]
    assert labels(table) == [
        ("Set5", "bicubic", ""),
        *[("Set14", "edsr-tiny" if loss else "bicubic", loss) for loss in expected],
    ]


def test_what_was_not_trained_has_a_line_each_under_its_name() -> None:
    runs = [other("a", "folder", "out/sr"), other("b", "checkpoint", "edsr.pt"), other("c", "checkpoint", "edsr.pt")]
    table = pivot(results(runs, [score("a", 0.1), score("b", 0.2), score("c", 0.3)]))
    assert labels(table) == [("Set5", "edsr.pt@b", ""), ("Set5", "edsr.pt@c", ""), ("Set5", "out/sr", "")]
    assert table.heads == ("dataset", "backbone")


def test_planned_runs_are_pending() -> None:
    table = pivot(results([], [], [plan("a"), plan("b", "l1 + 1.0*sg", metrics=("lpips_alex", "psnr_y"))]))
    assert [line.cells[0].reason for line in table.lines] == ["pending", "pending"]
    assert cell(table, metric="psnr_y").reason == "not scored"
    assert table.columns[0].labels[0] == "lpips_alex"
    assert "pending" in printed(table, 80)


def test_a_score_of_a_done_run_may_be_pending() -> None:
    planned = [plan("a", metrics=("lpips_alex", "fid"))]
    table = pivot(results([run("a")], [score("a", 0.3)], planned))
    assert cell(table, metric="fid") == Cell(None, "pending")


@pytest.mark.parametrize("error", ["loss is NaN", "loss is NaN at step 812", "loss is NaN.\n"])
def test_a_failed_run_says_where_and_why(error: str) -> None:
    table = pivot(results([run("a", status="failed", step=812, error=error)], [], [plan("a")]))
    assert cell(table) == Cell(None, "failed at step 812: loss is NaN")


def test_a_failed_run_without_a_plan_stands_where_the_others_do() -> None:
    runs = [run("a"), run("b", "sg", status="failed", step=3, error="loss is NaN")]
    assert cell(pivot(results(runs, [score("a", 0.3)])), "sg").reason == "failed at step 3: loss is NaN"
    table = pivot(results(runs[1:], []))
    assert table.lines == ()
    assert table.notes == ("edsr-tiny · sg · seed 0 failed at step 3: loss is NaN.",)
    assert printed(table, 80).endswith("There is nothing to show yet.\n")


def test_a_mean_over_some_seeds_is_marked() -> None:
    runs = [run("a"), run("b", seed=1, status="failed", step=812, error="loss is NaN"), run("d", seed=3)]
    planned = [plan("a"), plan("b", seed=1), plan("c", seed=2), plan("d", seed=3)]
    table = pivot(results(runs, [score("a", 0.3)], planned))
    partial = cell(table)
    assert partial.summary == Summary(0.3, None, 1)
    assert partial.mark == 1
    assert table.notes[0] == "¹ Mean over 1 of 4 seeds; seed 1: failed at step 812: loss is NaN; seeds 2, 3: pending."
    assert "0.3000¹" in printed(table, 80)


def test_different_reasons_without_a_number_are_told_apart() -> None:
    runs = [run("a", status="failed", step=812, error="loss is NaN")]
    table = pivot(results(runs, [], [plan("a"), plan("b", seed=1)]))
    assert cell(table).reason == "failed at step 812: loss is NaN"
    assert table.notes[0] == (
        "¹ None of 2 seeds has a number; seed 0: failed at step 812: loss is NaN; seed 1: pending."
    )


def test_missing_weights_are_named_in_the_cell_and_explained_once() -> None:
    missing = {"status": "no weights", "reason": "bring pt_inception.pth."}
    runs = [run("a"), run("b", "sg")]
    table = pivot(results(runs, [score("a", None, "fid", **missing), score("b", None, "fid", **missing)]))
    assert cell(table, metric="fid") == Cell(None, "no weights")
    assert [note for note in table.notes if "bring" in note] == [
        "no weights: fid: bring pt_inception.pth; `sgbench weights list` says what to bring."
    ]


def test_an_undefined_score_says_why() -> None:
    table = pivot(results([run("a")], [score("a", None, "fid", status="undefined", reason="one image has no spread")]))
    assert cell(table, metric="fid").reason == "undefined: one image has no spread"


def test_notes_name_images_scale_and_protocol() -> None:
    notes = pivot(four()).notes
    assert "Set5 has 5 images." in notes
    assert "The scale is ×4." in notes
    assert "lpips_alex: version 0.1; network AlexNet; colour space RGB; no border crop." in notes
    assert not any("direction" in note for note in notes)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"metric_version": "0.2"}, "lpips_alex mixes 2 protocols, which cannot be compared: version 0.1"),
        ({"protocol": json.dumps(LOWER | {"border_crop": 4})}, "lpips_alex mixes 2 protocols"),
    ],
)
def test_a_mixture_is_told_and_nothing_is_best(change: dict[str, str], note: str) -> None:
    table = pivot(four(**change))
    assert any(line.startswith(note) for line in table.notes)
    assert not any(cell.best for line in table.lines for cell in line.cells)


def test_mixed_provenance_is_told() -> None:
    runs = [run("a", device="cpu", workers=0), run("b", seed=1, device="cuda", workers=0)]
    notes = pivot(results(runs, [score("a", 0.3), score("b", 0.3)])).notes
    assert notes[-1] == "The runs differ in device."


def test_runs_trained_otherwise_are_never_averaged() -> None:
    runs = [run("a"), run("b", steps=2400), run("c", seed=1)]
    scores = [score("a", 0.30), score("b", 0.20), score("c", 0.32)]
    table = pivot(results(runs, scores, [plan("d", seed=2), plan("e", "sg")]))
    assert [(line.fields["loss"], line.fields["recipe"], line.fields["seeds"]) for line in table.lines] == [
        ("l1", "steps=1200", 3),
        ("l1", "steps=2400", 1),
        ("sg", "steps=1200", 1),
    ]
    assert table.heads == ("dataset", "backbone", "loss", "recipe", "seeds")


def test_a_plan_of_before_there_was_a_column_is_shown() -> None:
    old = plan("b", seed=1)
    del old.run["threads"]
    table = pivot(results([run("a") | {"threads": 1}], [score("a", 0.3)], [old]))
    assert [line.fields["seeds"] for line in table.lines] == [2]


def test_a_pending_seed_joins_the_line_of_its_recipe() -> None:
    table = pivot(results([run("a")], [score("a", 0.3)], [plan("a"), plan("b", seed=1)]))
    assert [(line.fields["seeds"], line.fields["recipe"], line.cells[0].reason) for line in table.lines] == [
        (2, "", "seed 1: pending")
    ]


def test_other_training_data_is_another_line() -> None:
    runs = [run("a"), run("b", train="mine", train_sha256="cd" * 32)]
    table = pivot(results(runs, [score("a", 0.30), score("b", 0.20)]))
    assert [line.fields["recipe"] for line in table.lines] == ["train=demo@abababab", "train=mine@cdcdcdcd"]


def test_scales_are_told_apart_when_there_are_several() -> None:
    table = pivot(results([run("a", scale=2), run("b")], [score("a", 0.1), score("b", 0.3)]))
    assert table.heads == ("dataset", "scale", "backbone", "loss")
    assert [line.fields["scale"] for line in table.lines] == [2, 4]


def test_filters_choose_lines_and_columns() -> None:
    runs = [run("a"), run("b", "l1 + 1.0*sg"), run("c", backbone="rdn-tiny"), other("z", "builtin", "bicubic")]
    scores = [score(row["run_id"], 1.0, m, d) for row in runs for m in ("lpips_alex", "psnr_y") for d in ("A", "B")]
    shown = results(runs, scores)
    assert {line.fields["backbone"] for line in pivot(shown, backbones=["rdn-tiny", "bicubic"]).lines} == {
        "rdn-tiny",
        "bicubic",
    }
    assert {line.fields["dataset"] for line in pivot(shown, datasets=["B"]).lines} == {"B"}
    assert {line.fields["loss"] for line in pivot(shown, losses=["sg+l1"]).lines} == {"l1 + 1.0*sg"}
    assert [column.name for column in pivot(shown, metrics=["psnr_y"]).columns] == ["psnr_y"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"backbones": ["edsr-tni"]}, "unknown backbone 'edsr-tni': did you mean 'edsr-tiny'? Valid: edsr-tiny."),
        ({"losses": ["sg"]}, "unknown loss 'sg'; valid: l1, l1 + 1.0*sg."),
        ({"losses": ["l1 +"]}, "loss 'l1 +' ends where"),
        ({"datasets": ["Set14"]}, "unknown test set 'Set14': did you mean 'Set5'? Valid: Set5."),
        ({"metrics": ["psnr_x"]}, "unknown metric 'psnr_x'; valid: lpips_alex."),
    ],
)
def test_a_filter_for_what_is_not_there_is_refused(filters: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        pivot(four(), **filters)


def test_json_has_every_digit_and_every_reason() -> None:
    table = pivot(four(value=None, status="undefined", reason="no spread"))
    data = json.loads(json.dumps(to_data(table), allow_nan=False))
    assert data["metrics"] == [{"metric": "lpips_alex", "direction": "lower"}]
    assert data["notes"] == list(table.notes)
    first, second = data["lines"]
    assert {name: first[name] for name in ("dataset", "scale", "kind", "backbone", "loss", "recipe", "seeds")} == {
        "dataset": "Set5", "scale": 4, "kind": "train", "backbone": "edsr-tiny", "loss": "l1", "recipe": "", "seeds": 2,
    }  # fmt: skip
    assert first["cells"]["lpips_alex"] == {
        "mean": math.fsum([0.28, 0.30]) / 2,
        "sd": pytest.approx(math.sqrt(2e-4), rel=1e-14),
        "n": 2,
        "reason": None,
        "best": False,
        "significant": None,
    }
    assert second["cells"]["lpips_alex"]["reason"] == "seed 1: undefined: no spread"
    assert second["cells"]["lpips_alex"]["n"] == 1


def crowded() -> Table:
    """Return a table of all metrics, long names, failures and user text that looks like markup."""
    metrics = {"lpips_alex": 0.2887, "fid": 123.456, "kid": 0.0123, "fd_alex": 3.456, "psnr_y": 28.434, "ssim_y": 0.812}
    losses = ["l1", "l1 + 0.1*sg(operator=sobel)", "my.module:Loss(mode=[bold])"]
    runs = [run(f"{i}{seed}", loss, seed) for i, loss in enumerate(losses) for seed in (0, 1)]
    scores = [
        score(row["run_id"], value + 0.01 * row["seed"], metric, dataset)
        for row in runs[:-1]
        for metric, value in metrics.items()
        for dataset in ("Set5", "demo-textures")
    ]
    runs[-1] |= {"status": "failed", "step": 812, "error": "loss is NaN"}
    return pivot(results(runs, scores))


def test_a_terminal_has_no_room_for_the_protocols_of_many_metrics() -> None:
    names = [*"abcdefgh"]
    table = pivot(results([run("a")], [score("a", 0.3, metric) for metric in names]))
    protocols = [f"\n{name}: version " for name in names]
    whole, brief = printed(table, None), printed(table, 200)
    assert all(note in whole for note in protocols)
    assert not any(note in brief for note in protocols)
    assert "The protocols of 8 metrics are left out; 'sgbench metrics show NAME' has one of them, and other" in brief
    assert brief.index("Set5 has ") < brief.index("The protocols of 8")
    few = printed(pivot(results([run("a")], [score("a", 0.3, metric) for metric in names[:7]])), 200)
    assert all(note in few for note in protocols[:7])


@pytest.mark.parametrize("width", [60, 80, 120, 200, None])
def test_no_number_is_cut_at_any_width(width: int | None) -> None:
    table = crowded()
    text = printed(table, width)
    for line in table.lines:
        for column, shown in zip(table.columns, line.cells, strict=True):
            if shown.summary:
                digits = {"fid": 2, "psnr_y": 2, "fd_alex": 3}.get(column.name, 4)
                assert f"{shown.summary.mean:.{digits}f}" in text
    assert "…" not in text
    assert "my.module:Loss(mode=[bold])" in text
    if width is not None:
        assert max(map(len, text.splitlines())) <= width


def test_a_pipe_gets_one_line_for_each_line_and_note() -> None:
    table = crowded()
    text = printed(table, None).splitlines()
    assert len([line for line in text if "edsr-tiny" in line]) == len(table.lines)
    assert set(table.notes) <= set(text)
    assert not any("\x1b" in line for line in text)


def test_fields_of_a_line_are_what_heads_name() -> None:
    shown = crowded()
    assert all(set(shown.heads) <= line.fields.keys() for line in shown.lines)


def test_tables_load_neither_torch_nor_ray() -> None:
    code = "import sys, sgbench.report.tables, sgbench.report.live; print({'torch', 'ray'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_the_best_is_that_of_a_mean_and_a_lone_run_alike() -> None:
    runs = [run("a"), run("b", "sg"), run("c", "sg", 1)]
    table = pivot(results(runs, [score("a", 0.3), score("b", 0.20), score("c", 0.22)]))
    assert [line.cells[0].best for line in table.lines] == [False, True]
