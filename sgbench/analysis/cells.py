"""Means over seeds, or the reason why there is none, and which of the means are best."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgbench.analysis.stats import Summary, summarise
from sgbench.analysis.view import NO_RUN, NOT_SCORED, PENDING, Basis, Fate, Outcome, Why
from sgbench.core.words import plural


@dataclass(frozen=True)
class Cell:
    """The scores that meet in one place: those of one metric, test set and loss, over seeds.

    Attributes:
        summary: Over the seeds that have a number; none where no seed has.
        reason: Why there is no number, or, beside a summary, what became of the other seeds.
        note: A sentence on the seeds without a number, where they do not all have the same reason.
        bases: What the numbers rest on; more than one is a mixture.
        best: Whether this is the best mean among the comparable losses of its backbone.
        significant: Whether its difference from L1 is significant; none where that was not tested.
        place: The coordinates: ``dataset``, ``scale``, ``kind``, ``backbone``, ``loss``, ``lambda``, ``recipe``,
            ``seed`` (where each seed has its own cell), ``metric``, ``store``, and ``source`` in tables of the paper.
        mark: Number of the note.
    """

    summary: Summary | None
    reason: str | None = None
    note: str | None = None
    bases: frozenset[Basis] = frozenset()
    best: bool = False
    significant: bool | None = None
    place: Mapping[str, Any] = field(default_factory=dict, compare=False)
    mark: int | None = None


def summarised(outcomes: Sequence[Outcome], place: Mapping[str, Any], *, significant: bool | None = None) -> Cell:
    """Return the cell of runs that differ in nothing but their seeds.

    Args:
        outcomes: One a run; where there is none, the cell says so.
        place: The cell's coordinates.
        significant: Whether the difference from L1 is significant.
    """
    if not outcomes:
        return Cell(None, str(NO_RUN), place=place)
    outcomes = sorted(outcomes, key=lambda outcome: outcome.run.seed or 0)
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    fates: defaultdict[Fate, list[int]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.fate:
            fates[_in_a_cell(outcome.fate)].append(outcome.run.seed or 0)
    told = "; ".join(
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}: {fate}" for fate, seeds in fates.items()
    )
    if values:
        note = f"Mean over {len(values)} of {len(outcomes)} seeds; {told}." if told else None
        bases = frozenset(outcome.basis for outcome in outcomes if outcome.basis and outcome.value is not None)
        return Cell(summarise(values), told or None, note, bases, significant=significant, place=place)
    headline = min(fates, key=lambda fate: fate in (PENDING, NOT_SCORED))
    note = f"None of {plural(len(outcomes), 'seed')} has a number; {told}." if len(fates) > 1 else None
    return Cell(None, str(headline), note, place=place)


def _in_a_cell(fate: Fate) -> Fate:
    """Return what a cell says of a score without a number; which weights are missing a note says once for all."""
    return Fate(fate.why) if fate.why is Why.NO_WEIGHTS else fate


def best(cells: Sequence[Cell], directions: Mapping[str, str | None]) -> list[bool]:
    """Return which cells have the best mean, wherever at least two losses of one backbone can be compared."""
    blocks: defaultdict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        blocks[_block(cell)].append(cell)
    means = {block: _best(found, directions.get(found[0].place["metric"])) for block, found in blocks.items()}
    return [cell.summary is not None and cell.summary.mean == means[_block(cell)] for cell in cells]


def _block(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell.place.get(name) for name in ("dataset", "scale", "backbone", "metric", "seed", "store", "source"))


def _best(cells: Sequence[Cell], direction: str | None) -> float | None:
    """Return the best mean; none for a lone one, a mixture, and where nobody knows the direction."""
    means = [cell.summary.mean for cell in cells if cell.summary]
    bases = {basis for cell in cells for basis in cell.bases}
    if len(means) < 2 or len(bases) > 1 or direction is None:
        return None
    return min(means) if direction == "lower" else max(means)
