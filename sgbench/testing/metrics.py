"""The rules for metrics."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.resize import downscale
from sgbench.core.status import ScoreStatus
from sgbench.core.words import listed
from sgbench.metrics import METRICS, ImageMetric, Metric, Pair, Suite
from sgbench.metrics.suite import Result
from sgbench.spec import Recipe
from sgbench.testing.base import Trial, in_milliseconds, pickled, rule

SIDES = (64, 256)
"""Side of an image in pixels: the first, unless a metric has no value for images as small as that."""

NOISE = (4, 48)
"""A little and much, in units of 8-bit values."""

ODD = (7, 15)
"""By how much the height and width of an image of an odd size are smaller."""

THREADS = 4
"""How many score at once."""

ROUNDING = 1e-6
"""By how much another order of sums may change a value, relatively."""

Pixels = NDArray[np.uint8]


class MetricTrial(Trial):
    """A metric, tried on two pairs of images at a time.

    Args:
        name: Its name.
        recipe: Has the scale, by which borders are cropped.
    """

    def __init__(self, name: str, recipe: Recipe) -> None:
        super().__init__("metric", name, recipe)

    def prepare(self) -> None:
        """Load it."""
        assert self._metric is not None

    @cached_property
    def _metric(self) -> Metric:
        return METRICS.load(self.name)

    @rule("has a value for random images", fix="return a finite float, or raise Undefined with a reason", decisive=True)
    def call(self) -> str:
        """Score two images of noise."""
        return self._values(self._score(*_noise(self._side), "random images"))

    @rule("leaves the images as they are", fix="copy an array before writing into it")
    def images(self) -> None:
        """Compare the pixels with what they were."""
        sr, hr = _noise(self._side)
        self._score(sr, hr, "random images")
        if not all(map(np.array_equal, (sr, hr), _noise(self._side))):
            raise InputError(f"{self.what} writes into the images that it is given, which other metrics share.")

    @rule("has a value, or says why not, where SR equals HR", fix="raise Undefined where the value would be infinite")
    def equal(self) -> str:
        """Score images that equal their references."""
        _, hr = self._photographs
        return self._values(self._score(hr, hr, "images that equal HR"))

    @rule("has a value, or says why not, for constant images", fix="raise Undefined where a variance of 0 divides")
    def constant(self) -> str:
        """Score a black and a white image against photographs, and against themselves."""
        flat, (_, hr) = self._black_and_white, self._photographs
        self._score(flat, hr, "constant images")
        return self._values(self._score(flat, flat, "constant images that equal HR"))

    @rule("has a value, or says why not, for extreme images", fix="convert pixels to float before subtracting them")
    def extreme(self) -> str:
        """Score black against white, and the reverse."""
        flat = self._black_and_white
        return self._values(self._score(flat, 255 - flat, "black images whose HR is white"))

    @rule("takes images of any size", fix="pad images, or raise Undefined for those that are too small")
    def size(self) -> None:
        """Score images of odd sizes, of which a set may have several."""
        sr, hr = self._photographs
        height, width = (self._side - less for less in ODD)
        self._score(sr[:, :, :height, :width], hr[:, :, :height, :width], f"images of {width}×{height} pixels")

    @rule("says in its direction which images are better", fix="set direction to 'lower' or 'higher'")
    def direction(self) -> str | None:
        """Score images with a little noise and with much."""
        if not self._metric.needs_hr and not self._metric.needs_lr:
            return None
        _, hr = self._photographs
        better, worse = (
            self._score(_with_noise(hr, strength), hr, f"images with noise of ±{strength}")[-1].score.value
            for strength in NOISE
        )
        if better is None or worse is None:
            return None
        if (better < worse) is not (self._metric.direction == "lower"):
            raise InputError(
                f"{self.what} is {better:.4g} for images with little noise and {worse:.4g} with much, and declares "
                f"that {self._metric.direction} values are better."
            )
        return f"{better:.4g} is better than {worse:.4g}"

    @rule("gives the same values again, and in several threads", fix="keep nothing between calls")
    def repeatable(self) -> None:
        """Score the same images once more, and several times at once."""
        score = partial(self._score, *self._photographs, "photographs")
        with ThreadPoolExecutor(THREADS) as pool:
            found = [score(), score(), *(each.result() for each in [pool.submit(score) for _ in range(THREADS)])]
        for one, other in pairwise(found):
            for a, b in zip(one, other, strict=True):
                if a.score != b.score:
                    raise InputError(f"{self.what} is {_value(a)} and then {_value(b)} for the same images.")

    @rule("does not depend on the order of the images", fix="keep nothing between calls")
    def order(self) -> None:
        """Score the same images in the reverse order."""
        one, other = (self._score(*self._photographs, "photographs", order=order) for order in (1, -1))
        by_image = {result.image: result.score.value for result in other}
        for result in one:
            value, reverse = result.score.value, by_image[result.image]
            if value is not None and (reverse is None or not math.isclose(value, reverse, rel_tol=ROUNDING)):
                raise InputError(f"{self.what} is {value:g}, and {reverse} for the same images in another order.")

    @rule("says what it computes", fix="fill in version, description, source and protocol")
    def declaration(self) -> None:
        """Look for what is empty."""
        texts = ("version", "description", "source", "protocol")
        if empty := [each for each in texts if not getattr(self._metric, each)]:
            raise InputError(f"{self.what} has no {listed(empty)}, by which others know what its numbers mean.")

    @rule("can be pickled and copied", fix="use methods or functions of the module in place of lambdas")
    def pickles(self) -> None:
        """Compare a copy with the original."""
        copied = pickled(self._metric)
        if copied.protocol != self._metric.protocol or type(copied) is not type(self._metric):
            raise InputError(f"{self.what} is not the same after it is pickled.")

    @rule("what it costs", fix="make it work on photographs")
    def cost(self) -> str:
        """Time it for one image."""
        found = self._score(*self._photographs, "photographs")
        each = sum(result.seconds for result in found if result.image or not isinstance(self._metric, ImageMetric))
        return f"{in_milliseconds(each / len(self._photographs[0]))} for an image of {self._side}×{self._side} pixels"

    @cached_property
    def _side(self) -> int:
        for side in SIDES[:-1]:
            statuses = {result.score.status for result in self._score(*_noise(side), "random images")}
            if ScoreStatus.UNDEFINED not in statuses:
                return side
        return SIDES[-1]

    @property
    def _black_and_white(self) -> Pixels:
        return np.stack([np.full((3, self._side, self._side), level, np.uint8) for level in (0, 255)])

    @property
    def _photographs(self) -> tuple[Pixels, Pixels]:
        """Two smooth images with a little noise as SR, and without as HR."""
        rows, columns = np.mgrid[: self._side, : self._side]
        waves = [np.sin(rows / (5 + channel) + columns / (9 - channel)) for channel in range(6)]
        hr = (128 + 100 * np.reshape(waves, (2, 3, *rows.shape))).astype(np.uint8)
        return _with_noise(hr, NOISE[0]), hr

    def _score(self, sr: Pixels, hr: Pixels, images: str, order: int = 1) -> list[Result]:
        """Return the results for a set of images, that of the whole set last.

        Args:
            sr: The images, shape [N, 3, H, W].
            hr: Their references.
            images: What they are, for messages.
            order: 1, or -1 for the reverse.

        Raises:
            InputError: If one fails.
        """
        scale, degradation = self.recipe.scale, self.recipe.degradation
        suite = Suite([self.name], Locator(download=False), degradation=degradation)
        for name, one, other in list(zip("ab", sr, hr, strict=True))[::order]:
            if self._metric.needs_lr:
                height, width = (side - side % scale for side in other.shape[1:])
                one, other = (image[:, :height, :width] for image in (one, other))
                image, edges, rounding = other.transpose(1, 2, 0), degradation.edges, degradation.rounding
                lr = downscale(image, scale, edges=edges, rounding=rounding).transpose(2, 0, 1)
            suite.add(suite.measure(Pair(name, one, other, scale, lr if self._metric.needs_lr else None)))
        results = suite.results()
        for result in results:
            if result.score.status == ScoreStatus.FAILED:
                raise InputError(f"{self.what} fails on {images}: {result.score.reason}.")
        return results

    def _values(self, results: list[Result]) -> str:
        return listed(dict.fromkeys(map(_value, results)))


def _value(result: Result) -> str:
    value, reason = result.score.value, result.score.reason
    return f"{reason}" if value is None else f"{value:.4g}"


def _noise(side: int) -> tuple[Pixels, Pixels]:
    sr, hr = np.random.default_rng(0).integers(0, 256, (2, 2, 3, side, side), np.uint8)
    return sr, hr


def _with_noise(images: Pixels, strength: int) -> Pixels:
    noise = np.random.default_rng(1).integers(-strength, strength, images.shape, endpoint=True)
    return (images + noise).clip(0, 255).astype(np.uint8)
