"""How scores are shown, as metrics declare it; also for scores of a metric whose code is not loaded."""

from dataclasses import dataclass
from typing import Literal

from sgbench.metrics.base import METRICS, UNRANKED


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
    """Return how the scores of a metric are shown, as it declares, or defaults if its code is not loaded.

    Neither torch nor a plug-in is imported.

    Args:
        name: Its name in the results store; the metric need not be installed here.
    """
    metric = METRICS.available(name)
    return Display() if metric is None else Display(metric.unit, metric.digits, metric.rank, metric.direction)
