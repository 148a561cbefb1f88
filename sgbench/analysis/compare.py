"""Comparing two losses by metric, test set and backbone, wherever a store has both: which differences are significant.

Runs are never pooled: they are paired by seed, and only if they share the recipe, the training pixels, the version and
protocol of the metric, and the test pixels. What cannot be paired says why. Images of several test sets are compared by
set, and once more all together.
"""

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from sgbench.analysis.anytime import Anytime, Cell, Family, SeedSequence, tested
from sgbench.analysis.equivalence import Equivalence, corrected, equivalence
from sgbench.analysis.power import Spread, detectable
from sgbench.analysis.scores import Score, Side, by_image, mixed_bases, mixture, pooled, score_of, strata
from sgbench.analysis.stats import Array, Estimate, SignFlip, holm
from sgbench.analysis.view import (
    NO_RUN,
    NOT_SCORED,
    PENDING,
    Fate,
    Filters,
    Group,
    Key,
    Outcome,
    Run,
    Status,
    View,
    chosen,
    grouped,
)
from sgbench.core.errors import InputError
from sgbench.core.words import natural, plural
from sgbench.spec.decisions import ALL_SETS

ALPHA = 0.05
"""The probability, over all cells of a metric, of calling any difference significant if there is none."""

ALPHAS = (0.001, 0.5)
"""The range of α: below it, the bootstrap has too few resamples for a percentile."""


class Verdict(StrEnum):
    """The result of a comparison. A difference that is not significant has not been shown to be zero."""

    SIGNIFICANT = "significant"
    NOT_SIGNIFICANT = "not significant"
    INCONCLUSIVE = "inconclusive"
    EQUIVALENT = "equivalent"


@dataclass(frozen=True)
class Comparison:
    """Loss B against loss A on one test set, by one metric, with one backbone and recipe.

    Attributes:
        metric: Name of the metric.
        direction: Which values are better, ``lower`` or ``higher``; None if scores do not say.
        dataset: The test set, or `ALL_SETS`.
        backbone: ``family-size``.
        scale: Super-resolution factor.
        recipe: How this recipe differs from the others in the comparison; empty if there is only one.
        a: The loss to compare against.
        b: The loss to compare.
        label_a: What A is called: its label or, if it has none, the expression.
        label_b: What B is called.
        alpha: Significance level of the intervals and the verdict.
        sequences: The seeds in the order in which they count, so that the tests are valid at any stopping; usually one
            sequence, and none if the number of seeds was fixed beforehand; see `sgbench.analysis.anytime`.
        seeds: The seeds by which runs are paired.
        runs_a: Ids of A's runs, in the order of the seeds.
        runs_b: Ids of B's runs.
        sets: The test sets that are taken together; empty for a comparison on one.
        images: Number of images, each counted once; None for a metric without a value per image.
        mean_a: Mean of A's scores over the paired seeds and all images; without a pair, None like all that follows.
        mean_b: Mean of B's scores.
        overall: Estimate of the mean of B − A over seeds and images; None with one of either, or without image values.
        by_image: Test of each image's mean difference over seeds; None without image values.
        by_seed: Estimate of the mean of B − A from each seed's mean difference; None with one seed.
        spread: How the differences vary over seeds and images; None with one seed.
        margin: The largest difference that counts as none, declared or given; None if equivalence is not asked for.
        equivalence: Whether the difference is shown to be within the margin, corrected like p.
        p: The largest p of the three, corrected by Holm for the cells of the metric; None with one seed.
        family: Number of cells of the metric that p was corrected for.
        verdict: The result.
        reason: Why it is inconclusive.
        left_out: Why runs have no partner, one sentence each without its full stop.
        stale: The plug-ins whose code is another now than runs were trained with, by kind and name.
    """

    metric: str
    direction: str | None
    dataset: str
    backbone: str
    scale: int
    recipe: str
    a: str
    b: str
    label_a: str
    label_b: str
    alpha: float
    sequences: tuple[SeedSequence, ...] = ()
    seeds: tuple[int, ...] = ()
    runs_a: tuple[str, ...] = ()
    runs_b: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    images: int | None = None
    mean_a: float | None = None
    mean_b: float | None = None
    overall: Estimate | None = None
    by_image: SignFlip | None = None
    by_seed: Estimate | None = None
    spread: Spread | None = None
    margin: float | None = None
    equivalence: Equivalence | None = None
    p: float | None = None
    family: int = 0
    verdict: Verdict = Verdict.INCONCLUSIVE
    reason: str | None = None
    left_out: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """B − A."""
        return None if self.mean_a is None or self.mean_b is None else self.mean_b - self.mean_a

    @property
    def estimate(self) -> Estimate | None:
        """The estimate that is shown: over seeds and images or, where there is none, over seeds alone."""
        return self.overall or self.by_seed

    @property
    def where(self) -> str:
        """The backbone and, where recipes differ, the recipe."""
        return f"{self.backbone} ({self.recipe})" if self.recipe else self.backbone

    @property
    def percent(self) -> float | None:
        """The difference in percent of A; None if A is 0."""
        return 100 * self.difference / abs(self.mean_a) if self.difference is not None and self.mean_a else None

    @functools.cached_property
    def detectable(self) -> float | None:
        """The minimum detectable effect: the smallest that is found in 80% of cases with such a spread.

        α is divided by the number of cells. None without a spread, if no effect would be found, and for seeds that may
        have been added after a look, whose number is not fixed.
        """
        if self.spread is None or self.sequences:
            return None
        effect = detectable(self.spread, len(self.seeds), self.images, self.alpha / max(1, self.family))
        return effect if math.isfinite(effect) else None

    @property
    def better(self) -> bool | None:
        """Whether B's mean is better; None if both are equal or the direction is unknown."""
        if not self.difference or self.direction is None:
            return None
        return (self.difference < 0) == (self.direction == "lower")


class Place(NamedTuple):
    """Where losses can be compared.

    Attributes:
        dataset: The test set.
        backbone: ``family-size``.
        scale: Super-resolution factor.
        settings: The values of `sgbench.analysis.recipes.RECIPE`.
        recipe: How this recipe differs from the others of the store; empty if there is only one.
    """

    dataset: str
    backbone: str
    scale: int
    settings: tuple[Any, ...] | None
    recipe: str

    @property
    def where(self) -> str:
        """The backbone and, where recipes differ, the recipe."""
        return f"{self.backbone} ({self.recipe})" if self.recipe else self.backbone

    def __str__(self) -> str:
        return f"{self.dataset} with {self.where}"


def comparisons(
    view: View,
    a: str,
    b: str,
    *,
    metrics: Sequence[str] | None = None,
    alpha: float = ALPHA,
    g: float | None = None,
    margin: float | None = None,
) -> list[Comparison]:
    """Compare two losses wherever a store has or plans runs of both or, if there are none, wherever it has either.

    A difference is significant if three p values are at most α, all corrected by Holm for the number of cells of the
    metric: over seeds and images together, over images alone, and over seeds alone. The last two each ignore the
    variation that the other sees: if seeds and images vary equally, these two alone have 6% to 10% false positives at
    α = 0.05, and all three 4% to 5% (simulated, 5 and 10 seeds, 14 images). A metric of whole sets is tested over seeds
    only.

    If there are several test sets with values by image, their images are also compared all together, drawn within each
    set. That is another question, with a family of its own, so that it changes no p value of the single sets.

    To show fewer cells, filter the result: a family chosen after looking at the data corrects for too little.

    What was declared before the first look is judged as declared, by its seeds, α and family. What may have been looked
    at while seeds were added, as the store says, is judged by tests that allow for it; see `sgbench.analysis.anytime`.

    A view remembers its comparisons, so that none is computed twice.

    Args:
        view: A store.
        a: The loss to compare against, in any spelling or by its label.
        b: The loss to compare, likewise.
        metrics: Only these; all by default.
        alpha: From 0.001 to 0.5.
        g: Judge everything by tests that allow for any number of looks, with this prior variance of the effect, in
            squared standard deviations of the seeds' differences, where none was declared; None for what needs it.
        margin: Also ask whether differences are shown to be within ±margin, where no other margin was declared.

    Returns:
        A cell for each metric, recipe, test set and backbone, in this order; `ALL_SETS` comes after the test sets.

    Raises:
        InputError: If a loss or metric is not in the store, both losses are the same, neither has been scored, or α,
            g or the margin is out of range.
    """
    if g is not None and not 0 < g < math.inf:
        raise InputError(f"g is {g:g}; a number above 0 is needed.")
    if margin is not None and not 0 < margin < math.inf:
        raise InputError(f"the margin is {margin:g}; a number above 0 is needed.")
    if not ALPHAS[0] <= alpha <= ALPHAS[1]:
        raise InputError(f"alpha is {alpha:g}; a number from {ALPHAS[0]:g} to {ALPHAS[1]:g} is needed.")
    a, b = _losses(view, a, b)
    known: dict[str, list[Comparison]] = view.compared.setdefault((a, b, alpha, g, margin), {})
    runs = {run.run_id: run for run in view.runs(Filters(losses=[a, b]))}
    outcomes = [each for each in view.outcomes(Filters(runs=runs)) if each.basis or _key(each) in view.planned]
    there = sorted({outcome.metric for outcome in outcomes})
    if not there:
        first = next(iter(runs.values()))
        raise InputError(f"no run of '{a}' or '{b}' has been scored; the first of them: {first.failure or NOT_SCORED}.")
    shown = chosen("metric", metrics, there) or there
    if missing := [metric for metric in shown if metric not in known]:
        values = by_image(view.of_images(Filters(runs=runs, metrics=missing)))
        scores = {_key(each): score_of(each, values) for each in outcomes if each.metric in missing}
        places, names = _places(runs.values(), a, b), (a, b, view.label(a), view.label(b))
        anytime = Anytime(view, g)
        for metric in missing:
            families: defaultdict[Family | bool, list[Comparison]] = defaultdict(list)
            empty = Comparison(metric, None, ALL_SETS, "", 0, "", *names, alpha, margin=margin)
            for cell in (cell for place in places for cell in _cells(place, empty, scores, anytime)):
                families[anytime.family(cell.sequences) or bool(cell.sets)].append(cell)
            judged = (
                _judged(cells, len(family) if isinstance(family, frozenset) else 0)
                for family, cells in families.items()
            )
            known[metric] = sorted(itertools.chain(*judged), key=_reading_order)
    return [cell for metric in shown for cell in known[metric]]


def every_pair(
    view: View, metric: str, datasets: Sequence[str] | None = None, *, alpha: float = ALPHA
) -> list[list[Comparison]]:
    """Compare every two losses by a metric.

    Args:
        view: A store.
        metric: A metric.
        datasets: Only on these test sets, each of which is a family of its own; on all by default.
        alpha: As for `comparisons`.

    Returns:
        For each test set, backbone and recipe, the comparisons of all pairs of losses that have scores of two seeds or
        more. Their p values are corrected for the number of these pairs.

    Raises:
        InputError: If the metric is not in the store.
    """
    metric = view.metric(metric)
    families, anytime = [], Anytime(view)
    coming: defaultdict[tuple[Any, ...], dict[int, Fate]] = defaultdict(dict)
    for run in view.runs():
        if run.status is Status.PENDING:
            coming[run.backbone, run.scale, run.recipe, run.loss][run.seed or 0] = PENDING
    for place, sides in by_place(view, Filters(datasets=datasets, metrics=[metric])).get(metric, {}).items():
        losses = sorted((loss for loss, side in sides.items() if len(side) > 1), key=natural)
        cells = []
        for a, b in itertools.combinations(losses, 2):
            names = (a, b, view.label(a), view.label(b))
            cell = Comparison(metric, None, place.dataset, place.backbone, place.scale, place.recipe, *names, alpha)
            of_a, of_b = (coming[place.backbone, place.scale, place.settings, loss] | sides[loss] for loss in (a, b))
            cells.append(replace(_compared(cell, of_a, of_b, anytime), alpha=alpha))
        families += [_judged(cells)] if cells else []
    return families


def by_place(view: View, filters: Filters) -> dict[str, dict[Place, dict[str, dict[int, Score]]]]:
    """Return the scores of trained runs by metric, place, loss and seed.

    Args:
        view: A store.
        filters: Resolved filters.
    """
    group_of = {run.run_id: group for group in view.groups() if group.loss for run in group.runs}
    values = by_image(view.of_images(filters))
    found: dict[str, dict[Place, dict[str, dict[int, Score]]]] = {}
    for outcome in view.outcomes(filters):
        group, score = group_of.get(outcome.run.run_id), score_of(outcome, values)
        if group and isinstance(score, Score):
            place = Place(outcome.dataset, group.backbone, group.runs[0].scale, group.runs[0].recipe, group.recipe)
            sides = found.setdefault(outcome.metric, {}).setdefault(place, {})
            sides.setdefault(group.loss, {})[outcome.run.seed or 0] = score
    return found


class _Place(NamedTuple):
    """Runs of one backbone, scale and recipe, by loss."""

    group: Group
    by_loss: dict[str, tuple[Run, ...]]


def _losses(view: View, a: str, b: str) -> tuple[str, str]:
    if not view.names.losses:
        raise InputError("there is no trained run, and so no loss to compare.")
    first, second = view.loss(a), view.loss(b)
    if first == second:
        raise InputError(f"'{a}' and '{b}' are the same loss, {first}; give two different ones.")
    return first, second


def _key(outcome: Outcome) -> Key:
    return (outcome.run.run_id, outcome.dataset, outcome.metric)


def _places(runs: Iterable[Run], a: str, b: str) -> list[_Place]:
    """Return the places with runs of both losses or, if there are none, with runs of either."""
    places: dict[Any, _Place] = {}
    for group in grouped(runs):
        place = places.setdefault((group.backbone, group.conditions), _Place(group, {a: (), b: ()}))
        place.by_loss[group.loss] = group.runs
    return [place for place in places.values() if all(place.by_loss.values())] or list(places.values())


def _cells(place: _Place, cell: Comparison, scores: Mapping[Key, Score | Fate], anytime: Anytime) -> list[Comparison]:
    """Return a cell, without its verdict, for each test set on which a run has, or should have, a score.

    If there are several with values by image, the last cell is of all together.
    """
    ids = {run.run_id for runs in place.by_loss.values() for run in runs}
    group = place.group
    stale = tuple(dict.fromkeys(plugin for runs in place.by_loss.values() for run in runs for plugin in run.stale))
    cell = replace(cell, backbone=group.backbone, scale=group.runs[0].scale, recipe=group.recipe, stale=stale)
    by_set: dict[str, tuple[Side, Side]] = {}
    there = {dataset for run_id, dataset, metric in scores if run_id in ids and metric == cell.metric}
    for dataset in sorted(there, key=natural):
        a, b = (
            {
                run.seed or 0: scores.get((run.run_id, dataset, cell.metric), run.failure or NOT_SCORED)
                for run in place.by_loss[loss]
            }
            for loss in (cell.a, cell.b)
        )
        by_set[dataset] = (a, b)
    cells = [_compared(replace(cell, dataset=dataset), a, b, anytime) for dataset, (a, b) in by_set.items()]
    if not any(each.images for each in cells):
        return cells
    with_images = {
        each.dataset: by_set[each.dataset]
        for each in cells
        if each.images or any(fate == PENDING for side in by_set[each.dataset] for fate in side.values())
    }
    return [*cells, *_together(cell, with_images, anytime)]


def _together(cell: Comparison, by_set: Mapping[str, tuple[Side, Side]], anytime: Anytime) -> Iterator[Comparison]:
    """Yield a cell without its verdict for the images of several test sets together, if there are several."""
    scores = [each for sides in by_set.values() for side in sides for each in side.values() if isinstance(each, Score)]
    declared = anytime.together(_asked(cell), scores[0].run_id)
    by_set = {dataset: sides for dataset, sides in by_set.items() if declared is None or dataset in declared}
    if len(by_set) < 2:
        return
    cell = replace(cell, sets=tuple(by_set))
    if mixed := mixed_bases(scores):
        yield replace(cell, reason=mixed)
    else:
        a, b = (pooled({dataset: sides[at] for dataset, sides in by_set.items()}) for at in (0, 1))
        yield _compared(cell, a, b, anytime)


def _asked(cell: Comparison) -> Cell:
    return Cell(cell.a, cell.b, cell.metric, cell.backbone, cell.dataset)


def _compared(cell: Comparison, a: Side, b: Side, anytime: Anytime) -> Comparison:
    """Return a cell without its verdict, which depends on its family."""
    pairs: dict[int, tuple[Score, Score]] = {}
    lacking: defaultdict[Fate, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for seed in sorted(a.keys() | b.keys()):
        of_a, of_b = a.get(seed, NO_RUN), b.get(seed, NO_RUN)
        if isinstance(of_a, Score) and isinstance(of_b, Score):
            pairs[seed] = (of_a, of_b)
        for loss, outcome in ((cell.label_a, of_a), (cell.label_b, of_b)):
            if isinstance(outcome, Fate):
                lacking[outcome][loss].append(seed)
    sequences, unused = anytime.sequences(_asked(cell), a, b)
    left_out = (*(f"{fate} ({'; '.join(map(_named, by.items()))})" for fate, by in lacking.items()), *unused)
    if sequences:
        pairs = {seed: pairs[seed] for each in sequences for seed in each.seeds}
        margin = min((each.margin for each in sequences if each.margin is not None), default=cell.margin)
        alpha = min(each.alpha or cell.alpha for each in sequences)
        cell = replace(cell, sequences=sequences, alpha=alpha, margin=margin)
    if not pairs:
        lacking_one = "no declared seed" if unused else "no seed"
        return replace(cell, reason=f"{lacking_one} has both scores: {'; '.join(left_out)}")
    cell = replace(cell, left_out=left_out)
    mixed = mixture([score for pair in pairs.values() for score in pair])
    return replace(cell, reason=mixed) if mixed else _measured(cell, pairs)


def _named(seeds: tuple[str, Sequence[int]]) -> str:
    """Return ``l1, seeds 0, 1``."""
    loss, numbers = seeds
    return f"{loss}, seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _measured(cell: Comparison, pairs: Mapping[int, tuple[Score, Score]]) -> Comparison:
    first = next(iter(pairs.values()))[0]
    values = np.array(
        [[score.values if first.images else [score.value] for score in pair] for pair in pairs.values()]
    )  # by seed, loss and image
    sizes: tuple[int, ...] = (len(first.images),) if first.images else ()
    if cell.sets:
        kept, sizes = strata(first.images, values)
        values = values.take(kept, axis=-1)
    differences: Array = values[:, 1] - values[:, 0]
    test = tested(differences, cell.sequences, cell.alpha, sizes)
    direction, within = first.basis.direction, None
    if test.by_seed and cell.margin is not None:
        within = equivalence(differences, cell.margin, direction=direction, sequences=cell.sequences, sizes=sizes)
    return replace(
        cell,
        direction=direction,
        spread=Spread.of(differences, sizes) if test.by_seed else None,
        equivalence=within,
        seeds=tuple(pairs),
        runs_a=tuple(a.run_id for a, _ in pairs.values()),
        runs_b=tuple(b.run_id for _, b in pairs.values()),
        images=sum(sizes) or None,
        mean_a=float(values[:, 0].mean()),
        mean_b=float(values[:, 1].mean()),
        **test._asdict(),
        reason=None if test.by_seed else "one seed says nothing about the spread over seeds; at least two are needed",
    )


def _judged(cells: Iterable[Comparison], declared: int = 0) -> list[Comparison]:
    """Correct the p values of a metric for their number, and reach verdicts.

    Args:
        cells: A family.
        declared: How many it has if all are tested that were declared together.
    """
    judged = list(cells)
    family = [at for at, cell in enumerate(judged) if cell.by_seed]
    untested = max(0, declared - len(family))
    largest = [*(_largest(judged[at]) for at in family), *[1.0] * untested]
    floors = [*(_floor(judged[at]) for at in family), *[0.0] * untested]
    within = corrected([judged[at].equivalence for at in family], len(largest))
    for place, (at, p) in enumerate(zip(family, holm(largest), strict=False)):
        others = floors if judged[at].sequences else largest  # more seeds may decide the others too
        attainable = holm([*others[:place], floors[place], *others[place + 1 :]])[place]
        cell = replace(judged[at], p=p, family=len(largest), equivalence=within[place])
        judged[at] = _decided(cell, floors[place], attainable)
    return judged


def _largest(cell: Comparison) -> float:
    return max(test.p for test in (cell.overall, cell.by_image, cell.by_seed) if test)


def _floor(cell: Comparison) -> float:
    """Return the smallest p that the images of a cell allow."""
    return cell.by_image.floor if cell.by_image else 0.0


def _decided(cell: Comparison, floor: float, attainable: float) -> Comparison:
    """Return a cell with its verdict, given the smallest p that its images allow, uncorrected and corrected."""
    if cell.p is not None and cell.p <= cell.alpha:
        return replace(cell, verdict=Verdict.SIGNIFICANT)
    if cell.equivalence and cell.equivalence.p <= cell.alpha:
        return replace(cell, verdict=Verdict.EQUIVALENT)
    if attainable <= cell.alpha:
        return replace(cell, verdict=Verdict.NOT_SIGNIFICANT)
    corrected = f", which is {attainable:.3g} when corrected" if floor <= cell.alpha else ""
    looks = sum(len(each.looks) for each in cell.sequences)
    images = plural(cell.images or 0, "image") + f" at {plural(looks, 'look')}" * bool(looks)
    return replace(cell, reason=f"with {images} p cannot go under {floor:.3g}{corrected}")


def _reading_order(cell: Comparison) -> tuple[Any, ...]:
    return (natural(cell.recipe), bool(cell.sets), natural(cell.dataset), natural(cell.backbone))
