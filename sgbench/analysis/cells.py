"""Means over seeds, or the reason why there is no number, and which means are best."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgbench.analysis.stats import Summary, summarise
from sgbench.analysis.view import NO_RUN, NOT_SCORED, PENDING, Basis, Fate, Outcome, Why
from sgbench.core.words import plural
from sgbench.spec.sources import in_words


@dataclass(frozen=True)
class Cell:
    """The scores in one cell of a table: one metric, test set and loss, over seeds.

    Attributes:
        summary: Over the seeds that have a number; None if no seed has one.
        reason: Why there is no number or, next to a summary, why the other seeds have none.
        note: Sentences on the seeds without a number, if they do not all have the same reason, and on those that were
            trained with other code of a plug-in than it has now.
        bases: Versions and protocols of the scores; with more than one, they cannot be compared.
        best: Whether this is the best mean among the comparable losses of its backbone.
        significant: Whether its difference from L1 is significant; None if it was not tested.
        place: The coordinates: ``dataset``, ``scale``, ``kind``, ``backbone``, ``loss``, ``lambda``, ``recipe``,
            ``seed`` (if each seed has its own cell), ``metric``, ``store``, ``label`` (of the loss), and ``source`` in
            tables of the paper.
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
    """Return the cell of runs that differ only in their seeds.

    Args:
        outcomes: One per run; without any, the cell says so.
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
    stale = _about_stale(outcomes)
    if values:
        note = " ".join([f"Mean over {len(values)} of {len(outcomes)} seeds; {told}."] * bool(told) + stale) or None
        bases = frozenset(outcome.basis for outcome in outcomes if outcome.basis and outcome.value is not None)
        return Cell(summarise(values), told or None, note, bases, significant=significant, place=place)
    headline = min(fates, key=lambda fate: fate in (PENDING, NOT_SCORED))
    note = f"None of {plural(len(outcomes), 'seed')} has a number; {told}." if len(fates) > 1 else None
    return Cell(None, str(headline), note, place=place)


def _about_stale(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a sentence on the seeds that were trained with other code, if there are any."""
    stale = [outcome.run for outcome in outcomes if outcome.run.stale]
    if not stale:
        return []
    plugins = in_words(dict.fromkeys(plugin for run in stale for plugin in run.stale))
    which = "this was" if len(stale) == len(outcomes) else f"{len(stale)} of {len(outcomes)} seeds were"
    return [f"Stale: the code of {plugins} has changed since {which} trained."]


def _in_a_cell(fate: Fate) -> Fate:
    """Return what a cell says about a missing score; which weights are missing is said once, in a note."""
    return Fate(fate.why) if fate.why in (Why.NO_WEIGHTS, Why.NEEDS_HR) else fate


def best(cells: Sequence[Cell], directions: Mapping[str, str | None]) -> list[bool]:
    """Return which cells have the best mean among at least two comparable losses of one backbone."""
    blocks: defaultdict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        blocks[_block(cell)].append(cell)
    means = {block: _best(found, directions.get(found[0].place["metric"])) for block, found in blocks.items()}
    return [cell.summary is not None and cell.summary.mean == means[_block(cell)] for cell in cells]


def _block(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell.place.get(name) for name in ("dataset", "scale", "backbone", "metric", "seed", "store", "source"))


def _best(cells: Sequence[Cell], direction: str | None) -> float | None:
    """Return the best mean; None if there is only one, they cannot be compared, or the direction is unknown."""
    means = [cell.summary.mean for cell in cells if cell.summary]
    bases = {basis for cell in cells for basis in cell.bases}
    if len(means) < 2 or len(bases) > 1 or direction is None:
        return None
    return min(means) if direction == "lower" else max(means)
