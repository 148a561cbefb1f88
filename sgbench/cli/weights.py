"""``sgbench weights``: the pretrained networks that metrics and losses need."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgbench.cli import options
from sgbench.cli.commands import below, command
from sgbench.core.words import in_bytes

if TYPE_CHECKING:
    from sgbench.assets.catalogue import Network
    from sgbench.assets.locator import NetworkStatus

app = typer.Typer(
    help="List and download the pretrained networks that metrics and losses need.",
    epilog=below("sgbench weights list", "sgbench weights fetch"),
    no_args_is_help=True,
)


@command(app, "sgbench weights list", "sgbench weights list --json", name="list")
def list_weights(as_json: options.Json = False) -> None:
    """List pretrained networks: whether they are available locally, what needs them, their licences and sources."""
    from sgbench.assets.locator import Locator
    from sgbench.assets.needs import users_of_networks
    from sgbench.cli import output

    statuses, users = Locator(download=False).status(), users_of_networks()
    if as_json:
        output.print_json([_record(status, users.get(status.name, [])) for status in statuses])
    else:
        output.print_entries({status.name: _lines(status, users.get(status.name, [])) for status in statuses})


@command(app, "sgbench weights fetch", "sgbench weights fetch alexnet")
def fetch(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Networks; all by default.")] = None,
) -> None:
    """Download networks to the cache, and say which file to bring by hand if that fails."""
    from sgbench.assets.catalogue import NETWORKS
    from sgbench.assets.locator import Locator
    from sgbench.cli import output
    from sgbench.runs.delivery import fetch as fetch_networks

    wanted = names or NETWORKS.names()
    with output.screen.fetching() as progress:
        missing = fetch_networks(wanted, progress)
    for name in wanted:
        output.say(missing.get(name) or f"{name}: {Locator(download=False).find(name)}")
    if missing:
        raise typer.Exit(1)


@command(app, "sgbench weights import alexnet-owt-7be5be79.pth", name="import")
def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that 'sgbench weights list' names; its name may differ.")
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The network that it must hold; any by default.")
    ] = None,
) -> None:
    """Check a file that was brought by hand, and copy it to the cache."""
    from sgbench.assets.install import install
    from sgbench.cli import output
    from sgbench.core.files import expanded

    output.say(f"installed as {install(expanded(file), name)}")


def _lines(status: "NetworkStatus", users: list[str]) -> list[str]:
    """Return the printed lines on a network, which fit on a narrow terminal."""
    where = str(status.path or status.problem or "not available locally")
    if (network := status.network) is None:
        return [where]
    part = ", only the part that is needed," if network.converted else ""
    return [
        where,
        *([f"needed by {', '.join(users)}"] if users else []),
        network.licence,
        f"{network.file}, {in_bytes(network.size)}, with the SHA-256",
        network.sha256,
        f"from {network.url}",
        *([f"or{part} from {_index(network)} on the package index"] if network.archive else []),
    ]


def _record(status: "NetworkStatus", users: list[str]) -> dict[str, Any]:
    network = status.network
    row: dict[str, Any] = {"name": status.name, "path": status.path, "problem": status.problem, "needed_by": users}
    for field in ("licence", "file", "size", "sha256", "url"):
        row[field] = getattr(network, field, None)
    return {**row, "package_index": _index(network)}


def _index(network: "Network | None") -> str | None:
    archive = network.archive if network else None
    return f"{archive.project} {archive.version}" if archive else None
