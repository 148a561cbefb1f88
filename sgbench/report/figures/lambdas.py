"""A metric against λ, the coefficient of a term of the loss; for SG next to Table 3 of the paper."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgbench.analysis import Filters, View, paper
from sgbench.analysis.stats import summarise
from sgbench.analysis.view import ALL, Group
from sgbench.core.errors import InputError
from sgbench.report.figures.selection import BAND, Selection, counted, select
from sgbench.report.figures.style import (
    COLOURS,
    FILLS,
    INK,
    LINES,
    MARKERS,
    Look,
    add_foot,
    in_style,
    looks,
    new_figure,
)
from sgbench.spec import expression

PAPER_TABLE = 3
"""The paper's ablation of λ: EDSR on Urban100."""

_FILLS = sorted(FILLS, key="full".__ne__)
"""Fill styles of dots; those of the first, often the only, kind of loss are filled."""

Panel = tuple[str, str]
"""A test set and a metric."""

Points = dict[float, list[float]]
"""Scores of all seeds by λ, in the order of λ."""


class _Family(NamedTuple):
    """One backbone, one recipe, and losses that differ in the coefficient of one term alone."""

    backbone: str
    conditions: Hashable
    recipe: str
    """How the recipe differs from others; empty if there is only one."""
    loss: str
    """Such as ``l1 + λ*sg``."""
    term: str
    """The name of the term that is varied."""


@dataclass
class _Curve:
    """The curve of a family, or of the paper."""

    label: str
    look: Look
    panels: dict[Panel, Points] = field(default_factory=dict)


@in_style
def draw_lambda(view: View, filters: Filters = ALL, *, columns: int | None = None) -> Figure:
    """Draw metrics against λ on a log axis, a panel for each metric and test set.

    λ = 0 is the loss without the term; it stands left of a break of the axis, and no line leads to it. The spread of
    three seeds or more is a band of one sample standard deviation; fewer are a dot each.

    Args:
        view: A store.
        filters: What is asked for, as a person wrote it. A loss with λ is a curve, whatever sweeps have varied in it;
            in other losses, that or ``sg`` counts. By default losses of which there is a single λ > 0 are left out
            beside others; the paper's test set is added if ``sg`` is varied; metrics are `View.default_metrics`.
        columns: Of a paper, 1 or 2; by default what is needed.

    Raises:
        InputError: If a filter names what is not there, or no loss in which a term is varied has a score.
    """
    shown = select(view, replace(filters, metrics=filters.metrics or view.default_metrics))
    asked = [family for text in filters.losses or () if (family := view.family(text))]
    families = _families(shown.groups, asked)
    single = [] if filters.losses else _with_a_single_lambda(families)
    families = {family: groups for family, groups in families.items() if family.loss not in single}
    ours = _curves(shown, families)
    measured = {panel for curve in ours for panel in curve.panels}
    if not measured:
        names = ", ".join(shown.metrics) or "any metric"
        raise InputError(
            f"no trained loss with sg or another varied term has a score by {names}, and so there is nothing to draw "
            "against λ."
        )
    terms = list(dict.fromkeys(family.term for family in families))
    theirs = _paper(shown.metrics if "sg" in terms else [], shown.datasets if filters.datasets else None)
    curves = [*ours, theirs] if theirs.panels else ours
    named = dict.fromkeys([*shown.datasets, *(dataset for dataset, _ in theirs.panels)])
    panels = [
        (dataset, metric)
        for metric in shown.metrics
        for dataset in named
        if (dataset, metric) in measured | theirs.panels.keys()
    ]
    axis = _LambdaAxis.of(curves)
    figure, all_axes = new_figure(len(panels), columns)
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.set(title=panel[0] + " (paper only)" * (panel not in measured), ylabel=shown.title(panel[1]))
        axis.apply(axes)
        for curve in curves:
            if panel in curve.panels:
                _draw(axes, curve, curve.panels[panel], axis)
    labels = [*(f"{curve.label} ({counted(_counts([curve]))})" for curve in ours), theirs.label]
    handles = [Line2D([], [], label=label, **curve.look) for label, curve in zip(labels, curves, strict=False)]
    shown_groups = dict.fromkeys(group for groups in families.values() for group in groups.values())
    notes = shown.notes(shown_groups, [panel for panel in panels if panel in measured])
    called = {family.loss: _called(family, groups) for family, groups in families.items()}
    notes += [f"{label} is {loss}." for loss, label in called.items() if label != loss]
    if single:
        notes.append(f"Left out because they have only one λ > 0: {'; '.join(single)}.")
    add_foot(
        figure, handles, [_explanation(_counts(ours), axis, terms), *notes, *_without_one_lambda(shown.groups, asked)]
    )
    return figure


@dataclass(frozen=True)
class _LambdaAxis:
    """A logarithmic axis with a place for 0, left of a break."""

    zero: float | None
    """The position of λ = 0; None if it does not occur."""
    ticks: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def of(cls, curves: Iterable[_Curve]) -> "_LambdaAxis":
        values = {value for curve in curves for points in curve.panels.values() for value in points}
        lambdas = sorted(values - {0.0})
        decades = max(1.0, np.log10(lambdas[-1] / lambdas[0]))
        zero = lambdas[0] / 10 ** (0.3 * decades) if 0.0 in values else None
        ticks: list[float] = []
        for value in lambdas:
            if not ticks or np.log10(value / ticks[-1]) >= decades / 12:  # labels that would touch are left out
                ticks.append(value)
        margin = 10 ** (0.08 * decades)
        return cls(zero, tuple(ticks), (zero or lambdas[0]) / margin, lambdas[-1] * margin)

    def at(self, lam: float) -> float:
        """Return the position of a λ."""
        return lam if lam or self.zero is None else self.zero

    def apply(self, axes: Axes) -> None:
        """Apply this axis to axes."""
        axes.set_xscale("log")
        axes.set_xlim(self.low, self.high)
        zero = [] if self.zero is None else [self.zero]
        axes.set_xticks([*zero, *self.ticks], [*("0" for _ in zero), *(f"{tick:g}" for tick in self.ticks)])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("λ")
        if self.zero is not None:
            self._break(axes, np.sqrt(self.zero * self.ticks[0]))

    def _break(self, axes: Axes, middle: float) -> None:
        """Interrupt the line of the axis, between two strokes."""
        half = (self.high / self.low) ** 0.012
        ends = [middle / half, middle * half]
        below: Look = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(ends, [0, 0], color="white", linewidth=2, zorder=4, **below)
        axes.plot(ends, [0, 0], color=INK, marker=[(-0.5, -1), (0.5, 1)], markersize=6, linestyle="", zorder=5, **below)


def _families(groups: Sequence[Group], asked: Sequence[expression.Family]) -> dict[_Family, dict[float, Group]]:
    """Return the groups of each family by λ; the loss without the term belongs to all that are otherwise equal."""
    families: dict[_Family, dict[float, Group]] = {}
    for group in groups:
        if varied := _varied(group, asked):
            without = str(expression.Expression(varied.rest)) if varied.rest else ""
            family = _Family(*_place(group), group.recipe, str(varied), varied.varied.name)
            members = families.setdefault(family, {})
            for each in groups:
                if (*_place(each), each.loss) == (*_place(group), without):
                    members[0.0] = each
            members[varied.varied.weight] = group
    return families


def _varied(group: Group, asked: Sequence[expression.Family]) -> expression.Family | None:
    """Return the losses that differ from a group's in λ alone; None if its λ is 0, or that of several terms."""
    for family in asked:
        if (own := family.with_terms_of(expression.parse(group.loss))) and own.varied.weight:
            return own
    if not _has_lambda(group):
        return None
    called = next((run.varied for run in group.runs if run.varied), None)
    terms = expression.parse(group.loss).terms
    found = [term for term in terms if (term.name == "sg" if called is None else term.call == called)]
    rest = tuple(term for term in terms if term not in found)
    return expression.Family(rest, found[0]) if len(found) == 1 else None


def _with_a_single_lambda(families: Mapping[_Family, Mapping[float, Group]]) -> list[str]:
    """Return the losses for which no backbone has a second λ > 0, and thus no curve; none if no loss has one."""
    lambdas: defaultdict[str, set[float]] = defaultdict(set)
    for family, groups in families.items():
        lambdas[family.loss] |= groups.keys() - {0.0}
    single = [loss for loss, values in lambdas.items() if len(values) == 1]
    return single if len(single) < len(lambdas) else []


def _called(family: _Family, groups: Mapping[float, Group]) -> str:
    """Return what the losses of a family are called: the label that they share but for λ or, without one, `loss`."""
    varied = {lam: group for lam, group in groups.items() if lam}
    labels = {group.label.removesuffix(expression.label_at("", lam)) for lam, group in varied.items()}
    shared = len(labels) == 1 and all(group.label != group.loss for group in varied.values())
    return labels.pop() if shared else family.loss


def _place(group: Group) -> tuple[str, Hashable]:
    return group.backbone, group.conditions


def _has_lambda(group: Group) -> bool:
    return any(run.lam for run in group.runs)


def _without_one_lambda(groups: Sequence[Group], asked: Sequence[expression.Family]) -> list[str]:
    lacking = dict.fromkeys(group.loss for group in filter(_has_lambda, groups) if not _varied(group, asked))
    return [f"Left out: {loss}: it has several terms sg, and so no one λ." for loss in lacking]


def _curves(shown: Selection, families: Mapping[_Family, Mapping[float, Group]]) -> list[_Curve]:
    """Return a curve for each family that has a score with λ > 0, with the panels in which it has."""
    backbones = list(dict.fromkeys(family.backbone for family in families))
    kinds = list(dict.fromkeys(family[2:] for family in families))
    curves = []
    for family, groups in families.items():
        colour, marker = looks("backbones", backbones, family.backbone, COLOURS, MARKERS)
        line, fill = looks("losses and recipes", kinds, family[2:], LINES, _FILLS)
        label = ", ".join(filter(None, (family.backbone, _called(family, groups), family.recipe)))
        curve = _Curve(label, {"color": colour, "marker": marker, "fillstyle": fill, "linestyle": line})
        for panel in [(dataset, metric) for dataset in shown.datasets for metric in shown.metrics]:
            scores = {lam: shown.values(group, *panel) for lam, group in groups.items()}
            points = {lam: list(values.values()) for lam, values in sorted(scores.items()) if values}
            if any(points):
                curve.panels[panel] = points
        if curve.panels:
            curves.append(curve)
    return curves


def _paper(metrics: Sequence[str], datasets: Sequence[str] | None) -> _Curve:
    """Return the paper's curve, with the panels of the chosen metrics and test sets."""
    rows = paper().filter(pc.equal(paper().column("table"), PAPER_TABLE)).to_pylist()
    (backbone,) = {row["backbone"] for row in rows}
    curve = _Curve(f"paper, full scale, {backbone}", {"color": INK, "marker": "x", "linestyle": "--"})
    for row in rows:
        if row["metric"] in metrics and (datasets is None or row["dataset"] in datasets):
            points = curve.panels.setdefault((row["dataset"], row["metric"]), {})
            points[expression.parse(row["loss"]).weight_of("sg")] = [row["value"]]
    return curve


def _draw(axes: Axes, curve: _Curve, points: Points, axis: _LambdaAxis) -> None:
    """Draw a line through the means of the points on the log axis, the spread of many seeds, and each of few."""
    look = dict(curve.look)
    colour, dot = look["color"], {"marker": look.pop("marker"), "fillstyle": look.pop("fillstyle", "full")}
    summaries = {lam: summarise(values) for lam, values in points.items()}
    positive = [lam for lam in points if lam]
    axes.plot(positive, [summaries[lam].mean for lam in positive], gid="means", **look)
    ends = {lam: (each.mean - each.sd, each.mean + each.sd) for lam, each in summaries.items() if each.sd is not None}
    spread = {lam: pair for lam, pair in ends.items() if summaries[lam].n >= BAND}
    if band := [lam for lam in spread if lam]:
        low, high = zip(*(spread[lam] for lam in band), strict=True)
        axes.fill_between(band, low, high, color=colour, alpha=0.18, linewidth=0)
    for lam, values in points.items():
        x, shown = axis.at(lam), [summaries[lam].mean] if lam in spread else values
        if lam in spread:
            axes.plot([x, x], spread[lam], color=colour, linewidth=0.8, gid="spread")
        axes.plot([x] * len(shown), shown, color=colour, linestyle="", gid="points", **dot)


def _counts(curves: Iterable[_Curve]) -> set[int]:
    return {len(values) for curve in curves for points in curve.panels.values() for values in points.values()}


def _explanation(counts: set[int], axis: _LambdaAxis, terms: Sequence[str]) -> str:
    without = terms[0] if len(terms) == 1 else "the term"
    return (
        "n is the number of seeds; lines join means."
        + " Bands and bars: mean ± sample standard deviation over seeds." * (max(counts) >= BAND)
        + f" Where n < {BAND}, each dot is one seed." * (2 in counts)
        + f" λ = 0, the loss without {without}, stands left of the break of the log axis." * (axis.zero is not None)
    )
