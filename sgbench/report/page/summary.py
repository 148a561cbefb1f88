"""A summary of a store in words: the status of its runs, and where a loss differs significantly from L1."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sgbench.analysis import Filters, View
from sgbench.analysis.compare import Comparison, Verdict
from sgbench.analysis.view import ALL, Status
from sgbench.core.status import ScoreStatus
from sgbench.core.words import listed, plural
from sgbench.report.compare import places
from sgbench.report.tables.model import metric_order, number, titled


class Finding(NamedTuple):
    """What was found by some metrics."""

    metrics: str
    told: str
    """Sentences."""


def counted(view: View, filters: Filters = ALL) -> str:
    """Return the number of runs with each status, in a sentence."""
    runs = view.runs(filters)
    trained = Counter(run.status for run in runs if run.trained)
    others = len(runs) - trained.total()
    scored = f" {plural(others, 'other subject')} {'was' if others == 1 else 'were'} scored without training."
    by_status = listed(f"{trained[status]} {status}" for status in Status)
    return f"{plural(trained.total(), 'run')}: {by_status}.{scored * bool(others)}"


def without_numbers(view: View, filters: Filters = ALL) -> list[str]:
    """Return a sentence for each metric that was requested but has no number."""
    fates: defaultdict[str, set[str]] = defaultdict(set)
    for row in view.totals(filters).group_by(["metric", "status"]).aggregate([]).to_pylist():
        fates[row["metric"]].add(row["status"])
    return [
        f"There is no number by {metric}: {listed(sorted(found))}."
        for metric, found in sorted(fates.items(), key=lambda item: metric_order(item[0]))
        if ScoreStatus.OK not in found
    ]


class _Outcome(NamedTuple):
    """The outcome of some comparisons; significant ones come first."""

    rank: int
    words: str
    """How a sentence begins that goes on with where."""


def findings(cells: Sequence[Comparison]) -> list[Finding]:
    """Return where one loss differs significantly from another and by how much, and where it is inconclusive.

    Metrics that found the same in the same places share their words.

    Args:
        cells: Of one pair of losses, by any metrics; of each, some seed has both scores.
    """
    outcomes = {
        metric: _outcomes([cell for cell in cells if cell.metric == metric])
        for metric in sorted({cell.metric for cell in cells}, key=metric_order)
    }
    alike: defaultdict[tuple[tuple[_Outcome, str], ...], list[str]] = defaultdict(list)
    for metric, found in outcomes.items():
        alike[tuple((outcome, places(those)) for outcome, those in found.items())].append(metric)
    return [
        Finding(
            listed(_title(metric, cells) for metric in metrics),
            " ".join(
                f"{outcome.words} on {where}{_end(outcome, [outcomes[metric][outcome] for metric in metrics])}."
                for outcome, where in found
            ),
        )
        for found, metrics in alike.items()
    ]


def _outcomes(cells: Sequence[Comparison]) -> dict[_Outcome, list[Comparison]]:
    """Return comparisons by one metric, grouped by outcome."""
    sides = {True: "better than", False: "worse than", None: "different from"}
    found: defaultdict[_Outcome, list[Comparison]] = defaultdict(list)
    for cell in cells:
        match cell.verdict:
            case Verdict.SIGNIFICANT:
                outcome = _Outcome(0, f"{cell.label_b} is significantly {sides[cell.better]} {cell.label_a}")
            case Verdict.EQUIVALENT:
                outcome = _Outcome(1, f"{cell.label_b} is equivalent to {cell.label_a} within {cell.margin:g}")
            case Verdict.NOT_SIGNIFICANT:
                outcome = _Outcome(2, "No difference is significant")
            case Verdict.INCONCLUSIVE:
                outcome = _Outcome(3, "The comparison is inconclusive")
        found[outcome].append(cell)
    return dict(sorted(found.items()))


def _title(metric: str, cells: Iterable[Comparison]) -> str:
    """Return a metric with the arrow of its direction, joined so that they stay on one line."""
    direction = next((cell.direction for cell in cells if cell.metric == metric and cell.direction), None)
    return titled(metric, direction).replace(" ", "\N{NO-BREAK SPACE}")


def _end(outcome: _Outcome, found: Sequence[Sequence[Comparison]]) -> str:
    """Return how a sentence ends: by how much each metric differs, if that is significant."""
    if outcome.rank:
        return ""
    if len(found) == 1:
        return f", by {_amount(found[0])}"
    return f", by {listed(f'{_amount(cells)} in {cells[0].metric}' for cells in found)}"


def _amount(cells: Sequence[Comparison]) -> str:
    """Return ``0.0890 to 0.1050 (18.2% to 25.1%)``."""
    metric = cells[0].metric
    absolute = _range([abs(cell.difference or 0.0) for cell in cells], lambda value: number(metric, value))
    relative = [abs(cell.percent) for cell in cells if cell.percent is not None]
    return absolute + (f" ({_range(relative, lambda value: f'{value:.1f}%')})" if relative else "")


def _range(values: Sequence[float], shown: Callable[[float], str]) -> str:
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"
