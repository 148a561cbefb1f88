"""What a store bears out, in words: how far its runs are, and where a loss really differs from L1."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sgbench.analysis import Results
from sgbench.analysis.compare import NOT_SHOWN, REAL, Comparison
from sgbench.report.tables.model import listed, metric_order, number, plural, titled


class Finding(NamedTuple):
    """What was found by some metrics."""

    metrics: str
    told: str
    """Sentences."""


def counted(results: Results) -> str:
    """Return how many runs a store has of each status, in a sentence."""
    rows = results.runs.select(["run_id", "kind", "status"]).to_pylist()
    trained = Counter(row["status"] for row in rows if row["kind"] == "train")
    known = {row["run_id"] for row in rows}
    pending = len({plan.run_id for plan in results.planned} - known)
    parts = [f"{trained['done']} done", f"{trained['failed']} failed", f"{pending} pending"]
    others = sum(row["kind"] != "train" for row in rows)
    scored = f" {plural(others, 'other subject')} {'was' if others == 1 else 'were'} scored without training."
    return f"{plural(trained.total() + pending, 'run')}: {listed(parts)}.{scored * bool(others)}"


def without_numbers(results: Results) -> list[str]:
    """Return a sentence for each metric by which nothing has a number, though it was asked for."""
    statuses: defaultdict[str, set[str]] = defaultdict(set)
    for row in results.totals.select(["metric", "value", "status"]).to_pylist():
        statuses[row["metric"]].add("" if row["value"] is not None else row["status"])
    return [
        f"There is no number by {metric}: {listed(sorted(found))}."
        for metric, found in sorted(statuses.items(), key=lambda item: metric_order(item[0]))
        if "" not in found
    ]


class _Outcome(NamedTuple):
    """What became of some comparisons; what is real comes first."""

    rank: int
    words: str
    """How a sentence begins that goes on with where."""
    reason: str


def findings(cells: Sequence[Comparison]) -> list[Finding]:
    """Return where one loss really differs from another and by how much, and where that is not known.

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
        alike[tuple((outcome, _places(those)) for outcome, those in found.items())].append(metric)
    return [
        Finding(
            listed(_title(metric, cells) for metric in metrics),
            " ".join(
                f"{outcome.words} on {places}{_end(outcome, [outcomes[metric][outcome] for metric in metrics])}."
                for outcome, places in found
            ),
        )
        for found, metrics in alike.items()
    ]


def _outcomes(cells: Sequence[Comparison]) -> dict[_Outcome, list[Comparison]]:
    """Return comparisons by one metric by what became of them."""
    sides = {True: "better than", False: "worse than", None: "different from"}
    found: defaultdict[_Outcome, list[Comparison]] = defaultdict(list)
    for cell in cells:
        if cell.verdict == REAL:
            found[_Outcome(0, f"{cell.b} is really {sides[cell.better]} {cell.a}", "")].append(cell)
        elif cell.verdict == NOT_SHOWN:
            found[_Outcome(1, "No difference is shown to be real", "")].append(cell)
        else:
            found[_Outcome(2, "It cannot be decided", str(cell.reason))].append(cell)
    return dict(sorted(found.items()))


def _title(metric: str, cells: Iterable[Comparison]) -> str:
    """Return a metric with the arrow of its direction, which stay in one line."""
    direction = next((cell.direction for cell in cells if cell.metric == metric and cell.direction), None)
    return titled(metric, direction).replace(" ", "\N{NO-BREAK SPACE}")


def _end(outcome: _Outcome, found: Sequence[Sequence[Comparison]]) -> str:
    """Return how a sentence ends: by how much each metric differs, if it really does, or why that is not known."""
    if outcome.rank:
        return f": {outcome.reason}" if outcome.reason else ""
    if len(found) == 1:
        return f", by {_amount(found[0])}"
    return f", by {listed(f'{_amount(cells)} in {cells[0].metric}' for cells in found)}"


def _places(cells: Iterable[Comparison]) -> str:
    """Return ``Set5 with edsr-tiny and rdn-tiny; Set14 with edsr-tiny``."""
    backbones: defaultdict[str, list[str]] = defaultdict(list)
    for cell in cells:
        backbones[cell.dataset].append(f"{cell.backbone} ({cell.recipe})" if cell.recipe else cell.backbone)
    datasets: defaultdict[str, list[str]] = defaultdict(list)
    for dataset, names in backbones.items():
        datasets[listed(names)].append(dataset)
    return "; ".join(f"{listed(there)} with {names}" for names, there in datasets.items())


def _amount(cells: Sequence[Comparison]) -> str:
    """Return ``0.0890 to 0.1050 (18.2% to 25.1%)``."""
    metric = cells[0].metric
    absolute = _range([abs(cell.difference or 0.0) for cell in cells], lambda value: number(metric, value))
    relative = [abs(cell.percent) for cell in cells if cell.percent is not None]
    return absolute + (f" ({_range(relative, lambda value: f'{value:.1f}%')})" if relative else "")


def _range(values: Sequence[float], shown: Callable[[float], str]) -> str:
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"
