"""Ranks of losses by a metric, with ties where no difference is significant."""

import functools
import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sgbench.analysis.compare import ALPHA, Comparison, Verdict, every_pair
from sgbench.analysis.view import Filters, Key, View
from sgbench.core.errors import InputError
from sgbench.core.words import natural


class Rank(NamedTuple):
    """The ranks that a loss may have.

    Attributes:
        best: One more than the losses that are significantly better.
        worst: The number of losses without those that are significantly worse.
    """

    best: int
    worst: int

    def __str__(self) -> str:
        return f"{self.best}" if self.best == self.worst else f"{self.best}–{self.worst}"


class Ranked(NamedTuple):
    """A loss among others.

    Attributes:
        loss: The expression.
        label: What it is called.
        mean: Mean of its scores over seeds.
        rank: The ranks that it may have.
        runs: Ids of the runs that were compared.
    """

    loss: str
    label: str
    mean: float
    rank: Rank
    runs: tuple[str, ...]


@dataclass(frozen=True)
class RankedPlace:
    """The losses on one test set, with one backbone and recipe.

    Attributes:
        dataset: The test set.
        backbone: ``family-size``.
        where: The backbone and, where recipes differ, the recipe.
        losses: All with scores of two seeds or more, the best mean first.
        groups: Losses of which no two differ significantly, in that order; two that do not differ significantly have
            one of these groups in common, two that do have none.
    """

    dataset: str
    backbone: str
    where: str
    losses: tuple[Ranked, ...]
    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Ranking:
    """The losses of a store, ranked by a metric for each test set, backbone and recipe.

    Attributes:
        metric: The metric.
        places: The test sets, backbones and recipes.
        direction: Which values of the metric are better, ``lower`` or ``higher``.
        note: What ranks mean.
    """

    metric: str
    places: tuple[RankedPlace, ...]
    direction: str
    note: str

    @functools.cached_property
    def ranks(self) -> Mapping[Key, Rank]:
        """The ranks by run, test set and metric; only losses with scores of two seeds or more have one."""
        return {
            (run_id, place.dataset, self.metric): each.rank
            for place in self.places
            for each in place.losses
            for run_id in each.runs
        }


def ranking(view: View, metric: str, datasets: Sequence[str] | None = None) -> Ranking:
    """Rank all losses of a store by a metric.

    Every two losses are compared as by `sgbench.analysis.compare.comparisons`, and the p values of all pairs of one
    test set, backbone and recipe are corrected together. So the probability that any loss's true rank is outside its
    range is at most α.

    Args:
        view: A store.
        metric: A metric.
        datasets: Only on these test sets, on all by default.

    Raises:
        InputError: If the metric is not in the store, or its scores do not say which are better.
    """
    metric = view.metric(metric)
    families = every_pair(view, metric, datasets)
    ways = {cell.direction for family in families for cell in family if cell.by_seed}
    (direction,) = ways if len(ways) == 1 else (None,)
    if direction is None:
        lacking = (
            "do not say whether lower or higher is better" if ways else "are not of two losses with two seeds each"
        )
        raise InputError(f"there are no ranks by '{metric}', whose scores {lacking}.")
    outcomes = view.outcomes(Filters(datasets=datasets, metrics=[metric]))
    values = {(each.run.run_id, each.dataset): each.value for each in outcomes if each.value is not None}
    return Ranking(
        metric,
        tuple(_ranked(family, values, highest_first=direction == "higher") for family in families),
        direction,
        f"Ranks by {metric}, among all losses of the store with two seeds or more: what the significant differences "
        f"between them leave open (`sgbench compare` of every two, p corrected for all of them ≤ {ALPHA:g}).",
    )


def _ranked(family: list[Comparison], values: Mapping[tuple[str, str], float], *, highest_first: bool) -> RankedPlace:
    """Return the losses of one place, given the comparisons of every two and the scores by run and test set."""
    first = family[0]
    runs: defaultdict[str, dict[str, None]] = defaultdict(dict)
    better: defaultdict[str, set[str]] = defaultdict(set)
    for cell in family:
        runs[cell.a] |= dict.fromkeys(cell.runs_a)
        runs[cell.b] |= dict.fromkeys(cell.runs_b)
        if cell.verdict is Verdict.SIGNIFICANT:
            winner, loser = (cell.b, cell.a) if cell.better else (cell.a, cell.b)
            better[loser].add(winner)
    worse = {loss: sum(loss in winners for winners in better.values()) for loss in runs}
    labels = {loss: label for cell in family for loss, label in ((cell.a, cell.label_a), (cell.b, cell.label_b))}
    means = {loss: sum(values[run_id, first.dataset] for run_id in ids) / len(ids) for loss, ids in runs.items() if ids}
    order = sorted(means, key=lambda loss: (means[loss] * (-1 if highest_first else 1), natural(loss)))
    losses = (
        Ranked(loss, labels[loss], means[loss], Rank(1 + len(better[loss]), len(runs) - worse[loss]), tuple(runs[loss]))
        for loss in order
    )
    different = {frozenset((winner, loser)) for loser, winners in better.items() for winner in winners}
    return RankedPlace(first.dataset, first.backbone, first.where, tuple(losses), groups_of_ties(order, different))


def groups_of_ties(order: Sequence[str], different: Collection[frozenset[str]]) -> tuple[tuple[str, ...], ...]:
    """Return groups of which no two members differ, so that any two that do not differ are together in one.

    None can be enlarged. It is the letter display of multiple comparisons (Piepho, *An algorithm for a letter-based
    representation of all-pairwise comparisons*, Journal of Computational and Graphical Statistics, 2004), found
    greedily and so perhaps with more groups than needed.

    Args:
        order: All names.
        different: The pairs that differ.
    """
    groups: list[tuple[str, ...]] = []
    for pair in itertools.combinations(order, 2):
        if frozenset(pair) in different or any({*pair} <= {*group} for group in groups):
            continue
        members = [*pair]
        for each in order:
            if each not in members and not any(frozenset((each, member)) in different for member in members):
                members.append(each)
        groups.append(tuple(sorted(members, key=order.index)))
    return tuple(groups)
