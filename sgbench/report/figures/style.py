"""The look of figures, their legends and notes, and writing them to files."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from sgbench.core.errors import InputError

Look = dict[str, Any]
"""Properties of a line, as matplotlib takes them."""

FORMATS = ("png", "svg", "pdf")

WIDTHS = {1: 3.3, 2: 6.9}
"""Width in inches, by the number of columns of a two-column paper that a figure spans."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
"""The colour-blind-safe palette of Okabe and Ito, with grey instead of yellow, which is hard to see on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = ("-", (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)))
FILLS = ("none", "full", "left", "bottom", "right", "top")
"""Shapes, dashes and fills, one for each colour, so that figures can be read in greyscale."""

INK = "#333333"
"""Colour of the paper's curve and of axis marks."""

TEXT = 7
"""The smallest font size for a paper, in points."""

MARGIN = 0.06
"""Margins of the area below the axes, in inches."""

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # which comes with matplotlib, and so is the same everywhere
    "font.size": TEXT,
    "text.parse_math": False,  # a $ in a name is a $
    "axes.titlesize": TEXT + 1,
    "axes.labelsize": TEXT + 1,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.8,
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": MARGIN,
    "figure.constrained_layout.w_pad": MARGIN,
    "savefig.dpi": 300,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sgbench",  # ids that are the same each time
    "pdf.fonttype": 42,
}

in_style = matplotlib.style.context(["default", _STYLE])
"""A decorator: what a function draws looks alike, whatever a person's own settings of matplotlib say."""


def new_figure(
    panels: int, columns: int | None, ratio: float | None = None, text: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a grid of panels.

    Args:
        panels: How many.
        columns: Of a paper, 1 or 2, that it spans; None for what it needs: 1 for a single panel.
        ratio: Height of a panel by its width; by default what suits a chart.
        text: Inches that a panel is higher, for what stands above and below a picture.

    Returns:
        The figure, and its panels in reading order.
    """
    columns = columns or (1 if panels == 1 else 2)
    across = min(panels, 2 if panels == 4 else 3) if columns == 2 else 1
    figure, grid = new_grid(math.ceil(panels / across), across, columns, ratio, text)
    in_order = [axes for row in grid for axes in row]
    for spare in in_order[panels:]:
        spare.remove()
    return figure, in_order[:panels]


def new_grid(
    down: int, across: int, columns: int, ratio: float | None = None, text: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with rows of panels of one size.

    Args:
        down: How many rows.
        across: How many panels a row.
        columns: Of a paper, 1 or 2, that it spans.
        ratio: As for `new_figure`.
        text: As for `new_figure`.

    Returns:
        The figure, and its panels row by row.
    """
    width = WIDTHS[columns] / across
    ratio = ratio or (0.5 if width > WIDTHS[1] + 1 else 0.8)
    figure = Figure((WIDTHS[columns], down * (ratio * width + text)), layout="constrained")
    return figure, [list(row) for row in figure.subplots(down, across, squeeze=False)]


def add_foot(figure: Figure, handles: Sequence[Artist], notes: Sequence[str]) -> None:
    """Put a legend and notes below the axes, and make the figure higher by what they need.

    Args:
        figure: With a constrained layout, or none: then its axes are yet to come.
        handles: Of the legend; none for no legend.
        notes: A sentence or more each.
    """
    width, height = figure.get_size_inches()
    text = figure.text(
        MARGIN,
        MARGIN,
        "\n".join(textwrap.fill(note, characters(width - 2 * MARGIN), break_on_hyphens=False) for note in notes),
        transform=figure.dpi_scale_trans,
        verticalalignment="bottom",
        linespacing=1.3,
    )
    foot = MARGIN + (text.get_window_extent().y1 / figure.dpi if notes else 0)
    if handles:
        legend = _fitting_legend(figure, handles, width, foot)
        foot = legend.get_window_extent().y1 / figure.dpi
    figure.set_size_inches(width, height + foot)
    if layout := figure.get_layout_engine():
        rect = (0, foot / (height + foot), 1, height / (height + foot))
        layout.set(rect=rect)  # type: ignore[call-arg] # the base class names no options, the constrained layout has it


def looks(what: str, names: Sequence[Any], name: Any, *kinds: Sequence[Any]) -> list[Any]:
    """Return the look of one of several names: from each kind of look, the one at the name's position.

    Raises:
        InputError: If there are more names than looks of a kind; two things that look alike would be no figure.
    """
    if len(names) > (most := min(map(len, kinds))):
        raise InputError(
            f"{len(names)} {what} are too many to tell apart, {most} at most; choose with --loss or --backbone."
        )
    return [kind[names.index(name)] for kind in kinds]


def format_of(file: Path) -> str:
    """Return the format that the name of a file stands for, one of `FORMATS`.

    Raises:
        InputError: If it ends otherwise.
    """
    form = file.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise InputError(f"--out is '{file}'; a file that ends in .png, .svg or .pdf is needed.")
    return form


@in_style
def encode(figure: Figure, form: str) -> bytes:
    """Return the content of a figure's file; figures of the same results are bit-identical.

    Args:
        figure: What is drawn; it keeps its size.
        form: One of `FORMATS`.
    """
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, metadata=undated[form])
    return buffer.getvalue()


def _fitting_legend(figure: Figure, handles: Sequence[Artist], width: float, bottom: float) -> Legend:
    """Return a legend below the axes with as few rows as possible, of similar length."""
    longest = characters(width - 0.6)  # beside the sample of a line
    labels = [textwrap.fill(str(handle.get_label()), longest, break_on_hyphens=False) for handle in handles]
    for rows in range(1, len(handles) + 1):
        legend = figure.legend(
            handles=handles,
            labels=labels,
            ncols=math.ceil(len(handles) / rows),
            loc="lower center",
            bbox_to_anchor=(width / 2, bottom),
            bbox_transform=figure.dpi_scale_trans,
            borderaxespad=0.3,
            handlelength=2.6,
            columnspacing=1.4,
        )
        if rows == len(handles) or legend.get_window_extent().width <= (width - 2 * MARGIN) * figure.dpi:
            break
        legend.remove()
    return legend


def characters(width: float) -> int:
    """Return how many characters of average text fit in a line of some inches."""
    return int(width * 72 / (0.54 * TEXT))
