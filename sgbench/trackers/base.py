"""What a tracker is, and the names of those that there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sgbench.core import registry
from sgbench.store.rows import RunEnd


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it starts."""

    run_id: str
    """The same whenever the run is resumed or repeated."""
    name: str
    """What it is called: ``edsr-tiny l1+sg seed 0`` and its id."""
    sweep: str
    """The name of its sweep."""
    config: Mapping[str, str | int | float | bool]
    """What it is to do, as columns of the table ``runs``, such as ``backbone`` and ``optimizer_lr``."""
    step: int
    """Steps done before. If it was killed later than that, points that the tracker has beyond will come again."""
    scores: tuple[str, ...]
    """The names of the scores that it is to have, such as ``scores/Set5/psnr_y``."""
    folder: Path
    """A folder of the run for files of trackers, in the store; it may not exist yet."""


class Tracker(Protocol):
    """Shows the course of one run; made without arguments, and called from a thread that no training waits for.

    A constructor that raises an exception is bad input: one tracker is made and forgotten before anything starts.
    After that, a tracker that raises hears no more of its run, a person is warned once, and the run goes on.
    """

    def started(self, run: TrackedRun) -> None:
        """The run starts or resumes, or a finished one gets further scores."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The run has values at a step; several calls may be about the same one.

        Args:
            step: Steps done.
            values: Such as ``loss``, ``lr``, ``steps_per_second``, ``terms/l1`` and ``scores/Set5/psnr_y``; names hold
                letters, digits and ``._-/``.
        """

    def finished(self, end: RunEnd, message: str) -> None:
        """The run has ended; unless it is done, the message says why. Nothing follows."""


TRACKERS: registry.Registry[type[Tracker]] = registry.TRACKERS
"""The registry of trackers, with their type."""

register_tracker = TRACKERS.register
"""Register a tracker in this process: ``@register_tracker("name")``."""


def check(name: str, entry: object) -> None:
    """Check the entry of a tracker's name in the registry.

    Raises:
        InputError: If it is not a class with the methods of `Tracker`.
    """
    methods = ("started", "log", "finished")
    if not (isinstance(entry, type) and all(callable(getattr(entry, method, None)) for method in methods)):
        raise registry.unfit("tracker", name, entry, "a class with the methods started, log and finished")
