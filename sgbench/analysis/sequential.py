"""Tests that stay valid however often one looks: evidence may be judged after every seed, and seeds added at will.

Over seeds, the evidence is an e-process. Over images, which stay the same while seeds are added, there are few looks,
and each has its share of α.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from sgbench.analysis.stats import Array, Estimate, Interval, SignFlip, crossed_mean, sign_flip, sign_flip_floor


def t_e_process(differences: Array, g: float, mean: float = 0.0) -> Array:
    """Return the evidence after each seed against a mean difference, as the scale-invariant t e-process.

    With n seeds, ν = n − 1 and t Student's statistic,
    E_n = (1 + n g)^(−1/2) · [(1 + t²/ν) / (1 + t²/((1 + n g) ν))]^(n/2) (Wang and Ramdas, *Anytime-valid t-tests and
    confidence sequences for Gaussian means with unknown variance*, arXiv 2310.03722): the likelihood ratio of a normal
    effect with variance g, in squared standard deviations of the differences, and none. If the differences are normal
    with that mean, whatever their variance, the probability that it ever reaches 1/α is at most α.

    Args:
        differences: [..., n], by seed, in the order in which they were trained.
        g: Prior variance of the effect, above 0.
        mean: The mean difference to be refuted.

    Returns:
        [..., n], of which the first is 1.
    """
    counts, means, squares = _running(differences - mean)
    between = counts * means**2  # t²/ν is the ratio of this and the squares
    prior = 1 + counts * g
    with np.errstate(invalid="ignore"):
        ratio = (squares + between) / (squares + between / prior)
    evidence: Array = prior**-0.5 * np.where(squares + between > 0, ratio, 1.0) ** (counts / 2)
    evidence[..., 0] = 1.0
    return evidence


def t_e_process_above(differences: Array, g: float, bound: float) -> Array:
    """Return the evidence after each seed that the mean difference is above a bound, against at most that: one-sided.

    The prior of the effect is half of the normal of `t_e_process`, the positive one. Evidence is therefore twice that
    of `t_e_process` times the probability of a positive effect after n seeds, which is Student's with n degrees of
    freedom. It grows with t, and so is even less often large where the mean is below the bound.

    Args:
        differences: [..., n], by seed, in the order in which they were trained.
        g: Prior variance of the effect, above 0.
        bound: The largest mean difference to be refuted.

    Returns:
        [..., n], of which the first is 1.
    """
    from scipy import special  # here, so that only comparisons wait for SciPy

    counts, means, squares = _running(differences - bound)
    prior = 1 + counts * g
    spread = squares + counts * means**2 / prior
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(means == 0, 0.0, counts * means * np.sqrt(counts * g / prior / spread))
    evidence: Array = 2 * t_e_process(differences, g, bound) * special.stdtr(counts, t)
    evidence[..., 0] = 1.0
    return evidence


def anytime_p(evidence: Array) -> float:
    """Return the p value that is valid at any stopping: one over the most evidence that there has been."""
    return min(1.0, 1 / float(evidence.max()))


def confidence_sequence(differences: Array, alpha: float, g: float) -> Interval:
    """Return the means that the e-process has not refuted at any look so far; infinite while there are too few seeds.

    If it has refuted every mean, which has a probability of at most α, those that it does not refute now.

    Args:
        differences: [n], by seed, in the order in which they were trained.
        alpha: One minus the probability that all intervals, after every seed, cover the mean.
        g: Prior variance of the effect, above 0.
    """
    counts, means, squares = _running(differences)
    prior = 1 + counts * g
    bound = (np.sqrt(prior) / alpha) ** (2 / counts)
    finite = (counts > 1) & (bound < prior)
    with np.errstate(divide="ignore", invalid="ignore"):
        halves = np.where(finite, np.sqrt((bound - 1) / (1 - bound / prior) * squares / counts), math.inf)
    low, high = float(np.max(means - halves)), float(np.min(means + halves))
    if low > high:
        low, high = float(means[-1] - halves[-1]), float(means[-1] + halves[-1])
    return Interval(low, high)


def sequential_t(differences: Array, alpha: float, g: float) -> Estimate:
    """Estimate the mean by the evidence of seeds, as `sgbench.analysis.stats.paired_t` does where nobody peeks.

    Args:
        differences: [n], by seed, in the order in which they were trained.
        alpha: One minus the probability that all intervals, after every seed, cover the mean.
        g: Prior variance of the effect, above 0.
    """
    return Estimate(confidence_sequence(differences, alpha, g), anytime_p(t_e_process(differences, g)))


def sequential_sign_flip(differences: Array, looks: Sequence[int]) -> SignFlip:
    """Test by images whether differences are symmetric about 0; p is 1 before the first look.

    Args:
        differences: [S, I], by seed, in the order in which they were trained, and image.
        looks: After how many seeds one looks, fixed beforehand.
    """
    p = at_looks(lambda seen: sign_flip(seen.mean(axis=0)).p, differences, looks)
    return SignFlip(p, floor=min(1.0, len(looks) * sign_flip_floor(differences.shape[1])))


def sequential_crossed(differences: Array, alpha: float, looks: Sequence[int], sizes: Sequence[int] = ()) -> Estimate:
    """Estimate the mean difference over the populations of seeds and images; p is 1 before the first look.

    Args:
        differences: [S, I], by seed, in the order in which they were trained, and image; at least two images.
        alpha: One minus the probability that the intervals at all looks cover the mean.
        looks: After how many seeds one looks, fixed beforehand.
        sizes: As for `sgbench.analysis.stats.crossed_mean`.
    """
    means = [crossed_mean(differences[:count], sizes) for count in looks if count <= len(differences)]
    intervals = [mean.interval(alpha / len(looks)) for mean in means]
    low = max((interval.low for interval in intervals), default=-math.inf)
    high = min((interval.high for interval in intervals), default=math.inf)
    interval = Interval(low, high) if low <= high else intervals[-1]
    return Estimate(interval, spent([mean.p() for mean in means], len(looks)))


def at_looks(test: Callable[[Array], float], differences: Array, looks: Sequence[int]) -> float:
    """Return the p value of a test that is repeated at looks.

    Args:
        test: From the differences of the seeds at a look, [S, I], to p.
        differences: [S, I], by seed, in the order in which they were trained, and image.
        looks: After how many seeds one looks, fixed beforehand.
    """
    return spent([test(differences[:count]) for count in looks if count <= len(differences)], len(looks))


def spent(p_values: Sequence[float], looks: int) -> float:
    """Return the p value of a test that is repeated at declared looks, each of which has the same share of α.

    Args:
        p_values: At the looks so far.
        looks: The number of declared looks.
    """
    return min(1.0, looks * min(p_values, default=1.0))


def _running(values: Array) -> tuple[Array, Array, Array]:
    """Return the number, the mean and the sum of squared deviations after each value of the last axis."""
    counts = np.arange(1.0, values.shape[-1] + 1)
    means = np.cumsum(values, axis=-1) / counts
    before = np.concatenate([values[..., :1], means[..., :-1]], axis=-1)
    return counts, means, np.cumsum((values - before) ** 2 * (counts - 1) / counts, axis=-1)
