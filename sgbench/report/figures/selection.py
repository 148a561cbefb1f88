"""What of a store a figure shows: groups of runs, their scores, and what is left out and why."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sgbench.analysis import Filters, Results, View, paper
from sgbench.analysis.view import DEFAULT_METRIC, NOT_SCORED, Group, Key, Outcome, Run, chosen, directions
from sgbench.core.words import natural
from sgbench.metrics import display_of
from sgbench.report.figures.style import MARKERS
from sgbench.report.tables import ARROWS

BAND = 3
"""Seeds from which on their spread is drawn instead of each of them."""

ONLY_OF_THE_PAPER = "Of so many losses only those of the paper, which can be told apart."
"""What is said where `losses_told_apart` returns some."""

_NAMED = 4
"""Runs that a note names before it counts the others."""

Values = dict[int, float]
"""By seed."""


@dataclass(frozen=True)
class Selection:
    """What a figure shows of a store.

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
        """Return the scores of a group by seed, without those that are no number."""
        scores = {run.seed or 0: self._outcomes.get((run.run_id, dataset, metric)) for run in group.runs}
        return {seed: score.value for seed, score in scores.items() if score and score.value is not None}

    def title(self, metric: str) -> str:
        """Return what an axis of a metric is called."""
        ways = directions(outcome for outcome in self._outcomes.values() if outcome.metric == metric)
        return title(metric, ways.get(metric))

    def notes(self, groups: Iterable[Group], panels: Iterable[tuple[str, str]]) -> list[str]:
        """Return what a reader has to know of some groups in panels of a test set and a metric: what is left out."""
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
                    fates[f"{fate}{place}"][named(group, run)] = None
                elif outcome:
                    bases.add(outcome.basis)
            if len(bases) > 1:
                notes.append(f"{metric} on {dataset} mixes {len(bases)} protocols, which cannot be compared.")
        return notes + left_out(fates)


def select(
    results: Results,
    *,
    backbones: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Selection:
    """Choose what a figure shows.

    Args:
        results: A store's runs, scores and plans.
        backbones: Only these, or names of what was scored without training; all by default.
        losses: Only these, in any spelling; all by default.
        datasets: Only these test sets, all by default.
        metrics: Only these; all by default.

    Raises:
        InputError: If a filter names what the results do not have.
    """
    view = View(results)
    filters = view.resolved(Filters(backbones, losses, datasets=datasets, metrics=metrics))
    outcomes = {(each.run.run_id, each.dataset, each.metric): each for each in view.outcomes(filters)}
    there = {outcome.dataset for outcome in outcomes.values() if outcome.basis}
    return Selection(
        tuple(view.groups(filters)),
        tuple(name for name in filters.datasets or sorted(view.names.datasets, key=natural) if name in there),
        tuple(filters.metrics or sorted(view.names.metrics, key=natural)),
        outcomes,
    )


def losses_told_apart(results: Results, backbones: Sequence[str] | None = None) -> Sequence[str] | None:
    """Return the losses of the paper where all would be more than a figure can show; None for all.

    Args:
        results: A store.
        backbones: Only of these, all by default.

    Raises:
        InputError: If a backbone is not there.
    """
    there = {group.loss for group in select(results, backbones=backbones).groups if group.loss}
    known = there & set(paper()["loss"].to_pylist())
    return sorted(known) if known and len(there) > len(MARKERS) else None


def default_metrics(results: Results, metrics: Sequence[str] | None) -> Sequence[str] | None:
    """Return the metrics that were asked for, or else `DEFAULT_METRIC` where a store has it."""
    there = results.scores.column("metric").unique().to_pylist()
    return [DEFAULT_METRIC] if metrics is None and DEFAULT_METRIC in there else metrics


def in_order(kind: str, names: Sequence[str] | None, there: set[str]) -> list[str]:
    """Return what was asked for, in that order; by default all, by name.

    Args:
        kind: What a name is, for messages.
        names: As a person wrote them.
        there: Every name.
        find: Returns the name that a spelling means.

    Raises:
        InputError: If a name is not there.
    """
    return chosen(kind, names, there) or sorted(there, key=natural)


def named(group: Group, run: Run) -> str:
    """Return what notes call a run."""
    return f"{group.backbone} · {group.trained_with} · seed {run.seed}"


def title(metric: str, direction: str | None) -> str:
    """Return what a metric is called: its name, its unit, and an arrow towards the better."""
    unit = display_of(metric).unit
    return " ".join(filter(None, (metric, unit and f"({unit})", ARROWS.get(direction or ""))))


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
