"""``sgbench plan``: what a sweep would do."""

from typing import Annotated

import typer

from sgbench.cli import options
from sgbench.core.streams import nothing_on_stdout

EXAMPLES = ("sgbench plan quick", "sgbench plan paper --devices 8 --price 2.50", "sgbench plan mine.yaml --json")


def plan(
    asked: options.Asked,
    devices: Annotated[
        int, typer.Option("--devices", metavar="N", min=1, max=1_000_000, help="Number of GPUs, or CPU lanes.")
    ] = 1,
    price: Annotated[
        float | None,
        typer.Option("--price", metavar="X", min=0, max=1e12, help="Price of one device-hour, in any currency."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the runs of a sweep, their status, and how long the rest will take, without starting anything.

    Times are estimated from similar runs in this store; without any, none are given. If a data set is not available
    locally, the plan uses the set of that name on record in the store, provided there is exactly one. Otherwise runs
    have no ids, and their status is unknown unless the store is empty.
    """
    from sgbench.cli import output
    from sgbench.runs.forecast import expect
    from sgbench.runs.status import RunStatus
    from sgbench.runs.sweep import look
    from sgbench.store import Store

    with nothing_on_stdout():
        made = look(asked.name, asked.sweep, asked.storage, output.screen)
    expected = expect(
        [run for run in made.runs if run.pending or run.status is RunStatus.TO_RETRAIN], Store(asked.storage)
    )
    output.print_plan(made, expected, devices=devices, price=price, as_json=as_json)
