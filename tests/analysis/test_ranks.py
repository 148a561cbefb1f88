"""Ranks of losses: what the significant differences between every two of them leave open."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_compare import LOWER, run, scores, store

from sgbench.analysis import Results, View, compare
from sgbench.analysis.ranks import Rank, Ranking, groups_of_ties, ranking
from sgbench.core.errors import InputError

MEANS = {"l1": 0.40, "l2": 0.42, "l1 + 1.0*sg": 0.30, "ssim": 0.425, "charbonnier": 0.40}


def made_up(spreads: dict[str, float] | None = None, protocol: str = LOWER, **columns: object) -> Results:
    """Five losses by five seeds and fourteen images, with a spread over seeds of their own."""
    random = np.random.default_rng(0)
    by_image = random.normal(0, 0.05, 14)
    runs = [run(loss, seed) for loss in MEANS for seed in range(5)]
    values = [
        MEANS[row["loss"]]
        + by_image
        + random.normal(0, (spreads or {}).get(row["loss"], 0.001))
        + random.normal(0, 0.002, 14)
        for row in runs
    ]
    rows = [scores(row["run_id"], value, protocol=protocol, **columns) for row, value in zip(runs, values, strict=True)]
    return store(runs, rows)


def of_losses(ranks: Ranking, results: Results, dataset: str = "Set14") -> dict[str, Rank | None]:
    loss = dict(zip(results.runs["run_id"].to_pylist(), results.runs["loss"].to_pylist(), strict=True))
    found = {loss[run_id]: rank for (run_id, name, _), rank in ranks.ranks.items() if name == dataset}
    assert len(ranks.ranks) == 5 * len(found)  # each seed has the rank of its loss
    return found


def test_a_rank_is_what_the_corrected_comparisons_leave_open() -> None:
    results = made_up({"l2": 0.004, "ssim": 0.004})
    pairs = list(itertools.combinations(MEANS, 2))
    cells = [compare.comparisons(View(results), a, b)[0] for a, b in pairs]  # each alone: its p is not corrected
    order = sorted(range(len(pairs)), key=lambda at: cells[at].p)
    lost = dict.fromkeys(MEANS, 0)
    won = dict.fromkeys(MEANS, 0)
    for place, at in enumerate(order):  # Holm's method: the first that is not rejected ends it
        if cells[at].p * (len(pairs) - place) > 0.05:
            break
        worse, better = pairs[at] if cells[at].better else pairs[at][::-1]
        lost[worse], won[better] = lost[worse] + 1, won[better] + 1
    expected = {loss: Rank(1 + lost[loss], 5 - won[loss]) for loss in MEANS}
    assert of_losses(ranking(View(results), "lpips_alex"), results) == expected
    assert expected["l1 + 1.0*sg"] == (1, 1)
    assert expected["l1"] == expected["charbonnier"] == (2, 3)
    assert expected["l2"] == expected["ssim"] == (4, 5)


def test_a_loss_of_large_spread_may_have_any_rank() -> None:
    results = made_up({"ssim": 0.3})
    ranks = of_losses(ranking(View(results), "lpips_alex"), results)
    assert ranks["ssim"] == (1, 5)
    assert ranks["l1 + 1.0*sg"] == (1, 2)
    assert (str(ranks["ssim"]), str(Rank(3, 3))) == ("1–5", "3")


def test_higher_may_be_better() -> None:
    results = made_up(protocol=json.dumps({"direction": "higher"}), metric="ssim_y")
    ranks = of_losses(ranking(View(results), "ssim_y"), results)
    assert ranks["l1 + 1.0*sg"] == (5, 5)


def test_test_sets_are_ranked_apart_and_few_images_decide_nothing() -> None:
    results = made_up()
    rows = results.scores.drop_columns(["schema_version"]).to_pylist()
    few = [
        row | {"dataset": "Set5", "dataset_sha256": "5" * 64}
        for row in rows
        if row["image"] in (None, "image000", "image001")
    ]
    both = store(results.runs.drop_columns(["schema_version"]).to_pylist(), [rows, few])
    ranks = ranking(View(both), "lpips_alex").ranks
    assert {rank for (_, dataset, _), rank in ranks.items() if dataset == "Set5"} == {(1, 5)}
    alone = ranking(View(results), "lpips_alex").ranks
    assert {key: rank for key, rank in ranks.items() if key[1] == "Set14"} == alone
    assert ranking(View(both), "lpips_alex", ["Set14"]).ranks == alone


def test_a_loss_with_one_seed_has_no_rank() -> None:
    results = made_up()
    runs = [*results.runs.drop_columns(["schema_version"]).to_pylist(), run("l1 + 2.0*sg", 0)]
    rows = [results.scores.drop_columns(["schema_version"]).to_pylist(), scores(runs[-1]["run_id"], [0.1] * 14)]
    ranks = ranking(View(store(runs, rows)), "lpips_alex").ranks
    assert runs[-1]["run_id"] not in {run_id for run_id, _, _ in ranks}
    assert ranks == ranking(View(results), "lpips_alex").ranks


@pytest.mark.parametrize(
    ("results", "metric", "message"),
    [
        (made_up(), "fid", "unknown metric 'fid'"),
        (made_up(protocol="{}"), "lpips_alex", "do not say whether lower or higher is better"),
        (
            store([run("l1", 0)], [scores("edsr-tiny l1 0", [0.1, 0.2])]),
            "lpips_alex",
            "are not of two losses with two seeds",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(results: Results, metric: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ranking(View(results), metric)


@given(st.integers(1, 7), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_two_losses_share_a_group_exactly_if_they_do_not_differ(count: int, pairs: set[tuple[int, int]]) -> None:
    order = [f"loss {at}" for at in range(count)]
    different = {frozenset((order[a], order[b])) for a, b in pairs if a < b < count}
    groups = groups_of_ties(order, different)
    together = {frozenset(pair) for group in groups for pair in itertools.combinations(group, 2)}
    assert together == {frozenset(pair) for pair in itertools.combinations(order, 2)} - different
    for group in groups:
        assert list(group) == sorted(group, key=order.index)
        for each in {*order} - {*group}:  # none is missing
            assert any(frozenset((each, member)) in different for member in group)


def test_losses_are_in_the_order_of_their_means_with_their_ties() -> None:
    (place,) = ranking(View(made_up({"l2": 0.004, "ssim": 0.004})), "lpips_alex").places
    assert (place.dataset, place.backbone, place.where) == ("Set14", "edsr-tiny", "edsr-tiny")
    assert [each.mean for each in place.losses] == sorted(each.mean for each in place.losses)
    assert place.losses[0].loss == "l1 + 1.0*sg"
    assert {frozenset(group) for group in place.groups} == {frozenset(("l1", "charbonnier")), frozenset(("l2", "ssim"))}
    (other,) = ranking(View(made_up(protocol=json.dumps({"direction": "higher"}))), "lpips_alex").places
    assert [each.mean for each in other.losses] == sorted((each.mean for each in other.losses), reverse=True)
