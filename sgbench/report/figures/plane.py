"""Two metrics against each other, PSNR against LPIPS: what a loss gains in one and pays in the other."""

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgbench.analysis import Filters, View
from sgbench.analysis.stats import summarise
from sgbench.analysis.view import ALL, DEFAULT_METRIC, Group
from sgbench.core.errors import InputError
from sgbench.report.figures.selection import BAND, Selection, counted, select
from sgbench.report.figures.style import COLOURS, FILLS, INK, MARKERS, Look, add_foot, in_style, looks, new_figure

AXES = ("psnr_y", DEFAULT_METRIC)
"""The default metrics of the x-axis and the y-axis."""

OTHERS = ("x", "+", "1", "2", "3", "4")
"""Markers of untrained subjects."""

Point = tuple[float, float]


@in_style
def draw_plane(view: View, filters: Filters = ALL, *, columns: int | None = None) -> Figure:
    """Draw one metric against another, a panel for each test set.

    Three seeds or more are their mean with a bar of one sample standard deviation each way; fewer are a point each.

    Args:
        view: A store.
        filters: What is asked for, as a person wrote it; its metrics are the one across and the one up, by default
            `AXES`.
        columns: Of a paper, 1 or 2; by default what is needed.

    Raises:
        InputError: If a filter names what is not there, there are not two metrics, or nothing has a score of both.
    """
    pair = tuple(filters.metrics or AXES)
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
    for axes, dataset in zip(all_axes, panels, strict=True):
        axes.set(title=dataset, xlabel=shown.title(pair[0]), ylabel=shown.title(pair[1]))
        for group in groups:
            _draw(axes, points.get((dataset, group), []), styles.of(group))
    notes = shown.notes(shown.groups, [(dataset, metric) for dataset in panels for metric in pair])
    counts = {len(found) for (_, group), found in points.items() if group.loss}
    add_foot(figure, styles.handles(), [*_explanation(counts), *notes])
    return figure


class _Styles:
    """The look of groups, distinct even in greyscale: colour and fill for the backbone, shape for the loss.

    Args:
        groups: All that are drawn.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        trained = [group for group in groups if group.loss]
        self._backbones = list(dict.fromkeys(group.backbone for group in trained))
        self._losses = list(dict.fromkeys(group.trained_with for group in trained))
        self._others = [str(group.conditions) for group in groups if not group.loss]
        self._names = {str(group.conditions): group.backbone for group in groups}

    def of(self, group: Group) -> Look:
        """Return the look of a group's points."""
        if not group.loss:
            return self._other(str(group.conditions))
        (marker,) = looks("losses", self._losses, group.trained_with, MARKERS)
        return self._filled(group.backbone) | {"marker": marker}

    def handles(self) -> list[Artist]:
        """Return the legend: backbones, then losses, then untrained subjects."""
        backbones = {name: {**self._filled(name), "marker": "o"} for name in self._backbones}
        losses = {
            loss: {"color": INK, "marker": marker, "fillstyle": "none"}
            for loss, marker in zip(self._losses, MARKERS, strict=False)
        }
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


def _draw(axes: Axes, points: Sequence[Point], look: Look) -> None:
    if len(points) < BAND:
        axes.plot(*zip(*points, strict=True) if points else ([], []), linestyle="", gid="points", **look)
        return
    x, y = (summarise(values) for values in zip(*points, strict=True))
    axes.errorbar(x.mean, y.mean, xerr=x.sd, yerr=y.sd, color=look["color"], elinewidth=0.8, fmt="none")
    axes.plot([x.mean], [y.mean], linestyle="", gid="points", **look)


def _explanation(counts: set[int]) -> list[str]:
    many, few = ([count for count in counts if (count >= BAND) == large] for large in (True, False))
    told = [f"Points with bars: mean ± sample standard deviation over seeds ({counted(many)})."] if many else []
    told += [f"Points without bars: one seed each ({counted(few)})."] if few else []
    return [" ".join(told)] if told else []
