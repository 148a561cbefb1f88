"""Progress of a sweep: a live display or, if the output is not a terminal, plain lines."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sgbench.core.words import duration, printable
from sgbench.store.rows import RunEnd

MAX_LINES = 8
"""The most running runs that get their own line; the others are only counted."""

VERDICTS = {
    RunEnd.DONE: ("done", "green"),
    RunEnd.FAILED: ("FAILED", "bold red"),
    RunEnd.STOPPED: ("stopped", "yellow"),
    RunEnd.INTERRUPTED: ("interrupted", "yellow"),
}
"""The word for a run's end, and its style."""

BAR_WIDTH = 100
"""Width of a terminal, in columns, from which on runs have a bar; below that, their names need the space."""

LINE_SECONDS = 10.0
LINE_SHARE = 0.1
HEARTBEAT_SECONDS = 300.0
"""Plain output: a run speaks at most every ten seconds, and then after a tenth of its steps or five minutes."""


@dataclass
class _Run:
    """A run that is going; its text is the person's and is never read as markup."""

    label: str
    told_at: float
    told_share: float = 0.0
    step: int = 0
    steps: int = 0
    loss: float = 0.0
    rate: float = 0.0
    scoring: bool = False

    @property
    def share(self) -> float:
        return self.step / self.steps if self.steps else 0.0

    @property
    def seconds_left(self) -> float | None:
        return (self.steps - self.step) / self.rate if self.rate > 0 else None


class Display:
    """Shows the progress of a sweep; every method may be called from any thread.

    On a terminal: a line for each of the first `MAX_LINES` running runs, redrawn in place, above an overall summary.
    Elsewhere: a few plain lines without control characters.

    Args:
        console: Where to write; use stderr to keep stdout for data.
        total: Number of runs of the sweep.
        done: Number of runs that were done before.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, console: Console, total: int, done: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._total, self._done, self._failed = total, done, 0
        self._clock = clock
        self._begin = clock()
        self._worked = 0.0  # runs' worth of training that this process has seen happen
        self._running: dict[str, _Run] = {}
        self._lock = threading.Lock()  # never held while printing: Live's thread takes its own lock, then this one
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                console=console,
                get_renderable=self._render,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        with self._lock:
            summary = self._summary()
        self._say(summary)

    def started(self, run_id: str, label: str) -> None:
        """A run has started, or restarted."""
        with self._lock:
            run = self._running[run_id] = _Run(_one_line(label), told_at=self._clock())
        if not self._live:
            self._say(f"started {run.label}")

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        """A run has done ``step`` of its ``steps``; ignored for a run that is not running."""
        with self._lock:
            run = self._running.get(run_id)
            if run is None:
                return
            first = run.steps == 0
            before = run.share
            run.step, run.steps, run.loss, run.rate = step, steps, loss, steps_per_second
            if first:  # the earlier steps of a resumed run say nothing about today's speed
                run.told_share = run.share
            else:
                self._worked += run.share - before
            line = None if self._live else self._due(run, first)
        if line:
            self._say(line)

    def scoring(self, run_id: str) -> None:
        """A run has finished its training and is being evaluated; ignored for a run that is not running."""
        with self._lock:
            run = self._running.get(run_id)
            if run is None:
                return
            run.scoring = True
        if not self._live:
            self._say(f"scoring {run.label}")

    def finished(self, run_id: str, end: RunEnd, message: str) -> None:
        """A run has ended.

        Args:
            run_id: Which one.
            end: How.
            message: Why it failed, or a remark; may be empty.
        """
        with self._lock:
            run = self._running.pop(run_id, None)
            label = run.label if run else run_id
            self._worked += 1.0 - (run.share if run else 0.0)
            self._done += end is RunEnd.DONE
            self._failed += end is RunEnd.FAILED
            ended = end in (RunEnd.DONE, RunEnd.FAILED)
            count = f" ({self._done + self._failed} of {self._total})" if ended else ""
        remark = f": {_one_line(message)}" if message else ""
        self._say(Text.assemble(VERDICTS[end], f" {label}{count}{remark}"))

    def _say(self, line: str | Text) -> None:
        self._console.print(Text(line) if isinstance(line, str) else line, soft_wrap=True, highlight=False)

    def _due(self, run: _Run, first: bool) -> str | None:
        """Return the line to print for a run now in plain output, if any."""
        silence = self._clock() - run.told_at
        advanced = run.share - run.told_share >= LINE_SHARE or silence >= HEARTBEAT_SECONDS
        if not first and not (silence >= LINE_SECONDS and advanced):
            return None
        run.told_at, run.told_share = self._clock(), run.share
        return (
            f"{run.label}: step {run.step}/{run.steps}, loss {run.loss:.4g}, {run.rate:.3g} steps/s, "
            f"ETA {_duration(run.seconds_left)}"
        )

    def _render(self) -> RenderableType:
        with self._lock:
            grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
            grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
            for _ in range(4):
                grid.add_column(justify="right", no_wrap=True)
            has_bars = self._console.width >= BAR_WIDTH
            if has_bars:
                grid.add_column(width=10)
            runs = list(self._running.values())
            for run in runs[:MAX_LINES]:
                bar = [ProgressBar(total=run.steps or 1, completed=run.step, width=10)] if has_bars else []
                grid.add_row(Text(run.label), *_numbers(run), *bar)
            parts: list[RenderableType] = [grid] if runs else []
            if len(runs) > MAX_LINES:
                parts.append(Text(f"… and {len(runs) - MAX_LINES} more running"))
            return Group(*parts, Text(self._summary(), "bold", no_wrap=True, overflow="ellipsis"))

    def _summary(self) -> str:
        elapsed = self._clock() - self._begin
        running = len(self._running)
        waiting = max(0, self._total - self._done - self._failed - running)
        parts = [f"{self._done} of {self._total} done"]
        counts = {"failed": self._failed, "running": running, "waiting": waiting}
        parts += [f"{count} {what}" for what, count in counts.items() if count]
        parts.append(f"elapsed {duration(elapsed)}")
        left = running + waiting - sum(run.share for run in self._running.values())
        if running and self._worked > 0:
            parts.append(f"ETA {duration(elapsed * left / self._worked)}")
        return " · ".join(parts)


def _numbers(run: _Run) -> list[str]:
    """Return step, loss, speed and time left of a run, or what it does instead of training."""
    if not run.steps or run.scoring:
        return ["scoring" if run.scoring else "starting", "", "", ""]
    return [
        f"{run.step}/{run.steps}",
        f"loss {run.loss:.4g}",
        f"{run.rate:.3g}/s",
        f"ETA {_duration(run.seconds_left)}",
    ]


def _duration(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)


def _one_line(text: str) -> str:
    """Return a person's or an exception's text as one line of printable characters."""
    return printable(" ".join(text.split()))
