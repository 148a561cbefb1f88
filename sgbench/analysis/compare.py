"""Two losses compared wherever a store has both: by metric, test set and backbone, and which differences are real.

Nothing is pooled: runs are paired by seed, and only if they were trained by one recipe on the same pixels and scored by
one version and protocol of a metric on the same pixels. Whatever cannot be paired says why.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sgbench.analysis.naming import natural, recipe_name
from sgbench.analysis.results import Results
from sgbench.analysis.stats import Array, Estimate, SignFlip, crossed_bootstrap, holm, paired_t, sign_flip
from sgbench.core.errors import InputError, unknown
from sgbench.spec import Recipe
from sgbench.spec.stored import find_loss
from sgbench.store.schema import recipe_columns

ALPHA = 0.05
"""The chance, over all cells of a metric, to call a difference real that is none."""

ALPHAS = (0.001, 0.5)
"""The range of α: under the first, the bootstrap has too few resamples for a percentile."""

REAL, NOT_SHOWN, UNDECIDABLE = "real", "not shown", "cannot be decided"
"""Verdicts. That a difference is not shown to be real does not show that it is none."""

_RECIPE = ("train_sha256", *recipe_columns(Recipe()))
"""Columns of a run that, with backbone, loss and seed, are its identity."""

_BASIS = {"metric_version": "versions", "protocol": "protocols"}
"""Columns of a score that must be equal for scores to be compared."""

Row = Mapping[str, Any]
Key = tuple[str, str, str]  # run, test set, metric


@dataclass(frozen=True)
class Comparison:
    """Loss B against loss A on one test set, by one metric, with one backbone trained by one recipe.

    Attributes:
        metric: Its name.
        direction: ``lower`` or ``higher``, whichever is better; none if scores do not say.
        dataset: The test set.
        backbone: ``family-size``.
        scale: Factor of super-resolution.
        recipe: What tells this recipe from the others of the comparison; empty where there is one.
        a: The loss that is compared with.
        b: The loss in question.
        alpha: Of the intervals and of the verdict.
        seeds: Those by which runs are paired.
        runs_a: Ids of A's runs, in the order of the seeds.
        runs_b: Ids of B's.
        images: How many; none for a metric that has no value for an image.
        mean_a: The mean of A's scores over the paired seeds and all images; none without a pair, as all that follows.
        mean_b: The mean of B's.
        overall: The mean of B − A estimated over seeds and images; none with one of either, or no value for an image.
        by_image: The test of the images' mean differences over seeds; none if there is no value for an image.
        by_seed: The mean of B − A estimated from the seeds' mean differences alone; none with one seed.
        p: The largest p of the three, corrected by Holm for the cells of the metric; none with one seed.
        family: How many cells of the metric p was corrected for.
        verdict: `REAL`, `NOT_SHOWN` or `UNDECIDABLE`.
        reason: Why it cannot be decided.
        left_out: What became of runs that have no partner, one sentence each without its stop.
    """

    metric: str
    direction: str | None
    dataset: str
    backbone: str
    scale: int
    recipe: str
    a: str
    b: str
    alpha: float
    seeds: tuple[int, ...] = ()
    runs_a: tuple[str, ...] = ()
    runs_b: tuple[str, ...] = ()
    images: int | None = None
    mean_a: float | None = None
    mean_b: float | None = None
    overall: Estimate | None = None
    by_image: SignFlip | None = None
    by_seed: Estimate | None = None
    p: float | None = None
    family: int = 0
    verdict: str = UNDECIDABLE
    reason: str | None = None
    left_out: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """B − A."""
        return None if self.mean_a is None or self.mean_b is None else self.mean_b - self.mean_a

    @property
    def percent(self) -> float | None:
        """The difference in percent of A; none where A is 0."""
        return 100 * self.difference / abs(self.mean_a) if self.difference is not None and self.mean_a else None

    @property
    def better(self) -> bool | None:
        """Whether B's mean is the better one; none if they are equal or nobody knows the direction."""
        if not self.difference or self.direction is None:
            return None
        return (self.difference < 0) == (self.direction == "lower")


def comparisons(
    results: Results, a: str, b: str, *, metrics: Sequence[str] | None = None, alpha: float = ALPHA
) -> list[Comparison]:
    """Compare two losses wherever a store has, or is to have, runs of both; if nowhere, wherever it has one of either.

    A difference is real if three p values are at most α, all corrected by Holm for the number of cells of the metric:
    over seeds and images together, over images alone, and over seeds alone. The last two are each blind to what varies
    in the other; where both vary alike they call 6% to 10% of no differences real at α = 0.05, and the three 4% to 5%
    (simulated, 5 and 10 seeds, 14 images). A metric of sets has the test over seeds only. To show less than all cells,
    filter what is returned: a family that is chosen after looking is none.

    Args:
        results: A store.
        a: The loss to compare with, in any spelling.
        b: The loss in question, in any spelling.
        metrics: Only these; all by default.
        alpha: From 0.001 to 0.5.

    Returns:
        A cell for each metric, recipe, test set and backbone, in this order.

    Raises:
        InputError: If a loss or metric is not in the store, the losses are one, neither has been scored, or α is out of
            its range.
    """
    if not ALPHAS[0] <= alpha <= ALPHAS[1]:
        raise InputError(f"alpha is {alpha:g}; a number from {ALPHAS[0]:g} to {ALPHAS[1]:g} is needed.")
    runs = _runs(results)
    a, b = _losses(a, b, {run["loss"] for run in runs})
    runs = [run for run in runs if run["loss"] in (a, b)]
    evidence = _Evidence.of(results, {run["run_id"] for run in runs}, metrics)
    if not evidence.metrics:
        raise InputError(f"no run of '{a}' or '{b}' has been scored; the first of them: {_fate(runs[0])}.")
    groups = _groups(runs)
    with_both = [(recipe, group) for recipe, group in groups if {run["loss"] for run in group} == {a, b}]
    cells = []
    for recipe, group in with_both or groups:  # where it is nowhere, each place says what is missing
        backbone, scale = group[0]["backbone"], group[0]["scale"]
        for dataset, metric in evidence.places(group):
            sides = [
                {run["seed"]: evidence.outcome(run, dataset, metric) for run in group if run["loss"] == loss}
                for loss in (a, b)
            ]
            cells.append(_compared(Comparison(metric, None, dataset, backbone, scale, recipe, a, b, alpha), *sides))
    return _judged(sorted(cells, key=lambda cell: _reading_order(cell, evidence.metrics)))


@dataclass(frozen=True)
class _Score:
    """What a run has by one metric on one test set: the row of the whole set, and values by image where there are."""

    whole: Row
    images: dict[str, float]


Side = dict[int, _Score | str]
"""What a loss has by seed, or why it has nothing."""


@dataclass(frozen=True)
class _Evidence:
    """The scores of the runs in question, and those that a plan asks for."""

    metrics: Sequence[str]
    scores: Mapping[Key, _Score]
    planned: set[Key]

    @classmethod
    def of(cls, results: Results, ids: set[str], metrics: Sequence[str] | None) -> "_Evidence":
        """Collect what a store has of some runs, by some metrics or all."""
        rows = _among(results.scores, "run_id", ids)
        plans = [plan for plan in results.planned if plan.run_id in ids]
        planned = {
            (plan.run_id, dataset.name, metric) for plan in plans for dataset in plan.tests for metric in plan.metrics
        }
        there = {*rows.column("metric").unique().to_pylist(), *(metric for _, _, metric in planned)}
        chosen = sorted(there) if metrics is None else list(metrics)
        for metric in chosen if there else ():
            if metric not in there:
                raise unknown("metric", metric, there)
        return cls(chosen if there else [], _scores(_among(rows, "metric", chosen)), planned)

    def places(self, runs: Iterable[Row]) -> set[tuple[str, str]]:
        """Return the test sets and metrics by which some run has or should have a score."""
        ids = {run["run_id"] for run in runs}
        keys = self.planned | self.scores.keys()
        return {(dataset, metric) for run_id, dataset, metric in keys if run_id in ids and metric in self.metrics}

    def outcome(self, run: Row, dataset: str, metric: str) -> _Score | str:
        """Return a run's score, or why it has none."""
        key = (run["run_id"], dataset, metric)
        score = self.scores.get(key)
        if score is None:
            return "pending" if key in self.planned and run["status"] != "failed" else _fate(run)
        if score.whole["value"] is None:
            return ": ".join(filter(None, (score.whole["status"], score.whole["reason"]))).rstrip(".")
        return score


def _runs(results: Results) -> list[Row]:
    """Return the trained runs, and the planned ones that have no row yet."""
    trained = results.runs.filter(pc.equal(results.runs.column("kind"), "train"))
    rows = trained.select(["run_id", "backbone", "loss", "seed", "train", "status", "error", *_RECIPE]).to_pylist()
    known = {row["run_id"] for row in rows}
    waiting = {plan.run_id: plan.run for plan in results.planned if plan.run_id not in known}
    defaults = recipe_columns(Recipe()) | {"status": "pending"}  # a plan may be older than a column
    return [*rows, *(defaults | run for run in waiting.values())]


def _losses(a: str, b: str, there: set[str]) -> tuple[str, str]:
    if not there:
        raise InputError("there is no trained run, and so no loss to compare.")
    chosen = [find_loss(name, there) for name in (a, b)]
    for name in chosen:
        if name not in there:
            raise unknown("loss", name, there)
    if chosen[0] == chosen[1]:
        raise InputError(f"'{a}' and '{b}' are one loss, {chosen[0]}; two are needed to compare.")
    return chosen[0], chosen[1]


def _among(rows: pa.Table, column: str, values: Iterable[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows.column(column), pa.array(sorted(values), pa.string())))


def _scores(rows: pa.Table) -> dict[Key, _Score]:
    columns = ["run_id", "dataset", "metric", "image", "value", "status", "reason", *_BASIS]
    whole: dict[Key, Row] = {}
    images: defaultdict[Key, dict[str, float]] = defaultdict(dict)
    for row in rows.select(columns).to_pylist():
        key = (row["run_id"], row["dataset"], row["metric"])
        if row["image"] is None:
            whole[key] = row
        else:
            images[key][row["image"]] = row["value"]
    return {key: _Score(row, images[key]) for key, row in whole.items()}


def _groups(runs: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Return the runs that one recipe and backbone have in common, each with what tells its recipe from the others."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for run in runs:
        groups[json.dumps([run["backbone"], *(run[column] for column in _RECIPE)])].append(run)
    firsts = [group[0] for group in groups.values()]
    differing = [column for column in _RECIPE if len({str(run[column]) for run in firsts}) > 1]
    return [(recipe_name(group[0], differing), group) for group in groups.values()]


def _fate(run: Row) -> str:
    """Return why a run has no scores."""
    if run["status"] == "failed":
        return f"failed: {' '.join((run['error'] or 'no reason was recorded').split()).rstrip('.')}"
    return "not scored"


def _compared(cell: Comparison, a: Side, b: Side) -> Comparison:
    """Return a cell with all but its verdict, for which its family has to be known."""
    pairs: dict[int, tuple[_Score, _Score]] = {}
    lacking: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for seed in sorted(a.keys() | b.keys()):
        of_a, of_b = a.get(seed, "no run"), b.get(seed, "no run")
        if isinstance(of_a, _Score) and isinstance(of_b, _Score):
            pairs[seed] = (of_a, of_b)
        for loss, outcome in ((cell.a, of_a), (cell.b, of_b)):
            if isinstance(outcome, str):
                lacking[outcome][loss].append(seed)
    left_out = tuple(f"{why} ({'; '.join(map(_named, by.items()))})" for why, by in lacking.items())
    if not pairs:
        return replace(cell, reason=f"no seed has both scores: {'; '.join(left_out)}")
    cell = replace(cell, left_out=left_out)
    mixture = _mixture([score for pair in pairs.values() for score in pair])
    return replace(cell, reason=mixture) if mixture else _measured(cell, pairs)


def _named(seeds: tuple[str, Sequence[int]]) -> str:
    """Return ``l1, seeds 0, 1``."""
    loss, numbers = seeds
    return f"{loss}, seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _mixture(scores: Sequence[_Score]) -> str | None:
    for column, what in _BASIS.items():
        if (count := len({score.whole[column] for score in scores})) > 1:
            return f"the scores are of {count} {what}, which cannot be compared"
    if len({frozenset(score.images) for score in scores}) > 1:
        return "the scores are not of the same images"
    return None


def _measured(cell: Comparison, pairs: Mapping[int, tuple[_Score, _Score]]) -> Comparison:
    first = next(iter(pairs.values()))[0]
    names = sorted(first.images)
    values = np.array(
        [
            [[score.images[name] for name in names] or [score.whole["value"]] for score in pair]
            for pair in pairs.values()
        ]
    )  # by seed, loss and image
    differences: Array = values[:, 1] - values[:, 0]
    seeds, images = differences.shape
    return replace(
        cell,
        direction=json.loads(first.whole["protocol"]).get("direction"),
        seeds=tuple(pairs),
        runs_a=tuple(a.whole["run_id"] for a, _ in pairs.values()),
        runs_b=tuple(b.whole["run_id"] for _, b in pairs.values()),
        images=len(names) or None,
        mean_a=float(values[:, 0].mean()),
        mean_b=float(values[:, 1].mean()),
        overall=crossed_bootstrap(differences, cell.alpha) if min(seeds, images) > 1 else None,
        by_image=sign_flip(differences.mean(axis=0)) if names else None,
        by_seed=paired_t(differences.mean(axis=1), cell.alpha) if seeds > 1 else None,
        reason="one seed tells nothing of the spread over seeds; two are the least" if seeds == 1 else None,
    )


def _judged(cells: Iterable[Comparison]) -> list[Comparison]:
    """Correct each metric's p values for their number, and decide."""
    judged = list(cells)
    for metric in {cell.metric for cell in judged}:
        family = [at for at, cell in enumerate(judged) if cell.metric == metric and cell.by_seed]
        largest = [_largest(judged[at]) for at in family]
        for place, (at, p) in enumerate(zip(family, holm(largest), strict=True)):
            by_image = judged[at].by_image
            floor = by_image.floor if by_image else 0.0
            best = holm([*largest[:place], floor, *largest[place + 1 :]])[place]
            judged[at] = _decided(replace(judged[at], p=p, family=len(family)), floor, best)
    return judged


def _largest(cell: Comparison) -> float:
    return max(test.p for test in (cell.overall, cell.by_image, cell.by_seed) if test)


def _decided(cell: Comparison, floor: float, best: float) -> Comparison:
    """Return a cell with its verdict, given the smallest p that its number of images allows, as it is and corrected."""
    if best <= cell.alpha:
        return replace(cell, verdict=REAL if cell.p is not None and cell.p <= cell.alpha else NOT_SHOWN)
    corrected = f", which is {best:.3g} when corrected" if floor <= cell.alpha else ""
    images = f"{cell.images} image{'s' * (cell.images != 1)}"
    return replace(cell, reason=f"with {images} p cannot go under {floor:.3g}{corrected}")


def _reading_order(cell: Comparison, metrics: Sequence[str]) -> tuple[Any, ...]:
    return (metrics.index(cell.metric), *map(natural, (cell.recipe, cell.dataset, cell.backbone)))
