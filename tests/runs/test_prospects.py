"""How many seeds a sweep needs, and what tells it."""

import datetime
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sgbench.analysis import Results, View
from sgbench.analysis.power import Spread, power_of
from sgbench.analysis.recipes import RECIPE
from sgbench.core.errors import InputError
from sgbench.runs.forecast import Estimate, Expected
from sgbench.runs.pilots import Earlier, Stated, Where, source_of
from sgbench.runs.plan import Plan, PlannedRun
from sgbench.runs.prospects import Goal, Prospect, costs_of, fresh, goal_of, prospects
from sgbench.runs.status import RunStatus
from sgbench.spec import RunSpec, SweepSpec, TrainingData
from sgbench.spec.decisions import ALL_SETS
from sgbench.store import Dataset, identity_columns
from sgbench.store.schema import to_table

L1, SG, L2 = "l1", "l1 + 1.0*sg", "l2"
LPIPS = "lpips_alex"
DATA = TrainingData(name="mine", sha256="ab" * 32)
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
STATED = Stated.read("seed=0.01, image=0.02, both=0.005")


def sweep(losses: Sequence[str] = (L1, SG), seeds: Sequence[int] = (0, 1, 2), **fields: Any) -> SweepSpec:
    grid = {"backbones": ["edsr-tiny"], "losses": list(losses), "seeds": list(seeds)}
    tests = fields.pop("tests", ["Set5", "Set14"])
    metrics = fields.pop("metrics", [LPIPS])
    return SweepSpec.model_validate({"grids": [grid], "train": "mine", "tests": tests, "metrics": metrics, **fields})


def plan(asked: SweepSpec, **images: int) -> Plan:
    runs = tuple(PlannedRun(spec, RunStatus.TO_DO) for spec in asked.runs(DATA))
    tests = tuple(Dataset(name, f"{name:0<64}") for name in asked.tests)
    return Plan("mine", asked, len(runs), runs, tests, images=images or {"Set5": 5, "Set14": 14})


def done(spec: RunSpec, values: dict[str, Sequence[float]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The rows of a finished run with these values by image on each test set."""
    row = {"run_id": spec.run_id, "metric": LPIPS, "metric_version": "0.1", "status": "ok", "scored": NOW}
    scores = []
    for name, of_images in values.items():
        on = row | {"dataset": name, "dataset_sha256": f"{name:0<64}", "n_images": len(of_images), "protocol": "{}"}
        scores += [on | {"image": f"{at:03}", "value": float(value)} for at, value in enumerate(of_images)]
        scores.append(on | {"image": None, "value": float(np.mean(of_images))})
    return dict(identity_columns(spec)) | {"status": "done"}, scores


def earlier(asked: SweepSpec, wanted: SweepSpec, sizes: dict[str, int], scale: float = 1.0) -> tuple[Earlier, Results]:
    """What runs of a sweep tell, whose differences vary by ``scale`` times 0.01 by seed, and 0.03 by image."""
    random = np.random.default_rng(3)
    found = [
        done(
            spec,
            {name: scale * (random.normal(0, 0.01) + random.normal(0, 0.03, count)) for name, count in sizes.items()},
        )
        for spec in asked.runs(DATA)
    ]
    scores = [row for _, rows in found for row in rows]
    results = Results.of(
        to_table("runs", [row for row, _ in found]), to_table("scores", scores), to_table("history", []), []
    )
    return Earlier(View(results), LPIPS, 4, wanted.tests), results


def differences(results: Results, a: str, b: str, *datasets: str) -> np.ndarray[Any, Any]:
    """By seed and image."""
    scores = {(row["run_id"], row["dataset"], row["image"]): row["value"] for row in results.scores.to_pylist()}
    ids = {(row["loss"], row["seed"]): row["run_id"] for row in results.runs.to_pylist()}
    seeds = sorted(seed for loss, seed in ids if loss == a)
    images = sorted({key[1:] for key in scores if key[2] and key[1] in datasets})
    return np.array([[scores[ids[b, s], *at] - scores[ids[a, s], *at] for at in images] for s in seeds])


def where(dataset: str = "Set14", a: str = L1, b: str = SG, backbone: str = "edsr-tiny", **recipe: Any) -> Where:
    spec = sweep(recipe=recipe).runs(DATA)[0]
    columns = dict[str, Any](identity_columns(spec))
    return Where(backbone, dataset, a, b, tuple(columns[name] for name in RECIPE))


def test_the_spread_is_that_of_the_same_losses_backbone_set_and_recipe() -> None:
    asked = sweep()
    source, results = earlier(asked, asked, {"Set5": 5, "Set14": 14})
    for dataset, names in (("Set5", ["Set5"]), ("Set14", ["Set14"]), (ALL_SETS, ["Set5", "Set14"])):
        told = source.told(where(dataset))
        sizes = [{"Set5": 5, "Set14": 14}[name] for name in sorted(names)]
        true = Spread.of(differences(results, L1, SG, *names), sizes)
        assert (told.spread.seed, told.spread.image, told.spread.both) == pytest.approx(
            (true.seed, true.image, true.both)
        )
        assert (told.basis, told.images) == ("3 seeds", sum(sizes))


def test_where_there_are_no_such_runs_it_is_that_of_those_most_alike() -> None:
    asked = sweep(losses=(L1, SG, L2))
    source, results = earlier(asked, asked, {"Set5": 5, "Set14": 14})
    assert source.told(where(a=L1, b="l1 + 0.1*fft")).basis == "median of 2 pairs, other losses"  # those with l1
    assert source.told(where(a="l1 + 0.1*tv", b="l1 + 0.1*fft")).basis == "median of 3 pairs, other losses"
    assert source.told(where(backbone="rcan-tiny")).basis == "3 seeds, edsr-tiny"
    assert source.told(where(steps=7)).basis == "3 seeds, another recipe"
    elsewhere = source.told(where("Urban100"))
    assert elsewhere.basis == "median of 3 pairs, other test sets"
    assert elsewhere.images is None
    all_of_it = source.told(where("Urban100", a="l1 + 0.1*tv", b="l1 + 0.1*fft", backbone="rcan-tiny", steps=7))
    assert all_of_it.basis == "median of 9 pairs, other losses, edsr-tiny, another recipe, other test sets"
    both = [Spread.of(differences(results, L1, loss, "Set14")).both for loss in (SG, L2)]
    median = math.sqrt(sum(sd**2 for sd in both) / 2)
    assert source.told(where(b="l1 + 0.1*fft")).spread.both == pytest.approx(median)


def test_one_seed_or_another_scale_tells_nothing() -> None:
    asked = sweep(seeds=(0,))
    assert not earlier(asked, asked, {"Set14": 14})[0]
    _, results = earlier(sweep(), sweep(), {"Set14": 14})
    assert not Earlier(View(results), LPIPS, 2, ["Set14"])
    assert not Earlier(View(results), "psnr_y", 4, ["Set14"])


@pytest.mark.parametrize(
    "text",
    [
        "seed=x",
        "image=0.1",
        "seed=0.1,image=-1",
        "seed=0.1,images=1",
        "seed=nan",
        "seed=",
        "seed=1e99",
        "seed=0.1,seed",
    ],
)
def test_what_is_no_spread_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--pilot is '.*'; a store, or standard deviations such as 'seed=0.01,"):
        source_of(text, sweep(), LPIPS, "nowhere")


def test_each_set_and_all_sets_are_families_over_backbones() -> None:
    found = prospects(plan(sweep(losses=(SG, L1, L2))), Goal(0.02, 0.8, LPIPS), STATED)
    cells = {(each.a, each.b, each.dataset): each.alpha for each in found}
    assert cells == {
        (L1, loss, name): 0.05 / (1 if name == ALL_SETS else 2)
        for loss in (SG, L2)
        for name in ("Set5", "Set14", ALL_SETS)
    }
    by_name = {each.dataset: each for each in found if each.b == SG}
    assert {name: each.images for name, each in by_name.items()} == {"Set5": 5, "Set14": 14, ALL_SETS: 19}
    assert by_name["Set5"].seeds is None
    assert by_name["Set5"].detectable == math.inf
    assert by_name["Set5"].decided_with(0.01) is None
    assert by_name["Set5"].more == (14, 20)
    assert power_of(0.02, STATED.spread, 20, 14, 0.025) >= 0.8 > power_of(0.02, STATED.spread, 20, 13, 0.025)
    assert by_name[ALL_SETS].seeds == 5
    assert by_name[ALL_SETS].planned == 3
    assert by_name[ALL_SETS].more is None
    assert by_name[ALL_SETS].decided_with(0.5) == 6
    assert by_name[ALL_SETS].decided_with(0.8) == 14  # images are tested at six looks, each at α / 6


def test_the_questions_of_a_sweep_are_one_family_each() -> None:
    decide = {"questions": [f"{L2} vs {SG} on {LPIPS} of Set14, all sets"], "max_seeds": 12, "alpha": 0.1}
    found = prospects(plan(sweep(losses=(L1, SG, L2), decide=decide)), Goal(0.02, 0.8, LPIPS), STATED)
    assert [(each.a, each.b, each.dataset, each.alpha) for each in found] == [
        (L2, SG, "Set14", 0.05),
        (L2, SG, ALL_SETS, 0.05),
    ]
    assert {len(each.decided_by) for each in found} == {12}


def test_a_metric_of_whole_sets_is_tested_over_seeds_alone() -> None:
    (found,) = prospects(
        plan(sweep(tests=["Set14"], metrics=["fd_alex"])), Goal(0.02, 0.8, "fd_alex"), Stated.read("seed=0.01")
    )
    assert (found.images, found.seeds, found.more) == (None, 5, None)  # 2 standard deviations
    with pytest.raises(
        InputError, match="--pilot says how images vary, and fd_alex has no value per image; give 'seed="
    ):
        source_of("seed=0.01,both=0.02", sweep(), "fd_alex", "nowhere")


def test_the_effect_is_in_the_unit_of_one_metric() -> None:
    assert goal_of(sweep(), 0.01, 0.9).metric == LPIPS
    assert goal_of(sweep(metrics=["psnr_y", LPIPS]), 0.01, 0.9).metric == LPIPS
    with pytest.raises(InputError, match="--detect is in the unit of one metric, and there are psnr_y, ssim_y; name"):
        goal_of(sweep(metrics=["psnr_y", "ssim_y"]), 0.01, 0.9)
    for effect, power in (
        (0.0, 0.8),
        (-1.0, 0.8),
        (math.nan, 0.8),
        (1.0, 0.3),
        (1.0, 1.0),
        (1.0, math.nan),
        (math.inf, 0.8),
    ):
        with pytest.raises(InputError, match="a number"):
            goal_of(sweep(), effect, power)


def test_losses_without_a_common_backbone_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="no two of the sweep share a backbone"):
        prospects(plan(sweep(losses=(L1,))), Goal(0.02, 0.8, LPIPS), STATED)


def test_the_numbers_of_images_that_are_not_available_are_those_of_the_catalogue() -> None:
    found = prospects(replace(plan(sweep()), images={}), Goal(0.02, 0.8, LPIPS), STATED)
    assert [each.images for each in found] == [5, 14, 19]
    with pytest.raises(InputError, match="how many images 'mine' has is not known"):
        prospects(replace(plan(sweep(tests=["mine=DIR"])), images={}), Goal(0.02, 0.8, LPIPS), STATED)


def test_costs_are_those_of_the_cell_that_needs_most() -> None:
    made = plan(sweep(losses=(L1, SG, L2)))

    def cell(b: str, seeds: int | None, planned: int = 3) -> Prospect:
        shares = (0.0, 0.5, 1.0) if seeds else (0.0, 0.0, 0.0)
        return Prospect("edsr-tiny", L1, b, "Set14", 14, Spread(1.0), "", 0.05, planned, 1.0, seeds, None, shares)

    runs = fresh(made)
    assert [str(run.spec.loss) for run in runs] == [L1, SG, L2]
    assert runs[0].missing == (("Set5", LPIPS), ("Set14", LPIPS))
    expected = [Expected(run, Estimate(1800, ""), Estimate(1800, "")) for run in runs]
    found = [cell(SG, 4), cell(SG, 6), cell(L2, 2), cell(L2, None)]
    costs = costs_of(found, Goal(1.0, 0.8, LPIPS), expected, 1)
    assert {
        name: cost and (cost.comparisons, cost.seeds, cost.runs, cost.device_hours) for name, cost in costs.items()
    } == {
        "planned": (4, 3, 9, 9.0),
        "fixed": (3, 6, 14, 14.0),
        "until_decided": (3, 2.5, 7.5, 7.5),
    }
    two = costs_of(found, Goal(1.0, 0.8, LPIPS), expected, 2)["fixed"]
    assert two is not None
    assert two.device_hours == 21.0
    unknown = costs_of(found, Goal(1.0, 0.8, LPIPS), [replace(each, training=None) for each in expected], 1)["fixed"]
    assert unknown is not None
    assert unknown.device_hours is None
    assert costs_of([cell(L2, None)], Goal(1.0, 0.8, LPIPS), expected, 1)["fixed"] is None
    assert json.dumps(found[0].row(0.8))
