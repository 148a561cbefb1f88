"""``sgbench metrics``: the registered metrics, and how each is computed."""

import importlib.util
import sys
from typing import Annotated, Any

import typer

from sgbench.cli import entries, options
from sgbench.cli.commands import below, command, flowing
from sgbench.core.plugins import FAULTS
from sgbench.core.registry import METRICS, SHORT_NAMES
from sgbench.core.streams import nothing_on_stdout

SHORT = ("colour_space", "border_crop", "resize")
"""What the table shows of a protocol; JSON has all of it."""


def metrics(context: typer.Context, as_json: options.Json = False) -> None:
    """List registered metrics: which values are better, how each is computed, and which networks it needs.

    ↓ means that lower values are better; 'no HR' that the metric needs no reference, and also scores test sets without
    HR images; 'LR' that it uses the LR image. A metric whose network is not available locally scores 'no weights'.
    'compared with' names the code of others that a metric was compared with on equal images, and by how much its values
    differ from that at most.
    """
    if context.invoked_subcommand is not None:
        return
    from sgbench.assets.from_pyiqa import FILES
    from sgbench.assets.locator import Locator
    from sgbench.cli import output
    from sgbench.metrics.from_torchmetrics import FUNCTIONS

    networks = {each.name: _where(each) for each in Locator(download=False).status()}
    with nothing_on_stdout():
        rows = [_row(name, networks) for name in METRICS.names()]
    if as_json:
        output.print_json(rows)
        return
    output.print_rows([_readable(row) for row in rows], as_json=False)
    output.say("Networks: 'sgbench weights list' gives their sources.")
    for library, names in (("torchmetrics", FUNCTIONS), ("pyiqa", FILES)):
        installed = importlib.util.find_spec(library) is not None
        how = "installed" if installed else f"not installed: pip install 'sgbench[{library}]'"
        output.say(f"Also {library}:NAME ({how}): {', '.join(names)}.")
    output.say(f"Short names: {', '.join(f'{short} is {name}' for short, name in SHORT_NAMES.items())}.")
    output.say("And your own as my_module:metric.")


app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=False,
    help=flowing(metrics.__doc__),
    epilog=below("sgbench metrics", "sgbench metrics --json", "sgbench metrics agree"),
)
app.callback()(metrics)


@command(
    app,
    "sgbench metrics agree",
    "sgbench metrics agree --metric lpips_alex --metric dists --metric psnr_y --test Set14 --format markdown",
)
def agree(
    results: options.Results = None,
    metric: options.Metrics = None,
    backbone: options.Backbones = None,
    loss: options.Losses = None,
    test: options.Tests = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="EXPR", help="Loss to compare the others with. Default: l1.")
    ] = None,
    alpha: options.Alpha = 0.05,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="rich, markdown, latex, csv, html or json. Default: rich."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show whether metrics agree on which losses are better, in the runs of a store.

    For every two metrics: Kendall's τ, over losses and in single images, with confidence intervals; the pairs of losses
    that they order differently, and those of which one is significantly better by one metric and significantly worse by
    the other. For every loss: by which metrics it is better or worse than --baseline. JSON has all pairs of losses.
    """
    from rich.console import Console

    from sgbench.analysis import Filters, View, load_results
    from sgbench.analysis.agreement import agreements
    from sgbench.report import agreement, tables

    form = options.format_of(form, [tables.RICH, *agreement.FORMATS], as_json=as_json)
    view = View(load_results(options.find_store(results)))
    filters = Filters(backbones=backbone, losses=loss, datasets=test, metrics=metric)
    found = agreements(view, filters, baseline=baseline, alpha=alpha)
    if form == tables.RICH:
        agreement.shown(found).print(Console(file=sys.stdout))
    else:
        typer.echo(agreement.FORMATS[form](found), nl=False)


def _where(status: Any) -> str:
    return "here" if status.path else status.problem or "not here"


def _row(name: str, networks: dict[str, str]) -> dict[str, Any]:
    from sgbench.metrics import ImageMetric

    described = ("description", "source", "reference", "difference")
    plain = ("direction", "version", "unit", "digits", "rank", "needs_hr", "needs_lr", *described)
    row: dict[str, Any] = dict.fromkeys((*plain, "of", "networks", "protocol"))
    try:
        metric = METRICS.load(name)
        row |= {key: getattr(metric, key) for key in plain}
        row |= {
            "of": "image" if isinstance(metric, ImageMetric) else "set",
            "protocol": dict(metric.protocol),
            "networks": {network: networks.get(network, "unknown") for network in metric.networks},
        }
    except FAULTS as error:
        return {"name": name, **row, "error": entries.reason(error)}
    return {"name": name, **row, "error": None}


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    if row["error"]:
        return {
            "metric": row["name"],
            "of each": "",
            "what it is": row["error"],
            "compared with": "",
            "version and networks": "",
        }
    protocol = {key.replace("_", " "): row["protocol"].get(key) for key in SHORT}
    return {
        "metric": f"{row['name']} {'↓' if row['direction'] == 'lower' else '↑'}",
        "of each": row["of"] + ", no HR" * (not row["needs_hr"]) + ", LR" * row["needs_lr"],
        "what it is": "; ".join([row["description"], *(f"{key} {value}" for key, value in protocol.items() if value)]),
        "compared with": None if row["difference"] is None else f"{row['reference']}: ≤ {row['difference']:.0e}",
        "version and networks": "; ".join(
            [row["version"], *(f"{name}: {where}" for name, where in row["networks"].items())]
        ),
    }
