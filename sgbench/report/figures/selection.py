"""The part of a store that a figure shows: groups of runs, their scores, and what is left out and why."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sgbench.analysis import Filters, View, paper
from sgbench.analysis.view import ALL, NOT_SCORED, Group, Key, Outcome, directions
from sgbench.core.words import natural
from sgbench.metrics import display_of
from sgbench.report.figures.style import MARKERS
from sgbench.report.tables.model import titled

BAND = 3
"""From this number of seeds on, their spread is drawn instead of each seed."""

ONLY_OF_THE_PAPER = "Too many losses to tell apart: only those of the paper are drawn."
"""The message if `with_losses_told_apart` leaves some out."""

_NAMED = 4
"""The most runs that a note names; the others are only counted."""

Values = dict[int, float]
"""By seed."""


@dataclass(frozen=True)
class Selection:
    """The part of a store that a figure shows.

    Attributes:
        groups: In reading order: by backbone, and of each L1 first, with which others are compared.
        datasets: Test sets that have a score, in reading order.
        metrics: In the order in which they were asked for, or by name.
    """

    groups: tuple[Group, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    _outcomes: Mapping[Key, Outcome]

    def values(self, group: Group, dataset: str, metric: str) -> Values:
        """Return the scores of a group by seed, without missing ones."""
        scores = {run.seed or 0: self._outcomes.get((run.run_id, dataset, metric)) for run in group.runs}
        return {seed: score.value for seed, score in scores.items() if score and score.value is not None}

    def direction(self, metric: str) -> str | None:
        """Return which values of a metric are better, ``lower`` or ``higher``; None if scores do not say."""
        return directions(outcome for outcome in self._outcomes.values() if outcome.metric == metric).get(metric)

    def title(self, metric: str) -> str:
        """Return the axis label of a metric."""
        return title(metric, self.direction(metric))

    def notes(self, groups: Iterable[Group], panels: Iterable[tuple[str, str]]) -> list[str]:
        """Return notes on what is left out of some groups in panels of a test set and a metric."""
        trained = [(group, run) for group in groups for run in group.runs if run.trained]
        fates: defaultdict[str, dict[str, None]] = defaultdict(dict)
        notes = []
        for dataset, metric in panels:
            bases = set()
            for group, run in trained:
                outcome = self._outcomes.get((run.run_id, dataset, metric))
                fate = outcome.fate if outcome else run.fate or NOT_SCORED
                if fate:
                    place = "" if run.fate else f" ({metric} on {dataset})"
                    fates[f"{fate}{place}"][group.named(run)] = None
                elif outcome:
                    bases.add(outcome.basis)
            if len(bases) > 1:
                notes.append(f"{metric} on {dataset} mixes {len(bases)} protocols, which cannot be compared.")
        return notes + left_out(fates)


def select(view: View, filters: Filters = ALL) -> Selection:
    """Choose what a figure shows.

    Args:
        view: A store.
        filters: As a person wrote them.

    Raises:
        InputError: If a filter names what the store does not have.
    """
    filters = view.resolved(filters)
    outcomes = {(each.run.run_id, each.dataset, each.metric): each for each in view.outcomes(filters)}
    there = {outcome.dataset for outcome in outcomes.values() if outcome.basis}
    return Selection(
        tuple(view.groups(filters)),
        tuple(name for name in filters.datasets or sorted(view.names.datasets, key=natural) if name in there),
        tuple(filters.metrics or sorted(view.names.metrics, key=natural)),
        outcomes,
    )


def with_losses_told_apart(view: View, filters: Filters, most: int = len(MARKERS)) -> Filters:
    """Return filters for the losses of the paper, if none are chosen and all would be too many for a figure.

    Args:
        view: A store.
        filters: As a person wrote them.
        most: How many losses the figure can tell apart.

    Raises:
        InputError: If a filter names what the store does not have.
    """
    there = {run.loss for run in view.runs(view.resolved(filters)) if run.trained}
    known = there & set(paper()["loss"].to_pylist())
    return replace(filters, losses=sorted(known)) if not filters.losses and known and len(there) > most else filters


def title(metric: str, direction: str | None) -> str:
    """Return the title of a metric: its name, its unit, and an arrow for its better direction."""
    unit = display_of(metric).unit
    return titled(f"{metric} ({unit})" if unit else metric, direction)


def left_out(reasons: Mapping[str, Iterable[str]]) -> list[str]:
    """Return a sentence for each reason why runs are not in a figure."""
    notes = []
    for reason, names in reasons.items():
        first, *rest = list(names)
        named = [first, *rest[: _NAMED - 1]]
        more = f" and {len(rest) + 1 - len(named)} more" if len(rest) >= _NAMED else ""
        notes.append(f"Left out: {', '.join(named)}{more}: {reason}.")
    return notes


def counted(counts: Iterable[int]) -> str:
    """Return ``n = 3``, or ``n = 1–3`` where counts differ, which no line breaks."""
    low, high = min(numbers := set(counts)), max(numbers)
    return f"n = {low}{'' if low == high else f'–{high}'}".replace(" ", "\N{NO-BREAK SPACE}")
