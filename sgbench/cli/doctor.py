"""``sgbench doctor``: what every node has, and what has to be mended."""

from typing import Annotated

import typer

from sgbench.cli import options

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
    results: Annotated[
        str, typer.Option("--results", metavar="DIR", help="Results store, a folder or URI, that all must write to.")
    ] = "results",
    as_json: options.Json = False,
) -> None:
    """Check every node of a cluster, or this machine, and say what to mend; exits with 1 if there is anything.

    Each node says which versions of Python, Ray, torch and sgbench it runs, which GPUs torch sees, how much room its
    disk has and whether Ray asks for a token there; it writes to the store and reads what this machine wrote there,
    opens the packed images, and looks for the networks of the metrics.
    """
    from sgbench.cli import output
    from sgbench.cluster import connect
    from sgbench.cluster.nodes import Wanted, examine
    from sgbench.plan import pack, read_sweep
    from sgbench.registry import METRICS
    from sgbench.storage import absolute

    packed, networks = [], {network for metric in METRICS.names() for network in METRICS.load(metric).networks}
    if what:
        _, sweep = read_sweep(what)
        with output.packing() as progress:
            data = pack(sweep, progress)
        packed = [str(images.path) for images in (data.train, *data.tests)]
        networks = {network for metric in sweep.metrics for network in METRICS.load(metric).networks}
    with connect(address):
        nodes = examine(Wanted(absolute(results), tuple(packed), tuple(sorted(networks))))
    if as_json:
        output.print_json([vars(node) for node in nodes])
    else:
        output.print_entries(
            {
                node.name: [
                    *(f"{about}: {fact}" for about, fact in node.facts.items()),
                    *(f"✗ {problem}" for problem in node.problems),
                    *(f"! {remark}" for remark in node.remarks),
                    *(() if node.problems or node.remarks else ("✓ nothing to mend",)),
                ]
                for node in nodes
            }
        )
    if any(node.problems for node in nodes):
        raise typer.Exit(1)
