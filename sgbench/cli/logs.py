"""``sgbench logs``: what a submitted sweep prints, or a run."""

import re
from typing import Annotated

import typer

from sgbench.cli import options
from sgbench.core.errors import InputError
from sgbench.core.words import printable_lines, quoted

EXAMPLES = ("sgbench logs sgbench-quick-20260101-120000 --follow", "sgbench logs 3f00b25e4820 --results results/quick")


def logs(
    what: Annotated[str, typer.Argument(metavar="JOB|RUN", help="Id of a job, or a run's or the beginning of it.")],
    results: options.Results = None,
    address: options.Dashboard = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the job ends.")] = False,
) -> None:
    """Show what a submitted sweep has printed so far, or the log of one run in a store.

    The log of a run has its progress and whatever its processes print.

    With --follow the command runs until the job ends; exit code 1 unless the job succeeded. Ctrl-C does not stop
    the job.
    """
    if re.fullmatch("[0-9a-f]{1,12}", what):
        from sgbench.cluster.runlog import read_log
        from sgbench.core.storage import Storage

        typer.echo(_shown(read_log(Storage(options.find_store(results)), what)), nl=False)
        return
    from sgbench.cluster.jobs import PREFIX, Jobs

    if not what.startswith(PREFIX):
        raise InputError(
            f"{quoted(what)} is the id of neither a run nor a job: {_there(results)}; 'sgbench status --address' lists "
            "jobs."
        )
    jobs = Jobs(address)
    if not follow:
        typer.echo(_shown(jobs.logs(what)), nl=False)
        return
    ended = jobs.follow(what, lambda text: typer.echo(_shown(text), nl=False))
    typer.echo(f"{what}: {ended.status}", err=True)
    if ended.status != "succeeded":
        raise typer.Exit(1)


def _there(results: str | None) -> str:
    """Return which runs have a log in the store, if there is one."""
    from sgbench.cluster.runlog import logged
    from sgbench.core.storage import Storage

    try:
        return logged(Storage(options.find_store(results)))
    except InputError as error:
        return str(error).rstrip(".")


def _shown(text: str) -> str:
    """Return a log without colours, and with escapes for whatever else would act on the terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return printable_lines(re.sub(r"\r\n?", "\n", text).expandtabs())
