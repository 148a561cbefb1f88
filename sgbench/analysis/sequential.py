"""Tests that stay valid however often one looks: evidence may be judged after every seed, and seeds added at will.

Over seeds, the evidence is an e-process. Over images, which stay the same while seeds are added, every look has its
share of α.
"""

import math
from collections.abc import Sequence

import numpy as np

from sgbench.analysis.stats import Array, Interval


def t_e_process(differences: Array, g: float, mean: float = 0.0) -> Array:
    """Return the evidence after each seed against a mean difference, as the scale-invariant t e-process.

    With n seeds, ν = n − 1 and t Student's statistic,
    E_n = (1 + n g)^(−1/2) · [(1 + t²/ν) / (1 + t²/((1 + n g) ν))]^(n/2) (Wang and Ramdas, *Anytime-valid t-tests and
    confidence sequences for Gaussian means with unknown variance*, arXiv 2310.03722): the likelihood ratio of a normal
    effect with variance g, in squared standard deviations of the differences, and none. If the differences are normal
    with that mean, whatever their variance, the probability that it ever reaches 1/α is at most α.

    Args:
        differences: [n], by seed, in the order in which they were trained.
        g: Prior variance of the effect, above 0.
        mean: The mean difference to be refuted.

    Returns:
        [n], of which the first is 1.
    """
    counts = np.arange(1, len(differences) + 1)
    shifted = differences - mean
    means = np.cumsum(shifted) / counts
    squares = np.array([np.sum((shifted[:n] - means[n - 1]) ** 2) for n in counts])  # ν times the variance
    prior = 1 + counts * g
    between = counts * means**2  # t²/ν is the ratio of this and the squares
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(
            squares > 0, (squares + between) / (squares + between / prior), np.where(between > 0, prior, 1.0)
        )
    evidence: Array = prior**-0.5 * ratio ** (counts / 2)
    evidence[0] = 1.0
    return evidence


def anytime_p(evidence: Array) -> float:
    """Return the p value that is valid at any stopping: one over the most evidence that there has been."""
    return min(1.0, 1 / float(evidence.max()))


def confidence_sequence(differences: Array, alpha: float, g: float) -> Interval:
    """Return the means that the e-process has not refuted at any look so far; infinite while there are too few seeds.

    Args:
        differences: [n], by seed, in the order in which they were trained.
        alpha: One minus the probability that all intervals, after every seed, cover the mean.
        g: Prior variance of the effect, above 0.
    """
    low, high = -math.inf, math.inf
    for n in range(2, len(differences) + 1):
        prior, seen = 1 + n * g, differences[:n]
        bound = (math.sqrt(prior) / alpha) ** (2 / n)
        if bound < prior:
            squared = (n - 1) * (bound - 1) / (1 - bound / prior)
            half = math.sqrt(squared * float(seen.var(ddof=1)) / n)
            low, high = max(low, float(seen.mean()) - half), min(high, float(seen.mean()) + half)
    return Interval(low, high)


def spent(p_values: Sequence[float], looks: int) -> float:
    """Return the p value of a test that is repeated at declared looks, each of which has the same share of α.

    Args:
        p_values: At the looks so far.
        looks: The number of declared looks.
    """
    return min(1.0, looks * min(p_values, default=1.0))
