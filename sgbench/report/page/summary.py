"""What a store bears out, in words: how far its runs are, and where a loss really differs from L1."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sgbench.report.tables.model import listed, metric_order, number, plural, titled
from sgbench.results import Results
from sgbench.results.compare import NOT_SHOWN, REAL, Comparison


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


def findings(cells: Sequence[Comparison]) -> list[Finding]:
    """Return what the comparison of two losses found; metrics that found the same share their words.

    Args:
        cells: Of one pair of losses, by any metrics; of each, some seed has both scores.
    """
    by_metric: defaultdict[str, list[Comparison]] = defaultdict(list)
    for cell in cells:
        by_metric[cell.metric].append(cell)
    by_words: defaultdict[str, list[str]] = defaultdict(list)
    for metric in sorted(by_metric, key=metric_order):
        direction = next((cell.direction for cell in by_metric[metric] if cell.direction), None)
        by_words[finding(by_metric[metric])].append(titled(metric, direction).replace(" ", "\N{NO-BREAK SPACE}"))
    return [Finding(listed(metrics), told) for told, metrics in by_words.items()]


def finding(cells: Sequence[Comparison]) -> str:
    """Return where one loss really differs from another by a metric and by how much, and where that is not known.

    Args:
        cells: Of one pair of losses and one metric; of each, some seed has both scores.
    """
    sides = {True: "better than", False: "worse than", None: "different from"}
    real: defaultdict[str, list[Comparison]] = defaultdict(list)
    undecided: defaultdict[str, list[Comparison]] = defaultdict(list)
    for cell in cells:
        if cell.verdict == REAL:
            real[sides[cell.better]].append(cell)
        elif cell.verdict != NOT_SHOWN:
            undecided[str(cell.reason)].append(cell)
    told = [
        f"{those[0].b} is really {side} {those[0].a} on {_places(those)}, by {_amount(those)}."
        for side, those in real.items()
    ]
    if unclear := [cell for cell in cells if cell.verdict == NOT_SHOWN]:
        told.append(f"No difference is shown to be real on {_places(unclear)}.")
    told += [f"It cannot be decided on {_places(those)}: {reason}." for reason, those in undecided.items()]
    return " ".join(told)


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
