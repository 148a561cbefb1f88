"""``sgbench weights``: the pretrained networks that metrics need."""

from typing import Annotated

import typer

from sgbench.cli import options

app = typer.Typer(help="Pretrained networks that metrics need: which, and fetching them.", no_args_is_help=True)


@app.command(name="list", epilog="Examples: sgbench weights list | sgbench weights list --json")
def list_weights(as_json: options.Json = False) -> None:
    """Show which networks can be had, from where, and whether each is on this machine."""
    from sgbench.cli import output
    from sgbench.metrics.weights import Locator

    rows = [
        {
            "name": status.weights.name,
            "here": str(status.path) if status.path else status.problem or "no",
            "size": f"{status.weights.size / 1e6:.0f} MB",
            "needed by": ", ".join(status.weights.needed_by),
            "licence": status.weights.licence,
            "source": status.weights.url,
        }
        for status in Locator(download=False).status()
    ]
    output.print_rows(rows, as_json=as_json)


@app.command(epilog="Examples: sgbench weights fetch | sgbench weights fetch alexnet")
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Networks; all of them by default.")
    ] = None,
) -> None:
    """Fetch networks into the cache, and say what to bring by hand where that fails."""
    from sgbench.cli import output
    from sgbench.metrics.weights import WEIGHTS, Locator

    wanted = names or list(WEIGHTS)
    missing = output.fetch_weights(wanted)
    for name in wanted:
        output.say(missing.get(name) or f"{name}: {Locator(download=False).find(name)}")
    if missing:
        raise typer.Exit(1)
