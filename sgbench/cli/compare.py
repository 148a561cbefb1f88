"""``sgbench compare``: whether one loss beats another."""

import sys
from typing import Annotated

import typer

from sgbench.cli import options

EXAMPLES = ("sgbench compare l1 'l1 + 1.0*sg'", "sgbench compare l1 'l1 + sg' --metric psnr_y --metric ssim_y")


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The loss to compare against, such as l1, or its label.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The loss to compare, such as 'l1 + 1.0*sg', or its label.")],
    results: options.Results = None,
    metric: options.DefaultMetrics = None,
    backbone: options.Backbones = None,
    test: options.Tests = None,
    alpha: options.Alpha = 0.05,
    anytime: options.Anytime = False,
    g: options.G = None,
    equivalent: options.Equivalent = None,
    as_json: options.Json = False,
) -> None:
    """Compare two losses: effect size, and whether it is significant across seeds and images.

    Runs are paired by seed, for every backbone that has both losses. p values are corrected for every backbone and test
    set in the store, even if --backbone or --test shows only some.

    What a sweep declared before the first look is judged as declared, and what may have been looked at while seeds were
    added, as the store says, by tests that allow for it; --anytime judges everything by those.

    --equivalent 0.1 --metric psnr_y also asks whether the difference is shown to be less than 0.1 dB.
    """
    from rich.console import Console

    from sgbench.analysis import View, load_results
    from sgbench.cli import output
    from sgbench.report.compare import compared, shown, to_data

    view = View(load_results(options.find_store(results)))
    cells = compared(
        view,
        a,
        b,
        metrics=metric,
        backbones=backbone,
        tests=test,
        alpha=alpha,
        anytime=anytime,
        g=g,
        equivalent=equivalent,
    )
    if as_json:
        output.print_json(to_data(cells))
    else:
        shown(cells).print(Console(file=sys.stdout))
