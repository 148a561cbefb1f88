"""Comparisons that were declared before the first look, or that may have been looked at while seeds were added."""

import datetime
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compare import L1, SG, scores

from sgbench.analysis import Results, View
from sgbench.analysis.anytime import SeedSequence, sequential_tests
from sgbench.analysis.baseline import against_baseline
from sgbench.analysis.compare import Comparison, Verdict, comparisons, every_pair
from sgbench.analysis.sequential import sequential_crossed, sequential_sign_flip, sequential_t, t_e_process
from sgbench.analysis.stats import Array, holm
from sgbench.core.errors import InputError
from sgbench.spec import ALL_SETS, Question, Recipe, RunSpec, TrainingData
from sgbench.store import Dataset, Declaration, Planned, identity_columns
from sgbench.store.schema import to_table

START = datetime.datetime(2026, 11, 28, 8, tzinfo=datetime.UTC)
LOOKS = (3, 5, 7, 10, 14, 20)
IMAGES = {"Set5": 5, "Set14": 14}


def spec(loss: str, seed: int, backbone: str = "edsr-tiny", steps: int = 8) -> RunSpec:
    data = TrainingData(name="demo", sha256="ab" * 32)
    return RunSpec(backbone=backbone, loss=loss, seed=seed, train=data, recipe=Recipe(steps=steps))


def row_of(loss: str, seed: int, backbone: str = "edsr-tiny", **columns: Any) -> dict[str, Any]:
    return {**identity_columns(spec(loss, seed, backbone)), "status": "done"} | columns


def declared(seeds: Iterable[int] = range(20), **fields: Any) -> Declaration:
    """What a sweep declared of L1 and SG on Set14."""
    sets = fields.pop("sets", ("Set14",))
    made = Declaration(
        question=Question(L1, SG, "lpips_alex", sets),
        alpha=0.05,
        g=4.0,
        seeds=tuple(seeds),
        looks=LOOKS,
        backbones=("edsr-tiny",),
        tests=tuple((name, f"{name:0<64}") for name in IMAGES if name in sets or ALL_SETS in sets),
        conditions=str(spec(L1, 0).conditions),
        sweep="mine",
        declared=START,
    )
    return replace(made, **fields)


def effects(seeds: int, images: int = 14, mean: float = -0.09, sd: float = 0.002, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    by_seed, by_image = random.normal(0, sd, (seeds, 1)), random.normal(0, 0.03, images)
    return np.asarray(mean + by_seed + by_image + random.normal(0, 0.003, (seeds, images)))


def made(
    differences: Mapping[tuple[str, int], Mapping[str, Sequence[float]]],
    *declarations: Declaration,
    metric: str = "lpips_alex",
    plans: Sequence[Planned] = (),
    **columns: Any,
) -> Results:
    """A store with the differences of SG by backbone and seed, test set and image."""
    runs, found = [], []
    for (backbone, seed), sets in differences.items():
        for loss in (L1, SG):
            runs.append(row_of(loss, seed, backbone, **columns))
            for dataset, values in sets.items():
                both = np.linspace(0.2, 0.5, len(values)) + np.asarray(values) * (loss == SG)
                found += scores(runs[-1]["run_id"], both, dataset=dataset, metric=metric)
    return Results.of(to_table("runs", runs), to_table("scores", found), planned=plans, declarations=declarations)


def on_set14(differences: Array, seeds: Iterable[int]) -> dict[tuple[str, int], dict[str, Sequence[float]]]:
    return {("edsr-tiny", seed): {"Set14": list(row)} for seed, row in zip(seeds, differences, strict=True)}


def cells_of(results: Results, **options: Any) -> dict[tuple[str, str], Comparison]:
    return {(cell.backbone, cell.dataset): cell for cell in comparisons(View(results), L1, SG, **options)}


def one(results: Results, **options: Any) -> Comparison:
    (cell,) = comparisons(View(results), L1, SG, **options)
    return cell


def judged_by(cell: Comparison) -> list[tuple[tuple[int, ...], str | None]]:
    return [(each.seeds, each.declaration) for each in cell.sequences]


def test_what_was_declared_is_judged_by_its_seeds_in_their_order() -> None:
    differences, order = effects(4), (7, 2, 9, 4)
    declaration = declared((7, 2, 9, 4, 5), alpha=0.01, g=1.0)
    more = on_set14(effects(2, mean=0.5), (0, 1))
    cell = one(made({**on_set14(differences, order), **more}, declaration))
    assert (cell.seeds, cell.alpha, cell.family) == (order, 0.01, 1)
    assert cell.left_out == ("not declared (seeds 0, 1)",)
    assert cell.runs_b == tuple(str(spec(SG, seed).run_id) for seed in order)
    assert cell.sequences == (
        SeedSequence(order, 1.0, LOOKS, 0.01, 5, declaration.digest, "2026-11-28T08:00:00+00:00"),
    )
    assert cell.overall is not None
    assert cell.by_seed is not None
    assert cell.by_image is not None
    expected = sequential_crossed(differences, 0.01, LOOKS)
    assert cell.overall.p == pytest.approx(expected.p)
    assert cell.overall.interval.low == pytest.approx(expected.interval.low)
    assert cell.by_image == sequential_sign_flip(differences, LOOKS)
    assert cell.by_seed.p == pytest.approx(sequential_t(differences.mean(axis=1), 0.01, 1.0).p)
    assert cell.p == max(cell.overall.p, cell.by_image.p, cell.by_seed.p)


def test_a_declaration_holds_whichever_loss_is_named_first() -> None:
    results = made(on_set14(effects(5), range(5)), declared())
    (back,) = comparisons(View(results), SG, L1)
    assert judged_by(back) == judged_by(one(results))
    assert back.p == pytest.approx(one(results).p)
    assert back.better is False


@pytest.mark.parametrize(
    "other",
    [
        {"question": Question(L1, "l2", "lpips_alex", ("Set14",))},
        {"conditions": "0" * 12},
        {"backbones": ("rdn-tiny",)},
    ],
)
def test_what_was_declared_of_other_runs_is_of_no_account(other: dict[str, Any]) -> None:
    differences = on_set14(effects(5), range(5))
    assert one(made(differences, declared(**other))) == one(made(differences))
    assert one(made(differences)).sequences == ()


@pytest.mark.parametrize(
    "other",
    [
        {"question": Question(L1, SG, "psnr_y", ("Set14",))},
        {"tests": (("Set14", "0" * 64),)},
    ],
)
def test_what_was_not_declared_of_runs_whose_number_was_open_may_have_been_looked_at(
    other: dict[str, Any],
) -> None:
    """Another metric, or another test set, of the same runs: they were added after a look at what was declared."""
    differences = on_set14(effects(5), range(5))
    assert one(made(differences, declared(**other))) == one(made(differences), g=4.0)


def test_the_family_is_all_that_was_declared_together_tested_or_not() -> None:
    """Otherwise, p would be corrected for less at the first look than at the last."""
    backbones = ("edsr-tiny", "rdn-tiny", "rcan-tiny")
    declaration = declared(backbones=backbones, sets=("Set5", "Set14"))
    differences = {
        (backbone, seed): {"Set14": list(row)}
        for backbone in backbones[:2]
        for seed, row in enumerate(effects(4, mean=-0.09 if backbone == "edsr-tiny" else 0.001))
    }
    cells = cells_of(made(differences, declaration))
    largest = [
        max(test.p for test in (cell.overall, cell.by_image, cell.by_seed) if test)
        for cell in (cells["edsr-tiny", "Set14"], cells["rdn-tiny", "Set14"])
    ]
    assert [cells[backbone, "Set14"].family for backbone in backbones[:2]] == [6, 6]
    assert [cells[backbone, "Set14"].p for backbone in backbones[:2]] == holm([*largest, 1.0, 1.0, 1.0, 1.0])[:2]


def test_all_sets_are_those_that_were_declared_together() -> None:
    """A set that somebody scores later is no part of them, nor of the family."""
    few, many, later = effects(6, 5, seed=1), effects(6, 14, seed=2), effects(6, 9, mean=0.2, seed=3)
    scored = {
        ("edsr-tiny", seed): {"Set5": list(few[seed]), "Set14": list(many[seed]), "Set9": list(later[seed])}
        for seed in range(6)
    }
    declaration = declared(sets=("Set14", ALL_SETS))
    cells = cells_of(made(scored, declaration))
    cell, both = cells["edsr-tiny", ALL_SETS], np.concatenate([few, many], axis=1)
    assert (cell.sets, cell.images, cell.family) == (("Set5", "Set14"), 19, 2)
    assert judged_by(cell) == [((0, 1, 2, 3, 4, 5), declaration.digest)]
    assert cell.by_image == sequential_sign_flip(both, LOOKS)
    assert cell.overall is not None
    expected = sequential_crossed(both, 0.05, LOOKS, (5, 14))
    assert astuple(cell.overall.interval) == pytest.approx(astuple(expected.interval))
    assert cell.overall.p == pytest.approx(expected.p)
    assert cells["edsr-tiny", "Set14"].family == 2
    assert cells_of(made(scored))["edsr-tiny", ALL_SETS].sets == ("Set5", "Set9", "Set14")
    others = declared(range(10, 20), sets=(ALL_SETS,), tests=declaration.tests[:1])
    assert cells_of(made(scored, declaration, others))["edsr-tiny", ALL_SETS] == cell  # of other sets: another question


def test_the_declared_margin_holds_and_equivalence_does_not_depend_on_when_one_looks() -> None:
    differences = on_set14(effects(12, mean=0.001), range(12))
    question = Question(L1, SG, "lpips_alex", ("Set14",), margin=0.05)
    cell = one(made(differences, declared(question=question)), margin=0.2)
    assert (cell.margin, cell.verdict) == (0.05, Verdict.EQUIVALENT)
    assert [each.margin for each in cell.sequences] == [0.05]
    assert cell.equivalence is not None
    seen = [one(made(dict(list(differences.items())[:n]), declared(question=question))) for n in range(2, 13)]
    p = [each.equivalence.p for each in seen if each.equivalence]
    assert p == sorted(p, reverse=True)
    assert p[-1] == cell.equivalence.p
    assert cell.detectable is None  # the number of seeds was not fixed


def test_what_was_declared_is_no_part_of_the_family_of_the_rest() -> None:
    differences = {("edsr-tiny", seed): {"Set14": list(row)} for seed, row in enumerate(effects(5))}
    rest = {
        (backbone, seed): {"Set14": list(row)}
        for backbone in ("rdn-tiny", "rcan-tiny")
        for seed, row in enumerate(effects(5, mean=-0.05))
    }
    together, apart = cells_of(made({**differences, **rest}, declared())), cells_of(made(rest))
    assert {key: cell for key, cell in together.items() if key[0] != "edsr-tiny"} == apart
    assert together["edsr-tiny", "Set14"].family == 1


def test_seeds_after_one_that_is_pending_wait_for_it() -> None:
    """The order is that of the declaration, so no look depends on which run is done first."""
    differences = on_set14(effects(4), (0, 1, 3, 4))
    tests_of = (Dataset("Set14", f"{'Set14':0<64}"),)
    plans = [Planned(identity_columns(spec(loss, 2)), tests_of, ("lpips_alex",)) for loss in (L1, SG)]
    cell = one(made(differences, declared(), plans=plans))
    assert cell.seeds == (0, 1)
    assert cell.left_out == (f"pending ({L1}, seed 2; {SG}, seed 2)", "waiting for seed 2 (seeds 3, 4)")
    assert one(made(differences, plans=plans)).seeds == (0, 1, 3, 4)
    never = one(made(differences, declared()))  # nobody has asked for it
    assert never.seeds == (0, 1, 3, 4)


def test_ranks_and_stars_are_by_the_same_tests() -> None:
    """Of five seeds, of which seed 3 is pending, the declaration allows the first three."""
    tests_of = (Dataset("Set14", f"{'Set14':0<64}"),)
    plans = [Planned(identity_columns(spec(loss, 3)), tests_of, ("lpips_alex",)) for loss in (L1, SG)]
    view = View(made(on_set14(effects(4), (0, 1, 2, 4)), declared(alpha=0.01), plans=plans))
    (cell,) = comparisons(view, L1, SG)
    ((pair,),) = every_pair(view, "lpips_alex")
    assert judged_by(pair) == judged_by(cell) == [((0, 1, 2), declared(alpha=0.01).digest)]
    assert (pair.alpha, cell.alpha) == (0.05, 0.01)
    assert pair.p == cell.p
    stars = against_baseline(view, view.outcomes())
    assert {each.verdict for each in stars.found.values()} == {cell.verdict}
    decided = View(made(on_set14(effects(12), range(12)), declared()))
    (note,) = against_baseline(decided, decided.outcomes()).notes
    assert note == "* significantly different from l1 (`sgbench compare`, corrected p ≤ 0.05, anytime-valid)."


def test_what_other_cells_may_still_come_to_is_within_reach() -> None:
    """Eight images reach 0.047 at six looks, which is enough for the last of two that are both significant."""
    differences = {
        (backbone, seed): {"Set8": list(row)}
        for backbone in ("edsr-tiny", "rdn-tiny")
        for seed, row in enumerate(effects(3, images=8, mean=0.001))
    }
    tests_of = (("Set8", f"{'Set8':0<64}"),)
    question = Question(L1, SG, "lpips_alex", ("Set8",))
    alone = declared(question=question, tests=tests_of)
    assert cells_of(made(differences, alone))["edsr-tiny", "Set8"].verdict is Verdict.NOT_SIGNIFICANT
    both = cells_of(made(differences, replace(alone, backbones=("edsr-tiny", "rdn-tiny"))))
    assert {cell.reason for cell in both.values()} == {
        "with 8 images at 6 looks p cannot go under 0.0469, which is 0.0938 when corrected"
    }
    question = Question(L1, SG, "lpips_alex", ("Set8", "Set14"))
    on_two = replace(alone, question=question, tests=(*tests_of, ("Set14", "14" * 32)))
    decidable = cells_of(made(differences, on_two))
    assert decidable["edsr-tiny", "Set8"].verdict is Verdict.NOT_SIGNIFICANT  # once that on Set14 is significant


def test_before_the_first_look_nothing_is_known_of_the_images() -> None:
    cell = one(made(on_set14(effects(2), range(2)), declared()))
    assert cell.overall is not None
    assert cell.by_image is not None
    assert (cell.overall.interval.low, cell.overall.p, cell.by_image.p) == (-math.inf, 1.0, 1.0)
    assert cell.verdict is Verdict.NOT_SIGNIFICANT


def test_without_a_declared_seed_there_is_no_number() -> None:
    cell = one(made(on_set14(effects(5), range(5)), declared(range(20, 40))))
    assert (cell.verdict, cell.seeds, cell.difference) == (Verdict.INCONCLUSIVE, (), None)
    assert cell.reason == "no declared seed has both scores: not declared (seeds 0, 1, 2, 3, 4)"


def test_images_that_no_number_of_seeds_makes_enough_are_told() -> None:
    differences = {("edsr-tiny", seed): {"Set5": list(row)} for seed, row in enumerate(effects(9, images=5))}
    cell = one(made(differences, declared(sets=("Set5",))))
    assert (cell.verdict, cell.reason) == (
        Verdict.INCONCLUSIVE,
        "with 5 images at 6 looks p cannot go under 0.375",
    )


def test_a_person_can_ask_for_it_of_any_store() -> None:
    differences = on_set14(effects(5), (4, 0, 3, 1, 2))
    cell = one(made(differences), g=1.0)
    assert cell.sequences == (SeedSequence((0, 1, 2, 3, 4), 1.0, LOOKS, rounds=(5,)),)
    assert one(made(differences, declared()), g=1.0) == one(made(differences, declared()))
    for g in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=rf"^g is {g:g}; a number above 0 is needed\.$"):
            one(made(differences), g=g)


def test_seeds_that_were_asked_for_after_others_had_been_compared_are_judged_so() -> None:
    """Seeds 3 and 4 were added when 5 to 7 had ended; the order is that in which they were asked for."""
    hours = {seed: START + datetime.timedelta(hours=2 * (seed < 5)) for seed in range(3, 8)}
    results = made(on_set14(effects(5), range(3, 8)))
    rows = [
        row | {"planned": hours[row["seed"]], "finished": hours[row["seed"]] + datetime.timedelta(hours=1)}
        for row in results.runs.to_pylist()
    ]
    cell = one(Results.of(to_table("runs", rows), results.scores))
    assert cell.sequences == (SeedSequence((5, 6, 7, 3, 4), 4.0, LOOKS, rounds=(3, 5)),)
    assert cell.seeds == (5, 6, 7, 3, 4)
    together = [row | {"planned": START} for row in rows]
    assert one(Results.of(to_table("runs", together), results.scores)).sequences == ()


def test_a_number_of_seeds_that_was_fixed_beforehand_is_judged_as_ever() -> None:
    results = made(on_set14(effects(5), range(5)))
    bare = Results.of(results.runs, results.scores)
    assert one(results) == one(bare)
    assert one(results).sequences == ()


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.integers(2, 6), st.sampled_from([0.0, -0.02]))
def test_no_p_rises_when_seeds_are_added(seed: int, images: int, mean: float) -> None:
    differences = effects(8, images, mean, 0.02, seed)
    found = [
        sequential_tests(differences[:n], [SeedSequence(tuple(range(n)), 4.0, LOOKS)], 0.05, (images,))
        for n in range(2, 9)
    ]
    for earlier, later in itertools.pairwise(found):
        for before, now in zip(earlier, later, strict=True):
            assert now is not None
            assert before is not None
            assert now.p <= before.p


def test_evidence_of_two_labs_is_multiplied() -> None:
    ours, theirs = effects(4, seed=1, mean=-0.02, sd=0.01), effects(3, seed=2, mean=-0.02, sd=0.01)
    later = START + datetime.timedelta(days=1)
    first, second = declared(range(10)), declared(range(100, 110), g=1.0, declared=later)
    store = {**on_set14(ours, range(4)), **on_set14(theirs, range(100, 103))}
    cell = one(made(store, second, first))
    assert judged_by(cell) == [((0, 1, 2, 3), first.digest), ((100, 101, 102), second.digest)]
    assert cell.seeds == (0, 1, 2, 3, 100, 101, 102)
    assert cell.by_seed is not None
    assert cell.by_image is not None
    assert cell.overall is not None
    by_seed = [t_e_process(lab.mean(axis=1), g)[-1] for lab, g in ((ours, 4.0), (theirs, 1.0))]
    assert cell.by_seed.p == pytest.approx(1 / (by_seed[0] * by_seed[1]))
    flips = [sequential_sign_flip(lab, LOOKS) for lab in (ours, theirs)]
    assert (cell.by_image.p, cell.by_image.floor) == (2 * min(flip.p for flip in flips), 2 * flips[0].floor)
    each = [sequential_crossed(lab, 0.025, LOOKS) for lab in (ours, theirs)]
    assert cell.overall.p == pytest.approx(min(1.0, 2 * min(estimate.p for estimate in each)))
    low = max(estimate.interval.low for estimate in each)
    assert cell.overall.interval.low == pytest.approx(low)


@pytest.mark.parametrize("mean", [-0.5, 0.0, 2.0])
def test_the_interval_of_two_labs_ends_where_their_evidence_does(mean: float) -> None:
    random = np.random.default_rng(3)
    parts = [random.normal(mean, 1, 6), random.normal(mean, 1, 5)]
    sequences = [SeedSequence(tuple(range(6)), 4.0, LOOKS), SeedSequence(tuple(range(10, 15)), 1.0, LOOKS)]
    found = sequential_tests(np.concatenate(parts)[:, None], sequences, 0.05, ()).by_seed
    assert found is not None
    for end in (found.interval.low, found.interval.high):
        evidence = [t_e_process(part, each.g, end)[-1] for part, each in zip(parts, sequences, strict=True)]
        assert evidence[0] * evidence[1] == pytest.approx(20.0)
    assert (found.p < 0.05) is not (found.interval.low <= 0 <= found.interval.high)


def test_a_lab_that_has_not_begun_changes_nothing_by_seed() -> None:
    differences = np.random.default_rng(1).normal(1, 1, (6, 1))
    ours, theirs = SeedSequence(tuple(range(6)), 4.0, LOOKS), SeedSequence((), 4.0, LOOKS)
    assert sequential_tests(differences, [ours, theirs], 0.05, ()) == sequential_tests(differences, [ours], 0.05, ())


def test_two_labs_with_too_few_seeds_know_nothing_yet() -> None:
    sequences = [SeedSequence((0, 1), 4.0, LOOKS), SeedSequence((), 4.0, LOOKS)]
    found = sequential_tests(np.array([[1.0], [1.1]]), sequences, 0.001, ()).by_seed
    assert found is not None
    assert (found.interval.low, found.interval.high) == (-math.inf, math.inf)
    single = [SeedSequence((0,), 4.0, LOOKS), SeedSequence((5,), 4.0, LOOKS)]
    assert sequential_tests(np.array([[1.0], [1.1]]), single, 0.05, ()) == (None, None, None)


def test_of_declarations_with_common_seeds_the_earlier_counts() -> None:
    first, again = declared(range(10)), declared(range(5, 15), declared=START + datetime.timedelta(hours=1))
    cell = one(made(on_set14(effects(12), range(12)), again, first))
    assert judged_by(cell) == [(tuple(range(10)), first.digest)]
    before = f"for {first.digest} had declared seeds 5, 6, 7, 8, 9 before"
    assert cell.left_out == (f"declaration {again.digest} with seeds 10, 11, {before}",)
    (without,) = one(made(on_set14(effects(4), range(4)), again, first)).left_out
    assert without == f"declaration {again.digest}, {before}"


def test_what_two_labs_declared_of_some_cells_makes_one_family_of_all() -> None:
    first = declared(range(10), backbones=("edsr-tiny", "rdn-tiny"))
    second = declared(range(10, 20), backbones=("edsr-tiny", "rcan-tiny"))
    differences = {
        (backbone, seed): {"Set14": list(row)}
        for backbone, seeds in (("edsr-tiny", range(8, 12)), ("rdn-tiny", range(4)), ("rcan-tiny", range(10, 14)))
        for seed, row in zip(seeds, effects(4), strict=True)
    }
    cells = cells_of(made(differences, first, second))
    assert {cell.family for cell in cells.values()} == {3}
    assert [len(cell.sequences) for cell in cells.values()] == [2, 1, 1]
