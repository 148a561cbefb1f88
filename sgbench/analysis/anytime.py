"""Which comparisons are judged by tests that stay valid however often one looks, and by which seeds in which order.

A comparison is judged so if a sweep declared it before the first look, if the store's record says that seeds were asked
for after others had been compared, or if a person asks for it. The others keep the tests of `sgbench.analysis.stats`,
which need a number of seeds that was fixed beforehand.
"""

import functools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sgbench.analysis.looks import looks
from sgbench.analysis.scores import Score, Side
from sgbench.analysis.sequential import (
    anytime_p,
    sequential_crossed,
    sequential_sign_flip,
    sequential_t,
    t_e_process,
)
from sgbench.analysis.stats import Array, Estimate, Interval, SignFlip, crossed_bootstrap, paired_t, sign_flip
from sgbench.analysis.view import Fate, Filters, Run, View, Why
from sgbench.spec import ALL_SETS
from sgbench.spec.decisions import looks_until
from sgbench.spec.stored import read_spec
from sgbench.store import Declaration

G = 4.0
"""Prior variance of the effect where none was declared, in squared standard deviations of the seeds' differences."""

MOST_SEEDS = 20
"""Up to this number of seeds, images are looked at where nothing was declared."""


@dataclass(frozen=True)
class SeedSequence:
    """Seeds that are compared in an order, after any of which somebody may have looked.

    Attributes:
        seeds: Those with scores of both losses, in that order.
        g: Prior variance of the effect, in squared standard deviations of the seeds' differences.
        looks: After how many of them the images are tested.
        alpha: The declared significance level; None if nothing was declared, as the next four.
        most: The most seeds that were declared.
        declaration: The digest of what was declared before the first look.
        declared: When, in ISO 8601.
        margin: The largest difference that was declared to count as none; None if there is none.
        rounds: How many pairs there were at each time when more were asked for, as far as the store has recorded it.
    """

    seeds: tuple[int, ...]
    g: float
    looks: tuple[int, ...]
    alpha: float | None = None
    most: int | None = None
    declaration: str | None = None
    declared: str | None = None
    margin: float | None = None
    rounds: tuple[int, ...] = ()


class Cell(NamedTuple):
    """What is compared."""

    a: str
    b: str
    metric: str
    backbone: str
    dataset: str


Family = frozenset[tuple[object, ...]]
"""The comparisons that were declared together, and whose p values are therefore corrected together."""


class Anytime:
    """How the comparisons of a store are judged.

    Args:
        view: The store.
        g: Prior variance of the effect with which a person asks that everything be judged so that was not declared;
            None for what the store's record says.
    """

    def __init__(self, view: View, g: float | None = None) -> None:
        self._view, self._g = view, g
        self._conditions: dict[str, str | None] = {}

    def sequences(self, cell: Cell, a: Side, b: Side) -> tuple[tuple[SeedSequence, ...], tuple[str, ...]]:
        """Return the seeds by which a comparison is judged, and why others with both scores are left out.

        Args:
            cell: What is compared.
            a: The scores of its first loss, by seed.
            b: Those of the second.

        Returns:
            A sequence for each declaration that asks for it, or one if nothing was declared, or none if the number of
            seeds was fixed beforehand. Then the reasons, without a full stop.
        """
        pairs = {
            seed: (of_a.run_id, of_b.run_id)
            for seed in sorted(a.keys() & b.keys())
            if isinstance(of_a := a[seed], Score) and isinstance(of_b := b[seed], Score)
        }
        if not pairs:
            return (), ()
        coming = {seed for seed in a.keys() & b.keys() if all(_has_or_will(side[seed]) for side in (a, b))}
        asked = self._asked(cell, next(iter(pairs.values()))[0])
        if here := self._of_cell(cell, asked):
            return _declared(here, pairs, coming - pairs.keys())
        recorded = looks({seed: [self._runs[run_id] for run_id in ids] for seed, ids in pairs.items()})
        if self._g is None and not asked and len(recorded.counts) < 2:
            return (), ()
        g = G if self._g is None else self._g
        return (SeedSequence(recorded.seeds, g, looks_until(MOST_SEEDS), rounds=recorded.counts),), ()

    @functools.cached_property
    def _runs(self) -> dict[str, Run]:
        return {run.run_id: run for run in self._view.runs()}

    def family(self, sequences: Sequence[SeedSequence]) -> Family | None:
        """Return what was declared together with a comparison that has these sequences; None if nothing was."""
        return next((self._families[each.declaration] for each in sequences if each.declaration), None)

    @functools.cached_property
    def _families(self) -> dict[str, Family]:
        """The family of each declaration: its own cells, and those of all that have some of these."""
        own = {
            each.digest: frozenset(
                (frozenset((each.question.a, each.question.b)), each.question.metric, each.conditions, *cell)
                for cell in each.cells
            )
            for each in self._view.results.declarations
        }
        families: list[Family] = []
        for cells in own.values():
            shared = [family for family in families if family & cells]
            families = [*(family for family in families if family not in shared), cells.union(*shared)]
        return {digest: next(family for family in families if cells <= family) for digest, cells in own.items()}

    def together(self, cell: Cell, run_id: str) -> frozenset[str] | None:
        """Return the test sets that were declared to be taken together; None if nothing was declared of all sets.

        Args:
            cell: What is compared, on `ALL_SETS`.
            run_id: A run that is compared.
        """
        if not (here := self._of_cell(cell, self._asked(cell, run_id))):
            return None
        hashes = {sha256 for _, sha256 in here[0].tests}
        return frozenset(name for name, sha256 in self._view.results.hashes.items() if sha256 in hashes)

    def _of_cell(self, cell: Cell, asked: Sequence[Declaration]) -> list[Declaration]:
        """Return the declarations that ask for a cell; of all sets, those of the sets of the first."""
        here = [each for each in asked if each.question.metric == cell.metric and self._place(cell) in each.cells]
        return [each for each in here if cell.dataset != ALL_SETS or {*each.tests} == {*here[0].tests}]

    def _asked(self, cell: Cell, run_id: str) -> list[Declaration]:
        """Return what was declared of two losses, by whatever metric, for runs that share the conditions of one."""
        found = [
            each
            for each in self._view.results.declarations
            if {each.question.a, each.question.b} == {cell.a, cell.b} and cell.backbone in each.backbones
        ]
        return [each for each in found if each.conditions == self._conditions_of(run_id)]

    def _conditions_of(self, run_id: str) -> str | None:
        if run_id not in self._conditions:
            (row,) = self._view.rows(Filters(runs=[run_id])).select(["spec"]).to_pylist()
            self._conditions[run_id] = read_spec(row["spec"], f"run {run_id}").conditions
        return self._conditions[run_id]

    def _place(self, cell: Cell) -> tuple[str, str]:
        """Return the backbone and test set of a cell as `Declaration.cells` has them."""
        everything = cell.dataset == ALL_SETS
        return cell.backbone, ALL_SETS if everything else self._view.results.hashes[cell.dataset]


def _has_or_will(score: Score | Fate) -> bool:
    return isinstance(score, Score) or score.why is Why.PENDING


def _declared(
    declarations: Sequence[Declaration], pairs: Collection[int], pending: Collection[int]
) -> tuple[tuple[SeedSequence, ...], tuple[str, ...]]:
    """Return a sequence for each declaration, in the order of time, of which none has a seed of an earlier one."""
    found, left_out, owners = [], list[str](), dict[int, str]()
    for each in declarations:
        if shared := [seed for seed in each.seeds if seed in owners]:
            first = owners[shared[0]]
            unused = [seed for seed in each.seeds if seed in pairs and seed not in owners]
            with_seeds = f" with {_seeds(unused)}" if unused else ""
            left_out.append(f"declaration {each.digest}{with_seeds}, for {first} had declared {_seeds(shared)} before")
            owners |= dict.fromkeys(unused, first)
            continue
        owners |= dict.fromkeys(each.seeds, each.digest)
        seeds, waiting = _until(each.seeds, pairs, pending)
        left_out += waiting
        declared = (each.alpha, len(each.seeds), each.digest, each.declared.isoformat(), each.question.margin)
        found.append(SeedSequence(seeds, each.g, each.looks, *declared))
    others = [seed for seed in pairs if seed not in owners]
    return tuple(found), (*left_out, *([f"not declared ({_seeds(others)})"] if others else []))


def _until(
    order: Sequence[int], pairs: Collection[int], pending: Collection[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the seeds with both scores before the first that is pending, and why the others are left out.

    Otherwise the order would depend on which run is done first, and the result on when somebody looks.
    """
    first = next((seed for seed in order if seed in pending), None)
    end = len(order) if first is None else order.index(first)
    later = [seed for seed in order[end:] if seed in pairs]
    return (
        tuple(seed for seed in order[:end] if seed in pairs),
        (f"waiting for seed {first} ({_seeds(later)})",) if later else (),
    )


def _seeds(seeds: Sequence[int]) -> str:
    """Return ``seeds 0, 1``."""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


class Tests(NamedTuple):
    """The three tests of a comparison, as `sgbench.analysis.compare.Comparison` has them."""

    overall: Estimate | None
    by_image: SignFlip | None
    by_seed: Estimate | None


def tested(differences: Array, sequences: Sequence[SeedSequence], alpha: float, sizes: Sequence[int]) -> Tests:
    """Test differences as a comparison is judged; arguments as for `sequential_tests`.

    Without a sequence, the number of seeds was fixed beforehand.
    """
    if sequences:
        return sequential_tests(differences, sequences, alpha, sizes)
    seeds = len(differences)
    return Tests(
        overall=crossed_bootstrap(differences, alpha, sizes) if sizes and min(seeds, *sizes) > 1 else None,
        by_image=sign_flip(differences.mean(axis=0)) if sizes else None,
        by_seed=paired_t(differences.mean(axis=1), alpha) if seeds > 1 else None,
    )


def sequential_tests(
    differences: Array, sequences: Sequence[SeedSequence], alpha: float, sizes: Sequence[int]
) -> Tests:
    """Test differences whose seeds may have been added after a look.

    Of several sequences, each is that of a laboratory: the evidence of their seeds is multiplied, as it is now, and the
    images, which they share, are tested by each with its share of α.

    Args:
        differences: [S, I], by seed, in the order of the sequences, and image; [S, 1] without values by image.
        sequences: At least one.
        alpha: One minus the probability that all confidence intervals, after every seed, cover the mean.
        sizes: The number of images of each test set, side by side; empty without values by image.
    """
    parts = split(differences, sequences)
    if max(map(len, parts)) < 2:
        return Tests(None, None, None)
    by_seed = _by_seed([part.mean(axis=1) for part in parts], [each.g for each in sequences], alpha)
    if not sizes:
        return Tests(None, None, by_seed)
    flips = [sequential_sign_flip(part, each.looks) for part, each in zip(parts, sequences, strict=True)]
    by_image = SignFlip(shared([flip.p for flip in flips]), shared([flip.floor for flip in flips]))
    if min(sizes) < 2:
        return Tests(None, by_image, by_seed)
    estimates = [
        sequential_crossed(part, alpha / len(parts), each.looks, sizes)
        for part, each in zip(parts, sequences, strict=True)
    ]
    interval = _common([each.interval for each in estimates])
    return Tests(Estimate(interval, shared([each.p for each in estimates])), by_image, by_seed)


def split(differences: Array, sequences: Sequence[SeedSequence]) -> list[Array]:
    """Return the differences of each sequence."""
    return np.split(differences, np.cumsum([len(each.seeds) for each in sequences])[:-1])


def shared(p_values: Sequence[float]) -> float:
    """Return the p value of several laboratories that tested the same images, each with its share of α."""
    return min(1.0, len(p_values) * min(p_values))


def multiplied(evidence: Sequence[Array]) -> float:
    """Return the p value of several laboratories with other seeds each: one over the product of their evidence now.

    Args:
        evidence: Of each, after each of its seeds; with one laboratory, its p is one over the most there has been.
    """
    if len(evidence) == 1:
        return anytime_p(evidence[0])
    return min(1.0, 1 / math.prod(float(each[-1]) for each in evidence if len(each)))


def _by_seed(parts: Sequence[Array], g: Sequence[float], alpha: float) -> Estimate:
    there = [(part, prior) for part, prior in zip(parts, g, strict=True) if len(part)]
    if len(there) == 1:
        ((part, prior),) = there
        return sequential_t(part, alpha, prior)
    evidence = [t_e_process(part, prior) for part, prior in there]
    return Estimate(_not_refuted(there, alpha), multiplied(evidence))


def _not_refuted(parts: Sequence[tuple[Array, float]], alpha: float) -> Interval:
    """Return the smallest interval around all means that the evidence of laboratories together does not refute."""
    limit = sum((len(part) - 1) / 2 * math.log1p(len(part) * g) for part, g in parts)  # of a mean infinitely far away
    if limit <= -math.log(alpha):
        return Interval(-math.inf, math.inf)
    means = [float(part.mean()) for part, _ in parts]
    width = max(np.ptp(means), *(np.ptp(part) for part, _ in parts)) or 1.0

    def refuted(mean: float) -> bool:
        return sum(math.log(t_e_process(part, g, mean)[-1]) for part, g in parts) >= -math.log(alpha)

    def end(start: float, step: float) -> float:
        """Return the last mean that is not refuted, going outwards from where the evidence only grows."""
        if refuted(start):
            return start
        while not refuted(start + step):
            step *= 2
        inside, outside = start, start + step
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
        return outside

    return Interval(end(min(means), -width), end(max(means), width))


def _common(intervals: Sequence[Interval]) -> Interval:
    """Return what intervals have in common or, if they have nothing, the narrowest."""
    low, high = max(each.low for each in intervals), min(each.high for each in intervals)
    return Interval(low, high) if low <= high else min(intervals, key=lambda each: each.high - each.low)
