"""How scores are shown: what a metric declares of it, for whoever has its scores and not its code."""

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
    """Place among other metrics; equals stand by name."""
    direction: Literal["lower", "higher"] | None = None
    """Which of two values is the better one; None where only the stored scores can tell."""

    def number(self, value: float, sign: str = "") -> str:
        """Return a value as it is shown; what rounds to zero has no minus.

        Args:
            value: Finite.
            sign: ``+`` gives what is not negative a sign too.
        """
        return f"{value:{sign}z.4g}" if self.digits is None else f"{value:{sign}z.{self.digits}f}"


def display_of(name: str) -> Display:
    """Return what a metric declares of how it is shown, or defaults where no code but sgbench's own is loaded for it.

    Neither torch nor a plug-in is imported.

    Args:
        name: As the results store has it; the metric need not be installed here.
    """
    metric = METRICS.available(name)
    return Display() if metric is None else Display(metric.unit, metric.digits, metric.rank, metric.direction)
