"""Differences between two losses with their confidence intervals, a row for each test set and backbone."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgbench.analysis.compare import Comparison, Verdict
from sgbench.core.errors import InputError
from sgbench.core.words import listed
from sgbench.report.compare import alphas, in_places, levels, pair, shown_number
from sgbench.report.figures.selection import counted, title
from sgbench.report.figures.style import COLOURS, INK, WIDTHS, Look, add_foot, in_style, new_grid
from sgbench.report.sequences import SEQUENCE, called, interval_of

ROW = 0.17
"""Distance between rows, in inches."""

AROUND = 0.62
"""Height of a panel's title and axis, in inches."""


class _Kind(NamedTuple):
    """The result of a row and its look; shapes distinguish results in greyscale."""

    label: str
    look: Look


SIGNIFICANT = {
    True: _Kind("significant, better", {"color": COLOURS[0], "marker": "o", "markerfacecolor": COLOURS[0]}),
    False: _Kind("significant, worse", {"color": COLOURS[1], "marker": "s", "markerfacecolor": COLOURS[1]}),
    None: _Kind("significant", {"color": COLOURS[6], "marker": "D", "markerfacecolor": COLOURS[6]}),
}
"""By `Comparison.better`."""

OTHERS = {
    Verdict.EQUIVALENT: _Kind("equivalent", {"color": COLOURS[2], "marker": "^", "markerfacecolor": COLOURS[2]}),
    Verdict.NOT_SIGNIFICANT: _Kind("not significant", {"color": "#6e6e6e", "marker": "o", "markerfacecolor": "white"}),
    Verdict.INCONCLUSIVE: _Kind("inconclusive", {"color": "#6e6e6e", "marker": "D", "markerfacecolor": "white"}),
}


@in_style
def draw_forest(cells: Sequence[Comparison], *, columns: int | None = None) -> Figure:
    """Draw by how much loss B differs from loss A: B − A with its confidence interval, a panel for each metric.

    Args:
        cells: Comparisons of two losses, such as `sgbench.analysis.compare.comparisons` returns or some of them.
        columns: Of a paper, 1 or 2; by default 1 for one metric, 2 for more.

    Raises:
        InputError: If no seed has scores of both losses in any of them.
    """
    drawn = [cell for cell in cells if cell.difference is not None]
    if not drawn:
        raise InputError("no seed has scores of both losses, and so there is no difference to draw.")
    metrics = list(dict.fromkeys(cell.metric for cell in drawn))
    columns = columns or (1 if len(metrics) == 1 else 2)
    panels = {metric: [cell for cell in drawn if cell.metric == metric] for metric in metrics}
    across = min(len(metrics), columns)
    high = max(len(_rows(panel)) for panel in panels.values()) * ROW + AROUND
    figure, grid = new_grid(-(-len(metrics) // across), across, columns, high / (WIDTHS[columns] / across))
    placed = [axes for line in grid for axes in line]
    for axes, panel in zip(placed, panels.values(), strict=False):
        _draw(axes, panel)
    for axes in placed[len(metrics) :]:
        axes.remove()
    there = {_kind(cell).label for cell in drawn}
    kinds = [kind for kind in (*SIGNIFICANT.values(), *OTHERS.values()) if kind.label in there]
    add_foot(figure, [Line2D([], [], label=kind.label, **kind.look) for kind in kinds], list(_notes(cells, drawn)))
    return figure


def _rows(cells: Sequence[Comparison]) -> list[Comparison | str]:
    """Return the rows from top to bottom: each test set, and its comparisons."""
    by_set: defaultdict[str, list[Comparison | str]] = defaultdict(list)
    for cell in cells:
        by_set[cell.dataset].append(cell)
    return [row for dataset, rows in by_set.items() for row in (dataset, *rows)]


def _draw(axes: Axes, cells: Sequence[Comparison]) -> None:
    """Draw the rows of one metric, with their numbers beside them."""
    rows, direction = _rows(cells), next((cell.direction for cell in cells if cell.direction), None)
    for at, row in enumerate(rows):
        if isinstance(row, Comparison):
            look = _kind(row).look
            if interval := interval_of(row.estimate):
                axes.plot([interval.low, interval.high], [at, at], color=look["color"], linewidth=1.4, gid="interval")
            axes.plot(row.difference or 0.0, at, linestyle="", markersize=5, zorder=3, gid="difference", **look)
            axes.text(1.02, at, _numbers(row), transform=axes.get_yaxis_transform(), va="center_baseline")
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    for margin in {cell.margin for cell in cells if cell.margin is not None}:
        axes.axvspan(-margin, margin, color="#8c8c8c", alpha=0.15, linewidth=0, zorder=0, gid="margin")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [row.where if isinstance(row, Comparison) else row for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if isinstance(row, Comparison) else "bold")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines.left.set_visible(False)
    better, worse = ("← better", "worse →") if direction == "lower" else ("← worse", "better →")
    difference = "B − A".replace(" ", "\N{NO-BREAK SPACE}")
    axes.set(title=title(cells[0].metric, direction))
    axes.set_xlabel(f"{better}    {difference}    {worse}" if direction else difference)


def _kind(cell: Comparison) -> _Kind:
    return SIGNIFICANT[cell.better] if cell.verdict is Verdict.SIGNIFICANT else OTHERS[cell.verdict]


def _numbers(cell: Comparison) -> str:
    """Return ``−0.0548 [−0.0789, −0.0338]``."""
    difference = shown_number(cell.metric, cell.difference, "+")
    if (interval := interval_of(cell.estimate)) is None:
        return difference
    ends = (shown_number(cell.metric, end, "+") for end in (interval.low, interval.high))
    return f"{difference} [{', '.join(ends)}]"


def _notes(cells: Sequence[Comparison], drawn: Sequence[Comparison]) -> Iterator[str]:
    """Yield notes for the reader: what is drawn, why a row is inconclusive, and what is left out."""
    first, images = drawn[0], {cell.dataset: cell.images for cell in drawn if cell.images}
    of_images = f", images: {listed(f'{count} of {dataset}' for dataset, count in images.items())}" if images else ""
    alone = listed(dict.fromkeys(cell.metric for cell in drawn if cell.by_seed and not cell.overall))
    yield (
        f"{pair(first)} Each row is the mean of B − A with its {levels(drawn)} {called(drawn)} "
        f"over seeds and images{f' (of {alone} over seeds alone)' if alone else ''}, not corrected for the number of "
        f"rows. Seeds: {counted(len(cell.seeds) for cell in drawn)}{of_images}. Significant: the largest p value of "
        f"sgbench compare, corrected for all that it compares, is at most {alphas(drawn)}."
    ).replace("B − A", "B\N{NO-BREAK SPACE}−\N{NO-BREAK SPACE}A")
    if any(cell.sequences for cell in drawn):
        yield f"{SEQUENCE} Seeds may be added after a look."
    if margins := dict.fromkeys(f"±{cell.margin:g}" for cell in drawn if cell.margin is not None):
        yield f"Grey: the margin of equivalence, {listed(margins)}."
    yield from in_places("Inconclusive", ((cell, cell.reason) for cell in drawn))
    unpaired = "no seed has both scores, and sgbench compare says why"
    yield from in_places("Not drawn", ((cell, unpaired) for cell in cells if cell.difference is None))
    yield from in_places("Left out", ((cell, reason) for cell in drawn for reason in cell.left_out))
