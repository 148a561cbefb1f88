"""Output while a sweep is prepared and runs: remarks, progress bars and the live display, all on standard error."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn

from sgbench.core.words import printable
from sgbench.report.live import Display

if TYPE_CHECKING:  # it loads torch
    from sgbench.runs.plan import Plan

Bars = AbstractContextManager[Callable[[str, int, int], None]]
"""Draws a progress bar for each name, given the amount done and the total."""


class Screen:
    """Shows what a sweep does, as `sgbench.runs.sweep.Observer`.

    A notebook gets plain lines, as a file does.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty(), force_jupyter=False)

    def say(self, text: str) -> None:
        """Print one remark, on one line, whatever it quotes."""
        self.console.print(printable(text), markup=False)

    def warn(self, text: str) -> None:
        """Print a remark about the results."""
        self.say(f"note: {text}")

    def packing(self) -> Bars:
        """Show a bar for each data set while images are packed."""
        return self._bars("packing", MofNCompleteColumn())

    def verifying(self) -> Bars:
        """Show a bar for each prepared set while its pixels are read."""
        return self._bars("verifying", MofNCompleteColumn())

    def fetching(self) -> Bars:
        """Show a bar for each archive, data set or network while it is downloaded."""
        return self._bars("fetching", DownloadColumn())

    def sending(self) -> Bars:
        """Show a bar for each data set or network while it is sent to a store."""
        return self._bars("sending", DownloadColumn())

    def running(self, plan: "Plan") -> Display:
        """Show the progress of the runs of a plan."""
        return Display(self.console, plan.course())

    @contextlib.contextmanager
    def _bars(self, doing: str, column: ProgressColumn) -> Iterator[Callable[[str, int, int], None]]:
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            column,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        ) as bars:
            tasks: dict[str, TaskID] = {}

            def progress(name: str, done: int, total: int) -> None:
                if name not in tasks:
                    tasks[name] = bars.add_task(f"{doing} {printable(name)}")
                bars.update(tasks[name], completed=done, total=total or None)

            yield progress
