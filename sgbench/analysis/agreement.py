"""Whether metrics agree: on the order of losses, and on which of them are significantly better than another.

The replicates are losses. Runs of one loss differ only in their seeds, and are averaged before anything is ordered.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sgbench.analysis.compare import (
    ALPHA,
    ALPHAS,
    Comparison,
    Place,
    Verdict,
    by_place,
    comparisons,
    every_pair,
)
from sgbench.analysis.kendall import Tau, kendall, order
from sgbench.analysis.scores import Score, mixture
from sgbench.analysis.stats import Array
from sgbench.analysis.view import BASELINE, Filters, Key, View
from sgbench.core.errors import InputError
from sgbench.core.words import natural
from sgbench.metrics import display_of

ORDERED = 3
"""The fewest losses whose order is compared; of two, the comparison of one with the other says all."""

Pair = tuple[str, str]
"""Two losses, in reading order."""


@dataclass(frozen=True)
class Agreement:
    """How far two metrics agree on the losses of one place.

    Attributes:
        place: The test set, backbone and recipe.
        a: A metric.
        b: Another.
        losses: The losses with scores by both.
        images: Number of images with values of both; None if there are none, as of metrics of whole sets.
        over_losses: τ-b of the losses' means over seeds and images; None if either metric orders no two of them.
        in_an_image: The mean over images of τ-b of the losses' means over seeds in that image; None likewise, or
            without values per image.
        opposite: The pairs whose means the metrics order differently.
        contradicted: The pairs of which one is significantly better by one metric, and significantly worse by the
            other.
    """

    place: Place
    a: str
    b: str
    losses: tuple[str, ...]
    images: int | None
    over_losses: Tau | None
    in_an_image: Tau | None
    opposite: tuple[Pair, ...]
    contradicted: tuple[Pair, ...]

    @property
    def pairs(self) -> int:
        """The number of pairs of losses."""
        return len(self.losses) * (len(self.losses) - 1) // 2


@dataclass(frozen=True)
class Witnesses:
    """What each metric says of a loss, compared with the baseline.

    Attributes:
        place: The test set, backbone and recipe.
        loss: The loss.
        by_metric: The comparison by each metric that has scores of both.
    """

    place: Place
    loss: str
    by_metric: Mapping[str, Comparison]

    def saying(self, *, better: bool, significant: bool) -> list[str]:
        """Return the metrics by which the loss is better, or worse, and significantly so or not."""
        return [
            metric
            for metric, cell in self.by_metric.items()
            if cell.better is better and (cell.verdict is Verdict.SIGNIFICANT) is significant
        ]


@dataclass(frozen=True)
class Agreements:
    """Whether the metrics of a store agree.

    Attributes:
        places: The test sets, backbones and recipes, in reading order.
        directions: Which values of each metric are better, ``lower`` or ``higher``.
        labels: What each loss is called.
        pairs: Every two metrics with scores of `ORDERED` losses or more, place by place.
        baseline: The loss that others are compared with.
        witnesses: Every other loss, place by place.
        alpha: Significance level of the verdicts and intervals.
        left_out: Why metrics are left out of places, one sentence each.
        stale: The plug-ins whose code is another now than runs were trained with, by kind and name.
    """

    places: tuple[Place, ...]
    directions: Mapping[str, str]
    labels: Mapping[str, str]
    pairs: tuple[Agreement, ...]
    baseline: str
    witnesses: tuple[Witnesses, ...]
    alpha: float
    left_out: tuple[str, ...]
    stale: tuple[str, ...] = ()


def agreements(view: View, filters: Filters, *, baseline: str | None = None, alpha: float = ALPHA) -> Agreements:
    """Compare every two metrics, on each test set, backbone and recipe, and every loss with a baseline by each metric.

    Which losses are chosen decides what τ says. Significance does not depend on it: p values are corrected for all
    losses of the store, for each metric alone.

    Args:
        view: A store.
        filters: Backbones, losses, test sets and metrics, as a person wrote them.
        baseline: The loss that others are compared with; by default `BASELINE`.
        alpha: As for `sgbench.analysis.compare.comparisons`.

    Raises:
        InputError: If a name is not in the store, α is out of range, or there is nothing to compare.
    """
    if not ALPHAS[0] <= alpha <= ALPHAS[1]:
        raise InputError(f"alpha is {alpha:g}; a number from {ALPHAS[0]:g} to {ALPHAS[1]:g} is needed.")
    filters = view.resolved(filters)
    against = BASELINE if baseline is None else view.loss(baseline)
    scores = by_place(view, replace(filters, losses=None))
    found, left_out = dict[Place, dict[str, Sides]](), list[str]()
    for metric in sorted(scores, key=lambda name: (display_of(name).rank, name)):
        for place, sides in scores[metric].items():
            every = [score for side in sides.values() for score in side.values()]
            unknown = None if every[0].basis.direction else "the scores do not say which values are better"
            if reason := mixture(every) or unknown:
                left_out.append(f"Left out: {metric} on {place}: {reason}.")
            else:
                found.setdefault(place, {})[metric] = sides
    places = sorted(found, key=lambda place: tuple(map(natural, (place.recipe, place.dataset, place.backbone))))
    losses = filters.losses or sorted(view.names.losses, key=natural)
    pairs = [
        (place, a, b, seeds)
        for place in places
        for a, b in itertools.combinations(found[place], 2)
        if len(seeds := _of_both(losses, found[place][a], found[place][b])) >= ORDERED
    ]
    winners = {
        metric: _winners(view, metric, pairs, alpha) for metric in {name for _, a, b, _ in pairs for name in (a, b)}
    }
    rivals = [loss for loss in losses if loss != against]
    witnesses = tuple(_witnesses(view, found, places, rivals, against, alpha))
    if not pairs and not witnesses:
        raise InputError(
            f"no metric has scores of '{view.label(against)}' and another loss on one test set, with one backbone and "
            f"recipe, and no two metrics have those of {ORDERED} losses."
        )
    return Agreements(
        tuple(places),
        {metric: direction for place in places for metric, direction in _directions(found[place])},
        {loss: view.label(loss) for loss in (against, *rivals)},
        tuple(
            _agreement(place, (a, b), seeds, (found[place][a], found[place][b]), (winners[a], winners[b]), alpha)
            for place, a, b, seeds in pairs
        ),
        against,
        witnesses,
        alpha,
        tuple(left_out),
        tuple(dict.fromkeys(plugin for run in view.runs(replace(filters, losses=losses)) for plugin in run.stale)),
    )


Sides = Mapping[str, Mapping[int, Score]]
"""The scores of one place and metric, by loss and seed."""

Winners = Mapping[tuple[Place, frozenset[str]], str]
"""The better of every two losses that differ significantly."""


def _directions(by_metric: Mapping[str, Sides]) -> Iterator[tuple[str, str]]:
    for metric, sides in by_metric.items():
        yield metric, str(_any(sides).basis.direction)


def _any(sides: Sides) -> Score:
    return next(iter(next(iter(sides.values())).values()))


def _of_both(losses: Sequence[str], a: Sides, b: Sides) -> dict[str, list[int]]:
    """Return the losses with scores by both metrics, and the seeds of these scores."""
    seeds = {loss: sorted(a[loss].keys() & b[loss].keys()) for loss in losses if loss in a and loss in b}
    return {loss: both for loss, both in seeds.items() if both}


def _winners(view: View, metric: str, pairs: Sequence[tuple[Place, str, str, object]], alpha: float) -> Winners:
    """Return the better of every two losses that differ significantly by a metric, where it is compared with others."""
    places = {tuple(place[:3]) + place[4:]: place for place, a, b, _ in pairs if metric in (a, b)}
    return {
        (places[at], frozenset((cell.a, cell.b))): cell.b if cell.better else cell.a
        for family in every_pair(view, metric, sorted({place.dataset for place in places.values()}), alpha=alpha)
        for cell in family
        if cell.verdict is Verdict.SIGNIFICANT
        and (at := (cell.dataset, cell.backbone, cell.scale, cell.recipe)) in places
    }


def _agreement(
    place: Place,
    metrics: tuple[str, str],
    seeds: Mapping[str, Sequence[int]],
    sides: tuple[Sides, Sides],
    winners: tuple[Winners, Winners],
    alpha: float,
) -> Agreement:
    losses = tuple(seeds)
    totals = [_means(each, seeds, lambda score: [score.value]) for each in sides]
    first, second = (_any(each).images for each in sides)
    images = [name for name in first if name in second]
    by_image = [_means(each, seeds, lambda score: _of_images(score, images)) for each in sides] if images else []
    orders = [order(each)[0] for each in totals]
    opposite = [(losses[i], losses[j]) for i, j in np.argwhere(np.triu(orders[0] * orders[1] < 0)).tolist()]
    keys = {pair: (place, frozenset(pair)) for pair in itertools.combinations(losses, 2)}
    return Agreement(
        place,
        *metrics,
        losses,
        len(images) or None,
        kendall(totals[0], totals[1], alpha),
        kendall(by_image[0], by_image[1], alpha) if by_image else None,
        tuple(opposite),
        tuple(
            pair
            for pair, key in keys.items()
            if all(key in each for each in winners) and winners[0][key] != winners[1][key]
        ),
    )


def _means(sides: Sides, seeds: Mapping[str, Sequence[int]], of: Callable[[Score], Any]) -> Array:
    """Return the mean over seeds of each loss, [I, L], larger for what is better."""
    means = np.array([np.mean([of(sides[loss][seed]) for seed in its], axis=0) for loss, its in seeds.items()])
    oriented: Array = means.T if _any(sides).basis.direction == "higher" else -means.T
    return oriented


def _of_images(score: Score, names: Sequence[str]) -> Array:
    return score.values[np.isin(score.images, names)]


def _witnesses(
    view: View,
    found: Mapping[Place, Mapping[str, Sides]],
    places: Sequence[Place],
    losses: Sequence[str],
    baseline: str,
    alpha: float,
) -> Iterator[Witnesses]:
    """Yield what the metrics say of each loss, by the same comparisons as `sgbench compare`."""
    cells: dict[Key, Comparison] = {}
    for loss in losses:
        of_both = (metric for each in found.values() for metric, sides in each.items() if {loss, baseline} <= {*sides})
        if metrics := list(dict.fromkeys(of_both)):
            for cell in comparisons(view, baseline, loss, metrics=metrics, alpha=alpha):
                cells |= {(run_id, cell.dataset, cell.metric): cell for run_id in cell.runs_b}
    for place in places:
        for loss in losses:
            keys = {
                metric: (score.run_id, place.dataset, metric)
                for metric, sides in found[place].items()
                for score in sides.get(loss, {}).values()
                if (score.run_id, place.dataset, metric) in cells
            }
            if keys:
                yield Witnesses(place, loss, {metric: cells[key] for metric, key in keys.items()})
