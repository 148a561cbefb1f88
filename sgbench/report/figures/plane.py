"""Two metrics against each other, PSNR against LPIPS: what a loss gains in one and pays in the other."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from sgbench.analysis import Filters, View
from sgbench.analysis.stats import summarise
from sgbench.analysis.view import ALL, DEFAULT_METRIC, Group, chosen, meanings
from sgbench.core.errors import InputError
from sgbench.report.figures.selection import BAND, Selection, counted, select
from sgbench.report.figures.style import (
    COLOURS,
    FILLS,
    INK,
    MARKERS,
    TEXT,
    Look,
    add_foot,
    in_style,
    looks,
    new_figure,
)

AXES = ("psnr_y", DEFAULT_METRIC)
"""The default metrics of the x-axis and the y-axis."""

OTHERS = ("x", "+", "1", "2", "3", "4")
"""Markers of untrained subjects."""

NUMBERED = 40
"""The most losses that are drawn; more than there are markers have numbers instead."""

_DOT: Look = {"marker": "o", "markersize": 2.5}
"""Of a loss with a number."""

_FRONT: Look = {"color": "#8c8c8c", "linestyle": (0, (4, 2)), "linewidth": 0.8, "zorder": 1.5}
_SIDES = tuple((x, y) for far in (1.0, 1.9, 2.8) for x, y in itertools.product((far, -far, 0), repeat=2) if x or y)
"""Where the number of a point may stand, in the order of preference: steps to the right and up."""

Point = tuple[float, float]


@in_style
def draw_plane(view: View, filters: Filters = ALL, *, columns: int | None = None) -> Figure:
    """Draw one metric against another, a panel for each test set, with the Pareto front.

    Three seeds or more are their mean with a bar of one sample standard deviation each way; fewer are a point each.
    A line marks the Pareto front: points with none that is as good in one metric and better in the other. More losses
    than there are markers are numbered.

    Args:
        view: A store.
        filters: What is asked for, as a person wrote it; its metrics are the one across and the one up, by default
            `AXES`.
        columns: Of a paper, 1 or 2; by default what is needed.

    Raises:
        InputError: If a filter names what is not there, there are not two metrics, or nothing has a score of both.
    """
    pair = tuple(chosen("metric", filters.metrics, view.names.metrics) or AXES)
    if len(set(pair)) != 2:
        raise InputError(f"--metric is given as {', '.join(pair)}; a plane needs two, the one across and the one up.")
    shown = select(view, replace(filters, metrics=pair))
    points = {
        (dataset, group): found
        for dataset in shown.datasets
        for group in shown.groups
        if (found := _points(shown, group, dataset))
    }
    panels = [dataset for dataset in shown.datasets if any(name == dataset for name, _ in points)]
    groups = [group for group in shown.groups if any(each is group for _, each in points)]
    if not panels:
        raise InputError(f"nothing has a score of both {pair[0]} and {pair[1]} on one test set.")
    styles = _Styles(groups)
    figure, all_axes = new_figure(len(panels), columns)
    ways = [shown.direction(metric) for metric in pair]
    drawn: dict[str, dict[Group, list[Point]]] = {}
    has_front = False
    for axes, dataset in zip(all_axes, panels, strict=True):
        axes.set(title=dataset, xlabel=shown.title(pair[0]), ylabel=shown.title(pair[1]))
        drawn[dataset] = {group: _draw(axes, points.get((dataset, group), []), styles.of(group)) for group in groups}
        has_front |= _draw_front(axes, itertools.chain(*drawn[dataset].values()), ways)
    notes = shown.notes(shown.groups, [(dataset, metric) for dataset in panels for metric in pair])
    counts = {len(found) for (_, group), found in points.items() if group.loss}
    front = [Line2D([], [], label="Pareto front", **_FRONT)] if has_front else []
    add_foot(figure, [*styles.handles(), *front], [*_explanation(counts), *notes, *meanings(groups)])
    figure.draw_without_rendering()  # which lays out the axes
    for axes, dataset in zip(all_axes, panels, strict=True):
        at = {point: styles.number(group) for group, its in drawn[dataset].items() for point in its}
        _number(axes, {point: number for point, number in at.items() if number})
    return figure


class _Styles:
    """The look of groups, distinct even in greyscale: colour and fill for the backbone, shape or number for the loss.

    Args:
        groups: All that are drawn.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        trained = [group for group in groups if group.loss]
        self._backbones = list(dict.fromkeys(group.backbone for group in trained))
        self._losses = list(dict.fromkeys(group.trained_with for group in trained))
        self._numbers = range(1, NUMBERED + 1) if len(self._losses) > len(MARKERS) else ()
        self._others = [str(group.conditions) for group in groups if not group.loss]
        self._names = {str(group.conditions): group.backbone for group in groups}

    def of(self, group: Group) -> Look:
        """Return the look of a group's points."""
        if not group.loss:
            return self._other(str(group.conditions))
        if self._numbers:
            return self._filled(group.backbone) | _DOT
        (marker,) = looks("losses", self._losses, group.trained_with, MARKERS)
        return self._filled(group.backbone) | {"marker": marker}

    def number(self, group: Group) -> int | None:
        """Return the number of a group's loss; None if losses have markers."""
        if not self._numbers or not group.loss:
            return None
        (number,) = looks("losses", self._losses, group.trained_with, self._numbers)
        return int(number)

    def handles(self) -> list[Artist]:
        """Return the legend: backbones, then losses, then untrained subjects."""
        backbones = {name: {**self._filled(name), "marker": "o"} for name in self._backbones}
        hollow: Look = {"color": INK, "fillstyle": "none"}
        losses = (
            {f"{number}  {loss}": hollow | _DOT for number, loss in zip(self._numbers, self._losses, strict=False)}
            if self._numbers
            else {loss: hollow | {"marker": mark} for loss, mark in zip(self._losses, MARKERS, strict=False)}
        )
        others = {self._names[key]: self._other(key) for key in self._others}
        looks_by_name = [*backbones.items(), *losses.items(), *others.items()]
        return [Line2D([], [], label=name, linestyle="", **look) for name, look in looks_by_name]

    def _filled(self, backbone: str) -> Look:
        colour, fill = looks("backbones", self._backbones, backbone, COLOURS, FILLS)
        above = 3 - 0.1 * self._backbones.index(backbone)  # the first is hollow, and hides nothing
        return {"color": colour, "fillstyle": fill, "markerfacecoloralt": "white", "zorder": above}

    def _other(self, key: str) -> Look:
        (marker,) = looks("things that were not trained", self._others, key, OTHERS)
        return {"color": INK, "marker": marker}


def _points(shown: Selection, group: Group, dataset: str) -> list[Point]:
    """Return the scores of the seeds that have both."""
    across, up = (shown.values(group, dataset, metric) for metric in shown.metrics)
    return [(across[seed], up[seed]) for seed in across if seed in up]


def _draw(axes: Axes, points: Sequence[Point], look: Look) -> list[Point]:
    """Draw the points of a group, or their mean, and return what is drawn."""
    if len(points) < BAND:
        axes.plot(*zip(*points, strict=True) if points else ([], []), linestyle="", gid="points", **look)
        return list(points)
    x, y = (summarise(values) for values in zip(*points, strict=True))
    axes.errorbar(x.mean, y.mean, xerr=x.sd, yerr=y.sd, color=look["color"], elinewidth=0.8, fmt="none")
    axes.plot([x.mean], [y.mean], linestyle="", gid="points", **look)
    return [(x.mean, y.mean)]


def _draw_front(axes: Axes, points: Iterable[Point], ways: Sequence[str | None]) -> bool:
    """Draw the Pareto front of some points as a staircase; return False if it is unknown, or a single point."""
    if None in ways:
        return False
    across, up = (1 if way == "higher" else -1 for way in ways)
    front: list[Point] = []
    for x, y in sorted(points, key=lambda point: (-across * point[0], -up * point[1])):
        if not front or up * y > up * front[-1][1]:
            front.append((x, y))
    if len(front) < 2:
        return False
    axes.step(*zip(*sorted(front), strict=True), where="pre" if across > 0 else "post", gid="front", **_FRONT)
    return True


def _number(axes: Axes, numbers: Mapping[Point, int]) -> None:
    """Write its number beside each point, where it covers neither points nor other numbers, if there is room.

    Args:
        axes: In a figure that is laid out.
        numbers: By point.
    """
    pixels = axes.figure.dpi / 72
    at = {point: axes.transData.transform(point) for point in numbers}
    dot, high = 2 * pixels, TEXT * pixels
    taken = [Bbox.from_bounds(x - dot, y - dot, 2 * dot, 2 * dot) for x, y in at.values()]
    for point, number in numbers.items():
        wide = 0.6 * high * len(str(number))
        x, y = at[point]

        def box(side: Point, x: float = x, y: float = y, wide: float = wide) -> Bbox:
            centre = x + side[0] * (dot + wide / 2), y + side[1] * (dot + high / 2)
            return Bbox.from_bounds(centre[0] - wide / 2, centre[1] - high / 2, wide, high)

        inside = [side for side in _SIDES if axes.bbox.count_contains(box(side).corners()) == 4] or _SIDES
        best = min(inside, key=lambda side: box(side).count_overlaps(taken))
        taken.append(box(best))
        centre = ((box(best).x0 + box(best).x1) / 2 - x) / pixels, ((box(best).y0 + box(best).y1) / 2 - y) / pixels
        far = max(map(abs, best)) > 1
        axes.annotate(
            str(number),
            point,
            centre,
            textcoords="offset points",
            ha="center",
            va="center",
            color=INK,
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 1} if far else None,
        )


def _explanation(counts: set[int]) -> list[str]:
    many, few = ([count for count in counts if (count >= BAND) == large] for large in (True, False))
    told = [f"Points with bars: mean ± sample standard deviation over seeds ({counted(many)})."] if many else []
    told += [f"Points without bars: one seed each ({counted(few)})."] if few else []
    return [" ".join(told)] if told else []
