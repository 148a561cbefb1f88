"""``sgbench query``: query a store in SQL."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sgbench.cli import options
from sgbench.core.errors import InputError, unknown

EXAMPLES = (
    "sgbench query 'DESCRIBE scores'",
    'sgbench query "SELECT backbone, loss, avg(value) FROM scores JOIN runs USING (run_id) '
    "WHERE metric = 'psnr_y' AND image IS NULL GROUP BY ALL ORDER BY ALL\"",
    "sgbench query - --format csv --out answer.csv",
)


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT in DuckDB's dialect; - reads it from stdin.")],
    results: options.Results = None,
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="rich, markdown, latex, csv, html, json or parquet.")
    ] = "rich",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the result to a file.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="End a query that takes longer.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run a SQL query over the views runs, scores, history, validation, labels, trials and paper.

    The store is opened read-only, and the query has no access to files or the network. It may use half of the machine's
    memory, and Ctrl-C ends it. 'rich' shows the first 100 rows, every other format all of them.
    """
    from rich.console import Console

    from sgbench.analysis import load_results
    from sgbench.analysis.query import is_running
    from sgbench.cli import output
    from sgbench.report.rows import FORMATS, ROWS, print_rows, to_parquet

    form = "json" if as_json else form
    if form not in (valid := ("rich", *FORMATS, "parquet")):
        raise unknown("format", form, valid)
    if out is None and form == "parquet":
        raise InputError("--format parquet is binary; name a file with --out.")
    if out is not None and form == "rich":
        raise InputError("--format is rich, which is only for terminals, and --out is given; valid: the other formats.")
    if timeout is not None and not timeout > 0:
        raise InputError(f"--timeout is {timeout:g}; a number of seconds above 0 is needed.")
    loaded = load_results(options.find_store(results))
    sql = _read() if sql == "-" else sql
    try:
        answer = loaded.query(sql, timeout=timeout)
    except (InputError, KeyboardInterrupt) as error:
        if is_running():
            _end_now(error)
        raise
    if form == "rich":
        print_rows(answer, Console(highlight=False, width=None if sys.stdout.isatty() else 160))
        if answer.num_rows > ROWS:
            output.say(f"{answer.num_rows - ROWS:,} more rows are not shown; every other --format gives all.")
    elif out is None:
        typer.echo(FORMATS[form](answer), nl=False)
    elif form == "parquet":
        output.write(out, to_parquet(answer))
    else:
        output.write(out, FORMATS[form](answer).encode())


def _read() -> str:
    """Return what standard input has.

    Raises:
        InputError: If that is not text.
    """
    try:
        return sys.stdin.buffer.read().decode()  # in the locale C, text may be anything
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not text in UTF-8: byte {error.start + 1} is not.") from error


def _end_now(error: BaseException) -> NoReturn:
    """End the process although a thread of DuckDB does not stop, which would spoil an ordinary end."""
    if isinstance(error, InputError):
        typer.echo(f"error: {error}", err=True)
    sys.stderr.flush()
    os._exit(2 if isinstance(error, InputError) else 130)
