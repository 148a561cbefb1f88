import datetime
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sgbench.analysis import Results, View, compare
from sgbench.analysis.compare import Comparison, Verdict
from sgbench.analysis.stats import Array, crossed_bootstrap, holm, paired_t, sign_flip
from sgbench.core.errors import InputError
from sgbench.spec import Recipe
from sgbench.spec.space import RATE, Searched
from sgbench.store import Candidate, Dataset, Planned, Search, Trial, Tuning
from sgbench.store.rows import RunEnd
from sgbench.store.schema import recipe_columns, to_table

INCONCLUSIVE, NOT_SIGNIFICANT, SIGNIFICANT = Verdict.INCONCLUSIVE, Verdict.NOT_SIGNIFICANT, Verdict.SIGNIFICANT
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
LOWER, HIGHER = (json.dumps({"direction": direction}) for direction in ("lower", "higher"))
L1, SG = "l1", "l1 + 1.0*sg"

Rows = list[dict[str, Any]]


def run(loss: str, seed: int, backbone: str = "edsr-tiny", **columns: Any) -> dict[str, Any]:
    row = {"run_id": f"{backbone} {loss} {seed}", "kind": "train", "name": "run", "backbone": backbone, "loss": loss}
    row |= {"seed": seed, "scale": 4, "train": "demo", "train_sha256": "ab" * 32, "steps": 1200, "status": "done"}
    return row | columns


def scores(run_id: str, values: Sequence[float] | float | None, **columns: Any) -> Rows:
    """Rows of one run: of each image and the set, or of the set alone where there is one value or none."""
    images = list(values) if isinstance(values, Iterable) else []
    whole = float(np.mean(images)) if images else values
    row = {"run_id": run_id, "dataset": "Set14", "metric": "lpips_alex", "metric_version": "0.1", "protocol": LOWER}
    row |= {"n_images": len(images) or 5, "status": "ok", "scored": NOW} | columns
    row = {"dataset_sha256": f"{row['dataset']:0<64}"} | row
    return [
        *({**row, "image": f"image{at:03}", "value": float(value)} for at, value in enumerate(images)),
        {**row, "image": None, "value": whole},
    ]


def store(runs: Rows, rows: Iterable[Rows], plans: list[Planned] | None = None) -> Results:
    flat = [row for part in rows for row in part]
    return Results.of(to_table("runs", runs), to_table("scores", flat), to_table("history", []), plans or [])


def planned(
    loss: str, seed: int, tests: tuple[str, ...] = ("Set14",), metrics: tuple[str, ...] = ("lpips_alex",)
) -> Planned:
    (row,) = to_table("runs", [run(loss, seed)]).to_pylist()
    return Planned(row, tuple(Dataset(name, f"{name:0<64}") for name in tests), metrics)


def two(differences: Array, **columns: Any) -> Results:
    """L1 and SG with differences by seed and image; what L1 scored is made up."""
    base = np.random.default_rng(9).uniform(0.2, 0.5, differences.shape)
    runs = [run(loss, seed) for loss in (L1, SG) for seed in range(len(differences))]
    values = [*base, *(base + differences)]
    return store(runs, [scores(row["run_id"], value, **columns) for row, value in zip(runs, values, strict=True)])


def comparisons(results: Results, a: str, b: str, **options: Any) -> list[Comparison]:
    return compare.comparisons(View(results), a, b, **options)


def one(results: Results, a: str = L1, b: str = SG, **options: Any) -> Comparison:
    (cell,) = comparisons(results, a, b, **options)
    return cell


def effects(seeds: int = 3, images: int = 14, mean: float = -0.09, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    by_seed, by_image = random.normal(0, 0.002, (seeds, 1)), random.normal(0, 0.03, images)
    return mean + by_seed + by_image + random.normal(0, 0.003, (seeds, images))


def without(results: Results, *run_ids: str, table: str = "scores") -> Results:
    rows = [row for row in getattr(results, table).to_pylist() if row["run_id"] not in run_ids]
    return Results.of(
        to_table("runs", rows) if table == "runs" else results.runs,
        to_table("scores", rows) if table == "scores" else results.scores,
        results.history,
        results.planned,
    )


def changed(results: Results, run_id: str, **columns: Any) -> Results:
    """The same with other columns in the scores of one run."""
    rows = [row | columns if row["run_id"] == run_id else row for row in results.scores.to_pylist()]
    return Results.of(results.runs, to_table("scores", rows), results.history, results.planned)


def test_a_difference_is_measured_by_the_functions_of_stats() -> None:
    differences = effects()
    cell = one(two(differences))
    stored = np.array([[row["value"] for row in two(differences).scores.to_pylist() if row["image"]]])
    b, a = stored.reshape(2, 3, 14)
    assert (cell.a, cell.b, cell.metric, cell.dataset, cell.backbone) == (L1, SG, "lpips_alex", "Set14", "edsr-tiny")
    assert (cell.direction, cell.scale, cell.recipe, cell.alpha) == ("lower", 4, "", 0.05)
    assert (cell.seeds, cell.images, cell.left_out) == ((0, 1, 2), 14, ())
    assert cell.runs_a == tuple(f"edsr-tiny l1 {seed}" for seed in range(3))
    assert cell.runs_b == tuple(f"edsr-tiny {SG} {seed}" for seed in range(3))
    assert (cell.mean_a, cell.mean_b) == (pytest.approx(a.mean()), pytest.approx(b.mean()))
    assert cell.difference == pytest.approx(differences.mean())
    assert cell.percent == pytest.approx(100 * differences.mean() / a.mean())
    assert cell.overall == crossed_bootstrap(b - a, 0.05)
    assert cell.by_image == sign_flip((b - a).mean(axis=0))
    assert cell.by_seed == paired_t((b - a).mean(axis=1), 0.05)
    assert cell.by_seed.p == pytest.approx(scipy.stats.ttest_rel(b.mean(axis=1), a.mean(axis=1)).pvalue)
    assert cell.p == max(cell.overall.p, cell.by_image.p, cell.by_seed.p)
    assert (cell.family, cell.verdict, cell.reason, cell.better) == (1, SIGNIFICANT, None, True)


def test_seeds_are_paired_and_not_pooled() -> None:
    """Every seed is another world, in which B is a little better: pairs see it, pooled seeds could not."""
    base = np.array([[0.2], [0.5], [0.8]]) + np.linspace(0, 0.1, 14)
    differences = effects(mean=-0.01) / 10 - 0.009
    runs = [run(loss, seed) for loss in (L1, SG) for seed in range(3)]
    values = [*base, *(base + differences)]
    results = store(runs, [scores(row["run_id"], value) for row, value in zip(runs, values, strict=True)])
    assert one(results).verdict == SIGNIFICANT
    assert scipy.stats.ttest_ind(base.mean(axis=1), (base + differences).mean(axis=1)).pvalue > 0.9


def test_neither_rows_nor_names_in_another_order_change_anything() -> None:
    results = two(effects())
    backwards = Results.of(results.runs[::-1], results.scores[::-1], results.history)
    assert comparisons(backwards, L1, SG) == comparisons(results, L1, SG)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(2, 8), st.sampled_from([0.0, -0.02, 0.3]))
def test_to_swap_the_losses_negates_the_difference_and_keeps_the_verdict(
    seed: int, seeds: int, images: int, mean: float
) -> None:
    results = two(effects(seeds, images, mean, seed))
    forth, back = one(results), one(results, SG, L1)
    assert forth.difference is not None
    assert back.difference == pytest.approx(-forth.difference)
    assert (back.mean_a, back.mean_b) == (forth.mean_b, forth.mean_a)
    assert (back.p, back.verdict, back.reason) == (pytest.approx(forth.p), forth.verdict, forth.reason)
    assert back.better is not forth.better


@pytest.mark.parametrize(("protocol", "better"), [(LOWER, True), (HIGHER, False), ("{}", None)])
def test_the_direction_of_the_metric_says_which_is_better(protocol: str, better: bool | None) -> None:
    assert one(two(effects(), protocol=protocol)).better is better


def test_equal_scores_are_neither_better_nor_significant() -> None:
    cell = one(two(np.zeros((3, 14))))
    assert (cell.difference, cell.percent, cell.better, cell.p, cell.verdict) == (
        0.0,
        0.0,
        None,
        1.0,
        NOT_SIGNIFICANT,
    )


def test_a_percentage_of_nothing_is_not_told() -> None:
    results = store([run(L1, 0), run(SG, 0)], [scores(f"edsr-tiny {L1} 0", 0.0), scores(f"edsr-tiny {SG} 0", 0.1)])
    assert one(results).percent is None


def test_five_images_cannot_decide_however_large_the_difference() -> None:
    cell = one(two(effects(images=5)))
    assert cell.by_image is not None
    assert (cell.by_image.p, cell.by_image.floor) == (0.0625, 0.0625)
    assert (cell.verdict, cell.reason) == (INCONCLUSIVE, "with 5 images p cannot go under 0.0625")
    assert one(two(effects(images=5)), alpha=0.1).verdict == SIGNIFICANT


def test_one_image_has_no_interval_over_images() -> None:
    cell = one(two(effects(images=1)))
    assert (cell.overall, cell.verdict, cell.reason) == (None, INCONCLUSIVE, "with 1 image p cannot go under 1")


def test_one_seed_cannot_decide_whatever_the_images_say() -> None:
    cell = one(two(effects(seeds=1)))
    assert cell.by_image is not None
    assert cell.by_image.p < 0.001
    assert (cell.overall, cell.by_seed, cell.p, cell.family) == (None, None, None, 0)
    assert (cell.verdict, cell.reason) == (
        INCONCLUSIVE,
        "one seed says nothing about the spread over seeds; at least two are needed",
    )


def test_images_alone_do_not_make_it_significant() -> None:
    """Each seed's B differs from its A alike on all images, and the seeds differ in sign."""
    differences = np.array([[0.08], [-0.02], [0.05]]) + effects(mean=0.0) / 100
    cell = one(two(differences))
    assert cell.by_image is not None
    assert cell.by_image.p == cell.by_image.floor
    assert cell.verdict == NOT_SIGNIFICANT


def test_seeds_alone_do_not_make_it_significant() -> None:
    """All seeds agree on a mean that a few images make."""
    by_image = np.random.default_rng(4).normal(0, 0.05, 14)
    cell = one(two(by_image + effects(mean=0.0) / 1000 + 0.003))
    assert cell.by_seed is not None
    assert cell.by_seed.p < 0.01
    assert cell.verdict == NOT_SIGNIFICANT


def test_a_metric_of_sets_is_tested_over_seeds_alone() -> None:
    runs = [run(loss, seed) for loss in (L1, SG) for seed in range(3)]
    values = [60.0, 61.5, 59.0, 50.0, 51.0, 50.5]
    rows = [scores(row["run_id"], value, metric="fd_alex") for row, value in zip(runs, values, strict=True)]
    cell = one(store(runs, rows))
    assert (cell.overall, cell.by_image, cell.images) == (None, None, None)
    assert cell.by_seed is not None
    assert cell.p == cell.by_seed.p == pytest.approx(scipy.stats.ttest_rel(values[3:], values[:3]).pvalue)
    assert cell.verdict == SIGNIFICANT


def test_only_seeds_of_both_are_paired_and_the_others_say_why_not() -> None:
    results = two(effects(seeds=5))
    b = f"edsr-tiny {SG}"
    rows = without(results, f"edsr-tiny {L1} 0", f"{b} 4", table="runs").runs.to_pylist()
    failed = {"status": "failed", "error": "loss is NaN\nat step 812."}
    rows = [row | failed if row["run_id"] == f"{b} 3" else row for row in rows]
    scored = without(results, f"edsr-tiny {L1} 0", f"{b} 3", f"{b} 4").scores
    cell = one(Results.of(to_table("runs", rows), scored, results.history, [planned(SG, 7)]))
    assert cell.seeds == (1, 2)
    assert cell.left_out == (
        f"no run ({L1}, seeds 0, 7; {SG}, seed 4)",
        f"failed: loss is NaN at step 812 ({SG}, seed 3)",
        f"pending ({SG}, seed 7)",
    )


def test_a_planned_run_that_is_there_is_no_other_run() -> None:
    results = two(effects())
    again = Results.of(results.runs, results.scores, results.history, [planned(L1, 0)])
    assert comparisons(again, L1, SG) == comparisons(results, L1, SG)


def test_a_plan_that_is_older_than_a_column_asks_for_its_default() -> None:
    (row,) = to_table("runs", [run(SG, 1) | recipe_columns(Recipe())]).to_pylist()
    older = {name: value for name, value in row.items() if name not in ("threads", "status")}
    runs = [run(loss, 0) | recipe_columns(Recipe()) for loss in (L1, SG)]
    rows = [scores(row["run_id"], [0.1, 0.2]) for row in runs]
    cell = one(store(runs, rows, [Planned(older, (Dataset("Set14", f"{'Set14':0<64}"),), ("lpips_alex",))]))
    assert cell.left_out == (f"no run ({L1}, seed 1)", f"pending ({SG}, seed 1)")


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"value": None, "status": "no weights", "reason": "bring alexnet.pth."}, "no weights: bring alexnet.pth"),
        ({"value": None, "status": "undefined", "reason": None}, "undefined"),
    ],
)
def test_a_score_without_a_value_leaves_its_seed_out(columns: dict[str, Any], why: str) -> None:
    cell = one(changed(two(effects()), f"edsr-tiny {L1} 1", **columns))
    assert cell.seeds == (0, 2)
    assert cell.left_out == (f"{why} ({L1}, seed 1)",)


def test_without_a_common_seed_there_is_no_number() -> None:
    runs = [run(L1, 0), run(L1, 1), run(SG, 2)]
    cell = one(store(runs, [scores(row["run_id"], [0.1, 0.2]) for row in runs]))
    assert cell.reason == f"no seed has both scores: no run ({SG}, seeds 0, 1; {L1}, seed 2)"
    assert (cell.verdict, cell.difference, cell.percent, cell.better, cell.seeds) == (
        INCONCLUSIVE,
        None,
        None,
        None,
        (),
    )


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"metric_version": "0.2"}, "the scores are from 2 versions, which cannot be compared"),
        ({"protocol": HIGHER}, "the scores are from 2 protocols, which cannot be compared"),
    ],
)
def test_scores_of_another_basis_are_refused(columns: dict[str, str], reason: str) -> None:
    cell = one(changed(two(effects()), f"edsr-tiny {SG} 1", **columns))
    assert (cell.verdict, cell.reason, cell.difference) == (INCONCLUSIVE, reason, None)


def test_scores_of_other_images_are_refused() -> None:
    runs = [run(L1, 0), run(SG, 0)]
    rows = [scores(runs[0]["run_id"], [0.1, 0.2]), scores(runs[1]["run_id"], [0.1, 0.2, 0.3])]
    assert one(store(runs, rows)).reason == "the scores are for different images"


def test_runs_trained_otherwise_are_never_paired() -> None:
    runs = [run(loss, seed, steps=steps) for steps in (1200, 2400) for loss in (L1, SG) for seed in range(3)]
    runs = [row | {"run_id": f"{row['run_id']} {row['steps']}"} for row in runs]
    rows = [scores(row["run_id"], [0.2 if row["loss"] == L1 else row["steps"] / 12000] * 3) for row in runs]
    cells = comparisons(store(runs, rows), L1, SG)
    assert [(cell.recipe, cell.difference) for cell in cells] == [
        ("steps=1200", pytest.approx(-0.1)),
        ("steps=2400", pytest.approx(0.0)),
    ]


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        ({"scale": 2}, ["scale=2", "scale=4"]),
        ({"train": "mine", "train_sha256": "cd" * 32}, ["train=demo@abababab", "train=mine@cdcdcdcd"]),
        ({"init": "x2.pt", "init_sha256": "cd" * 32}, ["init=x2.pt@cdcdcdcd", "no init"]),
    ],
)
def test_a_loss_that_was_only_trained_otherwise_has_no_partner(columns: dict[str, Any], labels: list[str]) -> None:
    runs = [run(L1, 0), run(SG, 0, **columns)]
    cells = comparisons(store(runs, [scores(row["run_id"], [0.1, 0.2]) for row in runs]), L1, SG)
    assert [cell.recipe for cell in cells] == labels
    assert all(cell.reason and cell.reason.startswith("no seed has both scores: no run (") for cell in cells)


def test_a_backbone_of_one_of_the_losses_has_no_part_in_it() -> None:
    results = two(effects())
    alone = run(SG, 0, backbone="rcan-tiny")
    more = store([alone], [scores(alone["run_id"], [0.1, 0.2])])
    both = Results.of(
        pa.concat_tables([results.runs, more.runs]), pa.concat_tables([results.scores, more.scores]), results.history
    )
    assert comparisons(both, L1, SG) == comparisons(results, L1, SG)


def test_what_was_not_trained_has_no_part_in_it() -> None:
    results = two(effects())
    other = {"run_id": "x", "kind": "builtin", "name": "bicubic", "scale": 4, "status": "done"}
    runs = to_table("runs", [*results.runs.to_pylist(), other])
    rows = to_table("scores", [*results.scores.to_pylist(), *scores("x", [0.4] * 14)])
    assert comparisons(Results.of(runs, rows, results.history), L1, SG) == comparisons(results, L1, SG)


def sweep() -> Results:
    """44 runs: four backbones with three seeds of both losses, and four other losses of five seeds on one of them.

    SG is better with two backbones, worse with the third, and no different with the fourth.
    """
    random = np.random.default_rng(1)
    gains = {"edsr-tiny": -0.09, "rcan-tiny": -0.04, "rdn-tiny": 0.03, "swinir-tiny": 0.0}
    runs = [run(loss, seed, backbone) for backbone in gains for loss in (L1, SG) for seed in range(3)]
    runs += [run(f"l1 + {weight}*sg", seed) for weight in (0.01, 0.1, 10.0, 100.0) for seed in range(5)]
    rows = []
    for dataset, images in {"Set5": 5, "Set14": 14}.items():
        base, effect = random.uniform(0.2, 0.5, images), random.normal(1, 0.25, images)
        for row in runs:
            gain = gains[row["backbone"]] * (row["loss"] != L1)
            values = base + gain * effect + random.normal(0, 0.001) + random.normal(0, 0.002, images)
            rows.append(scores(row["run_id"], values, dataset=dataset))
            rows.append(scores(row["run_id"], 60 + 100 * gain + random.normal(), dataset=dataset, metric="fd_alex"))
    return store(runs, rows)


def test_a_sweep_of_44_runs_shows_what_was_planted() -> None:
    results = sweep()
    assert results.runs.num_rows == 44
    cells = comparisons(results, L1, SG, metrics=["lpips_alex"])
    assert [(cell.dataset, cell.backbone, cell.verdict, cell.better) for cell in cells if cell.dataset == "Set14"] == [
        ("Set14", "edsr-tiny", SIGNIFICANT, True),
        ("Set14", "rcan-tiny", SIGNIFICANT, True),
        ("Set14", "rdn-tiny", SIGNIFICANT, False),
        ("Set14", "swinir-tiny", NOT_SIGNIFICANT, cells[7].better),
    ]
    assert {(cell.verdict, cell.reason) for cell in cells if cell.dataset == "Set5"} == {
        (INCONCLUSIVE, "with 5 images p cannot go under 0.0625")
    }


def test_cells_come_by_metric_and_then_test_set_and_backbone_in_reading_order() -> None:
    results = sweep()
    cells = comparisons(results, L1, SG)
    assert [cell.metric for cell in cells] == ["fd_alex"] * 8 + ["lpips_alex"] * 12
    assert [cell.dataset for cell in cells[:8]] == ["Set5"] * 4 + ["Set14"] * 4
    assert [cell.dataset for cell in cells[8:]] == ["Set5"] * 4 + ["Set14"] * 4 + ["all sets"] * 4
    assert [cell.backbone for cell in cells[:4]] == ["edsr-tiny", "rcan-tiny", "rdn-tiny", "swinir-tiny"]
    asked = comparisons(results, L1, SG, metrics=["lpips_alex", "fd_alex"])
    assert [cell.metric for cell in asked] == ["lpips_alex"] * 12 + ["fd_alex"] * 8
    assert sorted(asked, key=repr) == sorted(cells, key=repr)


def test_holms_family_is_all_tested_cells_of_one_metric() -> None:
    for metric in ("lpips_alex", "fd_alex"):
        cells = [cell for cell in comparisons(sweep(), L1, SG) if cell.metric == metric]
        for family in (cells[:8], cells[8:]):  # the test sets, and all of them together, which is another question
            assert {cell.family for cell in family} <= {len(family)}
            largest = [max(test.p for test in (cell.overall, cell.by_image, cell.by_seed) if test) for cell in family]
            assert [cell.p for cell in family] == holm(largest)


def test_cells_without_a_test_are_not_of_the_family() -> None:
    results = sweep()
    thinned = without(results, *(f"rdn-tiny {SG} {seed}" for seed in (1, 2)))
    cells = comparisons(thinned, L1, SG, metrics=["lpips_alex"])
    assert [cell.family for cell in cells if cell.backbone != "rdn-tiny"] == [6] * 6 + [3] * 3
    assert {(cell.family, cell.p) for cell in cells if cell.backbone == "rdn-tiny"} == {(0, None)}


def of_sets(
    matrices: dict[str, Array], names: dict[str, list[str]] | None = None, base: dict[str, Array] | None = None
) -> Results:
    """L1 and SG on several test sets, with differences by seed and image of each; without a base, L1 scores 0."""
    seeds = len(next(iter(matrices.values())))
    runs = [run(loss, seed) for loss in (L1, SG) for seed in range(seeds)]
    rows = []
    for dataset, differences in matrices.items():
        for row in runs:
            values = np.zeros(differences.shape[1]) + (base or {}).get(dataset, 0.0)
            values = values + differences[row["seed"]] * (row["loss"] == SG)
            of_run = scores(row["run_id"], values, dataset=dataset)
            for each, name in zip(of_run, (names or {}).get(dataset, []), strict=False):
                each["image"] = name
            rows.append(of_run)
    return store(runs, rows)


def test_all_sets_are_one_sample_whose_images_are_drawn_within_each() -> None:
    few, many = effects(5, 5, seed=1), effects(5, 14, mean=-0.02, seed=2)
    cells = comparisons(of_sets({"Set14": many, "Set5": few}), L1, SG)
    assert [(cell.dataset, cell.sets, cell.images) for cell in cells] == [
        ("Set5", (), 5),
        ("Set14", (), 14),
        ("all sets", ("Set5", "Set14"), 19),
    ]
    both, cell = np.concatenate([few, many], axis=1), cells[-1]
    assert cell.difference == pytest.approx(both.mean())
    assert cell.overall == crossed_bootstrap(both, 0.05, (5, 14))
    assert cell.by_image == sign_flip(both.mean(axis=0))
    assert cell.by_seed == paired_t(both.mean(axis=1), 0.05)
    assert (cell.seeds, cell.family, cell.verdict) == ((0, 1, 2, 3, 4), 1, SIGNIFICANT)
    assert cells[0].verdict == INCONCLUSIVE


def test_an_image_that_is_in_two_sets_counts_once() -> None:
    """B100 lies in BSDS500, and images of other sets may bear the same names."""
    whole, other = effects(3, 9, seed=1), effects(3, 4, seed=2)
    names = {"BSDS500": [f"image{at}" for at in range(9)], "B100": ["image2", "image5"], "Set4": ["image2", *"abc"]}
    base = {"BSDS500": np.linspace(0.1, 0.5, 9)}
    base["B100"] = base["BSDS500"][[2, 5]]
    apart = comparisons(of_sets({"BSDS500": whole, "Set4": other}, names, base), L1, SG)[-1]
    cell = comparisons(of_sets({"B100": whole[:, [2, 5]], "BSDS500": whole, "Set4": other}, names, base), L1, SG)[-1]
    assert (cell.sets, cell.images, apart.images) == (("B100", "BSDS500", "Set4"), 13, 13)
    assert cell.difference == pytest.approx(apart.difference)


def test_a_set_of_one_image_goes_with_the_one_beside_it() -> None:
    matrices = {"a": effects(3, 1, seed=1), "b": effects(3, 6, seed=2), "c": effects(3, 5, seed=3)}
    cell = comparisons(of_sets(matrices), L1, SG)[-1]
    assert cell.overall == crossed_bootstrap(np.concatenate(list(matrices.values()), axis=1), 0.05, (7, 5))
    one = comparisons(of_sets({"a": matrices["a"], "b": matrices["a"] + 1}), L1, SG)[-1]
    assert (one.images, one.verdict) == (2, INCONCLUSIVE)


def test_a_seed_without_a_score_on_one_set_is_left_out_of_all_and_says_on_which() -> None:
    results = of_sets({"Set5": effects(4, 5), "Set14": effects(4, 14)})
    missing = {"status": "failed", "reason": "an image is lost."}
    rows = [
        row | ({"value": None, **missing} if (row["run_id"], row["dataset"]) == (f"edsr-tiny {SG} 3", "Set5") else {})
        for row in without(results, f"edsr-tiny {L1} 0").scores.to_pylist()
    ]
    cell = comparisons(Results.of(results.runs, to_table("scores", rows), results.history), L1, SG)[-1]
    assert (cell.dataset, cell.seeds) == ("all sets", (1, 2))
    assert cell.left_out == (f"not scored ({L1}, seed 0)", f"failed on Set5: an image is lost ({SG}, seed 3)")


def test_all_sets_need_two_with_images_and_one_version() -> None:
    results = of_sets({"Set5": effects(3, 5), "Set14": effects(3, 14)})
    rows = [row for row in results.scores.to_pylist() if row["dataset"] == "Set5" or not row["image"]]
    (_, alone) = comparisons(Results.of(results.runs, to_table("scores", rows), results.history), L1, SG)
    assert alone.dataset == "Set14"
    rows = [row | {"metric_version": str(row["n_images"])} for row in results.scores.to_pylist()]
    *single, mixed = comparisons(Results.of(results.runs, to_table("scores", rows), results.history), L1, SG)
    assert [cell.reason is None or "p cannot go under" in cell.reason for cell in single] == [True, True]
    assert (mixed.difference, mixed.reason) == (None, "the scores are from 2 versions, which cannot be compared")


@pytest.mark.parametrize(
    ("mean", "verdict", "equivalent", "harmless"),
    [
        (0.0, Verdict.EQUIVALENT, True, True),
        (0.05, SIGNIFICANT, True, True),  # worse, but by too little to matter
        (-0.3, SIGNIFICANT, False, True),
        (0.3, SIGNIFICANT, False, False),
    ],
)
def test_differences_within_a_margin_are_equivalent(
    mean: float, verdict: Verdict, equivalent: bool, harmless: bool
) -> None:
    differences = effects(images=14, seed=7)
    differences += mean - differences.mean()
    cell = one(two(differences), margin=0.1)
    assert cell.equivalence is not None
    assert cell.equivalence.harmful is not None
    assert (cell.margin, cell.verdict) == (0.1, verdict)
    assert (cell.equivalence.p <= 0.05, cell.equivalence.harmful <= 0.05) == (equivalent, harmless)
    plain = one(two(differences))
    assert (plain.p, plain.equivalence) == (cell.p, None)
    assert plain.verdict == (verdict if verdict is SIGNIFICANT else NOT_SIGNIFICANT)


def test_the_minimum_detectable_effect_is_found_with_80_percent_power() -> None:
    """By the noncentral t of SciPy, for a metric of sets, and α divided by the cells of the family."""
    runs = [run(loss, seed, backbone) for backbone in ("a", "b") for loss in (L1, SG) for seed in range(5)]
    random = np.random.default_rng(0)
    rows = [scores(row["run_id"], 60 + random.normal(), metric="fd_alex") for row in runs]
    for cell in comparisons(store(runs, rows), L1, SG):
        assert cell.spread is not None
        assert cell.detectable is not None
        effect, limit = cell.detectable / cell.spread.seed * math.sqrt(5), scipy.stats.t.isf(0.05 / 2 / 2, 4)
        assert scipy.stats.nct.sf(limit, 4, effect) == pytest.approx(0.8, abs=0.005)
    assert one(two(effects(images=5))).detectable is None  # no effect is large enough for five images
    assert one(two(effects(seeds=1))).detectable is None


def test_what_a_family_puts_out_of_reach_is_told() -> None:
    """Six images reach 0.03125, which is enough alone, but not among two as good."""
    runs = [run(loss, seed, backbone) for backbone in ("a", "b") for loss in (L1, SG) for seed in range(3)]
    values = {L1: np.zeros((3, 6)), SG: effects(images=6)}
    rows = [scores(row["run_id"], values[row["loss"]][row["seed"]]) for row in runs]
    cells = comparisons(store(runs, rows), L1, SG)
    assert {cell.reason for cell in cells} == {"with 6 images p cannot go under 0.0312, which is 0.0625 when corrected"}
    assert one(store(runs[:6], rows[:6])).verdict == SIGNIFICANT


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ("l1", "sg", {}, f"unknown loss 'sg'; valid: l1, {SG}."),
        ("l1", "l1 + 0.1*sg", {}, f"unknown loss 'l1 + 0.1*sg': did you mean '{SG}'? Valid: l1, {SG}."),
        ("l1", "l1 +", {}, "loss 'l1 +' ends where"),
        ("l1", "2*0.5*l1", {}, "loss '2*0.5*l1': found '0.5' where"),
        ("sg + l1", "l1+1*sg", {}, f"'sg + l1' and 'l1+1*sg' are the same loss, {SG}; give two different ones."),
        ("l1", SG, {"metrics": ["lpips_x"]}, "unknown metric 'lpips_x': did you mean 'lpips_alex'? Valid: lpips_alex."),
        ("l1", SG, {"alpha": 0.0}, "alpha is 0; a number from 0.001 to 0.5 is needed."),
        ("l1", SG, {"margin": 0.0}, "the margin is 0; a number above 0 is needed."),
        ("l1", SG, {"margin": math.inf}, "the margin is inf; a number above 0 is needed."),
        ("l1", SG, {"alpha": math.nan}, "alpha is nan; a number from 0.001 to 0.5 is needed."),
    ],
)
def test_what_cannot_be_compared_is_refused(a: str, b: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        comparisons(two(effects()), a, b, **options)


def test_losses_may_be_spelled_in_any_way() -> None:
    assert one(two(effects()), "1*l1", "sg+l1") == one(two(effects()))


def test_a_store_of_one_loss_or_none_is_refused() -> None:
    with pytest.raises(InputError, match=re.escape("unknown loss 'l1 + 1.0*sg'; valid: l1.")):
        comparisons(store([run(L1, 0)], []), L1, SG)
    with pytest.raises(InputError, match=r"^there is no trained run, and so no loss to compare\.$"):
        comparisons(store([], []), L1, SG)


@pytest.mark.parametrize(
    ("columns", "why"),
    [({}, "not scored"), ({"status": "failed", "error": "loss is NaN at step 3"}, "failed: loss is NaN at step 3")],
)
def test_losses_without_a_score_are_refused(columns: dict[str, str], why: str) -> None:
    runs = [run(loss, seed, **columns) for loss in (L1, SG) for seed in (0, 1)]
    with pytest.raises(
        InputError, match=re.escape(f"no run of 'l1' or '{SG}' has been scored; the first of them: {why}.")
    ):
        comparisons(store(runs, []), L1, SG, metrics=["lpips_alex"])


def test_a_sweep_that_has_not_begun_is_pending() -> None:
    plans = [planned(loss, 0, ("Set5", "Set14"), ("lpips_alex", "fid")) for loss in (L1, SG)]
    cells = comparisons(store([], [], plans), L1, SG)
    assert [(cell.metric, cell.dataset) for cell in cells] == [
        (metric, dataset) for metric in ("fid", "lpips_alex") for dataset in ("Set5", "Set14")
    ]
    assert {cell.reason for cell in cells} == {f"no seed has both scores: pending ({L1}, seed 0; {SG}, seed 0)"}


def families(number: int, seeds: int, images: int, of: tuple[float, float, float]) -> Results:
    """Losses that do not differ but by effects of mean 0: a family of four cells for each metric."""
    random = np.random.default_rng(2)
    by_seed, by_image, by_both = of
    runs = [run(loss, seed, backbone) for backbone in "abcd" for loss in (L1, SG) for seed in range(seeds)]
    rows = []
    for at in range(number):
        for backbone in "abcd":
            image_effects = random.normal(0, by_image, images)
            for row in (row for row in runs if row["backbone"] == backbone):
                values = random.normal(0, by_both, images) / math.sqrt(2) + random.normal(0, by_seed) / math.sqrt(2)
                values += image_effects * (row["loss"] == SG)
                rows.append(scores(row["run_id"], values, metric=f"m{at}"))
    return store(runs, rows)


@pytest.mark.parametrize(
    ("seeds", "of"),
    [(3, (1.0, 0.0, 0.3)), (5, (0.6, 1.0, 0.5))],
    ids=["seeds differ", "seeds and images differ alike"],
)
def test_no_more_families_than_alpha_call_nothing_significant(seeds: int, of: tuple[float, float, float]) -> None:
    number = 200
    cells = comparisons(families(number, seeds, 10, of), L1, SG)
    found = len({cell.metric for cell in cells if cell.verdict == SIGNIFICANT}) / number
    assert found <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / number)


def test_losses_whose_learning_rates_were_chosen_are_compared_and_trials_are_no_seeds_of_them() -> None:
    rates = {L1: 1e-3, SG: 2e-3}
    found = two(effects())
    runs = [row | {"optimizer_lr": rates[row["loss"]]} for row in found.runs.to_pylist()]
    failed = {"status": "failed", "error": "loss is NaN", "step": 7, "optimizer_lr": 1e-2}
    trials, made = list[dict[str, Any]](), list[Trial]()
    for number, (loss, rate) in enumerate(rates.items()):
        good, bad = f"{loss} good", f"{loss} bad"
        trials += [run(loss, 1000, run_id=good, optimizer_lr=rate), run(loss, 1000, run_id=bad) | failed]
        made.append(Trial(number, {RATE: rate}, loss, 1000, good, RunEnd.DONE, 1200, 30.0))
        made.append(Trial(number, {RATE: 1e-2}, loss, 1000, bad, RunEnd.FAILED, 7))
    searched = (Searched.ranged(RATE, 1e-4, 1e-2, 1e-3),)
    search = Search(
        candidates=tuple(Candidate("edsr-tiny", loss, searched) for loss in rates),
        trials=2,
        steps=1200,
        method="random",
        scheduler="none",
        metric="psnr_y",
        higher=True,
        dataset="Mine",
        dataset_sha256="ab" * 32,
        seed=1000,
        trial_seeds=(1000,),
        final_seeds=(0, 1, 2),
        conditions="0" * 12,
    )
    tables = (to_table("runs", [*runs, *trials]), found.scores)
    assert not any(cell.seeds for cell in comparisons(Results.of(*tables), L1, SG))
    cell = one(Results.of(*tables, tunings={"mine": Tuning(search, tuple(made), NOW)}))
    assert cell == one(found)
