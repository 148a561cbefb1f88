"""``sgbench plan``: what a sweep would do."""

from typing import Annotated

import typer

from sgbench.cli import options

EXAMPLES = ("sgbench plan quick", "sgbench plan paper --devices 8 --price 2.50", "sgbench plan mine.yaml --json")


def plan(
    asked: options.Asked,
    devices: Annotated[
        int, typer.Option("--devices", metavar="N", min=1, help="How many GPUs, or CPU lanes, there will be.")
    ] = 1,
    price: Annotated[
        float | None, typer.Option("--price", metavar="X", min=0, help="Of a device for an hour, in any currency.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show the runs of a sweep, how far each one is, and how long the rest will take; starts nothing.

    Times are what runs like these took in this store; where there are none yet, nothing is guessed. Without the data at
    hand the runs are listed by name, and their ids are not known.
    """
    from sgbench.cli import output
    from sgbench.errors import MissingDataError
    from sgbench.forecast import expect
    from sgbench.metrics.weights import Locator
    from sgbench.plan import make_plan, pack
    from sgbench.results import Store

    data = None
    try:
        with output.packing() as progress:
            data = pack(asked.sweep, progress)
    except MissingDataError as error:
        output.say(f"note: the runs have no ids yet: {error}")
    made = make_plan(asked.name, asked.sweep, data, Store(asked.storage), locator=Locator(download=False))
    expected = expect(made.pending, Store(asked.storage))
    output.print_plan(made, expected, devices=devices, price=price, as_json=as_json)
