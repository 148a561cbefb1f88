"""``sgbench figure``: figures of a store's results, for papers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sgbench.cli import options
from sgbench.cli.commands import below, command
from sgbench.core.errors import InputError
from sgbench.core.words import quoted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sgbench.analysis import Filters, View
    from sgbench.report.figures.regions import Box

app = typer.Typer(
    help="Figures for a paper, as PNG, SVG or PDF.",
    epilog=below("sgbench figure lambda --out lambda.pdf", "sgbench figure plane --test Set5 --out plane.png"),
    no_args_is_help=True,
)


def _of_a_known_format(out: Path) -> Path:
    """Refuse a file of another format before anything is read or drawn."""
    from sgbench.report.figures.style import format_of

    format_of(out)
    return out


Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        help="File to write: .png, .svg or .pdf (overwritten).",
        callback=_of_a_known_format,
    ),
]
Columns = Annotated[
    int | None,
    typer.Option("--columns", min=1, max=2, help="Width in columns of a paper: 3.3 or 6.9 inches. Default: as needed."),
]


@command(app, "sgbench figure gradient-maps butterfly.png --out maps.pdf")
def gradient_maps(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A PNG, JPEG, BMP, TIFF or WebP file.")],
    out: Out,
    operator: Annotated[
        str, typer.Option("--operator", metavar="NAME", help="Operator of sg: central, sobel or sobel-raw.")
    ] = "central",
    columns: Columns = None,
) -> None:
    """Draw an image with its first- and second-order gradient maps, like Fig. 1 of the paper."""
    from sgbench.data import read_image
    from sgbench.report.figures.gradient_maps import draw_gradient_maps

    figure = draw_gradient_maps(read_image(image), image.stem, operator=operator, columns=columns)
    _write(figure, out)


@command(
    app,
    "sgbench figure lambda --out lambda.pdf",
    "sgbench figure lambda --loss 'l1 + λ*fft' --metric lpips_alex --metric psnr_y --test Set14 --out lambda.svg",
    name="lambda",
)
def lambdas(
    out: Out,
    results: options.Results = None,
    backbone: options.Backbones = None,
    loss: options.Losses = None,
    test: options.Tests = None,
    metric: options.Metrics = None,
    columns: Columns = None,
) -> None:
    """Plot metrics, by default LPIPS, against λ, the coefficient of a term; for sg next to the paper's curve.

    Three or more seeds are drawn as a mean with a band of one sample standard deviation, fewer as dots. Losses with
    only one λ > 0 are left out if others have more; --loss shows them.
    """
    from sgbench.analysis import Filters
    from sgbench.report.figures.lambdas import draw_lambda

    filters = Filters(backbone, loss, datasets=test, metrics=metric)
    _write(draw_lambda(_view(results), filters, columns=columns), out)


@command(
    app,
    "sgbench figure forest l1 'l1 + 1.0*sg' --out differences.pdf",
    "sgbench figure forest l1 'l1 + sg' --metric lpips_alex --metric psnr_y --test Set14 --out differences.svg",
)
def forest(
    a: Annotated[str, typer.Argument(metavar="A", help="The loss to compare against, such as l1.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The loss to compare, such as 'l1 + 1.0*sg'.")],
    out: Out,
    results: options.Results = None,
    backbone: options.Backbones = None,
    test: options.Tests = None,
    metric: options.DefaultMetrics = None,
    alpha: options.Alpha = 0.05,
    anytime: options.Anytime = False,
    g: options.G = None,
    equivalent: options.Equivalent = None,
    columns: Columns = None,
) -> None:
    """Draw the differences between two losses, with confidence intervals: sgbench compare as a forest plot.

    Each row is a backbone on a test set. p values are corrected for all of them in the store, shown or not.
    """
    from sgbench.report.compare import compared
    from sgbench.report.figures.forest import draw_forest

    cells = compared(
        *(_view(results), a, b),
        metrics=metric,
        backbones=backbone,
        tests=test,
        alpha=alpha,
        anytime=anytime,
        g=g,
        equivalent=equivalent,
    )
    _write(draw_forest(cells, columns=columns), out)


@command(app, "sgbench figure plane --out plane.pdf", "sgbench figure plane --test Set5 --out plane.png")
def plane(
    out: Out,
    results: options.Results = None,
    backbone: options.Backbones = None,
    loss: options.Losses = None,
    test: options.Tests = None,
    metric: options.Metrics = None,
    columns: Columns = None,
) -> None:
    """Plot PSNR against LPIPS, or any two metrics: the first on the x-axis, the second on the y-axis.

    A line marks the Pareto front: points with none that is as good in one metric and better in the other. More than
    eight losses are numbered; if there are too many even for that, those of the paper are drawn, and --loss chooses
    others.
    """
    from sgbench.analysis import Filters
    from sgbench.report.figures.plane import NUMBERED, draw_plane

    view, filters = _to_draw(results, Filters(backbone, loss, datasets=test, metrics=metric), NUMBERED)
    _write(draw_plane(view, filters, columns=columns), out)


@command(
    app,
    "sgbench figure agreement --out agreement.pdf",
    "sgbench figure agreement --test Set14 --metric lpips_alex --metric dists --metric psnr_y --out agreement.png",
)
def agreement(
    out: Out,
    results: options.Results = None,
    backbone: options.Backbones = None,
    loss: options.Losses = None,
    test: options.Tests = None,
    metric: options.Metrics = None,
    alpha: options.Alpha = 0.05,
    columns: Columns = None,
) -> None:
    """Draw whether metrics agree on which losses are better: sgbench metrics agree as a matrix.

    Kendall's τ of every two metrics, over losses below the diagonal, and in single images above it.
    """
    from sgbench.analysis import Filters
    from sgbench.analysis.agreement import agreements
    from sgbench.report.figures.agreement import draw_agreement

    filters = Filters(backbone, loss, datasets=test, metrics=metric)
    _write(draw_agreement(agreements(_view(results), filters, alpha=alpha), columns=columns), out)


@command(
    app,
    "sgbench figure rank --out ranks.pdf",
    "sgbench figure rank --metric lpips_alex --metric psnr_y --test Set14 --out ranks.svg",
)
def rank(
    out: Out,
    results: options.Results = None,
    backbone: options.Backbones = None,
    test: options.Tests = None,
    metric: options.DefaultMetrics = None,
    columns: Columns = None,
) -> None:
    """Draw the ranks that each loss may have: sgbench table --rank as a figure, with groups of ties.

    Losses are ranked among all of the store that have two seeds or more, a panel for each test set and backbone.
    """
    from sgbench.analysis import Filters
    from sgbench.report.figures.rank import draw_ranks

    view = _view(results)
    filters = view.resolved(Filters(backbone, datasets=test, metrics=metric))
    _write(draw_ranks(view, filters, columns=columns), out)


@command(
    app,
    "sgbench figure curves --out curves.pdf",
    "sgbench figure curves --loss l1 --loss 'l1 + 1.0*sg' --out curves.svg",
)
def curves(
    out: Out,
    results: options.Results = None,
    backbone: options.Backbones = None,
    loss: options.Losses = None,
    columns: Columns = None,
) -> None:
    """Plot training curves: each term of the losses, unweighted, and scores on validation sets, against steps.

    Backbones are columns, and terms or scores that several of them share are rows with a common scale. If there
    are too many losses to tell apart, those of the paper are drawn; --loss chooses others.
    """
    from sgbench.analysis import Filters
    from sgbench.report.figures.curves import draw_curves

    view, filters = _to_draw(results, Filters(backbone, loss))
    _write(draw_curves(view, filters, columns=columns), out)


@command(
    app,
    "sgbench figure crops --test Set5=data/Set5/HR --loss l1 --loss 'l1 + 1.0*sg' --out crops.pdf",
    "sgbench figure crops --test Set5 --backbone edsr-tiny --image butterfly --box 100,60,48,48 --out lambda.png",
)
def crops(
    out: Out,
    test: Annotated[str, typer.Option("--test", metavar=options.REFERENCE, help="Test set with its HR images.")],
    results: options.Results = None,
    backbone: options.Backbones = None,
    loss: options.Losses = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="NAME", help="Only this image: its file name without extension.")
    ] = None,
    box: Annotated[
        str | None, typer.Option("--box", metavar="LEFT,TOP,WIDTH,HEIGHT", help="Region of --image, in HR pixels.")
    ] = None,
    regions: Annotated[
        int,
        typer.Option("--regions", min=1, help="Without --box: how many regions of largest gain, and of largest loss."),
    ] = 2,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Score of the whole image, below each crop (repeatable). Default: lpips_alex.",
        ),
    ] = None,
    columns: Columns = None,
) -> None:
    """Show crops of images as each loss restores them, next to the HR image, like Figs. 3 and 4 of the paper.

    Without --box, it picks regions where the last --loss lowers LPIPS most compared with the first, and as many where
    it raises it most; this needs sgbench weights fetch alexnet. Images must be kept with sgbench eval --save-images.
    """
    from sgbench.analysis import Filters, View, load_results
    from sgbench.cli import output
    from sgbench.core.storage import Storage
    from sgbench.data import pack_set
    from sgbench.report.figures.crops import draw_crops, find_crops
    from sgbench.report.figures.saved_images import SavedImages

    part = _box(box)
    root = options.find_store(results)
    view = View(load_results(root))
    found = find_crops(view, Filters(backbone, loss))
    with output.screen.packing() as progress:
        saved = SavedImages(Storage(root), pack_set(test, "test", found.recipe, progress), test)
    figure = draw_crops(view, found, saved, image=image, box=part, regions=regions, metrics=metric, columns=columns)
    _write(figure, out)


def _view(results: str | None) -> "View":
    from sgbench.analysis import View, load_results

    return View(load_results(options.find_store(results)))


def _to_draw(results: str | None, filters: "Filters", most: int | None = None) -> "tuple[View, Filters]":
    """Open a store and choose the losses to draw; say so if there are too many and none was chosen."""
    from sgbench.cli import output
    from sgbench.report.figures.selection import ONLY_OF_THE_PAPER, with_losses_told_apart
    from sgbench.report.figures.style import MARKERS

    view = _view(results)
    fewer = with_losses_told_apart(view, filters, most or len(MARKERS))
    if fewer is not filters:
        output.say(f"{ONLY_OF_THE_PAPER} --loss chooses others.")
    return view, fewer


def _box(text: str | None) -> "Box | None":
    """Read ``LEFT,TOP,WIDTH,HEIGHT``.

    Raises:
        InputError: If it is not four whole numbers.
    """
    from sgbench.report.figures.regions import Box

    if text is None:
        return None
    try:
        left, top, width, height = map(int, text.split(","))
    except ValueError as error:
        raise InputError(
            f"--box is {quoted(text)}; LEFT,TOP,WIDTH,HEIGHT in HR pixels is needed, such as 100,60,48,48."
        ) from error
    return Box(left, top, width, height)


def _write(figure: "Figure", out: Path) -> None:
    from sgbench.cli import output
    from sgbench.report.figures.style import encode, format_of

    output.write(out, encode(figure, format_of(out)))
    typer.echo(f"written to {out}", err=True)
