"""``sgbench plan``: what a sweep would do."""

from sgbench.cli import options

EXAMPLES = "Examples: sgbench plan quick | sgbench plan quick --lambda 0,0.1,1 --json"


def plan(asked: options.Asked, as_json: options.Json = False) -> None:
    """Show the runs of a sweep and how far each one is; starts nothing.

    Without the data at hand the runs are listed by name, and their ids are not known.
    """
    from sgbench.cli import output
    from sgbench.errors import MissingDataError
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
    output.print_plan(made, as_json=as_json)
