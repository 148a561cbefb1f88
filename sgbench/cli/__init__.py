"""The command line: one file per command, which parses, calls and prints.

Nothing here loads torch or Ray before a command needs it, so that ``sgbench --help`` answers at once.
"""

import sys
import warnings
from collections.abc import Iterable
from typing import Annotated, Any, NoReturn

import typer

from sgbench import __version__
from sgbench.cli import (
    backbones,
    calibrate,
    check,
    compare,
    data,
    doctor,
    evaluate,
    figure,
    logs,
    losses,
    metrics,
    new,
    options,
    plan,
    query,
    report,
    results,
    status,
    stop,
    streams,
    submit,
    sweep,
    table,
    train,
    tune,
    weights,
)
from sgbench.cli.commands import command
from sgbench.core.errors import InputError, InterruptionError, Note, in_a_sentence, sentence
from sgbench.core.registry import PLUGIN_FOLDERS
from sgbench.core.words import quoted

app = typer.Typer(
    name="sgbench",
    help="Does my loss really beat L1, on every backbone, beyond seed noise?",
    epilog="Start with: sgbench sweep quick. Exit codes: 0 done, 1 a run failed, 2 bad input, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
command(app, *sweep.EXAMPLES, name="sweep")(options.of_sweep(sweep.sweep))
command(app, *plan.EXAMPLES, name="plan")(options.of_sweep(plan.plan))
command(app, *tune.EXAMPLES, name="tune")(options.of_sweep(tune.tune, reads=False))
command(app, *table.EXAMPLES, name="table")(table.table)
command(app, *compare.EXAMPLES, name="compare")(compare.compare)
command(app, *check.EXAMPLES, name="check")(check.check)
command(app, *new.EXAMPLES, name="new")(new.new)
command(app, *train.EXAMPLES, name="train")(options.of_sweep(train.train, decides=False))
command(app, *evaluate.EXAMPLES, name="eval")(evaluate.evaluate)
command(app, *doctor.EXAMPLES, name="doctor")(doctor.doctor)
command(app, *backbones.EXAMPLES, name="backbones")(backbones.backbones)
command(app, *losses.EXAMPLES, name="losses")(losses.losses)
app.add_typer(metrics.app, name="metrics")
command(metrics.app, *calibrate.EXAMPLES, name="calibrate")(calibrate.calibrate)
command(metrics.app, *calibrate.VARIANTS_EXAMPLES, name="variants")(calibrate.variants)
command(app, *query.EXAMPLES, name="query")(query.query)
app.add_typer(results.app, name="results")
app.add_typer(figure.app, name="figure")
command(app, *report.EXAMPLES, name="report")(report.report)
command(app, *submit.EXAMPLES, name="submit")(options.of_sweep(submit.submit))
command(app, *status.EXAMPLES, name="status")(status.status)
command(app, *logs.EXAMPLES, name="logs")(logs.logs)
command(app, *stop.EXAMPLES, name="stop")(stop.stop)
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
    """Run the command line; for bad input, print one sentence and exit with 2."""
    streams.prepare()
    PLUGIN_FOLDERS[:] = [""]  # --loss my_module:MyLoss finds a module in the current folder
    warnings.showwarning = lambda message, *_: _warn(message)
    try:
        _refuse_what_is_not_text(sys.argv)
        with streams.until_nobody_reads():
            sys.exit(app(prog_name="sgbench", standalone_mode=False))
    except InputError as error:
        _end(error, 2)
    except InterruptionError as error:
        _end(error, 1)
    except _UsageError as error:
        _end_of_usage(error)
    except typer.Abort:
        _end("not confirmed; nothing was changed.", 1)
    except OSError as error:  # such as a folder that is not writable
        _end(in_a_sentence(error), 2)


def _warn(message: Warning | str) -> None:
    """Print a warning; a live display takes the place of standard error, and typer would write past it."""
    sys.stderr.write(f"{'note' if isinstance(message, Note) else 'warning'}: {sentence(str(message))}\n")


_UsageError: Any = typer.BadParameter.__base__
"""What Typer raises for a command line that it cannot parse."""


def _end(error: object, code: int) -> NoReturn:
    typer.echo(f"error: {sentence(str(error))}", err=True)
    sys.exit(code)


def _end_of_usage(error: Any) -> NoReturn:
    """Say what is wrong with a command line; one that names only a group of commands has got that group's help."""
    said = error.format_message()
    if not said:
        sys.exit(2)
    command = error.ctx.command_path if error.ctx else "sgbench"
    _end(f"{said[0].lower()}{said[1:].rstrip('.')}; '{command} -h' shows what is valid.", 2)


def _refuse_what_is_not_text(arguments: Iterable[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"argument {quoted(argument)} is not text in UTF-8.") from error
