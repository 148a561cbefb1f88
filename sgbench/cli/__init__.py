"""The command line: one file a command, which parses, calls and prints.

Nothing here loads torch or Ray until a command needs it, so that ``sgbench --help`` answers at once.
"""

import sys
import warnings
from typing import Annotated

import typer

from sgbench import __version__
from sgbench.cli import (
    backbones,
    compare,
    data,
    doctor,
    evaluate,
    figure,
    logs,
    losses,
    metrics,
    options,
    plan,
    query,
    report,
    results,
    status,
    stop,
    submit,
    sweep,
    table,
    train,
    weights,
)
from sgbench.errors import InputError

app = typer.Typer(
    name="sgbench",
    help="Does my loss really beat L1, on every backbone, beyond seed noise?",
    epilog="Start with: sgbench sweep quick. Exit codes: 0 done, 1 some run failed, 2 bad input, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="sweep", epilog=sweep.EXAMPLES)(options.of_sweep(sweep.sweep))
app.command(name="plan", epilog=plan.EXAMPLES)(options.of_sweep(plan.plan))
app.command(name="table", epilog=table.EXAMPLES)(table.table)
app.command(name="compare", epilog=compare.EXAMPLES)(compare.compare)
app.command(name="train", epilog=train.EXAMPLES)(options.of_sweep(train.train))
app.command(name="eval", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(name="doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.command(name="backbones", epilog=backbones.EXAMPLES)(backbones.backbones)
app.command(name="losses", epilog=losses.EXAMPLES)(losses.losses)
app.command(name="metrics", epilog=metrics.EXAMPLES)(metrics.metrics)
app.command(name="query", epilog=query.EXAMPLES)(query.query)
app.add_typer(results.app, name="results")
app.add_typer(figure.app, name="figure")
app.command(name="report", epilog=report.EXAMPLES)(report.report)
app.command(name="submit", epilog=submit.EXAMPLES)(options.of_sweep(submit.submit))
app.command(name="status", epilog=status.EXAMPLES)(status.status)
app.command(name="logs", epilog=logs.EXAMPLES)(logs.logs)
app.command(name="stop", epilog=stop.EXAMPLES)(stop.stop)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sgbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of sgbench itself."""


def main() -> None:
    """Run the command line; bad input is one sentence and exit code 2."""
    sys.path.append("")  # so that --loss my_module:MyLoss finds a module beside the person, and hides none of ours
    warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
    try:
        app()
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"error: '{error.filename}': {error.strerror}.", err=True)  # a folder that cannot be written to
        sys.exit(2)
