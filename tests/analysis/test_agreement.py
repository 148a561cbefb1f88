"""Whether metrics agree on losses: on their order, and on which of them are significantly better."""

import csv
import functools
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from test_compare import HIGHER, LOWER, run, scores, store

import sgbench
from sgbench.analysis import Filters, Results, View
from sgbench.analysis.agreement import Agreement, Agreements, agreements
from sgbench.analysis.compare import Verdict, comparisons
from sgbench.core.errors import InputError
from sgbench.report.agreement import FORMATS, grids, notes, shown, to_data

LOSSES = ("l1", "l2", "ssim", "charbonnier", "l1 + 0.1*sg", "l1 + 1.0*sg")
QUALITY = dict(zip(LOSSES, (0.0, 0.5, 1.0, 2.0, 3.0, 4.0), strict=True))
"""By `lpips_alex`, from the worst to the best."""

DISTORTION = {**QUALITY, "l1 + 0.1*sg": -1.0, "l1 + 1.0*sg": -2.0}
"""By `psnr_y`, which two losses lower."""


@functools.cache
def six_losses() -> Results:
    """Four seeds of `LOSSES`."""
    return made_up()


def made_up(seeds: int = 4, places: Sequence[Mapping[str, Any]] = ({},), losses: Sequence[str] = LOSSES) -> Results:
    """Losses by seeds and 11 images: `lpips_alex` falls with quality, `psnr_y` differs, `dists` is `lpips_alex` / 2."""
    random = np.random.default_rng(0)
    by_image = random.normal(0, 0.5, 11)
    runs, rows = [], []
    for place, loss, seed in itertools.product(places, losses, range(seeds)):
        row = run(loss, seed, **place)
        noise = random.normal(0, 0.05, (2, 11))
        quality, distortion = (
            of[loss] + by_image + each for of, each in zip((QUALITY, DISTORTION), noise, strict=True)
        )
        runs.append(row)
        rows.append(scores(row["run_id"], 0.5 - 0.05 * quality, protocol=LOWER))
        rows.append(scores(row["run_id"], 0.25 - 0.025 * quality, protocol=LOWER, metric="dists"))
        rows.append(scores(row["run_id"], 26 + 0.2 * distortion, protocol=HIGHER, metric="psnr_y"))
        rows.append(scores(row["run_id"], float(20 - quality.mean()), protocol=LOWER, metric="fd_alex"))
    return store(runs, rows)


def found(results: Results, *, baseline: str | None = None, **filters: Any) -> Agreements:
    return agreements(View(results), Filters(**filters), baseline=baseline)


def of(result: Agreements, a: str, b: str) -> Agreement:
    (agreement,) = (each for each in result.pairs if (each.a, each.b) == (a, b))
    return agreement


def changed(results: Results, change: Any) -> Results:
    rows = results.scores.drop_columns(["schema_version"]).to_pylist()
    runs = results.runs.drop_columns(["schema_version"]).to_pylist()
    return store(runs, [[row for each in rows if (row := change(each))]])


def test_better_is_larger_whichever_way_a_metric_goes() -> None:
    everything = found(six_losses())
    alike = of(everything, "lpips_alex", "dists")
    assert alike.over_losses is not None
    assert (alike.over_losses.value, alike.opposite, alike.contradicted) == (1.0, (), ())
    assert alike.in_an_image is not None
    assert alike.in_an_image.value == 1.0
    assert (alike.images, alike.pairs, alike.losses) == (11, 15, tuple(sorted(LOSSES)))
    differing = of(everything, "lpips_alex", "psnr_y")
    pairs = {frozenset(pair) for pair in differing.opposite}
    better, best = "l1 + 0.1*sg", "l1 + 1.0*sg"
    others = [loss for loss in LOSSES if "sg" not in loss]
    assert pairs == {*(frozenset((sg, other)) for sg in (better, best) for other in others), frozenset((better, best))}
    assert differing.over_losses is not None
    assert differing.over_losses.value == pytest.approx((15 - 2 * len(pairs)) / 15)


def test_pairs_are_contradicted_where_both_metrics_are_significant() -> None:
    results = six_losses()
    differing = of(found(results), "lpips_alex", "psnr_y")
    assert differing.contradicted
    assert {*map(frozenset, differing.contradicted)} <= {*map(frozenset, differing.opposite)}
    unsure = changed(results, lambda row: None if row["image"] and row["image"] > "image003" else row)
    assert of(found(unsure), "lpips_alex", "psnr_y").contradicted == ()  # four images decide nothing


def test_runs_of_one_loss_are_averaged_and_are_no_evidence_of_their_own() -> None:
    once = made_up(seeds=2)
    runs, rows = (table.drop_columns(["schema_version"]).to_pylist() for table in (once.runs, once.scores))
    more = [each | {"seed": each["seed"] + 2, "run_id": f"{each['run_id']}+"} for each in runs]
    copies = [row | {"run_id": f"{row['run_id']}+"} for row in rows]
    twice = found(store([*runs, *more], [rows, copies]))
    for a, b in itertools.combinations(("lpips_alex", "dists", "psnr_y"), 2):
        one, two = (of(each, a, b) for each in (found(once), twice))
        assert (one.over_losses, one.in_an_image) == (two.over_losses, two.in_an_image)


def test_only_seeds_with_both_scores_count() -> None:
    def without(row: dict[str, Any]) -> dict[str, Any] | None:
        """Let a second seed of one loss be the best by LPIPS, and have no PSNR."""
        if row["run_id"] != "edsr-tiny l1 1":
            return row
        return None if row["metric"] == "psnr_y" else row | {"value": row["value"] - 10}

    plain, lacking = found(six_losses()), found(changed(six_losses(), without))
    assert of(lacking, "lpips_alex", "psnr_y").opposite == of(plain, "lpips_alex", "psnr_y").opposite
    assert of(lacking, "lpips_alex", "dists").opposite == ()


def test_a_metric_of_sets_has_no_value_in_an_image() -> None:
    of_sets = of(found(six_losses()), "lpips_alex", "fd_alex")
    assert of_sets.over_losses is not None
    assert of_sets.over_losses.value == 1.0
    assert (of_sets.in_an_image, of_sets.images) == (None, None)


def test_images_on_which_a_metric_is_undefined_are_left_out() -> None:
    def fewer(row: dict[str, Any]) -> dict[str, Any]:
        undefined = row["metric"] == "dists" and row["image"] in ("image002", "image005")
        return row | {"value": None, "status": "undefined"} if undefined else row

    some = of(found(changed(six_losses(), fewer)), "lpips_alex", "dists")
    assert some.images == 9
    assert some.in_an_image == of(found(six_losses()), "lpips_alex", "dists").in_an_image


def test_places_are_apart() -> None:
    both = found(made_up(seeds=1, places=({}, {"backbone": "rdn-tiny", "steps": 9}), losses=LOSSES[:3]))
    assert list(map(str, both.places)) == ["Set14 with rdn-tiny (steps=9)", "Set14 with edsr-tiny (steps=1200)"]
    assert {each.losses for each in both.pairs} == {("l1", "l2", "ssim")}
    assert {each.place for each in both.pairs} == {*both.places}


def test_each_loss_is_compared_as_compare_does() -> None:
    results = six_losses()
    result = found(results)
    assert result.baseline == "l1"
    assert [each.loss for each in result.witnesses] == sorted(set(LOSSES) - {"l1"})
    for each in result.witnesses:
        for metric, cell in each.by_metric.items():
            assert [cell] == comparisons(View(results), "l1", each.loss, metrics=[metric])
    (best,) = (each for each in result.witnesses if each.loss == "l1 + 1.0*sg")
    assert best.saying(better=True, significant=True) == ["lpips_alex", "dists", "fd_alex"]
    assert best.saying(better=False, significant=True) == ["psnr_y"]
    assert best.saying(better=True, significant=False) == []
    assert {each.loss for each in found(results, baseline="sg + l1").witnesses} == {*LOSSES} - {"l1 + 1.0*sg"}


def test_chosen_losses_change_tau_and_no_verdict() -> None:
    results = six_losses()
    some = ["ssim", "charbonnier", "l1 + 0.1*sg"]
    few, all_ = (of(each, "lpips_alex", "psnr_y") for each in (found(results, losses=some), found(results)))
    assert few.pairs == 3
    assert few.over_losses is not None
    assert few.over_losses.interval is None
    assert {*map(frozenset, few.contradicted)} == {
        pair for pair in map(frozenset, all_.contradicted) if pair <= {*some}
    }
    assert [each.loss for each in found(results, losses=some).witnesses] == some


def test_two_losses_have_no_order_but_a_comparison() -> None:
    two = found(made_up(losses=("l1", "l1 + 1.0*sg")))
    assert two.pairs == ()
    (witness,) = two.witnesses
    assert list(witness.by_metric) == ["lpips_alex", "dists", "fd_alex", "psnr_y"]


def test_what_cannot_be_compared_is_left_out_in_a_sentence() -> None:
    older = changed(
        six_losses(),
        lambda row: (
            row | {"metric_version": "0.0"} if (row["run_id"], row["metric"]) == ("edsr-tiny l2 0", "dists") else row
        ),
    )
    result = found(older)
    assert result.left_out == (
        "Left out: dists on Set14 with edsr-tiny: the scores are from 2 versions, which cannot be compared.",
    )
    assert "dists" not in {name for each in result.pairs for name in (each.a, each.b)}
    silent = changed(six_losses(), lambda row: row | {"protocol": "{}"} if row["metric"] == "dists" else row)
    (sentence,) = found(silent).left_out
    assert sentence.endswith("dists on Set14 with edsr-tiny: the scores do not say which values are better.")
    assert sentence in notes(found(silent))


@pytest.mark.parametrize(
    ("filters", "baseline", "alpha", "message"),
    [
        ({"metrics": ["beauty"]}, None, 0.05, "unknown metric 'beauty'"),
        ({"losses": ["l3"]}, None, 0.05, "l3"),
        ({}, "l3", 0.05, "l3"),
        ({}, None, 0.9, "alpha is 0.9; a number from 0.001 to 0.5 is needed"),
        ({"losses": ["l1"]}, None, 0.05, "no metric has scores of 'l1' and another loss"),
    ],
)
def test_bad_input_is_refused(filters: dict[str, Any], baseline: str | None, alpha: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        agreements(View(six_losses()), Filters(**filters), baseline=baseline, alpha=alpha)


# How it is shown


@pytest.fixture(scope="module")
def result() -> Agreements:
    return found(six_losses(), metrics=["lpips_alex", "psnr_y", "fd_alex"])


def test_the_tables_have_what_was_found(result: Agreements) -> None:
    pairs, losses = grids(result)
    assert pairs.title == "Set14 with edsr-tiny: every two metrics, 6 losses"
    (row,) = (row for row in pairs.rows if row[:2] == ("lpips_alex ↓", "psnr_y ↑"))
    agreement = of(result, "lpips_alex", "psnr_y")
    assert agreement.over_losses is not None
    assert row[2] == f"{agreement.over_losses.value:.2f}".replace("-", "−")
    assert row[6:] == ("9 of 15", str(len(agreement.contradicted)))
    assert pairs.rows[0][4:6] == ("", "")  # a metric of sets
    assert pairs.after.startswith("Of 15 pairs of losses, 6 have the same order by all 3 metrics, and ")
    assert ("l1 + 1.0*sg", "lpips_alex, fd_alex", "", "", "psnr_y") in losses.rows
    assert losses.title == "Set14 with edsr-tiny: each loss against l1"
    assert losses.after == (
        "Of 5 differences from l1, 5 are significantly better by some metric, 2 significantly worse by some, "
        "and 2 both."
    )


def test_places_of_losses_are_columns_where_they_differ() -> None:
    places = ({}, {"backbone": "rdn-tiny"})
    *_, losses = grids(found(made_up(seeds=1, places=places, losses=LOSSES[:2]), metrics=["psnr_y"]))
    assert losses.title == "Set14: each loss against l1"
    assert losses.heads[:2] == ("backbone", "loss")
    assert [row[:2] for row in losses.rows] == [("edsr-tiny", "l2"), ("rdn-tiny", "l2")]


@pytest.mark.parametrize("width", [None, 80])
def test_no_width_breaks_a_word(result: Agreements, width: int | None) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width or 500, force_terminal=width is not None, color_system=None)
    shown(result).print(console)
    words = {
        word for grid in grids(result) for row in (grid.heads, *grid.rows) for text in row for word in text.split()
    }
    assert words <= {*file.getvalue().split()}
    assert max(map(len, file.getvalue().splitlines())) <= 80 or width is None


@pytest.mark.parametrize("form", FORMATS)
def test_every_format(result: Agreements, form: str) -> None:
    text = FORMATS[form](result)
    assert text.endswith("\n")
    if form == "json":
        data = json.loads(text)
        (pair,) = (each for each in data["pairs"] if (each["a"], each["b"]) == ("lpips_alex", "psnr_y"))
        assert len(pair["opposite"]) == 9
        assert pair["over_losses_low"] <= pair["over_losses"] <= pair["over_losses_high"]
        (loss,) = (each["by_metric"] for each in data["losses"] if each["loss"] == "l1 + 1.0*sg")
        assert [(loss["psnr_y"][key]) for key in ("better", "verdict")] == [False, Verdict.SIGNIFICANT]
        assert data == json.loads(json.dumps(to_data(result)))
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [(row["a"], row["b"], row["opposite"]) for row in rows][1] == ("lpips_alex", "psnr_y", "9")
    else:
        assert {
            "markdown": "| lpips_alex ↓ | psnr_y ↑ |",
            "latex": r"lpips\_alex $\downarrow$ &",
            "html": "<td>9 of 15</td>",
        }[form] in text


def test_the_public_function_shows_the_same(result: Agreements) -> None:
    public = sgbench.agreement(six_losses(), metrics=["lpips_alex", "psnr_y", "fd_alex"], tests="Set14")
    assert public.rows == shown(result).rows
    assert str(public) == str(shown(result))
    assert "<table" in public._repr_html_()
