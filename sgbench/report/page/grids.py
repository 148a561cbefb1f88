"""Tables of a page that are lists of like things: comparisons, runs, failures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sgbench.analysis import Results
from sgbench.analysis.compare import Comparison, Verdict
from sgbench.analysis.stats import Estimate
from sgbench.core.words import natural
from sgbench.report.tables.model import number

Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """What stands in one place.

    Attributes:
        text: As it is read.
        value: As it is sorted, if otherwise than the text says.
        kind: A class for the style: ``none`` (no number), ``best``, ``code``.
        details: Text that is shown on demand; then ``text`` says what it is.
    """

    text: str
    value: float | None = None
    kind: str = ""
    details: str = ""


@dataclass(frozen=True)
class Grid:
    """A table with one line of heads; the first entry of each row says what the row is about."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        return [any(entry.value is not None for entry in column) for column in zip(*self.rows, strict=True)]


def of_comparisons(cells: Sequence[Comparison]) -> Grid:
    """Return a row for each comparison of two losses."""
    a, b, level = cells[0].a, cells[0].b, f"{100 * (1 - cells[0].alpha):g}%"
    heads = ("metric", "test set", "backbone", a, b, "difference", "in %", f"{level} interval", "verdict")
    tests = ("p corrected", "p overall", "p by image", "its floor", "p by seed", "seeds", "images")
    return Grid(f"{b} against {a}", (*heads, *tests), tuple(_compared(cell) for cell in cells))


def of_runs(results: Results) -> Grid:
    """Return a row for each run that has ended, with all that is known of how its numbers came about."""
    heads = ("run", "network", "loss", "seed", "status", "device", "host", "workers", "training", "steps/s")
    rest = ("peak memory", "parameters", "finished", "sgbench", "more")
    return Grid("Every run", (*heads, *rest), tuple(_ran(row) for row in _ordered(results)))


def of_failures(results: Results) -> Grid:
    """Return a row for each run that failed, with its reason."""
    rows = [
        (
            _code(row["run_id"]),
            Entry(_network(row)),
            Entry(row["loss"] or ""),
            _whole(row["seed"]),
            _whole(row["step"]),
            Entry(row["error"] or "no reason was recorded"),
        )
        for row in _ordered(results)
        if row["status"] == "failed"
    ]
    return Grid("Failed runs", ("run", "network", "loss", "seed", "at step", "reason"), tuple(rows))


def _compared(cell: Comparison) -> tuple[Entry, ...]:
    backbone = f"{cell.backbone} ({cell.recipe})" if cell.recipe else cell.backbone
    side = {True: ", better", False: ", worse", None: ""}[cell.better if cell.verdict is Verdict.SIGNIFICANT else None]
    return (
        *(Entry(text) for text in (cell.metric, cell.dataset, backbone)),
        *(_score(cell.metric, value) for value in (cell.mean_a, cell.mean_b)),
        _score(cell.metric, cell.difference, signed=True),
        _none() if cell.percent is None else Entry(_signed(f"{cell.percent:z.1f}%", cell.percent), cell.percent),
        _interval(cell.metric, cell.overall or cell.by_seed),
        Entry(f"{cell.verdict}{side}", kind="best" if cell.verdict is Verdict.SIGNIFICANT else ""),
        *map(_p, (cell.p, cell.overall.p if cell.overall else None)),
        *map(_p, (cell.by_image.p, cell.by_image.floor) if cell.by_image else (None, None)),
        _p(cell.by_seed.p if cell.by_seed else None),
        _whole(len(cell.seeds)),
        _whole(cell.images),
    )


def _interval(metric: str, estimate: Estimate | None) -> Entry:
    if estimate is None:
        return _none()
    ends = (estimate.interval.low, estimate.interval.high)
    return Entry(" to ".join(_score(metric, end, signed=True).text for end in ends), ends[0])


def _ran(row: Row) -> tuple[Entry, ...]:
    seconds, pace = row["wall_seconds"], row["steps_per_second"]
    memory, finished = row["peak_memory_bytes"], row["finished"]
    versions = ", ".join(f"{name} {version}" for name, version in json.loads(row["versions"] or "{}").items())
    told = {"versions": versions, "specification": row["spec"]}
    return (
        _code(row["run_id"]),
        Entry(_network(row)),
        Entry(row["loss"] or ""),
        _whole(row["seed"]),
        Entry(row["status"]),
        Entry(row["device"] or ""),
        Entry(row["host"] or ""),
        _whole(row["workers"]),
        _none() if seconds is None else Entry(_duration(seconds), seconds),
        _none() if pace is None else Entry(f"{pace:.3g}", pace),
        _none() if memory is None else Entry(f"{memory / 2**30:.2f} GiB", memory),
        _whole(row["parameters"]),
        _none() if finished is None else Entry(f"{finished:%Y-%m-%d %H:%M} UTC", finished.timestamp()),
        _code(row["git_revision"] or ""),
        Entry("specification", details="\n\n".join(f"{name}: {text}" for name, text in told.items() if text)),
    )


def _ordered(results: Results) -> list[Row]:
    return sorted(
        results.runs.to_pylist(),
        key=lambda row: (row["kind"] != "train", natural(_network(row)), natural(row["loss"] or ""), row["seed"] or 0),
    )


def _network(row: Row) -> str:
    return str(row["backbone"] if row["kind"] == "train" else row["name"])


def _none() -> Entry:
    return Entry("–", kind="none")


def _code(text: str) -> Entry:
    return Entry(text, kind="code")


def _whole(value: int | None) -> Entry:
    return _none() if value is None else Entry(f"{value:,}", value)


def _score(metric: str, value: float | None, *, signed: bool = False) -> Entry:
    if value is None:
        return _none()
    return Entry(_signed(number(metric, value), value if signed else min(value, 0.0)), value)


def _signed(text: str, value: float) -> str:
    """Return a number with a plus if it is positive, and a minus as wide as that; what rounds to zero has no sign."""
    return f"{'+' * (value > 0 and bool(text.strip('0.%')))}{text}".replace("-", "−")


def _p(p: float | None) -> Entry:
    return _none() if p is None else Entry(f"{p:.{3 if p >= 0.001 else 2}g}", p)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
