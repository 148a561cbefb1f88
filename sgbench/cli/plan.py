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

    Times are what runs like these took in this store; where there are none yet, nothing is guessed. Where data is
    not at hand, the one set of its name that the store has on record stands for it; without such a set, runs have no
    ids, and what a store with runs has of them is unknown.
    """
    from sgbench.cli import output
    from sgbench.runs.forecast import expect
    from sgbench.runs.status import RunStatus
    from sgbench.runs.sweep import look
    from sgbench.store import Store

    made = look(asked.name, asked.sweep, asked.storage, output.screen)
    expected = expect(
        [run for run in made.runs if run.pending or run.status is RunStatus.TO_RETRAIN], Store(asked.storage)
    )
    output.print_plan(made, expected, devices=devices, price=price, as_json=as_json)
