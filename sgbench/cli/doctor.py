"""``sgbench doctor``: what this machine or every node of a cluster has, and what to fix."""

from typing import Annotated

import typer

from sgbench.cli import options
from sgbench.core.streams import nothing_on_stdout

EXAMPLES = (
    "sgbench doctor",
    "sgbench doctor --address auto --results s3://bucket/results",
    "sgbench doctor paper --address 10.0.0.1:6379 --results /shared/results",
)


def doctor(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[SWEEP]", help="A preset or YAML file, whose data and networks are looked for too."),
    ] = None,
    address: options.Address = None,
    packages: options.With = None,
    results: Annotated[
        str | None,
        typer.Option(
            "--results",
            metavar="DIR",
            help="Results store that every node must write to. Default: the store of the sweep, or results/.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check this machine, or every node of a cluster with --address, and list what to fix before a sweep.

    Shows the versions of Python, Ray, torch and sgbench, the GPUs that torch sees, the free disk space, and whether
    Ray requires a token. Writes to the store, opens the packed images and looks for the pretrained networks of the
    metrics and the packages that plug-ins of the sweep need, besides those of --with, and imports these plug-ins; each
    node also reads what this machine wrote to the store.
    A store that does not exist yet is not created: the folder that will hold it is checked.

    Exit code 1 if there is a problem (✗), which would stop a sweep; warnings (!), such as a pretrained network that is
    not available locally, leave it at 0.
    """
    from sgbench.assets.needs import networks_of, users_of_networks
    from sgbench.cli import output
    from sgbench.cluster import connect
    from sgbench.cluster.nodes import Wanted, examine
    from sgbench.cluster.registered import Sent, pack
    from sgbench.core.packages import to_send
    from sgbench.core.storage import Storage, absolute
    from sgbench.runs.code import names_of_sweep
    from sgbench.runs.delivery import Packed
    from sgbench.runs.plan import read_sweep
    from sgbench.runs.sweep import available

    sent = to_send(packages or (), "--with", cluster=bool(address))
    store, packed, networks, code = "results", list[Packed](), sorted(users_of_networks()), Sent()
    if what:
        with nothing_on_stdout():
            name, sweep = read_sweep(what)
        store = f"results/{name}"
        networks = networks_of(sweep.all_metrics(), sweep.losses())
        code = pack(names_of_sweep(sweep), remote=address is not None)
        packed = [Packed.of(each) for each in available(sweep, Storage(absolute(results or store)), output.screen)]
    wanted = Wanted(absolute(results or store), tuple(packed), tuple(networks), code, alone=address is None)
    with connect(address, output.say, sent):
        nodes = examine(wanted)
    if as_json:
        output.print_json([vars(node) for node in nodes])
    else:
        output.print_entries(
            {
                node.name: [
                    *(f"{about}: {fact}" for about, fact in node.facts.items()),
                    *(f"✗ {problem}" for problem in node.problems),
                    *(f"! {remark}" for remark in node.remarks),
                    *(() if node.problems or node.remarks else ("✓ no problems",)),
                ]
                for node in nodes
            }
        )
    if any(node.problems for node in nodes):
        raise typer.Exit(1)
