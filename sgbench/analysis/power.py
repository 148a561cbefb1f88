"""How many seeds, and images, an answer needs: the power of the three tests, before or after runs are trained.

Differences between two losses are taken to be an effect, plus what a seed adds, what an image adds, and what both add
together, each normally distributed (`Spread`). Such a model cannot tell how runs will turn out, but it can tell how
often so many seeds and images would show an effect of that size.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sgbench.analysis.sequential import t_e_process
from sgbench.analysis.stats import Array, sign_flip_floor
from sgbench.core.seeding import derive

POWER = 0.8
"""How often an effect is to be shown if it is there, by default."""

MOST_SEEDS = 1000
"""More seeds than anybody trains."""

MOST_IMAGES = 10_000
"""More images than test sets have."""

_POINTS = 4096
"""Number of points by which the power is integrated over the variances that may be observed."""

_COURSES = 2000
"""Number of simulated courses of a sweep that adds seeds until it is decided."""


@dataclass(frozen=True)
class Spread:
    """How much differences between two losses vary around their mean, as three standard deviations.

    Attributes:
        seed: Of what a seed adds to the differences in all images.
        image: Of what an image adds to the differences of all seeds; 0 for a metric of whole sets.
        both: Of what is left, which is of one seed and one image; 0 for a metric of whole sets.
    """

    seed: float
    image: float = 0.0
    both: float = 0.0

    @classmethod
    def of(cls, differences: Array, sizes: Sequence[int] = ()) -> "Spread":
        """Estimate it by the analysis of variance of a crossed design with one value per cell.

        Variances that would be negative, as they are if images or seeds vary by less than chance lets their means vary,
        are 0 (Searle, Casella and McCulloch, *Variance Components*, 1992, sections 4.2 and 4.3).

        Args:
            differences: [S, I], by seed and image; at least two seeds. With one image, all variation is that of seeds.
            sizes: The number of images of each test set, side by side: images vary around the mean of their set. By
                default, all are of one set.

        Raises:
            ValueError: If there are fewer than two seeds.
        """
        seeds, images = differences.shape
        if seeds < 2:
            raise ValueError(f"2 seeds are needed, and there is {seeds}")
        by_seed, by_image = differences.mean(axis=1), differences.mean(axis=0)
        if images == 1:
            return cls(float(by_seed.std(ddof=1)))
        rest = differences - by_seed[:, None] - by_image + differences.mean()
        with np.errstate(over="ignore"):  # of scores out of all proportion
            both = float(np.sum(rest**2)) / ((seeds - 1) * (images - 1))
        for end, size in zip(np.cumsum(sizes), sizes, strict=True):
            by_image[end - size : end] -= by_image[end - size : end].mean()
        seed = float(by_seed.var(ddof=1)) - both / images
        image = float(by_image.var(ddof=1)) - both / seeds
        return cls(*(math.sqrt(max(0.0, variance)) for variance in (seed, image, both)))

    def error(self, seeds: int, images: int) -> float:
        """Return the standard error of the mean over so many seeds and images."""
        return math.hypot(
            self.seed / math.sqrt(seeds), self.image / math.sqrt(images), self.both / math.sqrt(seeds * images)
        )


def power_of(effect: float, spread: Spread, seeds: int, images: int | None, alpha: float) -> float:
    """Return how often a comparison finds an effect significant: all three tests have p ≤ α.

    With normal differences, the mean and the three mean squares of the analysis of variance are independent, and the
    tests are functions of them: Student's t over seeds, over both with the bootstrap's standard error and degrees of
    freedom, and over images, where the sign flips have Student's power at the largest level below α that they can have.
    The power is the mean, over the mean squares, of how often the mean is large enough for all three; for a metric of
    whole sets it is that of the noncentral t distribution.

    Args:
        effect: True mean of the differences.
        spread: How they vary.
        seeds: Number of paired seeds.
        images: Number of images; None for a metric of whole sets, which is tested over seeds alone.
        alpha: Level of a cell: that of the family divided by the number of its cells, as by Bonferroni.
    """
    needed = _needed(spread, seeds, images, alpha)
    return 0.0 if needed is None else _reached(abs(effect), needed, spread.error(seeds, images or 1))


def detectable(spread: Spread, seeds: int, images: int | None, alpha: float, power: float = POWER) -> float:
    """Return the minimum detectable effect: the smallest that is found significant with that power.

    Args:
        spread: How differences vary.
        seeds: Number of paired seeds.
        images: Number of images; None for a metric of whole sets.
        alpha: Level of a cell; see `power_of`.
        power: How often it is to be found, between 0 and 1.

    Returns:
        The effect in the unit of the differences, without a sign; infinite if no effect would be found.
    """
    needed = _needed(spread, seeds, images, alpha)
    if needed is None:
        return math.inf
    error = spread.error(seeds, images or 1)
    low, high = 0.0, float(needed.max()) + 10 * error
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _reached(middle, needed, error) >= power else (middle, high)
    return high


def seeds_needed(
    effect: float, spread: Spread, images: int | None, alpha: float, power: float = POWER, most: int = MOST_SEEDS
) -> int | None:
    """Return the smallest number of seeds with which an effect is found with that power.

    Args:
        effect: True mean of the differences.
        spread: How they vary.
        images: Number of images; None for a metric of whole sets.
        alpha: Level of a cell; see `power_of`.
        power: How often it is to be found.
        most: The largest number that may be returned.

    Returns:
        The number, or None if not even ``most`` seeds are enough.
    """
    return _smallest(lambda seeds: power_of(effect, spread, seeds, images, alpha) >= power, most)


def images_needed(effect: float, spread: Spread, seeds: int, alpha: float, power: float = POWER) -> int | None:
    """Return the smallest number of images with which so many seeds find an effect with that power.

    Args:
        effect: True mean of the differences.
        spread: How they vary.
        seeds: Number of paired seeds.
        alpha: Level of a cell; see `power_of`.
        power: How often it is to be found.

    Returns:
        The number, or None if not even `MOST_IMAGES` are enough, because the seeds vary too much.
    """
    return _smallest(lambda images: power_of(effect, spread, seeds, images, alpha) >= power, MOST_IMAGES)


def decided_by(
    effect: float, spread: Spread, images: int | None, alpha: float, g: float, looks: Sequence[int]
) -> Array:
    """Return how often the anytime-valid tests have found an effect significant after each seed, by simulation.

    Student's t stands for the sign flips, as in `power_of`. The random numbers are always the same.

    Args:
        effect: True mean of the differences.
        spread: How they vary.
        images: Number of images; None for a metric of whole sets.
        alpha: Level of a cell; see `power_of`.
        g: Prior variance of the effect; see `sgbench.analysis.sequential.t_e_process`.
        looks: After how many seeds the images are tested, ascending; the last is the most seeds there may be.

    Returns:
        [N], after 1, 2, … seeds; it never falls.
    """
    most = looks[-1]
    drawn = _courses(most, images or 1)
    means = effect + spread.image * drawn.image / math.sqrt(images or 1)
    means = means + math.hypot(spread.seed, spread.both / math.sqrt(images or 1)) * drawn.seeds
    decided = np.maximum.accumulate(t_e_process(means, g), axis=1) >= 1 / alpha
    if images is not None:
        floor, share = sign_flip_floor(images), alpha / len(looks)
        if floor > share:
            return np.zeros(most)
        for_images = floor * int(share / floor * (1 + 1e-9))
        found = np.zeros((2, *decided.shape), bool)
        for look in looks:
            seen = means[:, :look]
            mean, by_seed = np.abs(seen.mean(axis=1)), seen.var(axis=1, ddof=1) / look
            rows = spread.both * drawn.rest[:, :look]
            sums = spread.image * drawn.images + rows.mean(axis=1)
            by_image = np.sum(sums**2, axis=1) / ((images - 1) * images)
            rest = np.sum(rows**2, axis=(1, 2)) - look * np.sum(rows.mean(axis=1) ** 2, axis=1)
            rest = rest / ((look - 1) * (images - 1) * look * images)
            df = _degrees_of_freedom(by_seed, by_image, look, images)
            found[0, mean >= _quantile(images - 1, for_images) * np.sqrt(by_image), look - 1 :] = True
            found[1, mean >= _quantile(df, share) * np.sqrt(by_seed + by_image + rest), look - 1 :] = True
        decided &= found.all(axis=0)
    shares: Array = np.mean(decided, axis=0)
    return shares


def _smallest(enough: Callable[[int], bool], most: int) -> int | None:
    """Return the smallest number from 2 on that is enough, where all above one that is enough are."""
    if not enough(most):
        return None
    low, high = 1, most
    while high - low > 1:
        middle = math.isqrt(low * high)  # numbers that are needed are small
        middle = middle if low < middle < high else (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _reached(effect: float, needed: Array, error: float) -> float:
    """Return how often a normal mean is as far from 0, on either side, as is needed."""
    from scipy import special  # here and below, so that only those who ask wait for SciPy

    if error == 0.0:
        return float(np.mean(effect > needed))
    return float(np.mean(special.ndtr((effect - needed) / error) + special.ndtr(-(effect + needed) / error)))


def _needed(spread: Spread, seeds: int, images: int | None, alpha: float) -> Array | None:
    """Return how large the mean must be for p ≤ α in each test, [P], for mean squares as they may be observed.

    The points are those at which each combination of mean squares is equally likely. None if no mean is large enough.
    """
    if seeds < 2:
        return None
    seed, image, both = (sd * sd for sd in (spread.seed, spread.image, spread.both))
    if not math.isfinite(seed + image + both):
        return None
    by_seed = (seed + both / (images or 1)) / seeds * _mean_squares(seeds - 1, 0)
    of_seeds: Array = _quantile(seeds - 1, alpha) * np.sqrt(by_seed)
    if images is None:
        return of_seeds
    floor = sign_flip_floor(images)
    if floor > alpha:
        return None
    by_image = (image + both / seeds) / images * _mean_squares(images - 1, 1)
    rest = both / (seeds * images) * _mean_squares((seeds - 1) * (images - 1), 2)
    of_images = _quantile(images - 1, floor * int(alpha / floor * (1 + 1e-9))) * np.sqrt(by_image)
    df = _degrees_of_freedom(by_seed, by_image, seeds, images)
    overall = _quantile(df, alpha) * np.sqrt(by_seed + by_image + rest)
    return np.asarray(np.maximum.reduce([of_seeds, of_images, overall]))


def _degrees_of_freedom(by_seed: Array, by_image: Array, seeds: int, images: int) -> Array:
    """Return the Welch-Satterthwaite degrees of freedom for sums of the squared errors over seeds and over images."""
    spread = by_seed**2 / (seeds - 1) + by_image**2 / (images - 1)
    return np.divide((by_seed + by_image) ** 2, spread, out=np.ones_like(spread), where=spread > 0)


def _quantile(df: Array | float, alpha: float) -> Array:
    """Return the value that Student's t exceeds, on either side, with probability ``alpha``."""
    from scipy import special

    quantile: Array = special.stdtrit(df, 1 - alpha / 2)
    return quantile


@functools.lru_cache(maxsize=256)
def _mean_squares(df: int, axis: int) -> Array:
    """Return quantiles of χ²/df, [P], in the order of an axis of evenly distributed points."""
    from scipy import special

    quantiles: Array = 2 / df * special.gammaincinv(df / 2, _points()[axis])
    return quantiles


class _Courses(NamedTuple):
    """What is random in some courses of a sweep, in standard deviations.

    Deviations of images from their mean matter only by their lengths and the angles between them, so that each vector
    of them has as many coordinates as there are vectors, or one less than there are images.
    """

    image: Array
    """[C, 1]: the mean of what images add, times the root of their number."""
    seeds: Array
    """[C, N]: what each seed adds to its mean."""
    images: Array
    """[C, K]: the deviations of what images add."""
    rest: Array
    """[C, N, K]: the deviations of what is left, by seed."""


@functools.lru_cache(maxsize=8)
def _courses(seeds: int, images: int) -> _Courses:
    """Draw courses; the deviations are those of Bartlett's decomposition of a Wishart matrix (1933)."""
    random = np.random.default_rng(derive(0, "courses", seeds, images))
    vectors, axes = seeds + 1, min(images - 1, seeds + 1)
    triangle = np.tril(random.standard_normal((_COURSES, vectors, axes)), -1)
    for axis in range(axes):
        triangle[:, axis, axis] = np.sqrt(random.chisquare(images - 1 - axis, _COURSES))
    means = random.standard_normal((_COURSES, vectors))
    return _Courses(means[:, :1], means[:, 1:], triangle[:, 0], triangle[:, 1:])


@functools.cache
def _points() -> Array:
    """Return points that fill the unit cube evenly, [3, P].

    They are multiples of powers of the inverse of the root of x⁴ = x + 1, modulo 1 (Roberts, *The unreasonable
    effectiveness of quasirandom sequences*, 2018).
    """
    root = 1.2207440846057596
    steps = root ** -np.arange(1.0, 4.0)
    points: Array = (0.5 + np.outer(steps, np.arange(_POINTS))) % 1
    return points
