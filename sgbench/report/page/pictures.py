"""Figures of a store as images that a page carries in itself."""

import base64
import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

from sgbench.analysis import Results
from sgbench.core.errors import InputError
from sgbench.report.figures.crops import draw_crops, find_crops
from sgbench.report.figures.curves import draw_curves
from sgbench.report.figures.lambdas import draw_lambda
from sgbench.report.figures.plane import draw_plane
from sgbench.report.figures.saved import Saved
from sgbench.report.figures.selection import ONLY_OF_THE_PAPER, losses_told_apart
from sgbench.report.figures.style import in_style


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


def pictures(shown: Results, kept: Results, saved: Sequence[Saved], pair: tuple[str, str]) -> list[Picture]:
    """Draw what can be drawn of a store.

    Args:
        shown: What it has.
        kept: What it has of the runs whose images were saved.
        saved: Test sets whose HR images are at hand.
        pair: Between which losses parts of images are sought.
    """
    losses = losses_told_apart(shown)
    only = "" if losses is None else f" {ONLY_OF_THE_PAPER}"
    plane, curves = "PSNR against LPIPS, which losses trade.", "Training: each term of the losses, unweighted."
    drawn = [
        _drawn("Metrics against λ, the weight of sg, and the paper’s curve.", lambda: draw_lambda(shown, columns=2)),
        _drawn(plane + only, lambda: draw_plane(shown, losses=losses, columns=2)),
        _drawn(curves + only, lambda: draw_curves(shown, losses=losses, columns=2)),
    ]
    for each in saved:
        caption = f"{each.images.name}: parts where {pair[1]} gains most over {pair[0]} in LPIPS, and loses most."
        drawn.append(_drawn(caption, functools.partial(_crops, kept, each, pair)))
    return drawn


def _crops(kept: Results, saved: Saved, pair: tuple[str, str]) -> Figure:
    return draw_crops(kept, find_crops(kept, losses=pair), saved)


def _drawn(caption: str, draw: Callable[[], Figure]) -> Picture:
    try:
        return Picture(caption, _source(draw()))
    except InputError as error:
        return Picture(caption, reason=str(error))


@in_style
def _source(figure: Figure) -> str:
    """Return a figure as the URI of an image: its text as outlines, for a reader may not have the font."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
