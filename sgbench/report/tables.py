"""The pivot that ``sgbench table`` prints: a line for each loss, a column for each metric, seeds summarised.

`pivot` turns a store's results into a `Table`, which is data; `print_table` and `to_data` show it to a person and to a
program.
"""

import functools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import rich.table
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from sgbench import expression
from sgbench.errors import unknown
from sgbench.results import Results, labels_of, whole_sets
from sgbench.results.schema import RUNS, recipe_columns
from sgbench.results.stats import Summary, summarise
from sgbench.spec import Recipe

ORDER = (
    "lpips_alex",
    "lpips_vgg",
    "lpips_squeeze",
    "fid",
    "kid",
    "fd_alex",
    "psnr_y",
    "psnr_rgb",
    "ssim_y",
    "ssim_rgb",
)
"""The order of columns; other metrics follow by name."""

DIGITS = {"lpips": 4, "ssim": 4, "fid": 2, "kid": 4, "fd": 3, "psnr": 2}
"""Decimals, by the first part of a metric's name; other metrics have four significant digits."""

ARROWS = {"lower": "↓", "higher": "↑"}

PENDING = "pending"
"""Why there is no number: a sweep will bring it."""

NOT_SCORED = "not scored"
"""Why there is no number: nobody has asked for it."""

_RECIPE = RUNS.names[RUNS.names.index("train_sha256") : RUNS.names.index("spec")]
"""Columns of a run that, with backbone, loss, scale and seed, are its identity."""

_PROVENANCE = {"device": "device", "workers": "number of workers", "versions": "package versions"}
"""Columns that are not identity and may still move the last digit, and what notes call them."""

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Row = Mapping[str, Any]
Key = tuple[str, str, str]  # run, test set, metric


@dataclass(frozen=True)
class Cell:
    """The scores of one line by one metric.

    Attributes:
        summary: Over the seeds that have a number; none where no seed has.
        reason: Why there is no number, or, beside a summary, what became of the other seeds.
        mark: Number of the note that tells apart seeds of different fates.
        basis: What the numbers rest on: version and protocol; more than one is a mixture.
        best: Whether this is the best mean among the comparable lines of its backbone.
    """

    summary: Summary | None
    reason: str | None = None
    mark: int | None = None
    basis: frozenset[str] = frozenset()
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A metric and its direction, ``lower``, ``higher``, or none while nothing has been scored by it."""

    metric: str
    direction: str | None

    @property
    def title(self) -> str:
        """The metric's name with an arrow towards the better."""
        return f"{self.metric} {ARROWS.get(self.direction or '', '')}".rstrip()


@dataclass(frozen=True)
class Line:
    """All seeds of one thing on one test set.

    Attributes:
        dataset: The test set.
        scale: Factor of super-resolution.
        kind: As in the table ``runs``.
        backbone: The backbone of trained runs, otherwise the name of what was scored.
        loss: Empty where nothing was trained.
        recipe: What tells this line from others that were trained otherwise; empty where all were trained alike.
        seeds: Number of runs in the line, with or without a number.
        cells: One for each column of the table.
    """

    dataset: str
    scale: int
    kind: str
    backbone: str
    loss: str
    recipe: str
    seeds: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table as data.

    Attributes:
        heads: Fields of `Line` that lead each line; the others are the same in all lines, and a note says so.
        columns: The metrics.
        lines: From top to bottom.
        notes: One sentence each.
    """

    heads: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Run:
    """A row of the store or, as long as there is none, a planned run; only what is trained has a recipe."""

    run_id: str
    kind: str
    backbone: str
    loss: str
    seed: int | None
    scale: int
    recipe: Row | None
    error: str | None = None

    @property
    def group(self) -> tuple[Any, ...]:
        """Equal for the seeds of one line."""
        if self.kind != "train":
            return (self.kind, self.run_id)
        recipe = [self.recipe[column] for column in _RECIPE] if self.recipe else None
        return (self.kind, self.backbone, self.loss, self.scale, json.dumps(recipe))

    def __str__(self) -> str:
        return f"{self.backbone} · {self.loss} · seed {self.seed}" if self.kind == "train" else self.backbone


def pivot(
    results: Results,
    *,
    backbones: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Table:
    """Summarise results over seeds: a line for each test set, backbone and loss, a column for each metric.

    Args:
        results: A store's runs, scores and plans; planned runs without scores are pending.
        backbones: Only these, or names of what was scored without training; all by default.
        losses: Only these, in any spelling; all by default.
        datasets: Only these test sets, all by default.
        metrics: Only these columns, all by default.

    Raises:
        InputError: If a filter names what the results do not have.
    """
    runs = _runs(results)
    rows = whole_sets(results.scores).drop_columns(["schema_version", "image", "scored"]).to_pylist()
    scores = {(row["run_id"], row["dataset"], row["metric"]): row for row in rows}
    wanted = _wanted(results, runs, scores)

    keep_backbones = _chosen("backbone", backbones, {run.backbone for run in runs})
    keep_losses = _chosen("loss", losses, {run.loss for run in runs if run.loss}, _canonical)
    keep_datasets = _chosen("test set", datasets, {dataset for _, dataset, _ in wanted})
    keep_metrics = _chosen("metric", metrics, {metric for _, _, metric in wanted})
    runs = [run for run in runs if run.backbone in keep_backbones and (losses is None or run.loss in keep_losses)]
    placed = {run_id for run_id, _, _ in wanted}
    homeless = [run for run in runs if run.error and run.run_id not in placed]
    ids = {run.run_id for run in runs}
    wanted = {key for key in wanted if key[0] in ids and key[1] in keep_datasets and key[2] in keep_metrics}

    shown = {run_id for run_id, _, _ in wanted}
    used = [row for key, row in scores.items() if key in wanted]
    columns = tuple(_column(metric, used) for metric in sorted({key[2] for key in wanted}, key=_metric_order))
    lines, marks = _lines(_groups([run for run in runs if run.run_id in shown]), columns, scores, wanted)
    heads = tuple(head for head in ("dataset", "scale", "backbone", "loss", "recipe", "seeds") if _leads(head, lines))
    notes = [*marks, *(f"{run} {run.error}." for run in homeless), *_notes(lines, columns, used)]
    notes += _provenance(results.runs, {row["run_id"] for row in used})
    return Table(heads, columns, tuple(_with_best(lines, columns)), tuple(notes))


def to_data(shown: Table) -> dict[str, Any]:
    """Return a table as plain values for JSON, with every digit of the numbers.

    Returns:
        ``metrics`` (name and direction), ``lines`` (each with ``cells`` by metric: mean, sd, n, reason, best) and
        ``notes``.
    """
    lines = []
    for line in shown.lines:
        fields = {name: value for name, value in vars(line).items() if name != "cells"}
        cells = {column.metric: _cell_data(cell) for column, cell in zip(shown.columns, line.cells, strict=True)}
        lines.append({**fields, "cells": cells})
    return {"metrics": [vars(column) for column in shown.columns], "lines": lines, "notes": list(shown.notes)}


def print_table(shown: Table, console: Console) -> None:
    """Print a table and its notes so that no number is cut, whatever the width.

    On a terminal that is too narrow, a spread goes below its mean, and metrics that do not fit follow in further
    tables. Elsewhere (a pipe, a file) the width is free and each note is one line.
    """
    width = console.width if console.is_terminal else None
    layout = _Layout(shown)
    if width is not None and layout.width() > width:
        layout = _Layout(shown, stacked=True)
    for band in layout.bands(width) if shown.lines else ():
        console.print(layout.render(band), crop=False)
        console.print()
    for note in shown.notes if shown.lines else (*shown.notes, "There is nothing to show yet."):
        console.print(Text(note, "dim"), soft_wrap=width is None, highlight=False)


def _runs(results: Results) -> list[_Run]:
    columns = ["run_id", "kind", "name", "backbone", "loss", "seed", "scale", "train", "status", "error", "step"]
    rows = results.runs.select([*columns, *_RECIPE]).to_pylist()
    runs = [
        _Run(
            run_id=row["run_id"],
            kind=row["kind"],
            backbone=row["backbone"] if row["kind"] == "train" else row["name"],
            loss=row["loss"] or "" if row["kind"] == "train" else "",
            seed=row["seed"],
            scale=row["scale"],
            recipe=row if row["kind"] == "train" else None,
            error=_failure(row) if row["status"] == "failed" else None,
        )
        for row in rows
    ]
    known = {run.run_id for run in runs}
    waiting = {plan.run_id: plan.run for plan in results.planned if plan.run_id not in known}
    defaults = recipe_columns(Recipe())  # what a plan of before there was a column means
    return runs + [
        _Run(run_id, "train", row["backbone"], row["loss"], row["seed"], row["scale"], {**defaults, **row})
        for run_id, row in waiting.items()
    ]


def _failure(row: Row) -> str:
    """Return ``failed at step 812: loss is NaN``."""
    step = "" if row["step"] is None else f" at step {row['step']}"
    cause = " ".join((row["error"] or "no reason was recorded").split()).removesuffix(step).rstrip(".")
    return f"failed{step}: {cause}"


def _wanted(results: Results, runs: Iterable[_Run], scores: Iterable[Key]) -> set[Key]:
    """Return each run, test set and metric that has a score or should have one.

    A failed run that no plan names, and that so has neither, should have had what the others have.
    """
    wanted = {
        (plan.run_id, test.name, metric) for plan in results.planned for test in plan.tests for metric in plan.metrics
    }
    wanted |= set(scores)
    named = {run_id for run_id, _, _ in wanted}
    cells = {(dataset, metric) for _, dataset, metric in wanted}
    return wanted | {(run.run_id, *cell) for run in runs if run.error and run.run_id not in named for cell in cells}


def _chosen(kind: str, names: Sequence[str] | None, there: set[str], spelled: Callable[[str], str] = str) -> set[str]:
    if names is None:
        return there
    chosen = set()
    for name in names:
        labels = labels_of(name, there) or labels_of(spelled(name), there)
        if not labels:
            raise unknown(kind, spelled(name), there)
        chosen |= labels
    return chosen


def _canonical(loss: str) -> str:
    return str(expression.parse(loss))


def _groups(runs: Iterable[_Run]) -> list[tuple[str, list[_Run]]]:
    """Return the runs of each line and what the line is called where recipes differ, sorted for reading."""
    groups: defaultdict[tuple[Any, ...], list[_Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.seed or 0):
        groups[run.group].append(run)
    recipes = [members[0].recipe for members in groups.values() if members[0].recipe]
    differing = [column for column in _RECIPE if len({str(recipe[column]) for recipe in recipes}) > 1]
    named = [(_recipe_name(members[0], differing), members) for members in groups.values()]
    return sorted(named, key=lambda item: _run_order(item[1][0], item[0]))


def _run_order(run: _Run, recipe: str) -> tuple[Any, ...]:
    return (run.scale, run.kind == "train", _natural(run.backbone), _natural(run.loss), _natural(recipe))


def _recipe_name(run: _Run, differing: Iterable[str]) -> str:
    if run.recipe is None:
        return ""
    return ", ".join(
        f"train={run.recipe['train']}@{str(run.recipe[column])[:8]}"
        if column == "train_sha256"
        else f"{column}={run.recipe[column]}"
        for column in differing
    )


def _column(metric: str, rows: Iterable[Row]) -> Column:
    directions = {_protocol(row["protocol"]).get("direction") for row in rows if row["metric"] == metric}
    return Column(metric, directions.pop() if len(directions) == 1 else None)


@functools.cache
def _protocol(text: str) -> dict[str, Any]:
    protocol: dict[str, Any] = json.loads(text)
    return protocol


def _lines(
    groups: Sequence[tuple[str, list[_Run]]],
    columns: Sequence[Column],
    scores: Mapping[Key, Row],
    wanted: set[Key],
) -> tuple[list[Line], list[str]]:
    """Return the lines and the notes that their marks point to."""
    marks: dict[str, int] = {}
    lines = []
    places = {(run_id, dataset) for run_id, dataset, _ in wanted}
    for dataset in sorted({dataset for _, dataset in places}, key=_natural):
        for recipe, group in groups:
            runs = [run for run in group if (run.run_id, dataset) in places]
            if not runs:
                continue
            cells = []
            for column in columns:
                keys = [(run, (run.run_id, dataset, column.metric)) for run in runs]
                cell, note = _cell([(run, scores.get(key), key in wanted) for run, key in keys])
                if note:
                    cell = replace(cell, mark=marks.setdefault(note, len(marks) + 1))
                cells.append(cell)
            run = runs[0]
            lines.append(Line(dataset, run.scale, run.kind, run.backbone, run.loss, recipe, len(runs), tuple(cells)))
    return lines, [f"{_superscript(mark)} {text}" for text, mark in marks.items()]


def _cell(seeds: Sequence[tuple[_Run, Row | None, bool]]) -> tuple[Cell, str | None]:
    """Summarise runs, each with its score, if there is one, and whether there should be one.

    Returns:
        The cell, and a note about the seeds without a number where they do not all have the same reason.
    """
    values = [row["value"] for _, row, _ in seeds if row and row["value"] is not None]
    basis = frozenset(_basis(row) for _, row, _ in seeds if row and row["value"] is not None)
    reasons: dict[str, list[int]] = {}
    for run, row, wanted in seeds:
        if not row or row["value"] is None:
            reasons.setdefault(_reason(run, row, wanted), []).append(run.seed or 0)
    if not reasons:
        return Cell(summarise(values), basis=basis), None
    told = "; ".join(
        f"seed{'s' * (len(which) > 1)} {', '.join(map(str, sorted(which)))}: {reason}"
        for reason, which in reasons.items()
    )
    if values:
        return Cell(summarise(values), told, basis=basis), f"Mean over {len(values)} of {len(seeds)} seeds; {told}."
    headline = min(reasons, key=lambda reason: reason in (PENDING, NOT_SCORED))
    return Cell(None, headline), f"None of {len(seeds)} seeds has a number; {told}." if len(reasons) > 1 else None


def _reason(run: _Run, row: Row | None, wanted: bool) -> str:
    """Return why a run has no number; a note gives the details of missing weights once for all."""
    if row:
        detail = "" if row["status"] == "no weights" or not row["reason"] else f": {row['reason'].rstrip('.')}"
        return f"{row['status']}{detail}"
    return run.error or (PENDING if wanted else NOT_SCORED)


def _basis(row: Row) -> str:
    return f"{row['metric_version']} {row['protocol']}"


def _with_best(lines: Iterable[Line], columns: Sequence[Column]) -> list[Line]:
    """Mark the best mean of each test set, scale, backbone and metric where at least two can be compared."""
    marked = list(lines)
    blocks: dict[tuple[str, int, str], list[int]] = {}
    for index, line in enumerate(marked):
        blocks.setdefault((line.dataset, line.scale, line.backbone), []).append(index)
    for block in blocks.values():
        for at, column in enumerate(columns):
            cells = {index: marked[index].cells[at] for index in block}
            means = {index: cell.summary.mean for index, cell in cells.items() if cell.summary}
            mixed = len(frozenset().union(*(cell.basis for cell in cells.values()))) > 1
            if len(means) < 2 or mixed or column.direction is None:
                continue
            best = min(means.values()) if column.direction == "lower" else max(means.values())
            for index in (index for index, mean in means.items() if mean == best):
                old = marked[index].cells
                marked[index] = replace(marked[index], cells=(*old[:at], replace(old[at], best=True), *old[at + 1 :]))
    return marked


def _leads(head: str, lines: Iterable[Line]) -> bool:
    """Return whether a field has to lead the lines: what is the same in all of them goes into the notes."""
    if head == "seeds":
        return len({line.seeds for line in lines if line.kind == "train"}) > 1
    values = {getattr(line, head) for line in lines}
    return len(values) > 1 if head == "scale" else bool(values - {""})


def _notes(lines: Sequence[Line], columns: Iterable[Column], rows: Sequence[Row]) -> list[str]:
    notes = []
    seeds = {line.seeds for line in lines if line.kind == "train"}
    if len(seeds) == 1:
        count = max(seeds)
        notes.append(f"Each trained line has {count} seed{'s' * (count != 1)}.")
    if any(cell.summary and cell.summary.sd is not None for line in lines for cell in line.cells):
        notes.append("± is the sample standard deviation over seeds.")
    scales = {line.scale for line in lines}
    if len(scales) == 1:
        notes.append(f"The scale is ×{max(scales)}.")
    notes += [note for dataset in dict.fromkeys(line.dataset for line in lines) for note in _about_set(dataset, rows)]
    notes += [note for column in columns for note in _about_metric(column.metric, rows)]
    return notes


def _about_set(dataset: str, rows: Iterable[Row]) -> list[str]:
    counts = sorted({row["n_images"] for row in rows if row["dataset"] == dataset})
    return [f"{dataset} has {count} image{'s' * (count != 1)}." for count in counts]


def _about_metric(metric: str, rows: Iterable[Row]) -> list[str]:
    rows = [row for row in rows if row["metric"] == metric]
    scored = [row for row in rows if row["value"] is not None]
    protocols = Counter((row["metric_version"], row["protocol"]) for row in scored or rows)
    notes = [f"{metric}: {_words(*protocol)}." for protocol in protocols]
    if len(protocols) > 1:
        each = "; or ".join(f"{_words(*protocol)} ({count} scores)" for protocol, count in protocols.items())
        notes = [f"{metric} mixes {len(protocols)} protocols, which cannot be compared: {each}."]
    reasons = {row["reason"].rstrip(".") for row in rows if row["status"] == "no weights" and row["reason"]}
    return notes + [f"{metric}, no weights: {reason}." for reason in sorted(reasons)]


def _words(version: str, protocol: str) -> str:
    """Return ``version 0.1; network AlexNet; no border crop``."""
    fields = {key.replace("_", " "): value for key, value in _protocol(protocol).items() if key != "direction"}
    if not fields.get("weights"):
        fields.pop("weights", None)
    return "; ".join([f"version {version}", *(_word(key, value) for key, value in fields.items())])


def _word(key: str, value: Any) -> str:
    if key == "weights":
        return "weights " + ", ".join(f"{network} {digest[:8]}" for network, digest in value.items())
    if value is None or value is False:
        return f"no {key}"
    return key if value is True else f"{key} {value}"


def _provenance(runs: pa.Table, shown: set[str]) -> list[str]:
    rows = [row for row in runs.select(["run_id", "kind", *_PROVENANCE]).to_pylist() if row["run_id"] in shown]
    trained = [row for row in rows if row["kind"] == "train"]
    mixed = [what for column, what in _PROVENANCE.items() if len({row[column] for row in trained}) > 1]
    return [f"The runs differ in {' and '.join(mixed)}."] if mixed else []


def _cell_data(cell: Cell) -> dict[str, Any]:
    numbers = vars(cell.summary) if cell.summary else {"mean": None, "sd": None, "n": 0}
    return {**numbers, "reason": cell.reason, "best": cell.best}


class _Layout:
    """A table as columns of text, and how many of them fit beside each other.

    Args:
        shown: The table.
        stacked: Save width: test sets head their lines, and spreads go below means.
    """

    GAP = 2  # between columns: a padding and the divider of the box

    def __init__(self, shown: Table, *, stacked: bool = False) -> None:
        self._lines = shown.lines
        self._stacked = stacked
        heads = [head for head in shown.heads if not (stacked and head == "dataset")]
        self._heads = [[Text(head), *(_head(head, line) for line in shown.lines)] for head in heads]
        self._metrics = [
            [Text(column.title.replace(" ", "\n" if stacked else " ")), *self._cells(column.metric, at)]
            for at, column in enumerate(shown.columns)
        ]
        self._head_widths = [_fitting(texts, 14 if stacked else 40) for texts in self._heads]
        self._metric_widths = [_fitting(texts, 12 if stacked else 20) for texts in self._metrics]
        if stacked:
            self._head_widths[0] = max([self._head_widths[0], *(cell_len(line.dataset) for line in shown.lines)])

    def width(self) -> int:
        """Return the width of the whole table."""
        return _total([*self._head_widths, *self._metric_widths], self.GAP)

    def bands(self, width: int | None) -> list[list[int]]:
        """Return the metrics, by index, that go beside each other; at least one a band."""
        bands: list[list[int]] = [[]]
        for index in range(len(self._metrics)):
            widths = [*self._head_widths, *(self._metric_widths[at] for at in (*bands[-1], index))]
            if width is not None and bands[-1] and _total(widths, self.GAP) > width:
                bands.append([])
            bands[-1].append(index)
        return bands

    def render(self, band: Sequence[int]) -> rich.table.Table:
        """Return some metrics behind the heads."""
        columns = [*self._heads, *(self._metrics[at] for at in band)]
        widths = [*self._head_widths, *(self._metric_widths[at] for at in band)]
        grid = rich.table.Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, self.GAP - 1, 0, 0),
            pad_edge=False,
            width=_total(widths, self.GAP),
        )
        for (title, *_), width in zip(columns, widths, strict=True):
            grid.add_column(title, width=width, overflow="fold", header_style="bold")
        dataset = None
        for index, line in enumerate(self._lines):
            if line.dataset != dataset:
                grid.add_section()
                if self._stacked:
                    grid.add_row(Text(line.dataset, "bold"))
            dataset = line.dataset
            grid.add_row(*(texts[index + 1] for texts in columns))
        return grid

    def _cells(self, metric: str, at: int) -> Iterator[Text]:
        """Yield the cells of a column, with the means aligned."""
        cells = [line.cells[at] for line in self._lines]
        wide = max((len(_number(metric, cell.summary.mean)) for cell in cells if cell.summary), default=0)
        for cell in cells:
            if cell.summary is None:
                yield Text(f"{cell.reason}{_superscript(cell.mark)}", "yellow")
                continue
            mean = _number(metric, cell.summary.mean).rjust(wide) + _superscript(cell.mark)
            sd = "" if cell.summary.sd is None else f"± {_number(metric, cell.summary.sd)}"
            yield Text(f"{mean}{chr(10) if self._stacked else ' '}{sd}".rstrip(), "bold" if cell.best else "")


def _head(head: str, line: Line) -> Text:
    return Text("" if head == "seeds" and line.kind != "train" else str(getattr(line, head)))


def _total(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _fitting(texts: Sequence[Text], wrapped: int) -> int:
    """Return the least width that breaks no word, and no text shorter than ``wrapped``."""
    lines = [line for text in texts for line in text.plain.splitlines()]
    words = [word for line in lines for word in line.split()]
    return max(max(map(cell_len, words), default=0), max((min(cell_len(line), wrapped) for line in lines), default=0))


def _number(metric: str, value: float) -> str:
    digits = DIGITS.get(metric.partition("_")[0])
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"


def _superscript(mark: int | None) -> str:
    return "" if mark is None else str(mark).translate(_SUPERSCRIPTS)


def _metric_order(metric: str) -> tuple[int, str]:
    return (ORDER.index(metric) if metric in ORDER else len(ORDER), metric)


def _natural(text: str) -> tuple[Any, ...]:
    """Return a key by which Set5 comes before Set14 and a weight of 0.1 before one of 10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple(float(part) if index % 2 else part for index, part in enumerate(parts))
