"""Figures of made-up results: what is drawn is what the store says, in every format, and what is not drawn is named."""

import datetime
import io
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from sgbench.analysis import Filters, Results, View, paper
from sgbench.analysis.agreement import agreements
from sgbench.analysis.anytime import SeedSequence
from sgbench.analysis.compare import Comparison, Verdict, comparisons
from sgbench.analysis.ranks import Rank, Ranked, RankedPlace, Ranking
from sgbench.analysis.stats import Estimate, Interval
from sgbench.core.errors import InputError
from sgbench.losses.gradient import SecondOrderGradient
from sgbench.report.figures.agreement import draw_agreement
from sgbench.report.figures.curves import draw_curves
from sgbench.report.figures.forest import draw_forest
from sgbench.report.figures.gradient_maps import draw_gradient_maps
from sgbench.report.figures.lambdas import draw_lambda
from sgbench.report.figures.plane import draw_plane
from sgbench.report.figures.rank import draw_ranks
from sgbench.report.figures.style import FORMATS, TEXT, WIDTHS, encode, format_of
from sgbench.store import Dataset, Planned
from sgbench.store.schema import to_table

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
SET5, URBAN = Dataset("Set5", "5" * 64), Dataset("Urban100", "a" * 64)


def run(run_id: str, loss: str = "l1", seed: int = 0, backbone: str = "edsr-tiny", **columns: Any) -> dict[str, Any]:
    weight = re.search(r"([\d.]+)\*sg", loss)
    row = {"run_id": run_id, "kind": "train", "name": run_id, "backbone": backbone, "loss": loss, "seed": seed}
    row |= {"lambda": float(weight[1]) if weight else 0.0, "scale": 4, "train": "demo", "train_sha256": "ab" * 32}
    return row | {"steps": 1200, "status": "done", "step": 1200} | columns


def score(run_id: str, value: float | None, metric: str = "lpips_alex", dataset: Dataset = SET5, **columns: Any) -> Any:
    direction = "higher" if metric.startswith("psnr") else "lower"
    row = {"run_id": run_id, "dataset": dataset.name, "dataset_sha256": dataset.sha256, "metric": metric}
    row |= {"metric_version": "1", "protocol": json.dumps({"direction": direction}), "n_images": 5, "value": value}
    return {**row, "status": "ok", "scored": NOW} | columns


def course(run_id: str, terms: dict[str, list[float]], every: int = 10) -> list[dict[str, Any]]:
    return [
        {"run_id": run_id, "step": every * (at + 1), "loss": sum(values), "lr": 1e-3, "steps_per_second": 1.0}
        | {"terms": dict(zip(terms, values, strict=True))}
        for at, values in enumerate(zip(*terms.values(), strict=True))
    ]


def results(
    runs: list[dict[str, Any]],
    scores: list[dict[str, Any]] | None = None,
    history: list[dict[str, Any]] | None = None,
    validation: list[dict[str, Any]] | None = None,
    planned: list[Planned] | None = None,
    labels: dict[str, str] | None = None,
) -> View:
    tables = {"runs": runs, "scores": scores or [], "history": history or []}
    validated = to_table("validation", validation or [])
    rows = (to_table(name, rows) for name, rows in tables.items())
    return View(Results.of(*rows, planned or [], validated, labels))


def ablation(seeds: int = 1, metrics: tuple[str, ...] = ("lpips_alex",), dataset: Dataset = SET5) -> View:
    """λ of 0, 0.1 and 1; the score of seed s is 0.3 − 0.01 λ index + 0.02 s."""
    losses = ["l1", "l1 + 0.1*sg", "l1 + 1.0*sg"]
    runs = [run(f"{at}{seed}", loss, seed) for at, loss in enumerate(losses) for seed in range(seeds)]
    scores = [
        score(f"{at}{seed}", value(at, seed), metric, dataset)
        for at in range(3)
        for seed in range(seeds)
        for metric in metrics
    ]
    return results(runs, scores)


def value(at: int, seed: int) -> float:
    return 0.3 - 0.01 * at + 0.02 * seed


def points(figure: Figure, panel: int = 0, gid: str = "points") -> list[list[tuple[float, float]]]:
    """Return what is drawn in a panel, line by line, as (x, y)."""
    lines = [line for line in figure.axes[panel].lines if line.get_gid() == gid]
    return [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines]


def said(figure: Figure) -> str:
    """Return the notes below a figure, in one line."""
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def legend(figure: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for text in figure.legends[0].get_texts()]


def ticks(figure: Figure, panel: int = 0) -> dict[str, float]:
    axes = figure.axes[panel]
    return {label.get_text(): at for label, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}


def only_set5(shown: View, **filters: Any) -> Figure:
    return draw_lambda(shown, Filters(datasets=["Set5"], **filters))


# λ


def test_losses_with_a_single_lambda_are_told_apart_by_their_dots() -> None:
    losses = ["l1 + 1.0*sg", "l1 + 1.0*sg(order=1)", "l1 + 1.0*sg(operator=sobel)"]
    runs, scores = [run(loss, loss) for loss in losses], [score(loss, 0.3) for loss in losses]
    figure = only_set5(results(runs, scores))
    dots = [line.get_fillstyle() for line in figure.axes[0].lines if line.get_gid() == "points"]
    assert dots[0] == "full"
    assert len(set(dots)) == 3
    assert [handle.get_fillstyle() for handle in figure.legends[0].legend_handles] == dots


def test_points_against_lambda_are_the_scores_of_the_store() -> None:
    figure = only_set5(ablation())
    zero = ticks(figure)["0"]
    assert points(figure) == [[(zero, value(0, 0))], [(0.1, value(1, 0))], [(1.0, value(2, 0))]]
    assert figure.axes[0].get_title() == "Set5"
    assert figure.axes[0].get_ylabel() == "lpips_alex ↓"
    assert legend(figure) == ["edsr-tiny, l1 + λ*sg (n = 1)"]


def test_lambda_0_stands_left_of_a_break_and_no_line_leads_to_it() -> None:
    figure = only_set5(ablation())
    assert figure.axes[0].get_xscale() == "log"
    assert list(ticks(figure)) == ["0", "0.1", "1"]
    assert ticks(figure)["0"] < 0.1
    assert points(figure, gid="means") == [[(0.1, value(1, 0)), (1.0, value(2, 0))]]
    assert "λ = 0, the loss without sg, stands left of the break of the log axis." in said(figure)


def test_two_seeds_are_two_dots_and_three_are_a_mean_with_its_spread() -> None:
    two = only_set5(ablation(seeds=2))
    assert points(two)[1] == [(0.1, value(1, 0)), (0.1, value(1, 1))]
    assert points(two, gid="spread") == []
    assert "Where n < 3, each dot is one seed." in said(two)
    three = only_set5(ablation(seeds=3))
    assert legend(three) == ["edsr-tiny, l1 + λ*sg (n = 3)"]
    mean = value(1, 1)
    assert points(three)[1] == [(0.1, pytest.approx(mean))]
    assert points(three, gid="spread")[1] == [(0.1, pytest.approx(mean - 0.02)), (0.1, pytest.approx(mean + 0.02))]
    (band,) = three.axes[0].collections
    box = band.get_paths()[0].get_extents()
    assert (box.x0, box.x1) == (pytest.approx(0.1), pytest.approx(1.0))
    assert (box.y0, box.y1) == (pytest.approx(value(2, 1) - 0.02), pytest.approx(mean + 0.02))
    assert "mean ± sample standard deviation" in said(three)


def test_the_papers_curve_is_in_the_panel_of_its_test_set_or_in_one_of_its_own() -> None:
    beside = draw_lambda(ablation())
    assert [axes.get_title() for axes in beside.axes] == ["Set5", "Urban100 (paper only)"]
    assert legend(beside)[-1] == "paper, full scale, edsr-paper"
    rows = [row for row in paper().to_pylist() if row["table"] == 3 and row["metric"] == "lpips_alex"]
    assert [y for ((_, y),) in points(beside, 1)] == [row["value"] for row in rows]
    assert list(ticks(beside, 1)) == ["0", "0.01", "0.1", "1", "10"]
    together = draw_lambda(ablation(dataset=URBAN))
    assert [axes.get_title() for axes in together.axes] == ["Urban100"]
    assert len(points(together)) == 3 + len(rows)
    assert len(only_set5(ablation()).axes) == 1
    assert len(draw_lambda(ablation(metrics=("psnr_y",))).axes) == 1  # the paper states no PSNR


def test_a_loss_without_sg_belongs_to_every_family_and_recipes_are_never_joined() -> None:
    sobel = "l1 + 1.0*sg(operator=sobel)"
    runs = [run("a"), run("b", "l1 + 1.0*sg"), run("c", sobel), run("d", "l2"), run("e", "l1 + 1.0*sg", steps=50)]
    figure = only_set5(results(runs, [score(row["run_id"], 0.1 * at) for at, row in enumerate(runs, 1)]))
    assert legend(figure) == [
        "edsr-tiny, l1 + λ*sg, steps=50 (n = 1)",
        "edsr-tiny, l1 + λ*sg, steps=1200 (n = 1)",
        "edsr-tiny, l1 + λ*sg(operator=sobel), steps=1200 (n = 1)",
    ]
    assert [y for line in points(figure) for _, y in line] == pytest.approx([0.5, 0.1, 0.2, 0.1, 0.3])


def test_a_single_lambda_is_a_point() -> None:
    figure = only_set5(results([run("a", "l1 + 0.5*sg")], [score("a", 0.2)]))
    assert points(figure) == [[(0.5, 0.2)]]
    assert list(ticks(figure)) == ["0.5"]
    assert "λ = 0" not in said(figure)


def test_losses_with_a_single_lambda_are_left_out_beside_others_and_named() -> None:
    lone = ["l1 + 1.0*sg(operator=sobel)", "l1 + 1.0*sg(order=1)"]
    runs = [run(loss, loss) for loss in ["l1", "l1 + 0.1*sg", "l1 + 1.0*sg", *lone]]
    runs.append(run("rdn", "l1 + 1.0*sg", backbone="rdn-tiny"))
    shown = results(runs, [score(row["run_id"], 0.3) for row in runs])
    figure = only_set5(shown)
    assert legend(figure) == ["edsr-tiny, l1 + λ*sg (n = 1)", "rdn-tiny, l1 + λ*sg (n = 1)"]
    note = "Left out because they have only one λ > 0: l1 + λ*sg(operator=sobel); l1 + λ*sg(order=1)."
    assert note in said(figure)
    asked = only_set5(shown, losses=["l1 + 0.1*sg", "l1 + 1.0*sg", lone[0]], backbones=["edsr-tiny"])
    assert legend(asked) == ["edsr-tiny, l1 + λ*sg (n = 1)", "edsr-tiny, l1 + λ*sg(operator=sobel) (n = 1)"]


def test_lambdas_that_lie_together_do_not_label_each_other_over() -> None:
    losses = [f"l1 + {weight}*sg" for weight in (0.001, 1.0, 1.05, 1.1, 100.0)]
    runs = [run(str(at), loss) for at, loss in enumerate(losses)]
    figure = only_set5(results(runs, [score(row["run_id"], 0.2) for row in runs]))
    assert list(ticks(figure)) == ["0.001", "1", "100"]


def test_what_failed_or_is_no_number_is_left_out_and_named() -> None:
    runs = [
        run("a"),
        run("b", "l1 + 1.0*sg"),
        run("c", "l1 + 1.0*sg", 1, status="failed", error="loss is NaN", step=81),
    ]
    runs += [run("d", "l1 + 1.0*sg", 2), run("e", "l1 + 1.0*sg", 3)]
    scores = [score("a", 0.3), score("b", 0.2), score("d", math.nan)]
    (pending,) = to_table("runs", [run("f", "l1 + 1.0*sg", 4)]).to_pylist()
    pending.pop("status")
    shown = results(runs, scores, planned=[Planned(pending, (SET5,), ("lpips_alex",))])
    figure = only_set5(shown)
    assert len(points(figure)) == 2
    assert "Left out: edsr-tiny · l1 + 1.0*sg · seed 1: failed at step 81: loss is NaN." in said(figure)
    assert "seed 2: failed: the value is nan (lpips_alex on Set5)." in said(figure)
    assert "seed 3: not scored (lpips_alex on Set5)." in said(figure)
    assert "seed 4: pending." in said(figure)


def test_many_runs_that_are_left_out_are_counted() -> None:
    runs = [run("a", "l1 + 1.0*sg"), *(run(f"f{at}", "l1 + 1.0*sg", at, status="failed", step=1) for at in range(1, 8))]
    figure = only_set5(results(runs, [score("a", 0.2)]))
    assert "seed 4 and 3 more: failed at step 1: no reason was recorded." in said(figure)


def test_a_loss_with_two_terms_sg_is_named_and_not_drawn() -> None:
    two = "l1 + 1.0*sg + 1.0*sg(order=1)"
    runs = [run("a", "l1 + 1.0*sg"), run("b", two) | {"lambda": 2.0}]
    figure = only_set5(results(runs, [score("a", 0.2), score("b", 0.3)]))
    assert len(points(figure)) == 1
    assert f"Left out: {two}: it has several terms sg" in said(figure)


def test_any_term_that_was_varied_has_a_curve() -> None:
    losses = {"a": ("l1", 0.0), "b": ("l1 + 0.1*x:Y(a=1)", 0.1), "c": ("l1 + 1.0*x:Y(a=1)", 1.0)}
    runs = [run(name, loss, varied="x:Y(a=1)") | {"lambda": lam} for name, (loss, lam) in losses.items()]
    runs += [run("d", "l1 + 1.0*x:Y(a=1)", seed=1), run("e", "l1 + 0.1*sg + 1.0*x:Y(a=1)"), run("f", "l1 + 5.0*x:Z")]
    figure = only_set5(results(runs, [score(row["run_id"], 0.2 + 0.01 * at) for at, row in enumerate(runs)]))
    assert legend(figure) == ["edsr-tiny, l1 + λ*x:Y(a=1) (n = 1–2)"]
    assert [[x for x, _ in line] for line in points(figure)] == [[ticks(figure)["0"]], [0.1], [1.0, 1.0]]
    assert "λ = 0, the loss without x:Y, stands left" in said(figure)
    assert "Left out because they have only one λ > 0: l1 + 1.0*x:Y(a=1) + λ*sg." in said(figure)
    assert len(draw_lambda(results(runs[:3], [score(name, 0.2) for name in "abc"])).axes) == 1  # the paper has no such


def test_a_loss_with_lambda_is_a_curve_whatever_was_varied() -> None:
    losses = ["l1", "l1 + 0.1*x:Y(a=1.0)", "l1 + 1.0*x:Y(a=1.0)", "2.0*l1 + 0.1*x:Y(a=1.0)", "l1 + 1.0*sg"]
    shown = results([run(loss, loss) for loss in losses], [score(loss, 0.2) for loss in losses])
    figure = only_set5(shown, losses=["λ*x:Y(a=1) + l1"])
    assert legend(figure) == ["edsr-tiny, l1 + λ*x:Y(a=1.0) (n = 1)"]
    assert [[x for x, _ in line] for line in points(figure)] == [[ticks(figure)["0"]], [0.1], [1.0]]
    assert legend(only_set5(shown, losses=["l1 + λ*sg"]))[0] == "edsr-tiny, l1 + λ*sg (n = 1)"


def test_a_curve_is_called_by_the_label_of_its_losses_and_a_note_says_what_it_is() -> None:
    losses = {"a": "l1", "b": "l1 + 0.1*sg", "c": "l1 + 1.0*sg"}
    runs, scores = [run(name, loss) for name, loss in losses.items()], [score(name, 0.2) for name in losses]
    labels = {losses["b"]: "ours (λ = 0.1)", losses["c"]: "ours (λ = 1)"}
    figure = only_set5(results(runs, scores, labels=labels))
    assert legend(figure)[0] == "edsr-tiny, ours (n = 1)"
    assert said(figure).endswith("ours is l1 + λ*sg.")
    figure = only_set5(results(runs, scores, labels={losses["c"]: "ours"}))  # of which no other λ is
    assert legend(figure)[0] == "edsr-tiny, l1 + λ*sg (n = 1)"
    scores += [score(name, 27.0, "psnr_y") for name in losses]
    figure = draw_plane(results(runs, scores, labels=labels))
    assert [name for name in legend(figure) if "ours" in name] == ["ours (λ = 0.1)", "ours (λ = 1)"]
    assert said(figure).endswith("ours (λ = 0.1) is l1 + 0.1*sg. ours (λ = 1) is l1 + 1.0*sg.")


def test_scores_of_two_protocols_are_said_to_be_a_mixture() -> None:
    runs = [run("a"), run("b", "l1 + 1.0*sg")]
    figure = only_set5(results(runs, [score("a", 0.3), score("b", 0.2, metric_version="2")]))
    assert "lpips_alex on Set5 mixes 2 protocols, which cannot be compared." in said(figure)


def test_filters_choose_what_is_drawn() -> None:
    runs = [
        run(f"{b}{at}", loss, backbone=b)
        for b in ("edsr-tiny", "rdn-tiny")
        for at, loss in enumerate(["l1", "l1 + 1.0*sg"])
    ]
    scores = [score(row["run_id"], 0.2, metric) for row in runs for metric in ("lpips_alex", "psnr_y", "fid")]
    shown = results(runs, scores)
    assert legend(only_set5(shown, backbones=["rdn-tiny"])) == ["rdn-tiny, l1 + λ*sg (n = 1)"]
    assert len(points(only_set5(shown, losses=["sg+l1"]))) == 2
    figure = only_set5(shown, metrics=["psnr_y", "fid"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["psnr_y (dB) ↑", "fid ↓"]


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda: draw_lambda(ablation(), Filters(backbones=["edsr"])), "unknown backbone 'edsr'"),
        (lambda: draw_lambda(ablation(), Filters(losses=["l2"])), "unknown loss 'l2'"),
        (lambda: draw_lambda(ablation(), Filters(datasets=["Set6"])), "unknown test set 'Set6'"),
        (lambda: draw_lambda(ablation(), Filters(metrics=["psnr_x"])), "unknown metric 'psnr_x'"),
        (
            lambda: draw_lambda(ablation(), Filters(losses=["l1"])),
            "no trained loss with sg or another varied term has a score by lpips_alex",
        ),
        (lambda: draw_lambda(results([])), "no trained loss with sg or another varied term has a score by any metric"),
        (lambda: draw_plane(results([])), "there is no metric 'psnr_y', nor any other."),
        (lambda: draw_plane(ablation()), "unknown metric 'psnr_y'"),
        (
            lambda: draw_plane(ablation(), Filters(metrics=["lpips_alex"])),
            "--metric is given as lpips_alex; a plane needs two",
        ),
        (lambda: draw_curves(ablation()), "no trained run that was chosen has a history"),
        (lambda: draw_curves(ablation(), Filters(losses=["l2"])), "unknown loss 'l2'"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(draw: Callable[[], Figure], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        draw()
    assert "\n" not in str(error.value)


def test_more_than_can_be_told_apart_is_refused() -> None:
    runs = [run(str(at), "l1 + 1.0*sg", backbone=f"m:Net{at}") for at in range(9)]
    with pytest.raises(
        InputError, match="9 backbones are too many to tell apart, 8 at most; choose with --loss or --backbone"
    ):
        draw_lambda(results(runs, [score(row["run_id"], 0.2) for row in runs]))


# The plane


def plane(seeds: int) -> View:
    runs = [run(f"{at}{seed}", loss, seed) for at, loss in enumerate(["l1", "l1 + 1.0*sg"]) for seed in range(seeds)]
    runs.append({"run_id": "c", "kind": "builtin", "name": "bicubic", "scale": 4, "status": "done"})
    scores = [score("c", 0.34), score("c", 28.4, "psnr_y")]
    for at in range(2):
        for seed in range(seeds):
            scores += [score(f"{at}{seed}", value(at, seed)), score(f"{at}{seed}", 28 + at + seed, "psnr_y")]
    return results(runs, scores)


def test_points_in_the_plane_are_pairs_of_scores() -> None:
    figure = draw_plane(plane(seeds=2))
    l1, sg, bicubic = sorted(points(figure), key=len, reverse=True)
    assert l1 == [(28.0, value(0, 0)), (29.0, value(0, 1))]
    assert sg == [(29.0, value(1, 0)), (30.0, value(1, 1))]
    assert bicubic == [(28.4, 0.34)]
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("psnr_y (dB) ↑", "lpips_alex ↓")
    assert legend(figure) == ["edsr-tiny", "l1", "l1 + 1.0*sg", "bicubic", "Pareto front"]
    assert "one seed each (n = 2)" in said(figure)


def test_three_seeds_in_the_plane_are_a_mean_with_bars() -> None:
    figure = draw_plane(plane(seeds=3))
    _, l1, _ = points(figure)
    assert l1 == [(29.0, pytest.approx(value(0, 1)))]
    ends = [segment for bar in figure.axes[0].collections for segment in bar.get_segments()]
    assert ends[0][:, 0] == pytest.approx([28.0, 30.0])
    assert ends[1][:, 1] == pytest.approx([value(0, 1) - 0.02, value(0, 1) + 0.02])
    assert "Points with bars: mean ± sample standard deviation over seeds (n = 3)." in said(figure)


def test_the_two_metrics_of_a_plane_go_across_and_up_as_they_are_named() -> None:
    figure = draw_plane(plane(seeds=1), Filters(metrics=["lpips_alex", "psnr_y"], losses=["l1"]))
    assert points(figure) == [[(value(0, 0), 28.0)]]
    with pytest.raises(InputError, match="nothing has a score of both psnr_y and lpips_alex on one test set"):
        draw_plane(results([run("a"), run("b")], [score("a", 0.1), score("b", 28.0, "psnr_y")]))


@pytest.mark.parametrize(
    ("metrics", "pairs", "front", "drawstyle"),
    [
        (
            ["psnr_y", "lpips_alex"],
            {"a": (30, 0.4), "b": (29, 0.3), "c": (28, 0.35), "d": (27, 0.2)},
            "dba",
            "steps-pre",
        ),
        (["psnr_y", "lpips_alex"], {"a": (30, 0.4), "b": (30, 0.3), "c": (28, 0.3), "d": (28, 0.2)}, "db", "steps-pre"),
        (
            ["lpips_alex", "psnr_y"],
            {"a": (0.4, 30), "b": (0.3, 29), "c": (0.35, 28), "d": (0.2, 27)},
            "dba",
            "steps-post",
        ),
        (["lpips_alex", "dists"], {"a": (0.4, 0.1), "b": (0.3, 0.2), "c": (0.35, 0.3)}, "ba", "steps-post"),
        (["psnr_y", "ssim"], {"a": (30, 0.7), "b": (29, 0.9), "c": (29, 0.8)}, "ba", "steps-pre"),
        (["psnr_y", "lpips_alex"], {"a": (30, 0.2), "b": (29, 0.3)}, "", ""),
    ],
)
def test_the_pareto_front_are_the_points_that_no_other_beats(
    metrics: list[str], pairs: dict[str, tuple[float, float]], front: str, drawstyle: str
) -> None:
    losses = dict(zip(pairs, ("l1", "l2", "charbonnier", "ssim"), strict=False))
    scores = [
        score(
            name,
            value,
            metric,
            protocol=json.dumps({"direction": "higher" if metric in ("psnr_y", "ssim") else "lower"}),
        )
        for name, pair in pairs.items()
        for metric, value in zip(metrics, pair, strict=True)
    ]
    figure = draw_plane(results([run(name, loss) for name, loss in losses.items()], scores), Filters(metrics=metrics))
    assert points(figure, gid="front") == ([[pairs[name] for name in front]] if front else [])
    assert [line.get_drawstyle() for line in figure.axes[0].lines if line.get_gid() == "front"] == [drawstyle] * bool(
        front
    )
    assert ("Pareto front" in legend(figure)) == bool(front)


def test_without_a_direction_there_is_no_front() -> None:
    runs, each = [run("a"), run("b", "l2")], {"protocol": "{}"}
    scores = [score("a", 0.3, **each), score("a", 30.0, "psnr_y"), score("b", 0.2, **each), score("b", 29.0, "psnr_y")]
    assert points(draw_plane(results(runs, scores)), gid="front") == []


def test_more_losses_than_markers_are_numbered_where_no_number_covers_another() -> None:
    losses = ["l1", *(f"l1 + {at}.0*sg" for at in range(1, 12))]
    runs = [run(f"{at:02}", loss) for at, loss in enumerate(losses)]
    scores = [
        each
        for at, row in enumerate(runs)
        for each in (score(row["run_id"], 0.2 + 0.001 * at), score(row["run_id"], 28 + 0.01 * (at // 3), "psnr_y"))
    ]
    figure = draw_plane(results(runs, scores))
    assert legend(figure)[1:-1] == [f"{number} {loss}" for number, loss in enumerate(losses, start=1)]
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.axes[0].texts] == list(map(str, range(1, 13)))
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without the lines to far points
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


# Training


def test_curves_are_the_terms_of_the_history() -> None:
    runs = [run("a"), run("b", "l1 + 1.0*sg")]
    history = course("a", {"l1": [0.2, 0.1]}) + course("b", {"l1": [0.3, 0.2], "sg": [0.06, 0.05]})
    figure = draw_curves(results(runs, history=history))
    assert [axes.get_title() for axes in figure.axes] == ["edsr-tiny, l1", "edsr-tiny, sg"]
    drawn = [[list(zip(*line.get_data(), strict=True)) for line in axes.lines] for axes in figure.axes]
    assert drawn == [[[(10, 0.2), (20, 0.1)], [(10, 0.3), (20, 0.2)]], [[(10, 0.06), (20, 0.05)]]]
    assert legend(figure) == ["l1", "l1 + 1.0*sg"]


@pytest.mark.parametrize(
    "term",
    ["gan(ahead=20, discriminator=patch, features=4, kind=relativistic, ratio=2)", "gan(features=16, lr=0.0002)"],
)
def test_the_long_name_of_a_term_is_broken_into_lines_that_fit_over_its_panel(term: str) -> None:
    terms = {f"{term}{own}": [0.6, 0.7] for own in ("", ".fake", ".real")}
    figure = draw_curves(results([run("a", term)], history=course("a", terms)))
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert [axes.get_title().replace("\n", " ") for axes in figure.axes] == [f"edsr-tiny, {name}" for name in terms]
    assert boxes[0].x0 >= 0
    assert boxes[-1].x1 <= figure.bbox.width
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_scores_on_validation_sets_follow_the_terms() -> None:
    runs = [run("a"), run("b", backbone="rdn-tiny")]
    history = course("a", {"l1": [0.2, 0.1]}) + course("b", {"l1": [0.3, 0.2]})
    scores = [("a", 10, 28.0, "psnr_y"), ("a", 20, 29.0, "psnr_y"), ("b", 20, 27.0, "psnr_y"), ("b", 20, None, "fid")]
    validation = [score(run_id, value, metric, step=step) for run_id, step, value, metric in scores]
    for row in validation:
        del row["scored"]
    figure = draw_curves(results(runs, history=history, validation=validation))
    titles = [
        f"{backbone}, {shown}" for shown in ("l1", "Set5: psnr_y (dB) ↑") for backbone in ("edsr-tiny", "rdn-tiny")
    ]
    assert [axes.get_title() for axes in figure.axes] == titles
    drawn = [[list(zip(*line.get_data(), strict=True)) for line in axes.lines] for axes in figure.axes[2:]]
    assert drawn == [[[(10, 28.0), (20, 29.0)]], [[(20, 27.0)]]]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear", "linear"]
    assert "Scores on validation sets are those of the network at that step." in said(figure)
    apart = [row | {"dataset_sha256": row["run_id"] * 64} for row in validation]
    figure = draw_curves(results(runs, history=history, validation=apart))
    assert {axes.get_title() for axes in figure.axes[2:]} == {
        "edsr-tiny, Set5@aaaaaaaa: psnr_y (dB) ↑",
        "rdn-tiny, Set5@bbbbbbbb: psnr_y (dB) ↑",
    }


def test_l1_comes_first_whatever_the_names_of_the_others() -> None:
    runs = [run("a", "charbonnier"), run("b"), run("c", "l1 + 1.0*sg")]
    figure = draw_curves(results(runs, history=[row for each in "abc" for row in course(each, {"l1": [0.2, 0.1]})]))
    assert legend(figure) == ["l1", "charbonnier", "l1 + 1.0*sg"]


def test_panels_of_one_term_have_one_scale() -> None:
    runs = [run("a"), run("b", backbone="rdn-tiny")]
    figure = draw_curves(results(runs, history=course("a", {"l1": [0.2, 0.1]}) + course("b", {"l1": [9.0, 5.0]})))
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim()


@pytest.mark.parametrize(("backbones", "across"), [(2, 2), (4, 4), (5, 3)])
def test_a_backbone_is_a_column_of_curves_and_a_term_a_row(backbones: int, across: int) -> None:
    runs = [run(str(at), "l1 + 1.0*sg" if at else "charbonnier + l1", backbone=f"net{at}") for at in range(backbones)]
    all_have, some_have = {"l1": [0.2, 0.1]}, {"sg": [0.06, 0.05]}
    history = course("0", {"charbonnier": [0.3, 0.2]} | all_have)
    history += [row for at in range(1, backbones) for row in course(str(at), all_have | some_have)]
    figure = draw_curves(results(runs, history=history))
    figure.draw_without_rendering()
    left, bottom = {}, {}
    for axes in figure.axes:
        backbone, term = axes.get_title().split(", ")
        at = int(backbone.removeprefix("net"))
        assert left.setdefault(at % across, axes.get_position().x0) == pytest.approx(axes.get_position().x0)
        assert bottom.setdefault((at // across, term), axes.get_position().y0) == pytest.approx(axes.get_position().y0)
    assert len(figure.axes) == 2 * backbones
    assert len(set(left.values())) == across
    heights = [bottom[0, term] for term in ("l1", "sg", "charbonnier")]
    if backbones == 2:  # of which each has a term of its own, and these share a row
        assert heights[0] > heights[1] == pytest.approx(heights.pop())
    assert heights == sorted(set(heights), reverse=True)


def test_three_seeds_are_a_mean_and_a_band_at_the_steps_that_all_have() -> None:
    runs = [run(str(seed), seed=seed) for seed in range(4)]
    history = [
        row for seed in range(3) for row in course(str(seed), {"l1": [0.2 + 0.1 * seed, 0.1, 0.05][: 3 - seed % 2]})
    ]
    figure = draw_curves(results(runs, history=history))
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [10, 20]
    assert line.get_ydata() == pytest.approx([0.3, 0.1])
    assert len(figure.axes[0].collections) == 1
    assert "Left out: edsr-tiny · l1 · seed 3: its history was not kept." in said(figure)


# Gradient maps


def test_gradient_maps_are_those_of_the_loss() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    figure = draw_gradient_maps(image, "noise", operator="sobel")
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert np.array_equal(shown[0], image)
    values = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float() / 255
    for order, drawn in ((1, shown[1]), (2, shown[2])):
        expected = SecondOrderGradient(operator="sobel", order=order).gradient_map(values)[0].mean(0)
        assert np.allclose(drawn, expected, atol=1e-6)
    white = figure.axes[2].images[0].get_clim()[1]
    assert white == pytest.approx(np.percentile(np.asarray(shown[2]), 99.5))
    assert f"white: {white:.3g}" in figure.axes[2].get_xlabel()
    with pytest.raises(InputError, match="operator is 'prewitt'"):
        draw_gradient_maps(image, "noise", operator="prewitt")


def test_a_flat_image_has_maps_too() -> None:
    encode(draw_gradient_maps(np.full((9, 9, 3), 7, np.uint8), "flat"), "png")


# Differences


def compared(**fields: Any) -> Comparison:
    known: dict[str, Any] = {"metric": "lpips_alex", "direction": "lower", "dataset": "Set5", "backbone": "edsr-tiny"}
    known |= {
        "scale": 4,
        "recipe": "",
        "a": "l1",
        "b": "l1 + 1.0*sg",
        "label_a": "l1",
        "label_b": "l1 + 1.0*sg",
        "alpha": 0.05,
        "seeds": (0, 1),
        "images": 5,
    }
    known |= {"mean_a": 0.4, "mean_b": 0.3, "verdict": Verdict.SIGNIFICANT}
    known["overall"] = known["by_seed"] = Estimate(Interval(-0.15, -0.05), 0.001)
    return Comparison(**known | fields)


def rows(figure: Figure, panel: int = 0) -> list[str]:
    return [label.get_text() for label in figure.axes[panel].get_yticklabels()]


def test_each_row_of_differences_has_its_mean_interval_and_numbers() -> None:
    cells = [compared(), compared(backbone="rdn-tiny", recipe="steps=9"), compared(dataset="Set14", mean_b=0.35)]
    figure = draw_forest(cells)
    assert rows(figure) == ["Set5", "edsr-tiny", "rdn-tiny (steps=9)", "Set14", "edsr-tiny"]
    assert points(figure, gid="difference")[0] == [(pytest.approx(-0.1), 1)]
    assert points(figure, gid="difference")[2] == [(pytest.approx(-0.05), 4)]
    assert points(figure, gid="interval")[0] == [(-0.15, 1), (-0.05, 1)]
    assert figure.axes[0].texts[0].get_text() == "−0.1000 [−0.1500, −0.0500]"
    assert figure.axes[0].get_title() == "lpips_alex ↓"
    assert figure.axes[0].get_xlabel().split() == ["←", "better", "B", "−", "A", "worse", "→"]


def test_differences_are_told_apart_by_their_shape() -> None:
    verdicts = list(Verdict)
    cells = [compared(backbone=f"a{at}", verdict=verdict) for at, verdict in enumerate(verdicts)]
    cells += [compared(backbone="worse", mean_b=0.5), compared(backbone="unknown", direction=None)]
    figure = draw_forest(cells)
    marks = [line for line in figure.axes[0].lines if line.get_gid() == "difference"]
    assert len({(line.get_marker(), line.get_markerfacecolor() == "white") for line in marks}) == len(cells)
    assert set(legend(figure)) == {
        *("significant, better", "significant, worse", "significant", "not significant", "inconclusive"),
        "equivalent",
    }


def test_the_margin_of_equivalence_is_a_band_around_no_difference() -> None:
    figure = draw_forest([compared(metric="psnr_y", direction="higher", margin=0.1, verdict=Verdict.EQUIVALENT)])
    (band,) = [patch for patch in figure.axes[0].patches if patch.get_gid() == "margin"]
    assert (band.get_x(), band.get_x() + band.get_width()) == (-0.1, pytest.approx(0.1))
    assert "Grey: the margin of equivalence, ±0.1." in said(figure)


def test_of_a_metric_for_which_more_is_better_the_sides_are_the_other_way_round() -> None:
    figure = draw_forest([compared(metric="psnr_y", direction="higher", mean_a=28.0, mean_b=29.0)])
    assert figure.axes[0].get_title() == "psnr_y (dB) ↑"
    assert figure.axes[0].get_xlabel().split()[:2] == ["←", "worse"]
    assert legend(figure) == ["significant, better"]


def test_what_cannot_be_decided_or_drawn_is_said_once_for_all_its_rows() -> None:
    reason = "with 5 images p cannot go under 0.0625"
    cells = [compared(backbone=name, verdict=Verdict.INCONCLUSIVE, reason=reason) for name in ("edsr-tiny", "rdn-tiny")]
    cells += [compared(dataset="Set14", left_out=("failed at step 81: loss is NaN (l1, seed 2)",))]
    cells += [compared(dataset=name, mean_a=None, mean_b=None, overall=None, by_seed=None) for name in ("B100", "D1")]
    told = said(draw_forest(cells)).replace("\N{NO-BREAK SPACE}", " ")
    assert told.count(reason) == 1
    assert f"Inconclusive by lpips_alex on Set5 with edsr-tiny and rdn-tiny: {reason}." in told
    assert "Not drawn by lpips_alex on B100 and D1 with edsr-tiny: no seed has both scores" in told
    assert "Left out by lpips_alex on Set14 with edsr-tiny: failed at step 81: loss is NaN (l1, seed 2)." in told
    assert "Seeds: n = 2, images: 5 of Set5 and 5 of Set14." in told


def test_one_seed_is_a_point_without_an_interval_and_none_is_refused() -> None:
    one = compared(seeds=(0,), overall=None, by_seed=None, verdict=Verdict.INCONCLUSIVE, reason="one seed")
    figure = draw_forest([one])
    assert points(figure, gid="interval") == []
    assert [text.get_text() for text in figure.axes[0].texts] == ["−0.1000"]
    with pytest.raises(InputError, match="no seed has scores of both losses, and so there is no difference to draw"):
        draw_forest([compared(mean_a=None, mean_b=None)])


def test_a_sequence_is_said_to_be_one_and_is_not_drawn_while_it_is_infinite() -> None:
    sequences = (SeedSequence((0, 1), 4.0, (3, 5), 0.05, 5, "0" * 12, "2026-11-28"),)
    nothing = Estimate(Interval(-math.inf, math.inf), 1.0)
    early = compared(backbone="rdn-tiny", sequences=sequences, overall=nothing, verdict=Verdict.NOT_SIGNIFICANT)
    figure = draw_forest([compared(sequences=sequences, alpha=0.01), early])
    assert len(points(figure, gid="interval")) == 1
    assert [text.get_text() for text in figure.axes[0].texts] == ["−0.1000 [−0.1500, −0.0500]", "−0.1000"]
    told = said(figure).replace("\N{NO-BREAK SPACE}", " ")
    assert "the mean of B − A with its 99% or 95% confidence sequence over seeds and images" in told
    assert "A confidence sequence is a confidence interval that covers the truth after every seed at once." in told
    assert "is at most 0.01 or 0.05." in told
    assert "95% confidence interval or sequence" in said(draw_forest([compared(), early]))


# Agreement


def test_each_cell_has_tau_and_sets_have_none_in_an_image() -> None:
    losses = ["l1", "l1 + 0.1*sg", "l1 + 1.0*sg"]
    runs = [run(f"{at}", loss) for at, loss in enumerate(losses)]
    values = {"lpips_alex": (0.3, 0.2, 0.1), "psnr_y": (28.0, 29.0, 27.0), "fd_alex": (9.0, 8.0, 7.0)}
    rows = [
        score(f"{at}", value, metric, image=image)
        for metric, its in values.items()
        for at, value in enumerate(its)
        for image in ((None,) if metric == "fd_alex" else (None, "baby"))
    ]
    figure = draw_agreement(agreements(results(runs, rows), Filters()))
    (axes,) = figure.axes
    assert axes.get_title() == "Set5 with edsr-tiny"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lpips_alex ↓", "fd_alex ↓", "psnr_y ↑"]
    cells = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert cells == {(0, 1): "1.00", (0, 2): "−0.33", (2, 0): "−0.33", (1, 2): "−0.33"}
    assert len([patch for patch in axes.patches if patch.get_gid() == "cell"]) == 6
    with pytest.raises(InputError, match="no two metrics have scores of three losses on one test set"):
        draw_agreement(agreements(results(runs, rows), Filters(losses=losses[:2])))


# Ranks


def test_each_loss_has_its_ranks_and_its_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = {"l1": (0.5, Rank(3, 3)), "ssim": (0.4, Rank(1, 2)), "ours": (0.3, Rank(1, 2))}
    losses = tuple(Ranked(loss, loss.upper(), mean, rank, ("0", "1")) for loss, (mean, rank) in ranks.items())
    places = [
        RankedPlace(dataset, backbone, backbone, losses[::-1], (("ours", "ssim"),))
        for backbone in ("rdn-tiny", "edsr-tiny")
        for dataset in ("Set14", "Set5")
    ]
    made = Ranking("lpips_alex", tuple(places), "lower", "")
    monkeypatch.setattr("sgbench.report.figures.rank.ranking", lambda view, metric, datasets: made)
    shown = results([run("0", "l1")], [score("0", 0.3, "lpips_alex")])
    figure = draw_ranks(shown, Filters(backbones=["edsr-tiny"]))
    assert [axes.get_title() for axes in figure.axes] == [
        f"lpips_alex ↓\n{dataset}\nedsr-tiny" for dataset in ("Set5", "Set14")
    ]
    (axes, _) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["OURS", "SSIM", "L1"]
    assert [text.get_text() for text in axes.texts] == ["0.3000", "0.4000", "0.5000"]
    drawn = {gid: [line for line in axes.lines if line.get_gid() == gid] for gid in ("ranks", "mean", "group")}
    assert [list(line.get_xdata()) for line in drawn["ranks"]] == [[1, 2], [1, 2], [3, 3]]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in drawn["mean"]] == [(1, 0), (2, 1), (3, 2)]
    assert [list(line.get_ydata()) for line in drawn["group"]] == [[0, 1]]
    assert "Seeds: n = 2." in said(figure)
    with pytest.raises(InputError, match="there is no rank to draw"):
        draw_ranks(shown, Filters(backbones=["rcan-tiny"]))


# What all figures have in common


def everything() -> dict[str, Figure]:
    """Return one figure of each kind, with long names, many lines and notes."""
    image = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    backbones = ("edsr-tiny", "rdn-tiny", "swinir-light", "my_module:MyOwnNetwork")
    losses = ["l1", "l1 + 0.01*sg(operator=sobel-raw)", "l1 + 1.0*sg", "l1 + 10.0*sg"]
    runs = [run(f"{b}{at}{s}", loss, s, b) for b in backbones for at, loss in enumerate(losses) for s in range(3)]
    runs[-1] |= {"status": "failed", "error": "loss is NaN at step 81", "step": 81}
    sets = (SET5, URBAN, Dataset("Set14", "b" * 64))
    pairs = [
        (row, score(row["run_id"], 0.2 + 0.01 * at, m, d))
        for at, row in enumerate(runs)
        for m in ("lpips_alex", "psnr_y")
        for d in sets
    ]
    history = [
        step for row in runs[:-1] for step in course(row["run_id"], {"l1": [0.2, 0.1, 0.09], "sg": [0.1, 0.08, 0.07]})
    ]
    shown = results(runs, [each for row, each in pairs if row["status"] == "done"], history)
    return {
        "lambda": draw_lambda(shown),
        "lambda-narrow": draw_lambda(shown, columns=1),
        "plane": draw_plane(shown),
        "plane-narrow": draw_plane(shown, columns=1),
        "curves": draw_curves(shown),
        "forest": draw_forest(comparisons(shown, "l1", losses[2])),
        "agreement": draw_agreement(agreements(shown, Filters())),
        "agreement-narrow": draw_agreement(agreements(shown, Filters(datasets=["Set5"])), columns=1),
        "forest-narrow": draw_forest(comparisons(shown, "l1", losses[1]), columns=1),
        "rank": draw_ranks(shown, Filters(metrics=["lpips_alex", "psnr_y"])),
        "rank-narrow": draw_ranks(shown, Filters(datasets=["Set5"], backbones=["edsr-tiny"]), columns=1),
        "maps": draw_gradient_maps(image, "noise"),
        "maps-narrow": draw_gradient_maps(image, "noise", columns=1),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return everything()


NAMES = [
    *("lambda", "lambda-narrow", "plane", "plane-narrow", "curves", "forest", "forest-narrow", "maps", "maps-narrow"),
    *("agreement", "agreement-narrow", "rank", "rank-narrow"),
]


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_cut_or_smaller_than_a_reader_can_read(drawn: dict[str, Figure], name: str) -> None:
    figure = drawn[name]
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    assert figure.get_size_inches()[0] == WIDTHS[1 if name.endswith("narrow") else 2]
    shown = [axes.get_tightbbox() for axes in figure.axes]
    shown += [each.get_window_extent() for each in [*figure.texts, *figure.legends]]
    for box in shown:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
    texts = figure.findobj(Text)
    assert min(text.get_fontsize() for text in texts if isinstance(text, Text) and text.get_text()) >= TEXT


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_below_the_axes_does_not_touch_them(drawn: dict[str, Figure], name: str) -> None:
    figure = drawn[name]
    figure.draw_without_rendering()
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
    for legend in figure.legends:
        assert legend.get_window_extent().y1 <= lowest + 1
    for text in figure.texts:
        assert (
            text.get_window_extent().y1 <= min([lowest, *(each.get_window_extent().y0 for each in figure.legends)]) + 1
        )


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_figure_is_the_same_bytes(form: str) -> None:
    first, second = (encode(draw_lambda(ablation(seeds=3)), form) for _ in range(2))
    assert first == second
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form])
    assert b"CreationDate" not in first
    assert b"dc:date" not in first


def test_text_stays_text_in_svg() -> None:
    assert "edsr-tiny, l1 + λ*sg" in encode(only_set5(ablation()), "svg").decode()


def test_a_png_has_300_pixels_an_inch() -> None:
    with Image.open(io.BytesIO(encode(only_set5(ablation()), "png"))) as image:
        assert image.width == round(300 * WIDTHS[1])


def test_a_persons_own_settings_change_nothing_and_are_not_changed() -> None:
    expected = encode(only_set5(ablation()), "svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        assert encode(only_set5(ablation()), "svg") == expected
        assert dict(matplotlib.rcParams) == before


def test_the_end_of_a_files_name_decides_its_format() -> None:
    assert [format_of(Path(name)) for name in ("a.png", "b.SVG", "c.d.pdf")] == ["png", "svg", "pdf"]
    for name in ("figure.jpg", "figure", ".png"):
        with pytest.raises(InputError, match=f"--out is '{name}'; a file that ends in .png, .svg or .pdf is needed."):
            format_of(Path(name))


def test_figures_of_scores_load_neither_pyplot_nor_torch() -> None:
    modules = ", ".join(
        f"sgbench.report.figures.{name}" for name in ("lambdas", "plane", "curves", "forest", "agreement", "rank")
    )
    code = f"import sys, {modules}; print({{'matplotlib.pyplot', 'torch', 'ray'}} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
