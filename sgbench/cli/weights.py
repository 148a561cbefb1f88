"""``sgbench weights``: the pretrained networks that metrics need."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgbench.cli import options
from sgbench.cli.commands import below, command

if TYPE_CHECKING:
    from sgbench.assets.weights import WeightsStatus

app = typer.Typer(
    help="Pretrained networks that metrics need: which, and getting them.",
    epilog=below("sgbench weights list", "sgbench weights fetch"),
    no_args_is_help=True,
)


@command(app, "sgbench weights list", "sgbench weights list --json", name="list")
def list_weights(as_json: options.Json = False) -> None:
    """Show the networks: whether each is on this machine, what needs it, its terms, and where its file is to be had."""
    from sgbench.assets.weights import Locator
    from sgbench.cli import output

    statuses = Locator(download=False).status()
    if as_json:
        output.print_json([_record(status) for status in statuses])
    else:
        output.print_entries({status.weights.name: _lines(status) for status in statuses})


@command(app, "sgbench weights fetch", "sgbench weights fetch alexnet")
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Networks; all of them by default.")
    ] = None,
) -> None:
    """Fetch networks into the cache, and say what to bring by hand where that fails."""
    from sgbench.assets.weights import WEIGHTS, Locator
    from sgbench.cli import output
    from sgbench.runs.delivery import fetch as fetch_networks

    wanted = names or list(WEIGHTS)
    with output.screen.fetching() as progress:
        missing = fetch_networks(wanted, progress)
    for name in wanted:
        output.say(missing.get(name) or f"{name}: {Locator(download=False).find(name)}")
    if missing:
        raise typer.Exit(1)


@command(app, "sgbench weights import alexnet-owt-7be5be79.pth", name="import")
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As 'sgbench weights list' names it, or renamed.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The network that it must be; any by default.")
    ] = None,
) -> None:
    """Check a file that was brought by hand and copy it into the cache."""
    from sgbench.assets.weights import install
    from sgbench.cli import output

    output.say(f"installed as {install(file.expanduser(), name)}")


def _lines(status: "WeightsStatus") -> list[str]:
    """Return what a person wants to know of a network, in lines that fit on a narrow terminal."""
    weights = status.weights
    return [
        str(status.path or status.problem or "not here"),
        f"needed by {', '.join(weights.needed_by)}",
        weights.licence,
        f"{weights.file}, {weights.size / 1e6:,.0f} MB, with the SHA-256",
        weights.sha256,
        f"from {weights.url}",
        *([f"or, what is needed of it, from {_index(status)} on the package index"] if weights.archive else []),
    ]


def _record(status: "WeightsStatus") -> dict[str, Any]:
    weights = status.weights
    return {
        "name": weights.name,
        "path": status.path,
        "problem": status.problem,
        "needed_by": weights.needed_by,
        "licence": weights.licence,
        "file": weights.file,
        "size": weights.size,
        "sha256": weights.sha256,
        "url": weights.url,
        "package_index": _index(status),
    }


def _index(status: "WeightsStatus") -> str | None:
    archive = status.weights.archive
    return f"{archive.project} {archive.version}" if archive else None
