"""``sgbench metrics``: the registered metrics, and how each is computed."""

import importlib.util
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from sgbench.cli import entries, options
from sgbench.cli.commands import below, command, flowing
from sgbench.core.plugins import FAULTS
from sgbench.core.registry import METRICS, SHORT_NAMES
from sgbench.core.streams import nothing_on_stdout


def metrics(context: typer.Context, as_json: options.Json = False) -> None:
    """List registered metrics, in the order of tables; 'sgbench metrics show NAME' says how one is computed.

    ↓ means that lower values are better; 'no HR' that the metric needs no reference, and also scores test sets without
    HR images; 'LR' that it uses the LR image. A metric whose network is not available locally scores 'no weights'.
    'compared with' names the code of others that a metric was compared with on equal images, and by how much its values
    differ from that at most.
    """
    if context.invoked_subcommand is not None:
        return
    from sgbench.assets.from_pyiqa import FILES
    from sgbench.cli import output
    from sgbench.metrics.from_torchmetrics import FUNCTIONS

    with nothing_on_stdout():
        rows = _rows(METRICS.names())
    if as_json:
        output.print_json(rows)
        return
    ordered = sorted(rows, key=lambda row: (row["rank"] is None, row["rank"], row["name"]))
    output.print_rows([_readable(row) for row in ordered], as_json=False)
    output.say("Networks: 'sgbench weights list' gives their sources.")
    for library, names in (("torchmetrics", FUNCTIONS), ("pyiqa", FILES)):
        if importlib.util.find_spec(library) is not None:
            output.say(f"Also {library}:NAME (installed): {', '.join(names)}.")
        else:
            how = f"not installed: pip install 'sgbench[{library}]'"
            output.say(f"Also {library}:NAME ({how}): {len(names)} metrics, such as {library}:{next(iter(names))}.")
    output.say(f"Short names: {', '.join(f'{short} is {name}' for short, name in SHORT_NAMES.items())}.")
    output.say("And your own as my_module:metric.")


app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=False,
    help=flowing(metrics.__doc__),
    epilog=below(
        "sgbench metrics", "sgbench metrics show lpips_alex", "sgbench metrics --json", "sgbench metrics agree"
    ),
)
app.callback()(metrics)


@command(app, "sgbench metrics show lpips_alex", "sgbench metrics show my_module:metric torchmetrics:vif --json")
def show(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Metrics, as a sweep names them.")],
    as_json: options.Json = False,
) -> None:
    """Say how metrics are computed: protocol, version, networks, source, and the code they were compared with."""
    from sgbench.cli import output
    from sgbench.spec.resolve import check_metric

    with nothing_on_stdout():
        rows = _rows(map(check_metric, names))
    if as_json:
        output.print_json(rows)
    else:
        output.print_entries({f"{row['name']} {_arrow(row)}": _lines(row) for row in rows})


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


def _rows(names: Iterable[str]) -> list[dict[str, Any]]:
    from sgbench.assets.locator import Locator

    locator = Locator(download=False)
    networks: dict[str, str] = {}
    rows = [_row(name) for name in names]
    for row in rows:
        if (needed := row["networks"]) is not None:
            lacking = [network for network in needed if network not in networks]
            networks |= {each.name: _where(each) for each in locator.status(lacking)}
            row["networks"] = {network: networks[network] for network in needed}
    return rows


def _where(status: Any) -> str:
    return "here" if status.path else status.problem or "not here"


def _row(name: str) -> dict[str, Any]:
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
            "networks": metric.networks,
        }
    except FAULTS as error:
        return {"name": name, **row, "error": entries.reason(error)}
    return {"name": name, **row, "error": None}


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    if row["error"]:
        return {"metric": row["name"], "of each": "", "what it is": row["error"], "networks": "", "compared with": ""}
    return {
        "metric": f"{row['name']} {_arrow(row)}",
        "of each": _of_each(row),
        "what it is": row["description"],
        "networks": _networks(row),
        "compared with": _compared(row),
    }


def _lines(row: dict[str, Any]) -> list[str]:
    """Return what a metric declares, in words, its protocol last."""
    fields = {
        "better": f"{row['direction']} values" + f", in {row['unit']}" * bool(row["unit"]),
        "of each": _of_each(row),
        "version": row["version"],
        "source": row["source"],
        "compared with": _compared(row),
        "networks": _networks(row),
        **{key.replace("_", " "): "none" if value is None else value for key, value in row["protocol"].items()},
    }
    return [row["description"], *(f"{key}: {value}" for key, value in fields.items() if value)]


def _arrow(row: dict[str, Any]) -> str:
    return "↓" if row["direction"] == "lower" else "↑"


def _of_each(row: dict[str, Any]) -> str:
    needs = ["no HR"] * (not row["needs_hr"]) + ["LR"] * row["needs_lr"]
    return ", ".join([row["of"], *needs])


def _compared(row: dict[str, Any]) -> str:
    return "" if row["difference"] is None else f"{row['reference']}: ≤ {row['difference']:g}"


def _networks(row: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {where}" for name, where in row["networks"].items())
