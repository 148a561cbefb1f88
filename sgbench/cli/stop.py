"""``sgbench stop``: stop a submitted sweep so that it can be resumed."""

import typer

from sgbench.cli import options

EXAMPLES = ("sgbench stop sgbench-quick-20260101-120000",)


def stop(job: options.Job, address: options.Dashboard = None) -> None:
    """Stop a submitted sweep, and wait until each of its runs has written a checkpoint.

    Submit it again with the same store to resume it. A job that has already ended stays as it is.
    """
    from sgbench.cluster.jobs import LIVE, Jobs

    ended = Jobs(address).stop(job)
    typer.echo(f"{job}: {ended.status}", err=True)
    if ended.status in LIVE:
        raise typer.Exit(1)
