"""Time that passes only when a test says so, and processes that fall asleep in it, for leases."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(eq=False)
class _Beat:
    seconds: float
    act: Callable[[], None]
    due: float


class World:
    """The time that really passes, in seconds."""

    def __init__(self) -> None:
        self.time = 0.0
        self._clocks: list[VirtualClock] = []

    def clock(self, ahead: float = 0.0) -> "VirtualClock":
        """Return the clock of another process.

        Args:
            ahead: By how much it is ahead of the others.
        """
        clock = VirtualClock(self, ahead)
        self._clocks.append(clock)
        return clock

    def pass_by(self, seconds: float) -> None:
        """Let time pass, and whoever is awake act when its time has come."""
        end = self.time + seconds
        while due := [(beat.due, at) for at, beat in enumerate(self._beats()) if beat.due <= end]:
            beat = self._beats()[min(due)[1]]
            self.time = max(self.time, beat.due)
            beat.due = self.time + beat.seconds
            beat.act()
        self.time = end

    def _beats(self) -> list[_Beat]:
        return [beat for clock in self._clocks if not clock.asleep for beat in clock.beats]


class VirtualClock:
    """The clock of one process; a `sgbench.core.lease.Clock`."""

    def __init__(self, world: World, ahead: float) -> None:
        self.world = world
        self.ahead = ahead
        self.asleep = False
        """Whether its process is stopped, or dead: then nothing of it acts."""
        self.beats: list[_Beat] = []

    def now(self) -> float:
        return self.world.time + self.ahead

    def sleep(self, seconds: float) -> None:
        self.world.pass_by(seconds)

    @contextlib.contextmanager
    def every(self, seconds: float, act: Callable[[], None]) -> Iterator[None]:
        beat = _Beat(seconds, act, self.world.time + seconds)
        self.beats.append(beat)
        try:
            yield
        finally:
            self.beats.remove(beat)
