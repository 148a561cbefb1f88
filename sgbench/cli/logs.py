"""``sgbench logs``: what a submitted sweep prints."""

from typing import Annotated

import typer

from sgbench.cli import options

EXAMPLES = "Examples: sgbench logs sgbench-quick-20260101-120000 | sgbench logs sgbench-quick-20260101-120000 --follow"


def logs(
    job: options.Job,
    address: options.Dashboard = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Show what a submitted sweep has printed so far.

    With --follow the command ends with the job, and with 1 unless that succeeded. Ctrl-C leaves the job alone.
    """
    from sgbench.cluster.jobs import Jobs

    jobs = Jobs(address)
    if not follow:
        typer.echo(jobs.logs(job), nl=False)
        return
    ended = jobs.follow(job, lambda text: typer.echo(text, nl=False))
    typer.echo(f"{job}: {ended.status}", err=True)
    if ended.status != "succeeded":
        raise typer.Exit(1)
