"""The ranks that losses may have by a metric, and which losses the comparisons of every two cannot distinguish."""

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Transform, offset_copy

from sgbench.analysis.compare import ALPHA
from sgbench.analysis.ranks import RankedPlace, Ranking, ranking
from sgbench.analysis.view import Filters, View
from sgbench.core.errors import InputError
from sgbench.core.words import natural
from sgbench.report.compare import shown_number
from sgbench.report.figures.selection import counted, title
from sgbench.report.figures.style import COLOURS, INK, WIDTHS, add_foot, in_style, new_grid

ROW = 0.17
"""Distance between losses, in inches."""

AROUND = 0.93
"""Height of a panel's title and axis, in inches."""

GROUP = 0.07
"""Distance between the lines of two groups, in inches."""


@in_style
def draw_ranks(view: View, filters: Filters, *, columns: int | None = None) -> Figure:
    """Draw the ranks that each loss of a store may have, a panel for each metric, test set, backbone and recipe.

    Args:
        view: A store.
        filters: Which metrics, by default as for tables, test sets and backbones to show. Losses are always ranked
            among all of the store.
        columns: Of a paper, 1 or 2; by default 1 for a single panel.

    Raises:
        InputError: As `sgbench.analysis.ranks.ranking` does, or if nothing is left.
    """
    panels = list(_panels(view, filters))
    if not panels:
        raise InputError("no two losses have scores of two seeds each there, and so there is no rank to draw.")
    columns = columns or (1 if len(panels) == 1 else 2)
    across = min(len(panels), columns)
    high = max(len(place.losses) for _, place in panels) * ROW + AROUND
    figure, grid = new_grid(-(-len(panels) // across), across, columns, high / (WIDTHS[columns] / across))
    placed = [axes for line in grid for axes in line]
    for axes, (found, place) in zip(placed, panels, strict=False):
        _draw(axes, found, place)
    for axes in placed[len(panels) :]:
        axes.remove()
    add_foot(figure, _legend(), [_note(place for _, place in panels)])
    return figure


def _panels(view: View, filters: Filters) -> Iterable[tuple[Ranking, RankedPlace]]:
    for metric in filters.metrics or view.default_metrics or sorted(view.names.metrics, key=natural):
        found = ranking(view, metric, filters.datasets)
        for place in sorted(found.places, key=lambda place: (natural(place.dataset), natural(place.where))):
            if filters.backbones is None or place.backbone in filters.backbones:
                yield found, place


def _draw(axes: Axes, found: Ranking, place: RankedPlace) -> None:
    names = [each.loss for each in place.losses]
    for at, each in enumerate(place.losses):
        best, worst = each.rank
        axes.plot([best, worst], [at, at], clip_on=False, gid="ranks", **_RANKS)
        axes.plot(at + 1, at, zorder=3, clip_on=False, gid="mean", **_MEAN)
        mean = shown_number(found.metric, each.mean)
        axes.text(1, at, mean, transform=_beside(axes, len(place.groups)), va="center_baseline")
    for number, group in enumerate(place.groups):
        rows = [names.index(loss) for loss in group]
        axes.plot([1] * len(rows), rows, transform=_beside(axes, number), clip_on=False, gid="group", **_GROUP)
    axes.set_xlim(0.5, len(names) + 0.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xticks(_ticks(len(names)))
    axes.set_yticks(range(len(names)), [each.label for each in place.losses])
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines.left.set_visible(False)
    axes.set(title=f"{title(found.metric, found.direction)}\n{place.dataset}\n{place.where}", xlabel="rank")


_RANKS: dict[str, Any] = {"color": COLOURS[0], "linewidth": 3.5, "solid_capstyle": "round"}
_MEAN: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 4, "color": INK, "markerfacecolor": "white"}
_GROUP: dict[str, Any] = {"color": "#6e6e6e", "linewidth": 1.0, "marker": "o", "markersize": 2.2}


def _ticks(count: int) -> Sequence[int]:
    """Return the ranks for which there is room on the axis."""
    step = 1 if count <= 10 else 5 if count <= 40 else 10
    return sorted({1, *range(step, count + 1, step)})


def _beside(axes: Axes, groups: int) -> Transform:
    """Return where 1 is to the right of a panel by the lines of some groups, and rows are as in it."""
    return offset_copy(axes.get_yaxis_transform(), axes.get_figure(root=True), GROUP * (groups + 1))


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], label="ranks that the loss may have", **_RANKS),
        Line2D([], [], label="rank of its mean", **_MEAN),
        Line2D([], [], label="no two of these differ significantly", **_GROUP),
    ]


def _note(places: Iterable[RankedPlace]) -> str:
    seeds = counted(len(each.runs) for place in places for each in place.losses)
    return (
        "All losses of the store with two seeds or more, the best mean first, with their means over seeds and images. "
        "The best rank of a loss is one more than the number of losses that are significantly better; its worst leaves "
        "room for those that are significantly worse. Significant: the largest p value of sgbench compare, corrected "
        f"for every two losses of the panel, is at most {ALPHA:g}: with {100 * (1 - ALPHA):g}% confidence, all ranges "
        f"of a panel together hold the true ranks. Seeds: {seeds}."
    )
