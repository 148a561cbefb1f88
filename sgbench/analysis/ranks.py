"""Ranks of losses by a metric, with ties where no difference is significant."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sgbench.analysis.compare import ALPHA, Comparison, Verdict, every_pair
from sgbench.analysis.view import Key, View
from sgbench.core.errors import InputError


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


@dataclass(frozen=True)
class Ranking:
    """The losses of a store, ranked by a metric for each test set, backbone and recipe.

    Attributes:
        ranks: By run, test set and metric; only losses with scores of two seeds or more have one.
        direction: Which values of the metric are better, ``lower`` or ``higher``.
        note: What they mean.
    """

    ranks: Mapping[Key, Rank]
    direction: str
    note: str


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
        raise InputError(f"--rank is '{metric}', whose scores {lacking}.")
    return Ranking(
        {key: rank for family in families for key, rank in _ranks(family).items()},
        direction,
        f"Ranks by {metric}, among all losses of the store with two seeds or more: what the significant differences "
        f"between them leave open (`sgbench compare` of every two, p corrected for all of them ≤ {ALPHA:g}).",
    )


def _ranks(family: list[Comparison]) -> dict[Key, Rank]:
    runs: defaultdict[str, set[str]] = defaultdict(set)
    won, lost = Counter[str](), Counter[str]()
    for cell in family:
        runs[cell.a].update(cell.runs_a)
        runs[cell.b].update(cell.runs_b)
        if cell.verdict is Verdict.SIGNIFICANT:
            won[cell.b if cell.better else cell.a] += 1
            lost[cell.a if cell.better else cell.b] += 1
    return {
        (run_id, family[0].dataset, family[0].metric): Rank(1 + lost[loss], len(runs) - won[loss])
        for loss, ids in runs.items()
        for run_id in ids
    }
