"""Several metrics over one set of images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sgbench.assets.base import LoadedWeights, MissingWeights
from sgbench.assets.needs import networks_of
from sgbench.core.errors import InputError, described, lacks_memory
from sgbench.core.plugins import FAULTS
from sgbench.core.status import ScoreStatus
from sgbench.core.words import listed
from sgbench.metrics.base import (
    METRICS,
    PUBLISHED,
    Array,
    CompositeMetric,
    ImageMetric,
    Metric,
    Pair,
    Runtime,
    Score,
    SetMetric,
    Undefined,
    incomplete,
    mean_of,
    not_finite,
    worst,
)
from sgbench.metrics.cache import HrCache
from sgbench.spec import Degradation

if TYPE_CHECKING:
    from sgbench.assets.locator import Locator


@dataclass(frozen=True)
class Result:
    """One score with everything that the results store keeps about it."""

    metric: str
    version: str
    protocol: dict[str, Any]
    """The metric's own, and under ``weights`` the hash of each network's tensors."""
    image: str | None
    """None stands for the whole set."""
    n_images: int
    score: Score
    seconds: float
    """What the metric took, for all of the images together."""


@dataclass(frozen=True)
class Measured:
    """What a suite has computed for one image."""

    image: str
    results: tuple[Result, ...]
    """One of each image metric."""
    features: Mapping[str, tuple[Array, Array] | Score]
    """By set metric, the vectors of the image and of its reference, or why there are none."""
    seconds: Mapping[str, float]
    """What each set metric took."""


class Suite:
    """Several metrics over one set of images, which are measured one at a time and may differ in size.

    A metric whose weights are missing scores ``no weights``, one that fails ``failed``, one that compares with HR where
    there is none ``needs HR``, and the others go on.

    Args:
        metrics: Names in `sgbench.metrics.METRICS`, in the order of the results; a repeated one counts once.
        locator: Finds the weights of networks; asked once per network, and not at all if no metric needs one.
        device: Where networks run, as torch names it.
        hr_cache: Keeps what is computed of references between suites.
        has_hr: Whether the images have references.
        degradation: How their low-resolution images were made, unless they came as files; in the protocol of metrics
            that use them.

    Raises:
        InputError: If a name is unknown, or a weights file has the wrong content.
    """

    def __init__(
        self,
        metrics: Iterable[str],
        locator: Locator,
        device: str = "cpu",
        hr_cache: HrCache | None = None,
        *,
        has_hr: bool = True,
        degradation: Degradation = PUBLISHED,
    ) -> None:
        self.metrics: list[Metric] = [METRICS.load(name) for name in dict.fromkeys(metrics)]
        self._has_hr = has_hr
        self._hr_cache = HrCache() if hr_cache is None else hr_cache
        self._unavailable: dict[str, str] = {}
        self._parts = list(self._only_parts())
        weights: dict[str, LoadedWeights] = {}
        self._missing: dict[str, str] = {}
        for network in networks_of(metric.name for metric in self.metrics if has_hr or not metric.needs_hr):
            try:
                weights[network] = locator.load(network)
            except MissingWeights as reason:
                self._missing[network] = str(reason)
        self._runtime = Runtime(weights, device, degradation)
        self._measured: list[Measured] = []

    def measure(self, pair: Pair) -> Measured:
        """Apply every metric to one pair; several threads may do so at once."""
        if self._has_hr:
            pair.hr.keep_views(self._hr_cache)
        results = []
        features: dict[str, tuple[Array, Array] | Score] = {}
        seconds: dict[str, float] = {}
        for metric in (*self.metrics, *self._parts):
            began = time.perf_counter()
            if isinstance(metric, ImageMetric):
                score = self._impossible(metric) or Score.of(partial(self._score, metric, pair))
                results.append(self._result(metric, pair.name, 1, score, time.perf_counter() - began))
            elif isinstance(metric, SetMetric) and not self._impossible(metric):
                features[metric.name] = self._features(metric, pair)
                seconds[metric.name] = time.perf_counter() - began
        return Measured(pair.name, tuple(results), features, seconds)

    def failed(self, name: str, reason: str) -> Measured:
        """Return the results of an image that cannot be scored: an unreadable file, a model's output with a NaN.

        Every image metric gets a ``failed`` result for it, and so does every set metric, because a set without one of
        its images is another set.

        Args:
            name: What the image is called in results.
            reason: What happened.
        """
        score = Score(None, ScoreStatus.FAILED, reason)
        images = [metric for metric in (*self.metrics, *self._parts) if isinstance(metric, ImageMetric)]
        results = tuple(self._result(metric, name, 1, self._impossible(metric) or score, 0.0) for metric in images)
        sets = [metric for metric in self.metrics if isinstance(metric, SetMetric)]
        return Measured(name, results, {metric.name: score for metric in sets}, {})

    def add(self, measured: Measured) -> None:
        """Add an image to the results."""
        self._measured.append(measured)

    def results(self) -> list[Result]:
        """Return every result so far: images in the order they were added, then one of each metric of sets."""
        unasked = {metric.name for metric in self._parts}
        images = [result for measured in self._measured for result in measured.results if result.metric not in unasked]
        return images + [self._of_set(metric) for metric in self.metrics if not isinstance(metric, ImageMetric)]

    def _only_parts(self) -> Iterator[ImageMetric]:
        """Yield the metrics that only composite ones ask for, each once."""
        asked = {metric.name for metric in self.metrics}
        for composite in self.metrics:
            if isinstance(composite, CompositeMetric) and (self._has_hr or not composite.needs_hr):
                for part in composite.parts:
                    if part not in asked:
                        asked.add(part)
                        try:
                            metric = METRICS.load(part)
                        except InputError as reason:
                            self._unavailable[part] = str(reason)
                        else:
                            assert isinstance(metric, ImageMetric)
                            yield metric

    def _score(self, metric: ImageMetric, pair: Pair) -> float:
        if metric.needs_lr and not pair.has_lr:
            raise Undefined("there is no LR image to compare with")
        return metric.score(pair.seen_by(metric), self._runtime)

    def _features(self, metric: SetMetric, pair: Pair) -> tuple[Array, Array] | Score:
        key = (metric.name, metric.version, *self._hashes(metric).values())
        sr, hr = (partial(metric.features, image, self._runtime) for image in (pair.sr, pair.hr))
        try:
            return _finite(sr()), _finite(pair.hr.view(key, hr))
        except Undefined as reason:
            return Score(None, ScoreStatus.UNDEFINED, str(reason))
        except FAULTS as error:  # as in Score.of
            if lacks_memory(error):
                raise
            return Score(None, ScoreStatus.FAILED, described(error))

    def _of_set(self, metric: Metric) -> Result:
        began = time.perf_counter()
        score = self._set_score(metric) if isinstance(metric, SetMetric) else self._composite_score(metric)
        seconds = time.perf_counter() - began + sum(each.seconds.get(metric.name, 0.0) for each in self._measured)
        return self._result(metric, None, len(self._measured), score, seconds)

    def _set_score(self, metric: SetMetric) -> Score:
        if score := self._impossible(metric):
            return score
        if not self._measured:
            return Score(None, ScoreStatus.UNDEFINED, "there are no images")
        pairs, without = [], {}
        for measured in self._measured:
            features = measured.features[metric.name]
            if isinstance(features, Score):
                without[measured.image] = features
            else:
                pairs.append(features)
        if without:
            return incomplete(without)
        sr, hr = (np.stack(side) for side in zip(*pairs, strict=True))
        return Score.of(partial(metric.distance, sr, hr))

    def _composite_score(self, metric: Metric) -> Score:
        assert isinstance(metric, CompositeMetric)
        if metric.needs_hr and not self._has_hr:
            return Score(None, ScoreStatus.NEEDS_HR, "the test set has no HR images")
        if not self._measured:
            return Score(None, ScoreStatus.UNDEFINED, "there are no images")
        scores = {part: self._mean(part) for part in metric.parts}
        if lacking := {part: score for part, score in scores.items() if score.value is None}:
            by_reason: dict[str, list[str]] = {}
            for part, score in lacking.items():
                by_reason.setdefault(str(score.reason), []).append(part)
            said = [f"{listed(parts)}: {reason}" for reason, parts in by_reason.items()]
            if len(said) == 1:
                said = list(by_reason)
            after = ";" if self._unavailable.keys() >= lacking.keys() else ":"  # a note quotes what is before a colon
            reason = f"it lacks {listed(lacking)}{after} {'; '.join(said)}"
            return Score(None, worst(score.status for score in lacking.values()), reason)
        means = {part: score.value for part, score in scores.items() if score.value is not None}
        return Score.of(partial(metric.combine, means))

    def _mean(self, part: str) -> Score:
        """Return the mean of an image metric over the images, as the value of the set."""
        if reason := self._unavailable.get(part):
            return Score(None, ScoreStatus.NO_WEIGHTS, reason)
        results = [result for measured in self._measured for result in measured.results if result.metric == part]
        return mean_of({str(result.image): result.score for result in results})

    def _impossible(self, metric: Metric) -> Score | None:
        if metric.needs_hr and not self._has_hr:
            return Score(None, ScoreStatus.NEEDS_HR, "the test set has no HR images")
        reasons = [self._missing[network] for network in metric.networks if network in self._missing]
        return Score(None, ScoreStatus.NO_WEIGHTS, " ".join(reasons)) if reasons else None

    def _hashes(self, metric: Metric) -> dict[str, str]:
        loaded = self._runtime.weights
        return {network: loaded[network].sha256 for network in metric.networks if network in loaded}

    def _result(self, metric: Metric, image: str | None, n_images: int, score: Score, seconds: float) -> Result:
        protocol = {**metric.protocol, "weights": self._hashes(metric)}
        if metric.needs_lr:
            kernel, edges, rounding = self._runtime.degradation.model_dump().values()
            protocol["degradation"] = f"{kernel}, edges {edges}, rounding {rounding}"
        return Result(metric.name, metric.version, protocol, image, n_images, score, seconds)


def _finite(features: Array) -> Array:
    bad = features[~np.isfinite(features)]
    if bad.size:
        raise ArithmeticError(f"a feature is {not_finite(float(bad[0]))}")
    return features
