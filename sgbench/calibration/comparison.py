"""The comparison of metrics with their references, one row for each metric and set of images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from sgbench.assets.base import MissingWeights
from sgbench.calibration.networks import SharedNetworks
from sgbench.calibration.pictures import Pictures
from sgbench.calibration.references import RECORDED, REFERENCES
from sgbench.core.errors import described
from sgbench.core.plugins import FAULTS
from sgbench.metrics import METRICS, HrCache, Metric, Pair, Score, SetMetric, Suite
from sgbench.metrics.base import not_finite
from sgbench.training.numerics import single_precision


@dataclass(frozen=True)
class Compared:
    """The values of both sides for an image, or for a set of them."""

    image: str | None
    """None stands for the whole set."""
    ours: float | None
    theirs: float | None
    reason: str | None
    """Why one of them is missing."""

    @property
    def difference(self) -> float | None:
        """The absolute difference, if there are both values."""
        return None if self.ours is None or self.theirs is None else abs(self.ours - self.theirs)


@dataclass(frozen=True)
class Row:
    """A metric and its reference on a set of images."""

    images: str
    metric: str
    version: str
    reference: str
    """The reference with its version."""
    allowed: float | None
    """The difference that the metric declares."""
    compared: tuple[Compared, ...]
    """By image; one for a metric of sets; none if nothing could be compared."""
    problem: str | None
    """Why nothing could be compared."""
    random: tuple[str, ...]
    """Networks to which both sides gave the same random weights."""

    @property
    def both(self) -> list[Compared]:
        """Where both sides have a value."""
        return [each for each in self.compared if each.difference is not None]

    @property
    def ours(self) -> float | None:
        """The mean of our values where there are both."""
        return _mean([cast(float, each.ours) for each in self.both])

    @property
    def theirs(self) -> float | None:
        """The mean of the reference's values where there are both."""
        return _mean([cast(float, each.theirs) for each in self.both])

    @property
    def difference(self) -> float | None:
        """The largest difference."""
        return max((cast(float, each.difference) for each in self.both), default=None)

    @property
    def exceeds(self) -> bool:
        """Whether the values differ by more than the metric declares."""
        return self.difference is not None and self.allowed is not None and self.difference > self.allowed


def compare(metrics: Sequence[str], pictures: Sequence[Pictures], networks: SharedNetworks) -> Iterator[Row]:
    """Yield a row for each metric and set of images, metrics in the order of tables.

    Args:
        metrics: Names of metrics that have an entry in `REFERENCES` or are in `RECORDED`.
        pictures: The images.
        networks: Finds the weights, which both sides get.
    """
    cache = HrCache()
    for metric in sorted(map(METRICS.load, metrics), key=lambda metric: (metric.rank, metric.name)):
        if metric.name in RECORDED:
            why = "not a package; the tests compare with values that it has computed"
            yield Row("recorded", metric.name, metric.version, str(metric.reference), metric.difference, (), why, ())
            continue
        reference = REFERENCES[metric.name]
        problem, weights = None, {}
        if missing := reference.missing:
            problem = f"not installed: pip install {' '.join(missing)}"
        else:
            try:
                weights = {name: networks.load(name) for name in metric.networks}
            except MissingWeights as error:
                problem = f"no weights: {error}"
        with warnings.catch_warnings(), single_precision():
            warnings.simplefilter("ignore")  # such as those of arguments that torchvision no longer has
            try:
                theirs = None if problem else reference.prepare(weights)
            except FAULTS as error:
                theirs, problem = None, f"{reference} fails: {described(error)}"
            for each in pictures:
                compared = _compared(metric, theirs, each.pairs(cache), networks, cache) if theirs else ()
                yield Row(
                    images=each.name,
                    metric=metric.name,
                    version=metric.version,
                    reference=str(reference),
                    allowed=metric.difference,
                    compared=compared,
                    problem=problem,
                    random=tuple(name for name in metric.networks if name in networks.made),
                )


def _compared(
    metric: Metric, theirs: Callable[..., float], pairs: Sequence[Pair], networks: SharedNetworks, cache: HrCache
) -> tuple[Compared, ...]:
    suite = Suite([metric.name], networks, hr_cache=cache)
    for pair in pairs:
        suite.add(suite.measure(pair))
    scores = {result.image: result.score for result in suite.results()}
    given = {None: pairs} if isinstance(metric, SetMetric) else {pair.name: pair for pair in pairs}
    return tuple(_pair_of_values(image, scores[image], partial(theirs, each)) for image, each in given.items())


def _pair_of_values(image: str | None, ours: Score, theirs: Callable[[], float]) -> Compared:
    reasons = [ours.reason] if ours.reason else []
    value = None
    try:
        found = theirs()
    except FAULTS as error:
        reasons.append(f"the reference fails: {described(error)}")
    else:
        if math.isfinite(found):
            value = found
        else:
            reasons.append(f"the reference's value is {not_finite(found)}")
    return Compared(image, ours.value, value, "; ".join(reasons) or None)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
