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
    help="List, download and carry the pretrained networks that metrics and losses need.",
    epilog=below("sgbench weights list", "sgbench weights fetch", "sgbench weights bundle paper-mini"),
    no_args_is_help=True,
)


@command(app, "sgbench weights list", "sgbench weights list --json", name="list")
def list_weights(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Networks; by default, those of the catalogue.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List pretrained networks: whether they are available locally, what needs them, their licences and sources."""
    from sgbench.assets.catalogue import NETWORKS
    from sgbench.assets.locator import Locator
    from sgbench.assets.needs import users_of_networks
    from sgbench.cli import output

    users = users_of_networks()
    for name in names or ():
        NETWORKS.load(name)  # refuses one that is unknown
    statuses = Locator(download=False).status(names or sorted({*NETWORKS.names(), *users}))
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


def bundle(
    asked: options.Asked,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Bundle to write. Default: <sweep>-networks.tar."),
    ] = None,
) -> None:
    """Put the networks that a sweep needs into one file, to be carried to a cluster without internet.

    The flags are those of the sweep, and 'sgbench weights import' installs the file there. Networks that are not
    available locally are downloaded first. If one cannot be, the bundle has the others, a sentence says which file to
    bring by hand, and the exit code is 1.
    """
    from sgbench.assets.bundle import pack
    from sgbench.assets.locator import Locator
    from sgbench.assets.needs import networks_of
    from sgbench.cli import output
    from sgbench.core.errors import InputError
    from sgbench.core.files import expanded
    from sgbench.core.words import listed, quoted
    from sgbench.runs.delivery import fetch as fetch_networks

    target = output.followed(expanded(out or f"{asked.name}-networks.tar"))
    if target.exists() and not target.is_file():
        raise InputError(f"--out is {quoted(str(target))}, which is no file.")
    if not target.parent.is_dir():
        raise InputError(f"--out is {quoted(str(target))}, in a folder that does not exist.")
    needed = networks_of(asked.sweep.all_metrics(), asked.sweep.losses())
    if not needed:
        output.say(f"the metrics and losses of {asked.name} need no pretrained networks; nothing is written")
        return
    with output.screen.fetching() as progress:
        missing = fetch_networks(needed, progress)
    local = Locator(download=False)
    found = {name: path for name in needed if name not in missing and (path := local.find(name))}
    for reason in missing.values():
        output.say(reason)
    if found:
        pack(found, missing, target)
        without = f", without {listed(missing)}" if missing else ""
        output.say(f"{target}: {listed(found)}{without}, {in_bytes(target.stat().st_size)}")
    if missing:
        raise typer.Exit(1)


command(
    app,
    "sgbench weights bundle paper-mini",
    "sgbench weights bundle mine.yaml --metric lpips_alex --loss 'l1 + 0.1*vgg' --out mine.tar",
    name="bundle",
)(options.of_sweep(bundle, decides=False))


@command(
    app,
    "sgbench weights import alexnet-owt-7be5be79.pth",
    "sgbench weights import paper-mini-networks.tar",
    name="import",
)
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A bundle, or a file that 'sgbench weights list' names; its name may differ."
        ),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The network that it must hold; any by default.")
    ] = None,
) -> None:
    """Check a file that was brought by hand, and copy it to the cache.

    Of a bundle, every network is copied, or only NAME, and none if one is not what it should be.
    """
    from sgbench.assets.base import MissingWeights
    from sgbench.assets.bundle import is_bundle, unpack
    from sgbench.assets.install import install
    from sgbench.assets.locator import Locator
    from sgbench.cli import output
    from sgbench.core.files import expanded

    file = expanded(file)
    installed, missing = unpack(file, name) if is_bundle(file) else ([install(file, name)], [])
    for path in installed:
        output.say(f"installed as {path}")
    for each in missing:
        try:
            Locator(download=False).fetch(each)
        except MissingWeights as reason:
            output.say(f"not in the bundle: {reason}")


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
        *_identity(network),
        f"from {network.url}",
        *([f"or{part} from {_index(network)} on the package index"] if network.archive else []),
    ]


def _identity(network: "Network") -> list[str]:
    """Return lines on the name of a file, its size and its hash, as far as they are known."""
    named = ", ".join([network.file, *([in_bytes(network.size)] if network.size else [])])
    if not network.sha256:
        return [f"{named}; its SHA-256 is not published"]
    known = "with the SHA-256" if network.sha256[63:] else "with a SHA-256 that begins with"
    return [f"{named}, {known}", network.sha256]


def _record(status: "NetworkStatus", users: list[str]) -> dict[str, Any]:
    network = status.network
    row: dict[str, Any] = {"name": status.name, "path": status.path, "problem": status.problem, "needed_by": users}
    for field in ("licence", "file", "size", "sha256", "url"):
        row[field] = getattr(network, field, None)
    return {**row, "package_index": _index(network)}


def _index(network: "Network | None") -> str | None:
    archive = network.archive if network else None
    return f"{archive.project} {archive.version}" if archive else None
