"""Progress of a sweep: a live display or, if the output is not a terminal, plain lines."""

import sys
import threading
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sgbench.core.words import duration, natural, plural, printable
from sgbench.runs.progress import Course, Lane, Pace, Running, line
from sgbench.store.rows import RunEnd

MAX_LINES = 8
"""The most running runs that get their own line; the others are only counted."""

VERDICTS = {
    RunEnd.DONE: ("done", "green"),
    RunEnd.FAILED: ("FAILED", "bold red"),
    RunEnd.STOPPED: ("stopped", "yellow"),
    RunEnd.PAUSED: ("paused", "green"),
    RunEnd.EXHAUSTED: ("stopped", "yellow"),
    RunEnd.INTERRUPTED: ("interrupted", "yellow"),
}
"""The word for a run's end, and its style."""

BAR_WIDTH = 100
"""Width of a terminal, in columns, from which on runs have a bar; below that, their names need the space."""


class Display:
    """Shows the progress of a sweep; every method may be called from any thread.

    On a terminal: a line for each of the first `MAX_LINES` running runs, redrawn in place, above an overall summary.
    Elsewhere: a few plain lines without control characters. If runs are on several nodes, they are below their node.

    Args:
        console: Where to write; use stderr to keep stdout for data.
        course: Of the sweep, which has not begun.
    """

    def __init__(self, console: Console, course: Course) -> None:
        self._console = console
        self._course = course
        self._paces: dict[str, Pace] = {}
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
        label = _one_line(label)
        with self._lock:
            self._course.started(run_id, label)
            self._paces[run_id] = Pace(self._course.clock)
        if not self._live:
            self._say(f"started {label}")

    def placed(self, run_id: str, lane: Lane) -> None:
        """A run is at work there; ignored for a run that is not running."""
        with self._lock:
            self._course.placed(run_id, lane._replace(node=_one_line(lane.node), kind=_one_line(lane.kind)))

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        """A run has done ``step`` of its ``steps``; ignored for a run that is not running."""
        with self._lock:
            run = self._course.progress(run_id, step, steps, loss, steps_per_second)
            is_due = run and not self._live and self._paces[run_id].is_due(run.share)
        if run and is_due:
            where = f", on {run.lane}" if run.lane and str(run.lane) else ""
            self._say(f"{run.label}: {', '.join([line(step, steps, loss, steps_per_second), *run.scores])}{where}")

    def measured(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        """A run has values of its curves, of which scores on validation sets are shown; others, `progress` has."""
        with self._lock:
            self._course.measured(run_id, {_one_line(name): value for name, value in values.items()})

    def scoring(self, run_id: str) -> None:
        """A run has finished its training and is being evaluated; ignored for a run that is not running."""
        with self._lock:
            run = self._course.scoring(run_id)
        if run and not self._live:
            self._say(f"scoring {run.label}")

    def finished(self, run_id: str, end: RunEnd, message: str) -> None:
        """A run has ended.

        Args:
            run_id: Which one.
            end: How.
            message: Why it failed, or a remark; may be empty.
        """
        with self._lock:
            run = self._course.finished(run_id, end)
            self._paces.pop(run_id, None)
            label = run.label if run else run_id
            ended = end in (RunEnd.DONE, RunEnd.FAILED)
            count = f" ({self._course.done + self._course.failed} of {self._course.total})" if ended else ""
        remark = f": {_one_line(message)}" if message else ""
        self._say(Text.assemble(VERDICTS[end], f" {label}{count}{remark}"))

    def _say(self, line: str | Text) -> None:
        self._console.print(Text(line) if isinstance(line, str) else line, soft_wrap=True, highlight=False)

    def _render(self) -> RenderableType:
        with self._lock:
            has_bars = self._console.width >= BAR_WIDTH
            grid = Table.grid(padding=(0, 1 + has_bars, 0, 0), expand=True)
            grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
            validated = has_bars and any(run.scores for run in self._course.running.values())
            for _ in range(5 + validated):
                grid.add_column(justify="right", no_wrap=True)
            if has_bars:
                grid.add_column(width=10)
            lanes = _by_node(self._course.running.values())
            shown = 0
            for node, runs in lanes.items():
                here = runs[: MAX_LINES - shown]
                shown += len(here)
                if node and here:
                    kinds = dict.fromkeys(run.lane.kind for run in runs if run.lane and run.lane.kind)
                    count = [plural(len(runs), "run")] if len(runs) > len(here) else []
                    grid.add_row(Text(" · ".join((node, *kinds, *count)), "bold"))
                for run in here:
                    score = [run.scores[0] if run.scores else ""] if validated else []
                    bar = [ProgressBar(total=run.steps or 1, completed=run.step, width=10)] if has_bars else []
                    grid.add_row(*_label(run, indented=bool(node)), *_numbers(run), *score, *bar)
            parts: list[RenderableType] = [grid] if shown else []
            if more := len(self._course.running) - shown:
                parts.append(Text(f"… and {more} more running"))
            return Group(*parts, Text(self._summary(), "bold", no_wrap=True, overflow="ellipsis"))

    def _summary(self) -> str:
        course = self._course
        parts = [f"{course.done} of {course.total} done"]
        counts = {
            "failed": course.failed,
            "out of budget": course.exhausted,
            "paused": course.paused,
            "running": len(course.running),
            "waiting": course.waiting,
        }
        parts += [f"{count} {what}" for what, count in counts.items() if count]
        parts.append(f"elapsed {duration(course.seconds)}")
        if course.seconds_left is not None:
            parts.append(f"ETA {duration(course.seconds_left)}")
        return " · ".join(parts)


def _by_node(runs: Collection[Running]) -> dict[str, list[Running]]:
    """Return runs by their node, in the order of nodes and GPUs; without a name if they are on one node."""
    if len({run.lane.node for run in runs if run.lane}) < 2:
        return {"": list(runs)}
    lanes: dict[str, list[Running]] = {}
    for run in sorted(runs, key=lambda run: (run.lane is None, natural(str(run.lane)))):
        lanes.setdefault(run.lane.node if run.lane else "not placed yet", []).append(run)
    return lanes


def _label(run: Running, *, indented: bool) -> tuple[Text, str]:
    """Return what a run is called, in two parts: the latter, with its seed, is never cut off.

    The former begins with the GPU that the run is on or the number of its workers, if any.
    """
    share = f"{run.lane.share} " if run.lane and run.lane.share else ""
    what, _, seed = run.label.rpartition(" · ")
    return Text.assemble("  " * indented, (share, "cyan"), what or seed), seed if what else ""


def _numbers(run: Running) -> list[str]:
    """Return step, loss, speed and time left of a run, or what it does instead of training."""
    if run.doing != "training":
        return [run.doing, "", "", ""]
    eta = "unknown" if run.seconds_left is None else duration(run.seconds_left)
    return [f"{run.step}/{run.steps}", f"loss {run.loss:.4g}", f"{run.rate:.3g}/s", f"ETA {eta}"]


def _one_line(text: str) -> str:
    """Return a person's or an exception's text as one line of printable characters."""
    return printable(" ".join(text.split()))
