"""Crops of images as each loss restores them, like Figs. 3 and 4 of the paper."""

import textwrap
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sgbench.analysis import Filters, View
from sgbench.analysis.view import ALL, DEFAULT_METRIC, NO_RUN, NOT_SCORED, Group, Run, Status, direction, meanings
from sgbench.core.errors import InputError
from sgbench.core.words import natural
from sgbench.data import Pixels
from sgbench.metrics import display_of
from sgbench.report.figures.regions import SEEN, STRIDE, WINDOW, Box, Region, extreme_regions
from sgbench.report.figures.saved_images import SavedImages, given
from sgbench.report.figures.selection import left_out, title
from sgbench.report.figures.style import COLOURS, MARGIN, TEXT, WIDTHS, add_foot, characters, in_style
from sgbench.spec import Recipe
from sgbench.spec.stored import read_recipe

WIDEST = 1.5
"""Maximum width of a whole image, relative to a crop."""

NARROWEST = 0.62
"""Width in inches of the smallest crop that is still legible and has room for a number below it."""


FLATTEST, TALLEST = 0.75, 2.0
"""Height of a row relative to the width of a crop, whatever the region's shape."""

GAP = 0.12
"""Space between panels and next to text, in inches."""


Row = dict[str, Any]


@dataclass(frozen=True)
class Crops:
    """The runs whose images are shown.

    Attributes:
        losses: What they are called, from left to right, each with its recipe where these differ.
        runs: A run for each loss, by backbone and loss; all of a backbone have one seed.
        recipe: Its scale and degradation are those of all runs, and say how a test set is to be prepared.
        pair: Between which regions are chosen: the first and the last loss that was named, or the only two.
        left_out: Which runs are not shown and why, one sentence each.
    """

    losses: tuple[str, ...]
    runs: Mapping[str, Mapping[str, Run]]
    recipe: Recipe
    pair: tuple[str, str] | None
    left_out: tuple[str, ...]


def find_crops(view: View, filters: Filters = ALL) -> Crops:
    """Choose the runs whose images are shown: of each backbone and loss, the one of the first seed that all have.

    A loss of which no run is done is left out if nobody named it, and so are recipes that have no seed in common with
    the only one that has all losses.

    Args:
        view: A store.
        filters: What is asked for, as a person wrote it; losses from left to right.

    Raises:
        InputError: If a filter names what is not there, or the runs have no seed or no scale in common.
    """
    filters = view.resolved(filters)
    there = [group for group in view.groups(filters) if group.loss]
    groups = [group for group in there if filters.losses or any(run.status is Status.DONE for run in group.runs)]
    fates: defaultdict[str, list[str]] = defaultdict(list)
    for lost in (group for group in there if group not in groups):
        for run in lost.runs:
            fates[str(run.fate)].append(lost.named(run))
    order = filters.losses or sorted({group.loss for group in groups}, key=natural)
    chosen: dict[str, tuple[Sequence[Group], int | None]] = {}
    for backbone in dict.fromkeys(group.backbone for group in groups):
        here = sorted((each for each in groups if each.backbone == backbone), key=lambda each: order.index(each.loss))
        alike = here if _seeds(here) else _of_one_recipe(here)
        for other in (group for group in here if group not in alike):
            fates["another recipe, and no seed in common"] += map(other.named, other.runs)
        if not (seeds := _seeds(alike)):
            named = "; ".join(group.trained_with for group in alike)
            raise InputError(f"no seed of {backbone} is done with all of {named}; choose with --loss or --backbone.")
        chosen[backbone] = alike, min(seeds, key=lambda seed: seed or 0)
    one_recipe = len({group.conditions for alike, _ in chosen.values() for group in alike}) == 1
    runs = {
        backbone: {group.label if one_recipe else group.trained_with: _of_seed(group, seed) for group in alike}
        for backbone, (alike, seed) in chosen.items()
    }
    if not runs:
        raise InputError("no trained run is left of which images could be shown.")
    ids = [run.run_id for each in runs.values() for run in each.values()]
    rows = view.rows(Filters(runs=ids)).select(["run_id", "spec"]).to_pylist()
    recipes = [read_recipe(row["spec"], f"run {row['run_id']}") for row in rows]
    if len({(recipe.scale, recipe.degradation) for recipe in recipes}) > 1:
        raise InputError("the runs are of several scales or degradations; choose some with --loss or --backbone.")
    names = tuple(dict.fromkeys(loss for each in runs.values() for loss in each))
    pair = (names[0], names[-1]) if len(names) == 2 or (filters.losses and len(names) > 1) else None
    return Crops(names, runs, recipes[0], pair, tuple(left_out(fates)))


def _seeds(groups: Iterable[Group]) -> set[int | None]:
    """Return the seeds with which all losses are done."""
    return set.intersection(*({run.seed for run in group.runs if run.status is Status.DONE} for group in groups))


def _of_seed(group: Group, seed: int | None) -> Run:
    return next(run for run in group.runs if run.status is Status.DONE and run.seed == seed)


def _of_one_recipe(groups: Sequence[Group]) -> Sequence[Group]:
    """Return those of the recipe that has all losses, if only one has; else all, for there is no reason for a choice.

    A store also has runs of other recipes, such as one with whose weights the others start.
    """
    losses = {group.loss for group in groups}
    by_recipe: defaultdict[Hashable, list[Group]] = defaultdict(list)
    for group in groups:
        by_recipe[group.conditions].append(group)
    complete = [alike for alike in by_recipe.values() if {group.loss for group in alike} == losses]
    return complete[0] if len(complete) == 1 else groups


@in_style
def draw_crops(
    view: View,
    crops: Crops,
    saved: SavedImages,
    *,
    image: str | None = None,
    box: Box | None = None,
    regions: int = 2,
    metrics: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Draw parts of images: marked in the whole image, as they are, and as each loss restores them, with its scores.

    Without a box the parts are those where LPIPS of the last loss is below that of the first by most, and as many
    where it is above by most.

    Args:
        view: A store; what it has of single images stands below their parts.
        crops: From `find_crops`.
        saved: The test set, packed for the scale of the runs, and the images that the store keeps of it.
        image: Only of this one, by default of any; needed with a box.
        box: The part.
        regions: Of gains, and of losses; without a box.
        metrics: Whose scores of the whole image are shown; by default LPIPS (AlexNet).
        columns: Of a paper, 1 or 2; by default 2.

    Raises:
        InputError: If images were not kept or do not fit, a name or box is not there, or, without a box, there are not
            two losses to compare or the weights of LPIPS are not on this machine.
    """
    names = view.resolved(Filters(metrics=metrics or [DEFAULT_METRIC])).metrics or []
    rows = _rows(crops, saved, image, box, regions)
    scores = _scores(view, crops, saved, names, {saved.name(region.index) for _, region in rows})
    layout = _Layout.of(WIDTHS[columns or 2], len(crops.losses), _widest(saved, rows), rows[0][1].box)
    heads = [layout.wrapped(head, 1) for head in [given(saved.images), *crops.losses]]
    told = [layout.wrapped(_about(crops, saved, *row), 0) for row in rows]
    above, below = _lines(heads), _lines([*told, "\n" * (len(names) - 1)])
    figure = Figure((layout.width, above + len(rows) * (layout.height + below)))
    notes = [_notes(crops, saved, list(scores.values()), names), _origin(crops, saved, image, box), *crops.left_out]
    notes += meanings(run for runs in crops.runs.values() for run in runs.values())
    add_foot(figure, [], notes)
    for at, (backbone, region) in enumerate(rows):
        top = above + at * (layout.height + below)
        panels = [layout.panel(figure, column, top) for column in range(2 + len(crops.losses))]
        marked, part, *others = panels
        _draw_whole(marked, saved.whole(region.index), region.box, told[at])
        part.imshow(region.box.of(saved.whole(region.index)), interpolation="nearest")
        for axes, loss in zip(others, crops.losses, strict=True):
            if run := crops.runs[backbone].get(loss):
                axes.imshow(region.box.of(saved.sr(run.run_id, region.index)), interpolation="nearest")
                key = (run.run_id, saved.name(region.index))
                axes.set_xlabel("\n".join(_number(name, scores.get((*key, name))) for name in names), fontsize=TEXT)
            else:
                axes.set_xlabel(str(NO_RUN), fontsize=TEXT)
        for axes, head in zip(panels[1:], heads, strict=True):
            axes.set_title(head if at == 0 else "", fontsize=TEXT)
    return figure


@dataclass(frozen=True)
class _Layout:
    """Where the panels are, in inches: the whole image, and crops of one size beside it.

    Attributes:
        width: Of the figure.
        cell: Of a crop.
        whole: Width of the column of whole images by that of a crop.
        height: Of a row of panels, without text.
    """

    width: float
    cell: float
    whole: float
    height: float

    @classmethod
    def of(cls, width: float, losses: int, whole: float, box: Box) -> "_Layout":
        free = width - 2 * MARGIN - GAP * (1 + losses)
        if (cell := free / (whole + 1 + losses)) < NARROWEST:
            most = int((width - 2 * MARGIN - GAP - NARROWEST * (whole + 1)) / (NARROWEST + GAP))
            raise InputError(f"{losses} losses do not fit beside each other, {most} do; choose with --loss.")
        return cls(width, cell, whole, cell * min(max(box.height / box.width, FLATTEST), TALLEST))

    def wrapped(self, text: str, column: int) -> str:
        """Wrap text to the width of a column."""
        room = characters(self.cell if column else self.whole * self.cell)
        return "\n".join(textwrap.fill(line, room, break_on_hyphens=False) for line in text.split("\n"))

    def panel(self, figure: Figure, column: int, top: float) -> Axes:
        """Add a panel at a distance, in inches, below the top of a figure."""
        left = MARGIN + (self.whole * self.cell + GAP + (column - 1) * (self.cell + GAP) if column else 0)
        wide, high = self.cell if column else self.whole * self.cell, figure.get_size_inches()[1]
        axes = figure.add_axes(
            (left / self.width, 1 - (top + self.height) / high, wide / self.width, self.height / high)
        )
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.spines[:].set_visible(False)
        return axes


def _lines(texts: Sequence[str]) -> float:
    """Return the height of the longest text, with margins above and below."""
    return (max(text.count("\n") for text in texts) + 1) * 1.25 * TEXT / 72 + GAP


def _about(crops: Crops, saved: SavedImages, backbone: str, region: Region) -> str:
    return "\n".join(filter(None, [backbone * (len(crops.runs) > 1), saved.name(region.index), region.label]))


def _widest(saved: SavedImages, rows: Sequence[tuple[str, Region]]) -> float:
    """Return the width of the column of whole images by that of a crop, so that they are about as high as crops."""
    shapes = [saved.whole(region.index).shape for _, region in rows]
    return min(max(float(width / height) for height, width, _ in shapes), WIDEST)


def _rows(
    crops: Crops, saved: SavedImages, image: str | None, box: Box | None, regions: int
) -> list[tuple[str, Region]]:
    """Return the rows from top to bottom, each with its backbone."""
    indices = range(len(saved.images)) if image is None else [saved.index(image)]
    run_ids = [run.run_id for runs in crops.runs.values() for run in runs.values()]
    if box is not None:
        if image is None:
            raise InputError(f"--box is {box}, without --image; the name of the image that it is a part of is needed.")
        _check_box(box, saved, indices[0])
        saved.check(run_ids, indices)
        return [(backbone, Region(indices[0], box)) for backbone in crops.runs]
    if not saved.images.has_hr:
        raise InputError(
            f"parts are chosen by LPIPS, which needs HR, and {saved.images.name} has none; choose one with --image and "
            "--box."
        )
    from sgbench.report.figures.differences import lpips_differences  # here, so that only who seeks waits for torch

    a, b = _pair(crops)
    saved.check(run_ids, indices)
    border = saved.images.scale
    roomy = [index for index in indices if min(saved.whole(index).shape[:2]) >= WINDOW + 2 * border]
    rows = [
        (backbone, region)
        for backbone, runs in crops.runs.items()
        for region in extreme_regions(lpips_differences(saved, runs[a].run_id, runs[b].run_id, roomy), regions, border)
    ]
    if not rows:
        raise InputError(
            f"no image has two windows of {WINDOW}×{WINDOW} pixels inside a border of {border} in which an error "
            "is visible; choose a part with --image and --box."
        )
    return rows


def _pair(crops: Crops) -> tuple[str, str]:
    """Return the losses between which regions are chosen."""
    if crops.pair is None:
        raise InputError(
            f"regions are chosen between two losses, and there are {len(crops.losses)} ({'; '.join(crops.losses)}); "
            "name those two first and last with --loss, or choose a part with --image and --box."
        )
    for backbone, runs in crops.runs.items():
        for loss in crops.pair:
            if loss not in runs:
                raise InputError(f"of {backbone} there is no run with {loss}; choose others with --loss or --backbone.")
    return crops.pair


def _check_box(box: Box, saved: SavedImages, index: int) -> None:
    height, width, _ = saved.whole(index).shape
    inside = 0 <= box.left <= width - box.width and 0 <= box.top <= height - box.height
    if not (inside and box.width > 0 and box.height > 0):
        raise InputError(
            f"--box is {box}; a part of '{saved.name(index)}' is needed, {width} pixels wide and {height} high."
        )


def _scores(
    view: View, crops: Crops, saved: SavedImages, metrics: Sequence[str], images: Collection[str]
) -> dict[tuple[str, str, str], Row]:
    """Return the scores of the images that are shown, by run, image and metric; only these become Python objects."""
    ids = [run.run_id for runs in crops.runs.values() for run in runs.values()]
    rows = view.of_images(Filters(runs=ids, metrics=metrics), images)
    rows = rows.filter(pc.equal(rows["dataset_sha256"], saved.images.sha256))
    return {(row["run_id"], row["image"], row["metric"]): row for row in rows.to_pylist()}


def _draw_whole(axes: Axes, image: Pixels, box: Box, about: str) -> None:
    """Draw an image with a box that is visible on dark and bright areas."""
    axes.imshow(image)
    for colour, line in (("black", 1.8), (COLOURS[4], 0.9)):
        corner = (box.left - 0.5, box.top - 0.5)
        axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, edgecolor=colour, linewidth=line))
    axes.set_xlabel(about, fontsize=TEXT)


def _number(metric: str, score: Row | None) -> str:
    if score is None or score["value"] is None:
        return str(NOT_SCORED) if score is None else str(score["status"])
    return display_of(metric).number(score["value"])


def _notes(crops: Crops, saved: SavedImages, scores: Sequence[Row], metrics: Sequence[str]) -> str:
    who = "; ".join(f"{backbone}, seed {next(iter(runs.values())).seed}" for backbone, runs in crops.runs.items())
    ways = {metric: {direction(row["protocol"]) for row in scores if row["metric"] == metric} for metric in metrics}
    titles = " and ".join(title(metric, found.pop() if len(found) == 1 else None) for metric, found in ways.items())
    return f"{saved.images.name} ×{saved.images.scale}; {who}. Numbers: {titles} of the whole image."


def _origin(crops: Crops, saved: SavedImages, image: str | None, box: Box | None) -> str:
    """Return how the regions were chosen."""
    if box is not None or crops.pair is None:
        return f"The part, {box} (left, top, width, height), was chosen by hand."
    where = f"the {len(saved.images)} images" if image is None else f"image '{image}'"
    error = "mean |SR\N{NO-BREAK SPACE}−\N{NO-BREAK SPACE}HR|"
    return (
        f"Parts were chosen by LPIPS (AlexNet), as many gains as losses: of the windows of {WINDOW}×{WINDOW} pixels, "
        f"every {STRIDE} pixels, of {where} without the outer {saved.images.scale} pixels, with a visible error "
        f"({error} ≥ {SEEN:g} of 255), those where the mean of its map with {crops.pair[1]} is lowest, and highest, "
        f"relative to that with {crops.pair[0]}; the difference is given."
    )
