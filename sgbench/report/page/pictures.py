"""Figures of a store as images embedded in a page."""

import base64
import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import matplotlib
from matplotlib.figure import Figure

from sgbench.analysis import Filters, View
from sgbench.core.errors import InputError
from sgbench.core.words import listed
from sgbench.report.compare import compared
from sgbench.report.figures.crops import draw_crops, find_crops
from sgbench.report.figures.curves import draw_curves
from sgbench.report.figures.forest import draw_forest
from sgbench.report.figures.lambdas import draw_lambda
from sgbench.report.figures.plane import NUMBERED, draw_plane
from sgbench.report.figures.saved_images import SavedImages
from sgbench.report.figures.selection import ONLY_OF_THE_PAPER, with_losses_told_apart
from sgbench.report.figures.style import in_style
from sgbench.report.page.gallery import runs_with_images


@dataclass(frozen=True)
class Picture:
    """A figure, or why there is none.

    Attributes:
        caption: What it shows.
        source: A data URI; empty if there is no figure.
        reason: Why there is none.
    """

    caption: str
    source: str = ""
    reason: str = ""


def pictures(view: View, filters: Filters, saved: Sequence[SavedImages], pair: tuple[str, str]) -> list[Picture]:
    """Draw what can be drawn of a store.

    Args:
        view: The store.
        filters: What of it is shown.
        saved: Test sets whose images are available locally; parts of those with HR are shown.
        pair: The losses that are compared: their differences, and parts of images where they differ most.
    """
    fewer, most = with_losses_told_apart(view, filters), with_losses_told_apart(view, filters, NUMBERED)
    only, only_most = ("" if each is filters else f" {ONLY_OF_THE_PAPER}" for each in (fewer, most))
    plane = "PSNR against LPIPS."
    curves = "Training curves: each term of the losses, unweighted, and scores on validation sets, if any."
    lambdas = "Metrics against λ, the coefficient of a term of the loss; for sg with the paper’s curve."
    first, second = map(view.label, pair)
    differences = f"Differences between {second} and {first}, with confidence intervals."
    drawn = [
        _drawn(differences, lambda: _forest(view, filters, pair)),
        _drawn(lambdas, lambda: draw_lambda(view, filters, columns=2)),
        _drawn(plane + only_most, lambda: draw_plane(view, most, columns=2)),
        _drawn(curves + only, lambda: draw_curves(view, fewer, columns=2)),
    ]
    for each in (each for each in saved if each.images.has_hr):
        caption = f"{each.images.name}: parts where {second} gains most over {first} in LPIPS, and loses most."
        drawn.append(_drawn(caption, functools.partial(_crops, view, filters, each, pair)))
    return drawn


def _forest(view: View, filters: Filters, pair: tuple[str, str]) -> Figure:
    if lacking := sorted({*pair} - {run.loss for run in view.runs(filters)}):
        raise InputError(f"No run with {listed(map(view.label, lacking))} is shown.")
    cells = compared(view, *pair, metrics=filters.metrics, backbones=filters.backbones, tests=filters.datasets)
    return draw_forest(cells, columns=2)


def _crops(view: View, filters: Filters, saved: SavedImages, pair: tuple[str, str]) -> Figure:
    with_images = runs_with_images(saved.storage)
    return draw_crops(view, find_crops(view, replace(filters, losses=pair, runs=with_images)), saved)


def _drawn(caption: str, draw: Callable[[], Figure]) -> Picture:
    try:
        return Picture(caption, _source(draw()))
    except InputError as error:
        return Picture(caption, reason=str(error))


@in_style
def _source(figure: Figure) -> str:
    """Return a figure as the data URI of an image, with text as outlines because a reader may lack the font."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
