"""What commands print: progress on standard error, results on standard output."""

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from sgbench.metrics import MissingWeights
from sgbench.metrics.weights import Locator
from sgbench.plan import Plan
from sgbench.registry import METRICS
from sgbench.report.tables import pivot, print_table, to_data
from sgbench.results import load_results

console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
"""For progress and remarks."""


def say(remark: str) -> None:
    """Print one remark for a person."""
    console.print(remark, markup=False)


def print_json(data: Any) -> None:
    """Print data as JSON on standard output."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_rows(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows of the same keys as a table with these for heads."""
    if as_json:
        print_json(rows)
        return
    table = Table(box=box.SIMPLE_HEAD)
    for key in rows[0] if rows else ():
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    _stdout().print(table)


def _stdout() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def print_entries(entries: Mapping[str, Sequence[str]]) -> None:
    """Print paragraphs of some lines each beside their names; readable on a narrow terminal."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, lines in entries.items():
        table.add_row(Text(name), Text("\n".join(lines)))
    _stdout().print(table)


def print_plan(made: Plan, *, as_json: bool) -> None:
    """Print the runs of a plan and how far each one is."""
    rows = [
        {
            "run_id": run.spec.run_id,
            "backbone": run.spec.backbone,
            "loss": run.spec.loss,
            "seed": run.spec.seed,
            "status": run.status,
            "step": f"{run.step}/{run.spec.recipe.steps}",
            "error": run.error,
        }
        for run in made.runs
    ]
    print_rows(rows, as_json=as_json)
    if not as_json:
        say(f"{made.name}: {made.named} runs named, {made.summary()}")


def print_results(
    root: str,
    *,
    as_json: bool,
    backbones: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> None:
    """Print the table of a store, all of it or what is chosen."""
    shown = pivot(load_results(root), backbones=backbones, losses=losses, datasets=datasets, metrics=metrics)
    if as_json:
        print_json(to_data(shown))
    else:
        print_table(shown, Console(file=sys.stdout, highlight=False))


def packing() -> contextlib.AbstractContextManager[Callable[[str, int, int], None]]:
    """Show a bar a data set while images are packed."""
    return _named_bars("packing", MofNCompleteColumn())


def verifying() -> contextlib.AbstractContextManager[Callable[[str, int, int], None]]:
    """Show a bar a prepared set while its pixels are read."""
    return _named_bars("verifying", MofNCompleteColumn())


def fetching() -> contextlib.AbstractContextManager[Callable[[str, int, int], None]]:
    """Show a bar an archive while it arrives."""
    return _named_bars("fetching", DownloadColumn())


def fetch_weights(names: Sequence[str]) -> dict[str, str]:
    """Fetch weights that are not on this machine, with a bar each.

    Returns:
        Why some could not be had, by name.
    """
    missing = {}
    for name in names:
        with _bars(DownloadColumn()) as bars:
            task = bars.add_task(f"fetching {name}", total=None)
            locator = Locator(progress=functools.partial(_advance, bars, task))
            try:
                locator.fetch(name)
            except MissingWeights as reason:
                missing[name] = str(reason)
    return missing


def fetch_for(metrics: Sequence[str]) -> None:
    """Fetch what metrics need, and say once what cannot be had; their scores will say so too."""
    local = Locator(download=False)
    networks = {network for metric in metrics for network in METRICS.load(metric).networks}
    for reason in fetch_weights(sorted(name for name in networks if local.find(name) is None)).values():
        say(f"note: {reason}")


@contextlib.contextmanager
def _named_bars(doing: str, column: ProgressColumn) -> Iterator[Callable[[str, int, int], None]]:
    with _bars(column) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(f"{doing} {name}", total=total or None)
            bars.update(tasks[name], completed=done)

        yield progress


def _advance(bars: Progress, task: TaskID, done: int, total: int) -> None:
    bars.update(task, completed=done, total=total or None)


def _bars(column: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        column,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
