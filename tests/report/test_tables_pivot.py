"""Rows and columns of one's own, and which differences are significant."""

import csv
import io
import json
import random
from typing import Any

import pytest
from table_rows import other, pivot, plan, printed, results, run, score

from sgbench.analysis import Results
from sgbench.core.errors import InputError
from sgbench.report import tables
from sgbench.report.tables import Table
from sgbench.report.tables.model import mean_of

SG = "l1 + 1.0*sg"


def grid(seeds: int = 2, losses: tuple[str, ...] = ("l1", "l1 + 0.1*sg", "l1 + 1.0*sg")) -> Results:
    """Two backbones, some losses and seeds, two test sets, two metrics."""
    runs, scores = [], []
    for at, backbone in enumerate(("edsr-tiny", "rdn-tiny")):
        for weight, loss in enumerate(losses):
            for seed in range(seeds):
                name = f"{backbone}{loss}{seed}"
                runs.append(run(name, loss, seed, backbone))
                for dataset in ("Set5", "Set14"):
                    scores.append(score(name, 0.3 + at / 10 - weight / 100 + seed / 1000, dataset=dataset))
                    scores.append(score(name, 27.0 + at - weight / 10, "psnr_y", dataset))
    return results(runs, scores)


def judged(seeds: int, gap: float, images: int = 20) -> Results:
    """L1 and L1 + SG on some images, a gap apart, with noise of 0.001."""
    noise = random.Random(0)
    runs, scores = [], []
    for loss, mean in (("l1", 0.3), ("l1 + 1.0*sg", 0.3 - gap)):
        for seed in range(seeds):
            name = f"{loss}{seed}"
            runs.append(run(name, loss, seed))
            values = [mean + image / 100 + noise.gauss(0, 0.001) for image in range(images)]
            scores += [score(name, value, image=str(image)) for image, value in enumerate(values)]
            scores.append(score(name, sum(values) / images))
    return results(runs, scores)


def labels(table: Table) -> list[tuple[str, ...]]:
    return [line.labels for line in table.lines]


def test_rows_and_columns_may_be_chosen() -> None:
    table = pivot(grid(), rows=["dataset", "metric"], columns=["backbone", "loss"])
    assert table.titles == ("dataset", "metric")
    assert labels(table) == [
        ("Set5", "lpips_alex ↓"), ("Set5", "psnr_y ↑"), ("Set14", "lpips_alex ↓"), ("Set14", "psnr_y ↑"),
    ]  # fmt: skip
    assert [column.labels for column in table.columns[:3]] == [
        ("edsr-tiny", "l1"), ("edsr-tiny", "l1 + 0.1*sg"), ("edsr-tiny", "l1 + 1.0*sg"),
    ]  # fmt: skip
    assert mean_of(table.lines[0].cells[0]) == "0.3005"
    assert [cell.best for cell in table.lines[0].cells] == [False, False, True] * 2
    assert [cell.best for cell in table.lines[1].cells] == [True, False, False] * 2


def test_nothing_but_seeds_is_averaged() -> None:
    table = pivot(grid(), rows=["loss"], columns=["metric"])
    assert table.heads == ("dataset", "backbone", "loss")
    assert len(table.lines) == 12
    table = pivot(grid(), rows=["lambda"], columns=["seed"], metrics=["psnr_y"], datasets=["Set5"])
    assert table.heads == ("backbone", "lambda")
    assert [column.name for column in table.columns] == ["0", "1"]
    assert labels(table)[:3] == [("edsr-tiny", "0"), ("edsr-tiny", "0.1"), ("edsr-tiny", "1")]
    assert not any(note.startswith("The loss is") for note in table.notes)
    assert {"The dataset is Set5.", "The metric is psnr_y ↑."} <= set(table.notes)


def test_losses_of_one_weight_are_told_apart() -> None:
    table = pivot(grid(losses=("l1", "l2", "l1 + 1.0*sg")), rows=["backbone", "lambda"], datasets=["Set5"])
    assert table.heads == ("backbone", "loss", "lambda")
    assert labels(table)[:3] == [
        ("edsr-tiny", "l1", "0"), ("edsr-tiny", "l1 + 1.0*sg", "1"), ("edsr-tiny", "l2", "0"),
    ]  # fmt: skip


@pytest.mark.parametrize("form", [*tables.FORMATS, "rich"])
def test_a_loss_is_called_by_its_label_and_programs_get_its_expression_too(form: str) -> None:
    shown = pivot(results([run("a"), run("b", SG)], [score("a", 0.3), score("b", 0.2)], labels={SG: "ours & co"}))
    assert labels(shown) == [("Set5", "edsr-tiny", "l1"), ("Set5", "edsr-tiny", "ours & co")]
    assert "ours & co is l1 + 1.0*sg." in shown.notes
    text = printed(shown, 100) if form == "rich" else tables.FORMATS[form](shown)
    assert {"latex": r"ours \& co &", "html": '<th scope="row">ours &amp; co</th>'}.get(form, "ours & co") in text
    if form == "json":
        lines = json.loads(text)["lines"]
        assert [(line["loss"], line["label"]) for line in lines] == [("l1", None), (SG, "ours & co")]
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [(row["loss"], row["label"]) for row in rows] == [("l1", ""), (SG, "ours & co")]


def test_a_place_without_a_run_says_so() -> None:
    runs = [run("a"), run("b", "l2", backbone="rdn-tiny")]
    table = pivot(results(runs, [score("a", 0.3), score("b", 0.2)]), rows=["backbone"], columns=["loss"])
    assert [[cell.reason for cell in line.cells] for line in table.lines] == [[None, "no run"], ["no run", None]]


def test_seeds_that_differ_within_a_line_are_noted() -> None:
    runs = [run("a"), run("b", seed=1), run("c", "l2")]
    table = pivot(results(runs, [score(name, 0.3) for name in "abc"]), rows=["backbone"], columns=["loss"])
    assert "A cell has 1 to 2 seeds." in table.notes


def test_weights_and_seeds_are_filters() -> None:
    table = pivot(grid(), lambdas=[0.0, 1.0], seeds=[1])
    assert {line.fields["loss"] for line in table.lines} == {"l1", "l1 + 1.0*sg"}
    assert {line.fields["seeds"] for line in table.lines} == {1}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rows": ["dataste"]}, "unknown dimension of a table 'dataste': did you mean 'dataset'?"),
        ({"rows": ["loss", "metric"]}, "--rows and --columns name 'metric' twice; name it once."),
        ({"lambdas": [0.5]}, "unknown λ '0.5'"),
        ({"seeds": [7]}, "unknown seed '7'"),
    ],
)
def test_what_is_not_there_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        pivot(grid(), **asked)
    assert str(error.value).startswith(message)


def test_a_long_recipe_is_a_letter_that_a_note_explains() -> None:
    changed = {"steps": 2400, "optimizer_lr": 0.001, "schedule_name": "cosine"}
    runs = [run("a", optimizer_lr=0.0001, schedule_name="step"), run("b", **changed)]
    table = pivot(results(runs, [score("a", 0.3), score("b", 0.2)]))
    assert labels(table) == [("Set5", "edsr-tiny", "l1", "A"), ("Set5", "edsr-tiny", "l1", "B")]
    assert "Recipe B: optimizer_lr=0.001, schedule_name=cosine, steps=2400." in table.notes
    assert table.lines[1].fields["recipe"] == "optimizer_lr=0.001, schedule_name=cosine, steps=2400"


def test_a_recipe_without_what_the_other_has_says_so_but_for_options_of_another_optimizer() -> None:
    sgd = {"optimizer_name": "sgd", "optimizer_momentum": 0.9, "ema": 0.999}
    runs = [run("a", optimizer_name="adam", optimizer_beta1=0.9), run("b", **sgd)]
    notes = pivot(results(runs, [score("a", 0.3), score("b", 0.2)])).notes
    assert "Recipe A: optimizer_name=adam, optimizer_beta1=0.9, no ema." in notes
    assert "Recipe B: optimizer_name=sgd, optimizer_momentum=0.9, ema=0.999." in notes


def test_what_was_not_trained_has_a_name_and_no_backbone() -> None:
    table = pivot(results([other("a", "builtin", "bicubic")], [score("a", 0.4)]))
    assert table.titles == ("dataset", "name")
    mixed = pivot(results([other("a", "builtin", "bicubic"), run("b")], [score("a", 0.4), score("b", 0.3)]))
    assert mixed.titles == ("dataset", "backbone", "loss")


def test_a_network_that_several_metrics_lack_is_named_once() -> None:
    missing = {
        "status": "no weights",
        "reason": "the inception weights are not here: bring a.pth from b, and put it c.",
    }
    scores = [score("a", None, metric, **missing) for metric in ("kid", "fid")]
    notes = [note for note in pivot(results([run("a")], scores)).notes if note.startswith("no weights")]
    assert notes == [
        "no weights: fid, kid: the inception weights are not here; `sgbench weights list` says what to bring."
    ]


def test_what_rounds_to_zero_has_no_sign() -> None:
    table = pivot(results([run("a")], [score("a", -1e-9, "kid")]))
    assert mean_of(table.lines[0].cells[0]) == "0.0000"


def test_a_significant_difference_is_marked_and_explained() -> None:
    table = pivot(judged(seeds=3, gap=0.05))
    assert [line.cells[0].significant for line in table.lines] == [None, True]
    (note,) = [note for note in table.notes if note.startswith("* ")]
    assert "significantly different from l1" in note
    (sg,) = [line for line in printed(table, 120).splitlines() if "1.0*sg" in line]
    assert f"{mean_of(table.lines[1].cells[0])}* ± " in sg


def test_a_difference_of_noise_is_not_marked() -> None:
    table = pivot(judged(seeds=3, gap=0.0))
    assert [line.cells[0].significant for line in table.lines] == [None, False]
    assert "No difference from l1 is significant." in table.notes


def test_few_images_decide_nothing() -> None:
    table = pivot(judged(seeds=3, gap=0.05, images=5))
    assert table.lines[1].cells[0].significant is False
    assert any("1 of 1 difference is inconclusive: too few images" in note for note in table.notes)


def test_with_one_seed_nothing_is_significant() -> None:
    table = pivot(judged(seeds=1, gap=0.05))
    assert [line.cells[0].significant for line in table.lines] == [None, None]
    assert "With one seed, no difference from l1 can be tested." in table.notes


def test_the_baseline_need_not_be_shown() -> None:
    table = pivot(judged(seeds=3, gap=0.05), losses=["l1 + 1.0*sg"])
    assert [line.cells[0].significant for line in table.lines] == [True]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (["dataset"], ["loss"]),
        (["dataset", "metric"], ["backbone", "loss"]),
        (["loss"], ["dataset", "metric"]),
        (["backbone", "lambda"], ["metric"]),
    ],
)
def test_differences_are_marked_whatever_the_rows_and_columns(rows: list[str], columns: list[str]) -> None:
    table = pivot(judged(seeds=3, gap=0.05), rows=rows, columns=columns)
    assert [cell.significant for cell in table.cells] == [None, True]
    assert any(note.startswith("* significantly different from l1") for note in table.notes)


@pytest.mark.parametrize(
    "some",
    [
        {"seeds": [0, 1]},
        {"columns": ["seed"]},
        {"rows": ["loss"], "columns": ["seed", "metric"]},
        {"rows": ["store", "loss"]},
    ],
)
def test_some_of_the_seeds_are_not_judged_and_a_note_says_so(some: dict[str, Any]) -> None:
    table = pivot(judged(seeds=3, gap=0.05), **some)
    assert {cell.significant for cell in table.cells} == {None}
    (note,) = [note for note in table.notes if "tested" in note]
    assert note == "Differences from l1 are tested over all seeds, so cells with only some are not marked."


def test_runs_that_are_all_the_seeds_are_judged_and_some_of_them_are_not() -> None:
    """A sweep asks for its own runs, which may be all that the store has of its losses, or not."""
    shown = judged(seeds=3, gap=0.05)
    ids = shown.runs["run_id"].to_pylist()
    seeds = shown.runs["seed"].to_pylist()
    table = pivot(shown, runs=ids)
    assert [line.cells[0].significant for line in table.lines] == [None, True]
    table = pivot(shown, runs=[run_id for run_id, seed in zip(ids, seeds, strict=True) if seed < 2])
    assert [line.cells[0].significant for line in table.lines] == [None, None]
    assert "Differences from l1 are tested over all seeds, so cells with only some are not marked." in table.notes


def test_too_many_scores_are_left_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgbench.analysis.baseline.MOST", 10)
    table = pivot(judged(seeds=2, gap=0.05))
    assert any("`sgbench compare l1 LOSS` says which" in note for note in table.notes)


def test_a_plan_alone_is_a_table_of_what_is_pending() -> None:
    table = pivot(results([], [], [plan("a"), plan("b", "l2")]), rows=["dataset"], columns=["loss"])
    assert [cell.reason for cell in table.cells] == ["pending", "pending"]


def test_a_loss_that_lacks_a_metric_is_judged_by_the_others() -> None:
    store = judged(seeds=3, gap=0.05)
    runs = [*store.runs.drop_columns(["schema_version"]).to_pylist(), run("x", "l2"), run("y", "l2", 1)]
    scores = store.scores.drop_columns(["schema_version"]).to_pylist()
    table = pivot(results(runs, [*scores, score("x", 20.0, "psnr_rgb"), score("y", 21.0, "psnr_rgb")]))
    assert [line.cells[0].significant for line in table.lines] == [None, True, None]


def test_ranked_losses_are_sorted_and_have_their_rank_beside_them() -> None:
    store = judged(seeds=3, gap=0.05)  # SG is better
    table = pivot(store, rank="lpips_alex")
    assert table.titles == ("dataset", "backbone", "rank", "loss")
    assert [line.labels[-2:] for line in table.lines] == [("1", "l1 + 1.0*sg"), ("2", "l1")]
    assert any(note.startswith("Ranks by lpips_alex") for note in table.notes)
    assert [(line["rank_best"], line["rank_worst"]) for line in tables.to_data(table)["lines"]] == [(1, 1), (2, 2)]
    assert "rank_best,rank_worst" in tables.FORMATS["csv"](table).partition("\n")[0]
    untied = pivot(judged(seeds=3, gap=0.0), rank="lpips_alex")
    assert [line.labels[-2] for line in untied.lines] == ["1–2", "1–2"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"seeds": [0]}, "--rank compares losses over all their seeds; leave out --seeds"),
        ({"columns": ["seed"]}, "--rank has rows and columns of its own; leave out --rows and --columns"),
    ],
)
def test_ranks_need_all_seeds_and_their_own_layout(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pivot(judged(seeds=3, gap=0.05), rank="lpips_alex", **asked)


def test_losses_are_ranked_by_a_metric_that_is_shown() -> None:
    with pytest.raises(InputError, match="--rank is 'lpips_alex', which is not shown; add --metric lpips_alex"):
        pivot(grid(), rank="lpips_alex", metrics=["psnr_y"])
