"""Kendall's τ between every two metrics: over losses below the diagonal, in single images above it."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sgbench.analysis.agreement import Agreement, Agreements
from sgbench.analysis.compare import Place
from sgbench.analysis.kendall import Tau
from sgbench.core.errors import InputError
from sgbench.report.agreement import shown_tau
from sgbench.report.figures.style import COLOURS, INK, add_foot, in_style, new_grid
from sgbench.report.tables.model import titled

NARROW = 7
"""The most metrics whose matrix fits in one column of a paper."""

BLANK = "#e6e6e6"
"""Colour of cells without τ."""

_COLOURS = LinearSegmentedColormap.from_list("agreement", [COLOURS[1], "#ffffff", COLOURS[0]])


@in_style
def draw_agreement(found: Agreements, *, columns: int | None = None) -> Figure:
    """Draw a matrix of τ for each test set, backbone and recipe, with better values of every metric counted as larger.

    Args:
        found: What `sgbench.analysis.agreement.agreements` returns.
        columns: Of a paper, 1 or 2; by default 1 for a single matrix of at most `NARROW` metrics.

    Raises:
        InputError: If too few losses have scores by two metrics.
    """
    panels = {place: [each for each in found.pairs if each.place == place] for place in found.places}
    panels = {place: pairs for place, pairs in panels.items() if pairs}
    if not panels:
        raise InputError("no two metrics have scores of three losses on one test set, so there is no order to compare.")
    largest = max(len(_metrics(pairs)) for pairs in panels.values())
    columns = columns or (1 if len(panels) == 1 and largest <= NARROW else 2)
    across = columns if len(panels) > 1 and largest <= NARROW else 1
    figure, grid = new_grid(-(-len(panels) // across), across, columns, 1.0 if columns == across else 0.8, text=0.3)
    placed = [axes for line in grid for axes in line]
    for axes, (place, pairs) in zip(placed, panels.items(), strict=False):
        _draw(axes, place, pairs, found)
    for axes in placed[len(panels) :]:
        axes.remove()
    add_foot(figure, [], _notes(found))
    return figure


def _metrics(pairs: Sequence[Agreement]) -> list[str]:
    return list(dict.fromkeys(name for each in pairs for name in (each.a, each.b)))


def _draw(axes: Axes, place: Place, pairs: Sequence[Agreement], found: Agreements) -> None:
    metrics = _metrics(pairs)
    for each in pairs:
        first, second = metrics.index(each.a), metrics.index(each.b)
        _fill(axes, first, second, each.over_losses)
        _fill(axes, second, first, each.in_an_image)
    names = [titled(metric, found.directions[metric]) for metric in metrics]
    axes.set(title=str(place), xlim=(-0.5, len(metrics) - 0.5), ylim=(len(metrics) - 0.5, -0.5), aspect="equal")
    axes.set_xticks(range(len(metrics)), names, rotation=90)
    axes.set_yticks(range(len(metrics)), names)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _fill(axes: Axes, across: int, down: int, tau: Tau | None) -> None:
    """Draw a cell: its colour and number are τ, in bold if the interval excludes 0."""
    colour = BLANK if tau is None else _COLOURS((tau.value + 1) / 2)
    axes.add_patch(Rectangle((across - 0.48, down - 0.48), 0.96, 0.96, facecolor=colour, linewidth=0, gid="cell"))
    if tau:
        certain = tau.interval is not None and not tau.interval.low <= 0 <= tau.interval.high
        axes.text(
            across,
            down,
            shown_tau(tau.value),
            ha="center",
            va="center_baseline",
            color="white" if abs(tau.value) > 0.7 else INK,
            fontweight="bold" if certain else "normal",
        )


def _notes(found: Agreements) -> list[str]:
    level = f"{100 * (1 - found.alpha):g}%"
    return [
        "Kendall's τ-b between metrics, with better values of each counted as larger: 1 if both order all losses "
        "alike, −1 if their orders are opposite. Below the diagonal: of the losses' means over seeds and images. "
        "Above: of their means over seeds in one image, averaged over the images; grey where a metric has no value per "
        f"image. Bold: the {level} confidence interval excludes 0; it is for other losses of their kind and, above the "
        "diagonal, other images.",
        *found.left_out,
    ]
