"""How scores are shown, as metrics declare it; also for scores of a metric whose code is not loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sgbench.metrics.base import MAX_DIGITS, METRICS, UNRANKED


@dataclass(frozen=True)
class Display:
    """How the scores of a metric are shown."""

    unit: str = ""
    digits: int | None = None
    """Decimals; None stands for four significant digits."""
    rank: int = UNRANKED
    """Place among other metrics; ties are sorted by name."""
    direction: Literal["lower", "higher"] | None = None
    """Which values are better; None if only the stored scores can tell."""

    def number(self, value: float, sign: str = "") -> str:
        """Return a value as it is shown; one that rounds to zero has no minus sign.

        Args:
            value: Finite.
            sign: ``+`` also gives values that are not negative a sign.
        """
        return f"{value:{sign}z.4g}" if self.digits is None else f"{value:{sign}z.{self.digits}f}"


def display_of(name: str) -> Display:
    """Return how the scores of a metric are shown, as it declares; neither torch nor a plug-in is imported.

    A plug-in that is not loaded is read as text; for one that is not on this machine, these are defaults.

    Args:
        name: Its name in the results store.
    """
    metric = METRICS.available(name)
    if metric is not None:
        return Display(metric.unit, metric.digits, metric.rank, metric.direction)
    written = METRICS.written_options(name)
    fitting = {key: value for key, value in written.items() if key in _FITS and _FITS[key](value)}
    return Display(**fitting)


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "unit": lambda unit: isinstance(unit, str) and unit.isprintable(),
    "digits": lambda digits: type(digits) is int and 0 <= digits <= MAX_DIGITS,
    "rank": lambda rank: type(rank) is int,
}
"""What is read of a plug-in, and whether it is what a metric may declare."""
