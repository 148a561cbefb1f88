"""In how many looks the seeds of a comparison came, by the times at which runs were asked for and ended."""

import datetime
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sgbench.analysis.view import Run

_UNKNOWN = datetime.datetime.min.replace(tzinfo=datetime.UTC)
"""Stands for a time that older versions did not record: before all that were."""


class Looks(NamedTuple):
    """The seeds of a comparison, and when there may have been a look at its results before more of them came.

    Attributes:
        seeds: In the order in which both runs of each had been asked for, then by number.
        counts: The number of pairs at each look, the last of which is at all of them; one look if they came together.
    """

    seeds: tuple[int, ...]
    counts: tuple[int, ...]


def looks(pairs: Mapping[int, Sequence[Run]]) -> Looks:
    """Return in how many looks pairs of finished runs came.

    There was a look before a pair was asked for if two others had ended by then, and at least one of them since the
    last such look. The order does not depend on any result.

    Args:
        pairs: The runs of each seed; at least one seed.
    """
    asked = {seed: max(run.planned or _UNKNOWN for run in runs) for seed, runs in pairs.items()}
    ended = [max(run.finished or run.planned or _UNKNOWN for run in runs) for runs in pairs.values()]
    counts = {sum(time < began for time in ended) for began in asked.values()}
    return Looks(
        tuple(sorted(pairs, key=lambda seed: (asked[seed], seed))),
        (*sorted(count for count in counts if 1 < count < len(pairs)), len(pairs)),
    )
