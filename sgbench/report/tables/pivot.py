"""The pivot table that ``sgbench table`` prints: any rows and columns over the scores of stores, averaged over seeds.

Only seeds are ever averaged: whatever else differs between runs, and is in neither rows nor columns, is added to the
rows.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from sgbench.analysis.baseline import against_baseline
from sgbench.analysis.ranks import Ranking, ranking
from sgbench.analysis.view import ALL, Filters, View, meanings
from sgbench.core.errors import InputError, unknown
from sgbench.core.words import listed, plural
from sgbench.report.tables.axes import DIMENSIONS, Axes, Group
from sgbench.report.tables.model import Line, Table, finished
from sgbench.report.tables.notes import about

ROWS = ("dataset", "backbone", "loss")
COLUMNS = ("metric",)


def pivot(
    view: View,
    filters: Filters = ALL,
    *,
    rows: Sequence[str] = ROWS,
    columns: Sequence[str] = COLUMNS,
    rank: str | None = None,
) -> Table:
    """Summarise results over seeds.

    Args:
        view: One store or several.
        filters: What to show; by default everything.
        rows: Any of `DIMENSIONS`, from left to right.
        columns: Any of `DIMENSIONS`, from top to bottom.
        rank: A metric by which losses are sorted, the best first, and ranked; rows and columns are then the default.

    Raises:
        InputError: If a filter names something that the stores do not have, a dimension is unknown or named twice, or
            there can be no ranks.
    """
    _check(rows, columns)
    apart = "store" in (*rows, *columns)
    filters, rank = view.resolved(filters), rank and view.metric(rank)
    _check_rank(rank, filters, rows, columns)
    outcomes = view.outcomes(filters, apart=apart)
    significance = against_baseline(view, outcomes, filters, [*rows, *columns])
    axes = Axes(outcomes, list(view.stores))
    rows = axes.completed(rows, columns)
    dimensions = [*rows, *columns]

    groups = axes.grouped(rows, columns)
    heads = dict(sorted({key: those[0] for group in groups for key, those in group.items()}.items()))
    lines = [axes.line(rows, columns, heads, group, significance) for group in groups]
    titles = [axes.title(name) for name in rows]
    about_seeds: list[str] = []
    if "seed" not in dimensions:
        lines, about_seeds = _counted(lines, groups)
        rows, titles = [*rows, "seeds"], [*titles, "seeds"]
    about_ranks: list[str] = []
    if rank:
        ranks, at = ranking(view, rank, filters.datasets), rows.index("loss")
        lines = _ranked(lines, groups, ranks, rank, at)
        rows, titles = [*rows[:at], "rank", *rows[at:]], [*titles[:at], "rank", *titles[at:]]
        about_ranks = [ranks.note]
    told = [at for at in range(len(rows)) if any(line.labels[at] for line in lines)]
    shown, notes = finished(
        (replace(line, labels=tuple(line.labels[at] for at in told)) for line in lines), axes.directions
    )
    notes += [*(f"{run} {run.failure}." for run in view.unplaced(filters)), *about_seeds, *about_ranks]
    notes += axes.recipes.notes if "recipe" in dimensions else ()
    notes += [*axes.about_the_rest(dimensions), *meanings(each.run for each in outcomes)]
    notes += [*significance.notes, *(() if apart else view.disagreements)]
    notes += about(view, outcomes, [cell for line in shown for cell in line.cells])
    return Table(
        title=f"Scores by {listed(dimensions)}",
        heads=tuple(rows[at] for at in told),
        titles=tuple(titles[at] for at in told),
        columns=tuple(axes.column(columns, outcome) for outcome in heads.values()),
        lines=shown,
        notes=tuple(notes),
        directions=axes.directions,
    )


def _check(rows: Sequence[str], columns: Sequence[str]) -> None:
    named = [*rows, *columns]
    for name in named:
        if name not in DIMENSIONS:
            raise unknown("dimension of a table", name, DIMENSIONS)
        if named.count(name) > 1:
            raise InputError(f"--rows and --columns name '{name}' twice; name it once.")


def _check_rank(rank: str | None, filters: Filters, rows: Sequence[str], columns: Sequence[str]) -> None:
    if rank is None:
        return
    if (tuple(rows), tuple(columns)) != (ROWS, COLUMNS):
        raise InputError("--rank has rows and columns of its own; leave out --rows and --columns.")
    if filters.seeds is not None:
        raise InputError("--rank compares losses over all their seeds; leave out --seeds.")
    if filters.metrics is not None and rank not in filters.metrics:
        raise InputError(f"--rank is '{rank}', which is not shown; add --metric {rank}, or leave out --metric.")


def _ranked(lines: Sequence[Line], groups: Sequence[Group], ranking: Ranking, metric: str, at: int) -> list[Line]:
    """Return lines with their rank before the label of the loss; those of one block by their means, the best first."""
    ranked: list[tuple[tuple[float, ...], Line]] = []
    blocks: dict[tuple[str, ...], int] = {}
    for line, group in zip(lines, groups, strict=True):
        scored = [outcome for outcomes in group.values() for outcome in outcomes]
        ranks = [ranking.ranks.get((each.run.run_id, each.dataset, each.metric)) for each in scored]
        rank = next((rank for rank in ranks if rank), None)
        (mean,) = (
            cell.summary.mean if cell.summary else math.inf for cell in line.cells if cell.place["metric"] == metric
        )
        block = blocks.setdefault((*line.labels[:at], *line.labels[at + 1 : -1]), len(blocks))
        worse = -mean if ranking.direction == "higher" and mean < math.inf else mean
        fields = {"rank_best": rank.best if rank else None, "rank_worst": rank.worst if rank else None}
        cells = tuple(replace(cell, place={**cell.place, **fields}) for cell in line.cells)
        labels = (*line.labels[:at], str(rank or ""), *line.labels[at:])
        ranked.append(((block, worse), replace(line, labels=labels, fields={**line.fields, **fields}, cells=cells)))
    return [line for _, line in sorted(ranked, key=lambda each: each[0])]


def _counted(lines: Sequence[Line], groups: Sequence[Group]) -> tuple[list[Line], list[str]]:
    """Return lines with an additional label, their number of seeds if it varies, or a note on it."""
    counts = [{len(those) for those in group.values() if those[0].run.trained} for group in groups]
    every = set().union(*counts)
    apart = len(every) > 1 and all(len(count) < 2 for count in counts)
    counted = [
        replace(line, labels=(*line.labels, str(max(count)) if apart and count else ""))
        for line, count in zip(lines, counts, strict=True)
    ]
    if len(every) == 1:
        return counted, [f"Each trained line has {plural(max(every), 'seed')}."]
    return counted, [f"A cell has {min(every)} to {max(every)} seeds."] if every and not apart else []
