"""Statistics of runs over seeds, and of the differences between two losses over seeds and images.

Seeds are the replicates of a loss: images, however many, tell which of two checkpoints is better, not which of two
losses. Differences are paired by seed and image, and never pooled as if they were independent.
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
"""Number of bootstrap resamples, and of random sign flips."""

EXACT = 14
"""Up to this number of values, all sign flips are enumerated."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Mean and spread of some values.

    Attributes:
        mean: Arithmetic mean.
        sd: Sample standard deviation (n − 1); None for a single value.
        n: Number of values.
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
    """The result of `sign_flip`.

    Attributes:
        p: Two-sided p value.
        floor: The smallest p that this number of values can reach.
    """

    p: float
    floor: float


@dataclass(frozen=True)
class Estimate:
    """An estimate of a mean difference.

    Attributes:
        interval: Confidence interval of the mean.
        p: Two-sided p value for a mean of 0.
    """

    interval: Interval
    p: float


@dataclass(frozen=True)
class Mean:
    """A mean and what Student's t needs for tests and intervals of it.

    Attributes:
        value: The mean.
        error: Its standard error.
        df: Degrees of freedom of the error.
    """

    value: float
    error: float
    df: float

    def interval(self, alpha: float) -> Interval:
        """Return its confidence interval at level 1 − ``alpha``."""
        half = student_quantile(self.df, alpha) * self.error
        return Interval(self.value - half, self.value + half)

    def p(self, mean: float = 0.0) -> float:
        """Return the two-sided p value of a true mean of ``mean``."""
        return _p(self.value - mean, self.error, self.df)

    def above(self, bound: float) -> float:
        """Return the one-sided p value of a true mean of at most ``bound``: if it is small, the mean is above."""
        from scipy import special

        if self.error == 0.0:
            return float(self.value <= bound)
        return float(special.stdtr(self.df, (bound - self.value) / self.error))

    def below(self, bound: float) -> float:
        """Return the one-sided p value of a true mean of at least ``bound``: if it is small, the mean is below."""
        return Mean(-self.value, self.error, self.df).above(-bound)


def summarise(values: Sequence[float]) -> Summary:
    """Return the mean, sample standard deviation and number of some values.

    Raises:
        ValueError: If there are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to summarise")
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return Summary(mean, sd, n)


def crossed_bootstrap(differences: Array, alpha: float, sizes: Sequence[int] = ()) -> Estimate:
    """Estimate the mean difference over the populations of seeds and images.

    Seeds and images are resampled with replacement, independently of each other, and each pair of a drawn seed and a
    drawn image contributes its difference (the pigeonhole bootstrap; Owen, Annals of Applied Statistics, 2007). With
    few seeds, percentiles of the resampled means are too narrow, so they are widened in two ways. First, deviations are
    inflated by √(n/(n−1)) over seeds and over images, so that the resampled variance is not too small. Then the
    interval is stretched about the mean by the ratio of Student's to the normal quantile, with Welch-Satterthwaite
    degrees of freedom for the variances over seeds and over images. p is Student's, for the mean divided by the
    standard deviation of the resampled means.

    In simulations with 3 to 10 seeds and 5 to 100 images, 95% intervals covered the truth in 93% to 96% of cases if the
    effects of seeds and images were normal (plain percentiles: 75% to 95%), and in 87% to 96% if one of them was
    exponential. See ``docs/statistics.md``.

    Images of several test sets are drawn within each set, so that its share of the mean is fixed, and differences
    between sets are no noise.

    The random numbers depend only on the shape and the sizes: the same differences have the same interval on every
    machine.

    Args:
        differences: [S, I], by seed and image; at least two of each.
        alpha: One minus the confidence level, such as 0.05.
        sizes: As for `crossed_mean`.

    Raises:
        ValueError: If there are fewer than two seeds, or images of a set.
    """
    sizes = sizes or differences.shape[1:]
    if min(len(differences), *sizes) < 2:
        raise ValueError(f"2 seeds and 2 images are needed, and there are {len(differences)} and {min(sizes)}")
    seeds, images = _resampled(len(differences), *sizes)
    inflated = [_inflated(each, axis=1) for each in _split(_inflated(differences, axis=0), sizes)]
    means = _resampled_means(seeds, np.concatenate(inflated, axis=1), images)
    centre, df = float(differences.mean()), _degrees_of_freedom(differences, sizes)
    stretch = student_quantile(df, alpha) / NormalDist().inv_cdf(1 - alpha / 2)
    low, high = centre + stretch * (np.quantile(means, [alpha / 2, 1 - alpha / 2]) - centre)
    return Estimate(Interval(float(low), float(high)), _p(centre, float(means.std()), df))


def crossed_mean(differences: Array, sizes: Sequence[int] = ()) -> Mean:
    """Return the mean difference over the populations of seeds and images, with its error in closed form.

    It is the error that `crossed_bootstrap` estimates by resampling: the variance of the seeds' means divided by their
    number, the same of the images, and that of what is left of each difference divided by the number of all.

    Args:
        differences: [S, I], by seed and image.
        sizes: The numbers of images of several test sets whose images stand side by side: each set's images are a
            sample of its own population. By default, all are of one set.

    Raises:
        ValueError: If there are fewer than two seeds, or fewer than two images of a set.
    """
    return Mean(*map(float, crossed_moments(differences, sizes)))


def crossed_moments(differences: Array, sizes: Sequence[int] = ()) -> tuple[Array, Array, Array]:
    """Return the values, errors and degrees of freedom of `crossed_mean` for many matrices, [..., S, I], at once."""
    seeds, images = differences.shape[-2:]
    sizes = sizes or (images,)
    if seeds < 2 or min(sizes) < 2 or sum(sizes) != images:
        raise ValueError(
            f"2 seeds and 2 images of each test set are needed; there are {seeds}, and {sizes} of {images}"
        )
    by_seed, by_image = differences.mean(axis=-1), differences.mean(axis=-2)
    variance = by_seed.var(axis=-1, ddof=1) / seeds
    spread, left = variance**2 / (seeds - 1), np.zeros_like(variance)
    for of_set, means in zip(_split(differences, sizes), _split(by_image, sizes), strict=True):
        count = means.shape[-1]
        part = means.var(axis=-1, ddof=1) * count / images**2
        variance, spread = variance + part, spread + part**2 / (count - 1)
        rest = of_set - of_set.mean(axis=-1, keepdims=True) - (means - means.mean(axis=-1, keepdims=True))[..., None, :]
        left += np.sum(rest**2, axis=(-2, -1)) * count / (seeds * (seeds - 1) * (count - 1) * images**2)
    df = np.divide(variance**2, spread, out=np.ones_like(spread), where=spread > 0)
    return by_seed.mean(axis=-1), np.sqrt(variance + left), df


def sign_flip(differences: Array) -> SignFlip:
    """Test whether differences are symmetric about 0: p is the share of sign flips whose mean is at least as large.

    Up to N = `EXACT`, all 2ᴺ flips are enumerated, and p cannot be below 2/2ᴺ. Above, `RESAMPLES` flips are drawn, and
    the observed signs count as one more, so that p is never too small.

    Args:
        differences: [N], at least one.
    """
    flips = _flips(len(differences))
    observed = abs(float(differences.sum()))
    rounding = 1e-12 * float(np.abs(differences).sum())  # flips of equal sums count as equal
    flipped = np.einsum("fn,n->f", flips, differences)  # in this thread: see `_resampled_means`
    extreme = int(np.count_nonzero(np.abs(flipped) >= observed - rounding))
    return SignFlip(p=extreme / len(flips), floor=sign_flip_floor(len(differences)))


def sign_flip_above(differences: Array) -> SignFlip:
    """Test, against differences that are symmetric about 0 or a lower value, whether they are above: one-sided.

    The flips are those of `sign_flip`, of which each counts with its opposite.

    Args:
        differences: [N], at least one.
    """
    flips = _flips(len(differences))
    observed = float(differences.sum())
    rounding = 1e-12 * float(np.abs(differences).sum())
    sums = np.einsum("fn,n->f", flips, differences)  # as in `sign_flip`
    extreme = int(np.count_nonzero(sums >= observed - rounding) + np.count_nonzero(-sums >= observed - rounding))
    return SignFlip(p=extreme / (2 * len(flips)), floor=sign_flip_floor(len(differences)) / 2)


def sign_flip_floor(n: int) -> float:
    """Return the smallest p that `sign_flip` can give for ``n`` differences."""
    return 2 / 2**n if n <= EXACT else 1 / (RESAMPLES + 1)


def paired_t(differences: Array, alpha: float) -> Estimate:
    """Estimate the mean of normally distributed differences by Student's paired t-test.

    p has no floor, at the price of assuming normality, which so few differences cannot confirm.

    Args:
        differences: [n], one per seed; at least two.
        alpha: One minus the confidence level, such as 0.05.

    Raises:
        ValueError: If there are fewer than two differences.
    """
    mean = student_mean(differences)
    return Estimate(mean.interval(alpha), mean.p())


def student_mean(differences: Array) -> Mean:
    """Return the mean of normally distributed differences with its error.

    Args:
        differences: [n], one per seed; at least two.

    Raises:
        ValueError: If there are fewer than two differences.
    """
    summary = summarise(differences.tolist())
    if summary.sd is None:
        raise ValueError("2 differences are needed, and there is 1")
    return Mean(summary.mean, summary.sd / math.sqrt(summary.n), summary.n - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down method (Scandinavian J. of Statistics, 1979).

    Each stays in its place. Rejecting those whose corrected value is at most α keeps the family-wise error rate at α.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def student_quantile(df: float, alpha: float) -> float:
    """Return the value that Student's t exceeds, on either side, with probability ``alpha``."""
    from scipy import special  # here, so that only comparisons wait for SciPy

    return float(special.stdtrit(df, 1 - alpha / 2))


def _p(mean: float, error: float, df: float) -> float:
    """Return Student's two-sided p for a mean and its standard error."""
    from scipy import special

    return 2 * float(special.stdtr(df, -abs(mean) / error)) if error > 0.0 else float(mean == 0.0)


def _split(values: Array, sizes: Sequence[int]) -> list[Array]:
    """Return the parts of the last axis that have these sizes."""
    return np.split(values, np.cumsum(sizes)[:-1], axis=-1)


def _inflated(values: Array, axis: int) -> Array:
    n = values.shape[axis]
    mean = values.mean(axis=axis, keepdims=True)
    inflated: Array = mean + math.sqrt(n / (n - 1)) * (values - mean)
    return inflated


def _degrees_of_freedom(differences: Array, sizes: Sequence[int]) -> float:
    """Return the Welch-Satterthwaite degrees of freedom for the sum of the variances over seeds and over images."""
    images = differences.shape[1]
    parts = [(differences.mean(axis=1), 1.0)]
    parts += [(each.mean(axis=0), each.shape[1] / images) for each in _split(differences, sizes)]
    variances = [share**2 * float(part.var(ddof=1)) / len(part) for part, share in parts]
    spread = sum(variance**2 / (len(part) - 1) for variance, (part, _) in zip(variances, parts, strict=True))
    return sum(variances) ** 2 / spread if spread > 0.0 else 1.0


def _resampled_means(seeds: Array, differences: Array, images: Array) -> Array:
    """Return the mean of each resample, some resamples at a time.

    All at once would be so much that BLAS starts its threads, which wait for each other without sleeping: up to ten
    times slower on a machine where a sweep is at work. Multiples of 48 keep every row's place in BLAS's kernels, and so
    all bits.
    """
    size = 48 * max(1, 5_000 // differences.size)
    parts = (slice(start, start + size) for start in range(0, len(seeds), size))
    return np.concatenate([np.sum((seeds[part] @ differences) * images[part], axis=1) for part in parts])


@functools.lru_cache(maxsize=8)
def _resampled(seeds: int, *sizes: int) -> tuple[Array, Array]:
    """Return the share of each seed, [R, S], and of each image, [R, I], in each resample."""
    random = np.random.default_rng(derive(0, "bootstrap", seeds, *sizes))
    drawn = [random.multinomial(n, [1 / n] * n, size=RESAMPLES) for n in (seeds, *sizes)]
    return drawn[0] / seeds, np.concatenate(drawn[1:], axis=1) / sum(sizes)


@functools.lru_cache(maxsize=8)
def _flips(n: int) -> Array:
    """Return sign flips as rows of ``n`` ±1; each represents itself and its opposite, and the first flips none."""
    if n <= EXACT:
        return np.array([(1.0, *signs) for signs in itertools.product((1.0, -1.0), repeat=n - 1)])
    random = np.random.default_rng(derive(0, "signs", n))
    drawn = random.choice((1.0, -1.0), size=(RESAMPLES, n))
    return np.vstack([np.ones(n), drawn])
