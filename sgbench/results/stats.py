"""Statistics over the seeds of a line of runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Some values in short.

    Attributes:
        mean: Their arithmetic mean.
        sd: Their sample standard deviation (n − 1); none for a single value, which has no spread.
        n: How many there are.
    """

    mean: float
    sd: float | None
    n: int


def summarise(values: Sequence[float]) -> Summary:
    """Return mean, sample standard deviation and number of some values.

    Raises:
        ValueError: If there are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to summarise")
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return Summary(mean, sd, n)
