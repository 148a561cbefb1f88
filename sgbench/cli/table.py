"""``sgbench table``: the scores of stores, as a pivot table or in the paper's layout."""

from typing import TYPE_CHECKING, Annotated

import typer

from sgbench.cli import options
from sgbench.core.errors import InputError

if TYPE_CHECKING:
    from sgbench.analysis import View

EXAMPLES = (
    "sgbench table",
    "sgbench table 1 --show both",
    "sgbench table 1 --metric lpips_alex --metric fd_alex",
    "sgbench table --rows dataset,metric --columns backbone,loss --format latex",
    "sgbench table --rank lpips_alex --test Set14",
    "sgbench table --results results/a --results results/b --columns store",
)


def table(
    number: Annotated[
        str | None, typer.Argument(metavar="NUMBER", help="Number of a table of the paper: 1, 2, 3 or 5.")
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option("--results", metavar="DIR", help="Results store (repeatable). Default: the only one in results/."),
    ] = None,
    show: Annotated[
        str | None,
        typer.Option("--show", metavar="ours|paper|both", help="Whose numbers a paper's table has. Default: ours."),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows",
            metavar="A,B",
            help="Any of dataset, store, scale, backbone, loss, lambda, recipe, seed and metric. "
            "Default: dataset,backbone,loss.",
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B", help="Any of the same. Default: metric.")
    ] = None,
    rank: Annotated[
        str | None,
        typer.Option(
            "--rank",
            metavar="METRIC",
            help="Sort losses by a metric and rank them; where no difference is significant, ranks are ranges.",
        ),
    ] = None,
    backbone: options.Backbones = None,
    loss: options.Losses = None,
    lam: Annotated[str | None, typer.Option("--lambda", metavar="0,0.1,1", help="Only these λ.")] = None,
    seeds: options.OnlySeeds = None,
    test: options.Tests = None,
    metric: options.Metrics = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="rich, markdown, latex, csv, html or json. Default: rich."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show scores as a table: mean ± sample standard deviation over seeds.

    A cell without a number says why. The best of each block is bold; a star marks a significant difference from L1.

    Only seeds are averaged. Whatever else differs between runs is added to --rows.
    """
    from sgbench.analysis import Filters
    from sgbench.cli import output
    from sgbench.report import tables

    form = options.format_of(form, [tables.RICH, *tables.FORMATS], as_json=as_json)
    own = {"--rows": rows, "--columns": columns, "--rank": rank, "--loss": loss, "--lambda": lam, "--seeds": seeds}
    if number is None and show is not None:
        raise InputError(f"--show needs a table of the paper, such as 'sgbench table 1 --show {show}'.")
    if number is not None and (given := [flag for flag, value in own.items() if value is not None]):
        raise InputError(f"table {number} has fixed rows, columns, losses and seeds; leave out {given[0]}.")
    filters = Filters(
        backbones=backbone,
        losses=loss,
        lambdas=options.numbers("--lambda", lam, float) or None,
        seeds=options.read_seeds(seeds) or None,
        datasets=test,
        metrics=metric,
    )
    if number is None:
        axes = {
            "rows": tables.ROWS if rows is None else _names(rows),
            "columns": tables.COLUMNS if columns is None else _names(columns),
        }
        shown = tables.pivot(_view(results), filters, **axes, rank=rank)
    else:
        view = None if show == tables.PAPER else _view(results)
        shown = tables.paper_table(number, view, show or tables.OURS, filters)
    output.print_table(shown, form)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _view(results: list[str] | None) -> "View":
    from sgbench.analysis import View, load_results
    from sgbench.analysis.stores import labelled

    paths = [options.find_store(each) for each in results] if results else [options.find_store(None)]
    return View({label: load_results(path) for label, path in labelled(paths).items()})
