"""``sgbench plan``: what a sweep would do."""

from typing import Annotated

import typer

from sgbench.cli import options
from sgbench.core.streams import nothing_on_stdout

EXAMPLES = (
    "sgbench plan quick",
    "sgbench plan mine.yaml --measure --address auto --devices 8 --price 2.50",
    "sgbench plan paper --times s3://bucket/earlier --json",
    "sgbench plan mine.yaml --detect 0.005 --metric lpips_alex --pilot results/earlier",
)


def plan(
    asked: options.Asked,
    devices: Annotated[
        int, typer.Option("--devices", metavar="N", min=1, max=1_000_000, help="Number of GPUs, or CPU lanes.")
    ] = 1,
    price: Annotated[
        float | None,
        typer.Option("--price", metavar="X", min=0, max=1e12, help="Price of one device-hour, in any currency."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="First time 20 steps of each backbone with each loss, and the scoring."),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="HOST:PORT", help="Ray cluster on a node of which --measure measures."),
    ] = None,
    packages: options.With = None,
    times: Annotated[
        list[str] | None,
        typer.Option("--times", metavar="STORE", help="A store whose runs tell times too (repeatable)."),
    ] = None,
    detect: Annotated[
        float | None,
        typer.Option(
            "--detect", metavar="EFFECT", help="How many seeds show a difference so large, in the metric's unit?"
        ),
    ] = None,
    power: Annotated[
        float, typer.Option("--power", metavar="0.8", help="How often --detect is to show it, if it is there.")
    ] = 0.8,
    pilot: Annotated[
        str | None,
        typer.Option(
            "--pilot",
            metavar="STORE|seed=X,image=Y,both=Z",
            help="What tells how differences vary. Default: the runs in --results.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the runs of a sweep, their status, and how long the rest will take, without starting anything.

    The time of a run is known from runs with its backbone, recipe and loss, in this store or those of --times, or from
    --measure, whose times the store keeps for later plans and sweeps. Otherwise it is scaled from other backbones by
    their MACs, and by what the loss takes on another backbone; if that is not known either, the time is unknown. The
    table says what each time rests on. All are of one type of device, which is named.

    --detect says instead, for each comparison, how many seeds show an effect of that size, fixed beforehand or until it
    is decided, whether more images are needed, the smallest effect that the planned seeds can show, and what it all
    costs. Compared are the losses of the questions that the sweep is to decide or, without any, l1 or the first loss
    with each other one. How much differences vary by seed, by image and by both is estimated from the runs of --pilot
    that are most like the planned ones.

    If a data set is not available locally, the plan uses the set of that name on record in the store, provided there is
    exactly one. Otherwise runs have no ids, and their status is unknown unless the store is empty.
    """
    import contextlib
    import functools

    from sgbench.cli import output
    from sgbench.cluster import measuring
    from sgbench.core.errors import InputError
    from sgbench.core.packages import to_send
    from sgbench.core.storage import Storage, absolute
    from sgbench.runs import measure as measurement
    from sgbench.runs.forecast import expect
    from sgbench.runs.pilots import source_of
    from sgbench.runs.prospects import costs_of, decide_of, fresh, goal_of, prospects
    from sgbench.runs.status import RunStatus
    from sgbench.runs.sweep import look
    from sgbench.store import Store
    from sgbench.store.times import read_times

    if address and not measure:
        raise InputError("--address is for --measure, which measures on a node of that cluster; a plan needs none.")
    if detect is None and pilot is not None:
        raise InputError("--pilot is for --detect, which needs to know how differences vary; give both.")
    goal = None if detect is None else goal_of(asked.sweep, detect, power)
    sent = to_send(packages or (), "--with", cluster=bool(address))
    others = {name: Store(Storage(absolute(name))) for name in times or ()}
    for name, other in others.items():
        if not other.rows() and not read_times(other.storage):
            raise InputError(f"--times: '{name}' has no runs that could tell times; a results store is needed.")
    with nothing_on_stdout():
        made = look(asked.name, asked.sweep, asked.storage, output.screen)
        if measure:
            here = contextlib.nullcontext(measurement.measure_here)
            measurer = measuring(address, output.screen, sent) if address else here
            measurement.measure(made, asked.storage, measurer, output.screen)
    forecast = functools.partial(
        expect,
        store=Store(asked.storage),
        tests=made.tests,
        validation=asked.sweep.validation,
        validation_sets=made.validation,
        workers=max(1, asked.sweep.workers),
        others=others,
    )
    if goal is None:
        to_do = [run for run in made.runs if run.pending or run.status is RunStatus.TO_RETRAIN]
        output.print_plan(made, forecast(to_do), devices=devices, price=price, as_json=as_json)
        return
    found = prospects(made, goal, source_of(pilot, asked.sweep, goal.metric, asked.storage.root))
    costs = costs_of(found, goal, forecast(fresh(made)), max(1, asked.sweep.workers))
    output.print_prospects(found, goal, decide_of(asked.sweep), costs, devices=devices, price=price, as_json=as_json)
