"""The pivot that ``sgbench table`` prints: any rows and columns over the scores of stores, seeds summarised.

Nothing but seeds is ever averaged: what differs, and is named neither for the rows nor for the columns, is added to
the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sgbench.analysis import Results
from sgbench.core.errors import InputError, unknown
from sgbench.report.tables.axes import DIMENSIONS, Axes, Group
from sgbench.report.tables.cells import Marks, with_best
from sgbench.report.tables.facts import Filters, Inventory, resolved
from sgbench.report.tables.judged import judged
from sgbench.report.tables.model import Line, Table, listed, plural
from sgbench.report.tables.notes import about
from sgbench.report.tables.stores import together

ROWS = ("dataset", "backbone", "loss")
COLUMNS = ("metric",)


def pivot(
    stores: Mapping[str, Results],
    filters: Filters | None = None,
    *,
    rows: Sequence[str] = ROWS,
    columns: Sequence[str] = COLUMNS,
) -> Table:
    """Summarise results over seeds.

    Args:
        stores: The runs, scores and plans of one store or several, by what each is called; planned runs without scores
            are pending.
        filters: What is asked for; all by default.
        rows: Of `DIMENSIONS`, from left to right.
        columns: Of `DIMENSIONS`, from top to bottom.

    Raises:
        InputError: If a filter names what the stores do not have, or a dimension is unknown or named twice.
    """
    _check(rows, columns)
    whole = together(stores)
    apart = "store" in (*rows, *columns)
    inventory = Inventory.of(whole, apart=apart)
    filters = resolved(filters or Filters(), inventory.names)
    facts = inventory.facts(filters)
    verdicts = judged(whole.merged, facts, filters, [*rows, *columns])
    axes = Axes(facts, list(whole.each))
    rows = axes.completed(rows, columns)
    dimensions = [*rows, *columns]

    marks = Marks()
    groups = axes.grouped(rows, columns)
    heads = dict(sorted({key: facts[0] for group in groups for key, facts in group.items()}.items()))
    lines = [axes.line(rows, columns, heads, group, marks, verdicts) for group in groups]
    titles = [axes.title(name) for name in rows]
    about_seeds: list[str] = []
    if "seed" not in dimensions:
        lines, about_seeds = _counted(lines, groups)
        rows, titles = [*rows, "seeds"], [*titles, "seeds"]
    told = [at for at in range(len(rows)) if any(line.labels[at] for line in lines)]
    notes = [*marks.notes(), *(f"{run} {run.error}." for run in inventory.homeless(filters)), *about_seeds]
    notes += axes.recipes.notes if "recipe" in dimensions else ()
    notes += [*axes.about_the_rest(dimensions), *verdicts.notes, *(() if apart else whole.notes)]
    notes += about(whole.merged, facts, [cell for line in lines for cell in line.cells])
    return Table(
        title=f"Scores by {listed(dimensions)}",
        heads=tuple(rows[at] for at in told),
        titles=tuple(titles[at] for at in told),
        columns=tuple(axes.column(columns, fact) for fact in heads.values()),
        lines=with_best(
            (replace(line, labels=tuple(line.labels[at] for at in told)) for line in lines), axes.directions
        ),
        notes=tuple(notes),
        directions=axes.directions,
    )


def _check(rows: Sequence[str], columns: Sequence[str]) -> None:
    named = [*rows, *columns]
    for name in named:
        if name not in DIMENSIONS:
            raise unknown("dimension of a table", name, DIMENSIONS)
        if named.count(name) > 1:
            raise InputError(f"--rows and --columns name '{name}' twice; once is enough.")


def _counted(lines: Sequence[Line], groups: Sequence[Group]) -> tuple[list[Line], list[str]]:
    """Return lines with a label more, the number of their seeds where that has to be told, or a note of it."""
    counts = [{len(facts) for facts in group.values() if facts[0].run.kind == "train"} for group in groups]
    every = set().union(*counts)
    apart = len(every) > 1 and all(len(count) < 2 for count in counts)
    counted = [
        replace(line, labels=(*line.labels, str(max(count)) if apart and count else ""))
        for line, count in zip(lines, counts, strict=True)
    ]
    if len(every) == 1:
        return counted, [f"Each trained line has {plural(max(every), 'seed')}."]
    return counted, [f"A cell has {min(every)} to {max(every)} seeds."] if every and not apart else []
