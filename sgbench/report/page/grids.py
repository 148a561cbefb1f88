"""Tables of a page that list items of one kind: comparisons, runs, failures."""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgbench.analysis import Filters, View
from sgbench.analysis.compare import Comparison, Verdict
from sgbench.analysis.stats import Estimate
from sgbench.analysis.view import ALL, Run, Status
from sgbench.core.words import plural
from sgbench.report.compare import levels, shown_number, shown_p, shown_percent, verdict
from sgbench.report.grids import Grid as TextGrid
from sgbench.report.sequences import called, interval_of
from sgbench.spec.sources import read_code


@dataclass(frozen=True)
class Entry:
    """One entry of a grid.

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
    """A table with one header line; the first entry of each row names its subject.

    Attributes:
        caption: What it lists.
        heads: The header of each column.
        rows: The entries of each row.
        note: What was left out; empty if nothing was.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""

    @functools.cached_property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        return [any(entry.value is not None for entry in column) for column in zip(*self.rows, strict=True)]


MOST_RUNS = 1000
"""The most runs that a page lists one by one; ten thousand with their specifications would be 30 MB."""


def of_comparisons(cells: Sequence[Comparison]) -> Grid:
    """Return a row for each comparison of two losses."""
    a, b, level = cells[0].label_a, cells[0].label_b, levels(cells)
    interval = f"{level} {called(cells)}"
    heads = ("metric", "test set", "backbone", a, b, "difference", "in %", interval, "verdict")
    tests = ("p corrected", "p overall", "p by image", "its floor", "p by seed", "seeds", "images")
    return Grid(f"{b} against {a}", (*heads, *tests), tuple(_compared(cell) for cell in cells))


def of_runs(view: View, filters: Filters = ALL) -> Grid:
    """Return a row for each run that has ended, with everything known about how its numbers were computed."""
    heads = ("run", "network", "loss", "seed", "status", "device", "host", "workers", "training", "steps/s")
    rest = ("peak memory", "parameters", "finished", "sgbench", "more")
    return _listed("Every run", (*heads, *rest), view, filters, lambda run: run.status is not Status.PENDING, _ran)


def of_tunings(table: TextGrid) -> Grid:
    """Return a table of what losses were given by a search."""
    rows = tuple(tuple(map(_read, cells)) for cells in table.rows)
    return Grid(table.title, table.heads, rows, table.after)


def _read(text: str) -> Entry:
    """Return a text as an entry that is sorted as a number if it is one."""
    return Entry(text, float(text.replace(",", "")) if re.fullmatch(r"-?[\d,]+(\.\d+)?", text) else None)


def of_failures(view: View, filters: Filters = ALL) -> Grid:
    """Return a row for each run that failed, with its reason."""
    heads = ("run", "network", "loss", "seed", "at step", "reason")
    return _listed("Failed runs", heads, view, filters, lambda run: run.status is Status.FAILED, _lost)


def _listed(
    caption: str,
    heads: tuple[str, ...],
    view: View,
    filters: Filters,
    belongs: Callable[[Run], bool],
    entries: Callable[[Run, Mapping[str, Any]], tuple[Entry, ...]],
) -> Grid:
    """Return a row for each of the first runs in reading order that belong to a grid; untrained ones come last."""
    runs = [run for group in view.groups(filters) for run in group.runs if belongs(run)]
    runs.sort(key=lambda run: not run.trained)
    shown = runs[:MOST_RUNS]
    rows = {row["run_id"]: row for row in view.rows(Filters(runs=[run.run_id for run in shown])).to_pylist()}
    left = len(runs) - len(shown)
    note = f"{plural(left, 'more run')} {'is' if left == 1 else 'are'} not listed; `sgbench query` lists all of them."
    return Grid(caption, heads, tuple(entries(run, rows[run.run_id]) for run in shown), note * bool(left))


def _compared(cell: Comparison) -> tuple[Entry, ...]:
    return (
        *(Entry(text) for text in (cell.metric, cell.dataset, cell.where)),
        *(_score(cell.metric, value) for value in (cell.mean_a, cell.mean_b)),
        _score(cell.metric, cell.difference, "+"),
        _none() if cell.percent is None else Entry(shown_percent(cell.percent), cell.percent),
        _interval(cell.metric, cell.estimate),
        Entry(
            verdict(cell),
            kind="best" if cell.verdict is Verdict.SIGNIFICANT else "",
        ),
        *map(_p, (cell.p, cell.overall.p if cell.overall else None)),
        *map(_p, (cell.by_image.p, cell.by_image.floor) if cell.by_image else (None, None)),
        _p(cell.by_seed.p if cell.by_seed else None),
        _whole(len(cell.seeds)),
        _whole(cell.images),
    )


def _interval(metric: str, estimate: Estimate | None) -> Entry:
    if (interval := interval_of(estimate)) is None:
        return _none()
    ends = " to ".join(shown_number(metric, end, "+") for end in (interval.low, interval.high))
    return Entry(ends, interval.low)


def _ran(run: Run, row: Mapping[str, Any]) -> tuple[Entry, ...]:
    seconds, pace = row["wall_seconds"], row["steps_per_second"]
    memory, finished = row["peak_memory_bytes"], row["finished"]
    versions = ", ".join(f"{name} {version}" for name, version in json.loads(row["versions"] or "{}").items())
    code = ", ".join(f"{name} {digest}" for name, digest in read_code(row["code"]).items())
    told = {"versions": versions, "code of plug-ins": code, "specification": row["spec"]}
    return (
        *_subject(run),
        Entry(f"{run.status}, stale" if run.stale else run.status),
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


def _lost(run: Run, row: Mapping[str, Any]) -> tuple[Entry, ...]:
    return (*_subject(run), _whole(row["step"]), Entry(run.failure.reason if run.failure else ""))


def _subject(run: Run) -> tuple[Entry, ...]:
    return (_code(run.run_id), Entry(run.backbone), Entry(run.label), _whole(run.seed))


def _none() -> Entry:
    return Entry("–", kind="none")


def _code(text: str) -> Entry:
    return Entry(text, kind="code")


def _whole(value: int | None) -> Entry:
    return _none() if value is None else Entry(f"{value:,}", value)


def _score(metric: str, value: float | None, sign: str = "") -> Entry:
    return _none() if value is None else Entry(shown_number(metric, value, sign), value)


def _p(p: float | None) -> Entry:
    return _none() if p is None else Entry(shown_p(p), p)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
