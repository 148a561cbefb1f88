"""Statistics of one line of runs, and of the differences between two losses over seeds and images.

Seeds are the replicates of a loss: the images of a test set, however many, say which of two checkpoints is better and
not which of two losses. Differences are paired by seed and image, and never pooled as if they were independent.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sgbench.core.seeding import derive

RESAMPLES = 10_000
"""Of the bootstrap, and random flips of signs."""

EXACT = 14
"""The number of values up to which all flips of their signs are enumerated."""

Array = NDArray[np.float64]


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


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class SignFlip:
    """The outcome of `sign_flip`.

    Attributes:
        p: Two-sided.
        floor: The smallest p that this number of values can reach.
    """

    p: float
    floor: float


@dataclass(frozen=True)
class Estimate:
    """What differences say of their mean.

    Attributes:
        interval: Where it may be.
        p: Two-sided, of a mean of 0.
    """

    interval: Interval
    p: float


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


def crossed_bootstrap(differences: Array, alpha: float) -> Estimate:
    """Estimate the mean over all seeds and all images that there might have been.

    Seeds and images are drawn with replacement, independently of each other, and a drawn seed meets a drawn image in
    the difference that they have (the pigeonhole bootstrap; Owen, Annals of Applied Statistics, 2007). The percentiles
    of the resampled means are too narrow for few seeds, and are widened in two ways: before, deviations are inflated by
    √(n/(n−1)) over seeds and over images, so that the resampled variance is not too small; after, the interval is
    stretched about the mean by the quotient of Student's and the normal quantile, with the degrees of freedom of Welch
    and Satterthwaite for the variances over seeds and over images. p is Student's, of the mean over the standard
    deviation of the resampled means.

    Of simulated intervals of 95%, with 3 to 10 seeds and 5 to 100 images, 93% to 96% held the truth where the effects
    of seeds and images were normal (75% to 95% of the plain percentiles did), and 87% to 96% where one of them was
    exponential. ``docs/statistics.md`` has all of it.

    The random numbers depend on the shape alone: the same differences have the same interval wherever it is computed.

    Args:
        differences: [S, I], by seed and image; at least two of each.
        alpha: The share of intervals that may miss, such as 0.05.

    Raises:
        ValueError: If there are fewer than two seeds or images.
    """
    if min(differences.shape) < 2:
        raise ValueError(f"2 seeds and 2 images are needed, and the shape is {differences.shape}")
    seeds, images = _resampled(*differences.shape)
    means = np.sum((seeds @ _inflated(_inflated(differences, axis=0), axis=1)) * images, axis=1)
    centre, df = float(differences.mean()), _degrees_of_freedom(differences)
    stretch = _quantile(df, alpha) / NormalDist().inv_cdf(1 - alpha / 2)
    low, high = centre + stretch * (np.quantile(means, [alpha / 2, 1 - alpha / 2]) - centre)
    return Estimate(Interval(float(low), float(high)), _p(centre, float(means.std()), df))


def sign_flip(differences: Array) -> SignFlip:
    """Test whether differences are symmetric about 0: p is the share of flips of their signs with as large a mean.

    All 2ᴺ flips are enumerated up to N = `EXACT`, where p cannot go under 2/2ᴺ. Above, `RESAMPLES` flips are drawn, and
    the signs that were observed count as one more, so that p is never too small.

    Args:
        differences: [N], at least one.
    """
    flips = _flips(len(differences))
    observed = abs(float(differences.sum()))
    rounding = 1e-12 * float(np.abs(differences).sum())  # flips of equal sums count as equal
    extreme = int(np.count_nonzero(np.abs(flips @ differences) >= observed - rounding))
    return SignFlip(p=extreme / len(flips), floor=sign_flip_floor(len(differences)))


def sign_flip_floor(n: int) -> float:
    """Return the smallest p that `sign_flip` can give for ``n`` differences."""
    return 2 / 2**n if n <= EXACT else 1 / (RESAMPLES + 1)


def paired_t(differences: Array, alpha: float) -> Estimate:
    """Estimate the mean of normal differences by Student's paired t.

    p has no floor, which it owes to the normality that a few differences cannot show.

    Args:
        differences: [n], one a seed; at least two.
        alpha: The share of intervals that may miss, such as 0.05.

    Raises:
        ValueError: If there are fewer than two differences.
    """
    summary = summarise(differences.tolist())
    if summary.sd is None:
        raise ValueError("2 differences are needed, and there is 1")
    error, df = summary.sd / math.sqrt(summary.n), summary.n - 1
    half = _quantile(df, alpha) * error
    return Estimate(Interval(summary.mean - half, summary.mean + half), _p(summary.mean, error, df))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down method (Scandinavian J. of Statistics, 1979).

    Each stays in its place; to reject where the corrected one is at most α keeps the chance of any false rejection
    in the family at α.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _quantile(df: float, alpha: float) -> float:
    """Return the value that Student's t exceeds, on either side, with probability ``alpha``."""
    from scipy import special  # here, so that only who compares losses waits for SciPy

    return float(special.stdtrit(df, 1 - alpha / 2))


def _p(mean: float, error: float, df: float) -> float:
    """Return Student's two-sided p of a mean by its standard error."""
    from scipy import special

    return 2 * float(special.stdtr(df, -abs(mean) / error)) if error > 0.0 else float(mean == 0.0)


def _inflated(values: Array, axis: int) -> Array:
    n = values.shape[axis]
    mean = values.mean(axis=axis, keepdims=True)
    inflated: Array = mean + math.sqrt(n / (n - 1)) * (values - mean)
    return inflated


def _degrees_of_freedom(differences: Array) -> float:
    """Return Welch and Satterthwaite's, of the sum of the variances of the means over seeds and over images."""
    parts = [differences.mean(axis=axis) for axis in (1, 0)]
    variances = [float(part.var(ddof=1)) / len(part) for part in parts]
    spread = sum(variance**2 / (len(part) - 1) for variance, part in zip(variances, parts, strict=True))
    return sum(variances) ** 2 / spread if spread > 0.0 else 1.0


@functools.lru_cache(maxsize=8)
def _resampled(seeds: int, images: int) -> tuple[Array, Array]:
    """Return the share that each seed, [R, S], and each image, [R, I], has in each resample."""
    random = np.random.default_rng(derive(0, "bootstrap", seeds, images))
    by_seed, by_image = (random.multinomial(n, [1 / n] * n, size=RESAMPLES) / n for n in (seeds, images))
    return by_seed, by_image


@functools.lru_cache(maxsize=8)
def _flips(n: int) -> Array:
    """Return flips of ``n`` signs as rows of ±1; each stands for itself and its opposite, and the first flips none."""
    if n <= EXACT:
        return np.array([(1.0, *signs) for signs in itertools.product((1.0, -1.0), repeat=n - 1)])
    random = np.random.default_rng(derive(0, "signs", n))
    drawn = random.choice((1.0, -1.0), size=(RESAMPLES, n))
    return np.vstack([np.ones(n), drawn])
