"""Cells from facts: means over seeds or the reason why there is none, and which of the means are best."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sgbench.analysis.stats import summarise
from sgbench.report.tables.facts import NO_RUN, NOT_SCORED, PENDING, Fact, protocol
from sgbench.report.tables.model import Cell, Line, metric_order, superscript


@dataclass
class Marks:
    """Notes that cells point to by a number, in the order in which they came."""

    _numbers: dict[str, int] = field(default_factory=dict)

    def of(self, note: str) -> int:
        """Return the number of a note."""
        return self._numbers.setdefault(note, len(self._numbers) + 1)

    def notes(self) -> list[str]:
        """Return the notes behind their numbers."""
        return [f"{superscript(mark)} {text}" for text, mark in self._numbers.items()]


def summarised(facts: Sequence[Fact], place: Mapping[str, Any], marks: Marks, *, real: bool | None = None) -> Cell:
    """Return the cell of runs that differ in nothing but their seeds.

    Args:
        facts: One a run; where there is none, the cell says so.
        place: The cell's coordinates.
        marks: Is given a note about the seeds without a number where they do not all have the same reason.
        real: Whether the difference from L1 is real.
    """
    if not facts:
        return Cell(None, NO_RUN, place=place)
    facts = sorted(facts, key=lambda fact: fact.run.seed or 0)
    rows = [fact.row for fact in facts if fact.row and fact.row.value is not None]
    reasons: defaultdict[str, list[int]] = defaultdict(list)
    for fact in facts:
        if not fact.row or fact.row.value is None:
            reasons[_reason(fact)].append(fact.run.seed or 0)
    told = "; ".join(
        f"seed{'s' * (len(which) > 1)} {', '.join(map(str, sorted(which)))}: {reason}"
        for reason, which in reasons.items()
    )
    if rows:
        summary = summarise([row.value for row in rows if row.value is not None])
        mark = marks.of(f"Mean over {len(rows)} of {len(facts)} seeds; {told}.") if told else None
        basis = frozenset(f"{row.metric_version} {row.protocol}" for row in rows)
        return Cell(summary, told or None, mark, basis, real=real, place=place)
    headline = min(reasons, key=lambda reason: reason in (PENDING, NOT_SCORED))
    mark = marks.of(f"None of {len(facts)} seeds has a number; {told}.") if len(reasons) > 1 else None
    return Cell(None, headline, mark, place=place)


def _reason(fact: Fact) -> str:
    """Return why a run has no number; a note gives the details of missing weights once for all."""
    if row := fact.row:
        detail = "" if row.status == "no weights" or not row.reason else f": {row.reason.rstrip('.')}"
        return f"{row.status}{detail}"
    return fact.run.error or (PENDING if fact.wanted else NOT_SCORED)


def directions(facts: Iterable[Fact]) -> dict[str, str | None]:
    """Return for each metric which of its values are better, if its scores agree about it."""
    protocols: defaultdict[str, set[str]] = defaultdict(set)
    for fact in facts:
        protocols[fact.metric] |= {fact.row.protocol} if fact.row else set()
    said = {metric: {protocol(text).get("direction") for text in texts} for metric, texts in protocols.items()}
    return {metric: said[metric].pop() if len(said[metric]) == 1 else None for metric in sorted(said, key=metric_order)}


def with_best(lines: Iterable[Line], directions: Mapping[str, str | None]) -> tuple[Line, ...]:
    """Mark the best mean wherever at least two losses of one backbone can be compared."""
    lines = tuple(lines)
    blocks: defaultdict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for line in lines:
        for cell in line.cells:
            blocks[_block(cell)].append(cell)
    best = {block: _best(cells, directions.get(cells[0].place["metric"])) for block, cells in blocks.items()}
    return tuple(
        replace(
            line,
            cells=tuple(
                replace(cell, best=cell.summary is not None and cell.summary.mean == best[_block(cell)])
                for cell in line.cells
            ),
        )
        for line in lines
    )


def _block(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell.place.get(name) for name in ("dataset", "scale", "backbone", "metric", "seed", "store", "source"))


def _best(cells: Iterable[Cell], direction: str | None) -> float | None:
    """Return the best mean; none for a lone one, a mixture, and where nobody knows the direction."""
    means = [cell.summary.mean for cell in cells if cell.summary]
    bases = {basis for cell in cells for basis in cell.basis}
    if len(means) < 2 or len(bases) > 1 or direction is None:
        return None
    return min(means) if direction == "lower" else max(means)
