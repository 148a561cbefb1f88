"""Training curves: each term of the losses, and scores on validation sets, against steps."""

import itertools
import math
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from sgbench.analysis import Filters, View
from sgbench.analysis.stats import summarise
from sgbench.analysis.view import ALL, Group, direction, meanings
from sgbench.core.errors import InputError
from sgbench.core.words import natural, printable
from sgbench.report.figures.selection import BAND, counted, left_out, select, title
from sgbench.report.figures.style import (
    COLOURS,
    MARKERS,
    Look,
    add_foot,
    characters,
    in_style,
    looks,
    new_figure,
    new_grid,
)
from sgbench.store import Dataset

Course = dict[int, float]
"""Values by step."""


class Quantity(NamedTuple):
    """What curves show against steps; terms come before scores."""

    is_score: bool
    """Whether it is a score on a validation set, not a term of a loss."""
    title: str


Courses = Mapping[tuple[str, Quantity], Course]
"""By run and quantity."""

Panel = tuple[str, Quantity]
"""A backbone and a quantity."""

_TITLE = 0.7
"""Share of a panel's width, with the space beside it, that its title may take: its letters are larger than average."""

ACROSS = 4
"""The most backbones side by side."""


@in_style
def draw_curves(view: View, filters: Filters = ALL, *, columns: int | None = None) -> Figure:
    """Draw each term of the losses, unweighted, against steps: a column for each backbone, a row for each term.

    Scores on validation sets follow in the same way. One backbone alone has its panels in reading order, and so has
    what is one column of a paper wide. A term means the same in every loss that has it, which a weighted sum does not;
    its panels have one scale. Three seeds or more are their mean and a band of one sample standard deviation; fewer are
    a line each.

    Args:
        view: A store.
        filters: What is asked for, as a person wrote it.
        columns: Of a paper, 1 or 2; by default what is needed.

    Raises:
        InputError: If a filter names what is not there, or no run has a history.
    """
    groups = [group for group in select(view, filters).groups if group.loss]
    courses = _courses(view, {run.run_id for group in groups for run in group.runs})
    there = {run_id for run_id, _ in courses}
    drawn = [group for group in groups if there & {run.run_id for run in group.runs}]
    if not drawn:
        raise InputError("no trained run that was chosen has a history, and so there is no curve to draw.")
    kinds = list(dict.fromkeys(group.trained_with for group in drawn))
    panels = _panels(drawn, courses)
    figure, placed = _figure(list(panels), columns)
    first: dict[Quantity, Axes] = {}
    for (backbone, shown), axes in placed.items():
        spec = axes.get_subplotspec()
        longest = characters(_TITLE * figure.get_figwidth() / (spec.get_gridspec().ncols if spec else 1))
        head = textwrap.fill(f"{backbone}, {shown.title}", longest, break_on_hyphens=False)
        axes.set(title=head, xlabel="step", yscale="linear" if shown.is_score else "log")
        for group in panels[backbone, shown]:
            seeds = [courses[run.run_id, shown] for run in group.runs if (run.run_id, shown) in courses]
            _draw(axes, seeds, _look(kinds, group.trained_with))
        if first.setdefault(shown, axes) is not axes:
            axes.sharey(first[shown])
    for (_, shown), axes in placed.items():
        if not shown.is_score:
            _readable_ticks(axes)
    counts = [sum(run.run_id in there for run in group.runs) for group in drawn]
    handles = [Line2D([], [], label=kind, **_look(kinds, kind)) for kind in kinds]
    validated = any(shown.is_score for _, shown in panels)
    notes = [_explanation(counts, validated=validated), *_absent(groups, there), *meanings(drawn)]
    add_foot(figure, handles, notes)
    return figure


def _look(losses: Sequence[str], loss: str) -> Look:
    colour, marker = looks("losses", losses, loss, COLOURS, MARKERS)
    return {"color": colour, "marker": marker}


def _figure(panels: Sequence[Panel], columns: int | None) -> tuple[Figure, dict[Panel, Axes]]:
    """Return a figure with axes for each panel; many backbones are split into rows of similar length."""
    backbones = list(dict.fromkeys(backbone for backbone, _ in panels))
    if len(backbones) == 1 or columns == 1:
        figure, in_order = new_figure(len(panels), columns)
        return figure, dict(zip(panels, in_order, strict=True))
    across = math.ceil(len(backbones) / math.ceil(len(backbones) / ACROSS))
    rows = [
        row
        for at in range(0, len(backbones), across)
        for row in _rows([panel for panel in panels if panel[0] in backbones[at : at + across]], across)
    ]
    figure, grid = new_grid(len(rows), across, 2)
    placed = {}
    for row, line in zip(rows, grid, strict=True):
        for panel, axes in itertools.zip_longest(row, line):
            if panel in panels:
                placed[panel] = axes
            else:
                axes.remove()
    return figure, placed


def _rows(panels: Sequence[Panel], across: int) -> list[list[Panel]]:
    """Return a row for each quantity that several backbones share, most common first, then all other panels."""
    backbones = list(dict.fromkeys(backbone for backbone, _ in panels))
    counts = Counter(shown for _, shown in panels)
    order = sorted(counts, key=lambda shown: (shown.is_score, -counts[shown], shown))
    shared = [shown for shown in order if counts[shown] > 1]
    alone = sorted((panel for panel in panels if panel[1] not in shared), key=lambda panel: panel[1])
    return [
        *([(backbone, shown) for backbone in backbones] for shown in shared),
        *(alone[at : at + across] for at in range(0, len(alone), across)),
    ]


def _panels(groups: Iterable[Group], courses: Courses) -> dict[Panel, list[Group]]:
    """Return the groups of each panel: those of a backbone that have such a curve."""
    panels: defaultdict[Panel, list[Group]] = defaultdict(list)
    for group in groups:
        ids = {run.run_id for run in group.runs}
        for shown in dict.fromkeys(shown for run_id, shown in courses if run_id in ids):
            panels[group.backbone, shown].append(group)
    return dict(sorted(panels.items(), key=lambda item: (natural(item[0][0]), item[0][1])))


def _courses(view: View, ids: set[str]) -> Courses:
    courses: defaultdict[tuple[str, Quantity], Course] = defaultdict(dict)
    for row in view.history(Filters(runs=ids)).select(["run_id", "step", "terms"]).to_pylist():
        for term, value in row["terms"]:
            courses[row["run_id"], Quantity(False, printable(term))][row["step"]] = value
    validation = view.validation(Filters(runs=ids)).to_pylist()
    sets = {Dataset(row["dataset"], row["dataset_sha256"]) for row in validation}
    repeated = {name for name, count in Counter(images.name for images in sets).items() if count > 1}
    for row in validation:
        if row["value"] is not None:
            images = Dataset(row["dataset"], row["dataset_sha256"])
            named = images.versioned if images.name in repeated else images.name
            shown = f"{printable(named)}: {printable(title(row['metric'], direction(row['protocol'])))}"
            courses[row["run_id"], Quantity(True, shown)][row["step"]] = row["value"]
    return courses


def _draw(axes: Axes, seeds: Sequence[Course], look: Look) -> None:
    """Draw the curves of some seeds or, if there are many, their mean and spread at the steps that all share."""
    band: dict[int, tuple[float, float]] = {}
    if len(seeds) >= BAND:
        steps = [step for step in seeds[0] if all(step in seed for seed in seeds)]
        summaries = {step: summarise([seed[step] for seed in seeds]) for step in steps}
        band = {step: (each.mean - each.sd, each.mean + each.sd) for step, each in summaries.items() if each.sd}
        seeds = [{step: each.mean for step, each in summaries.items()}]
    if band:
        low, high = zip(*band.values(), strict=True)
        axes.fill_between(list(band), low, high, color=look["color"], alpha=0.18, linewidth=0)
    for course in seeds:
        every = max(1, len(course) // 6)
        axes.plot(list(course), list(course.values()), linewidth=0.9, markersize=3, markevery=every, **look)


def _readable_ticks(axes: Axes) -> None:
    """Label a log axis with plain numbers, even if it spans less than a decade."""
    low, high = axes.get_ylim()
    subs = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0) if high > 5 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _explanation(counts: Sequence[int], *, validated: bool) -> str:
    many = " Bands: mean ± sample standard deviation over seeds." * (max(counts) >= BAND)
    few = f" Where n < {BAND}, each seed is a line." * (min(counts) < BAND)
    scores = "Scores on validation sets are those of the network at that step. " * validated
    return (
        f"Each term of the losses, unweighted; a point is the mean since the point before. {scores}"
        f"Number of seeds: {counted(counts)}.{many}{few}"
    )


def _absent(groups: Iterable[Group], there: set[str]) -> list[str]:
    """Return sentences on the runs that have no history."""
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for group in groups:
        for run in group.runs:
            if run.run_id not in there:
                reasons[str(run.fate or "its history was not kept")].append(group.named(run))
    return left_out(reasons)
