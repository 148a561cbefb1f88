"""Kendall's τ-b between two metrics over losses, with a confidence interval."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sgbench.analysis.stats import Array, Interval, student_quantile

FEWEST = 5
"""The fewest losses for which an interval is given."""


@dataclass(frozen=True)
class Tau:
    """Kendall's τ-b.

    Attributes:
        value: From −1, opposite orders, to 1, the same order.
        interval: Confidence interval over losses and, if there are several images, over images; None with fewer than
            `FEWEST` losses.
    """

    value: float
    interval: Interval | None


def kendall(a: Array, b: Array, alpha: float) -> Tau | None:
    """Return how far two metrics agree on the order of some losses, as a mean over images.

    In each image, τ-b is the number of pairs of losses that both metrics order alike, less the number of those that
    they order differently, divided by the geometric mean of the numbers of pairs that either orders at all (Kendall,
    Biometrika, 1945). An image in which a metric orders no pair is left out.

    The replicates are the losses and the images: the interval is for other losses and images of their kind, with scores
    that are means over as many seeds. The jackknife gives the variance over losses. To it is added the variance over
    images, times the squared ratio of Student's to the normal quantile. This sum is 0 if all orders are the same, and
    too small near that. It is therefore used as a factor c ≥ 1 on the variance V(τ) that τ has for normally distributed
    scores of as many losses (Esscher, Skandinavisk Aktuarietidskrift, 1924): the interval has every τ with
    |τ̂ − τ| ≤ z √(c V(τ)). ``docs/statistics.md`` has its coverage.

    Args:
        a: Scores by one metric, [I, L], by image and loss; a single image for scores of whole test sets.
        b: Scores by another.
        alpha: One minus the confidence level, such as 0.05.

    Returns:
        τ; None if no image has a pair of losses that both metrics order.
    """
    signs_a, signs_b = order(a), order(b)
    sums = [np.sum(each, axis=2) for each in (signs_a * signs_b, np.abs(signs_a), np.abs(signs_b))]  # each [I, L]
    whole = _ratio(*(each.sum(axis=1) for each in sums))
    ordered = np.isfinite(whole)
    if not ordered.any():
        return None
    by_image, losses = whole[ordered], a.shape[1]
    value = float(by_image.mean())
    if losses < FEWEST:
        return Tau(value, None)
    without = _ratio(*(each.sum(axis=1, keepdims=True) - 2 * each for each in sums))[ordered]  # each loss in turn
    means = np.nanmean(without, axis=0)
    variance = (losses - 1) * float(np.var(means))
    z = NormalDist().inv_cdf(1 - alpha / 2)
    if len(by_image) > 1:
        stretch = student_quantile(len(by_image) - 1, alpha) / z
        variance += stretch**2 * float(by_image.var(ddof=1)) / len(by_image)
    grid = np.linspace(-1, 1, 4001)
    normal = variance_if_normal(grid, losses)
    factor = max(1.0, variance / max(np.interp(value, grid, normal), 1e-9))
    inside = grid[(grid - value) ** 2 <= z**2 * factor * normal + 1e-12]
    return Tau(value, Interval(min(float(inside[0]), value), max(float(inside[-1]), value)))


def order(values: Array) -> NDArray[np.int8]:
    """Return the order of every two losses in each image, [I, L, L]: 1 if the first is larger, -1, or 0 for a tie.

    Args:
        values: [I, L], by image and loss.
    """
    return np.sign(values[:, :, None] - values[:, None, :]).astype(np.int8)


def _ratio(agreed: Array, of_a: Array, of_b: Array) -> Array:
    with np.errstate(invalid="ignore"):
        ratio: Array = agreed / np.sqrt(of_a.astype(float) * of_b)
    return ratio


def variance_if_normal(tau: Array, n: int) -> Array:
    """Return the variance of the τ of ``n`` losses with normally distributed scores, by their true τ, [N]."""
    half = 2 / math.pi * np.arcsin(np.sin(math.pi * tau / 2) / 2)
    variance: Array = 2 / (n * (n - 1)) * (1 - tau**2 + 2 * (n - 2) * (1 / 9 - half**2))
    return np.maximum(variance, 0.0)
