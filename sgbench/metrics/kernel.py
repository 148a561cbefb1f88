"""The kernel inception distance (KID), for sets that are too small for FID.

It estimates the squared maximum mean discrepancy between two distributions of Inception's features, under the kernel
k(a, b) = (a·b / D + 1)³. Here the i-th image of either set shows the same scene: k(xᵢ, yᵢ) says little of the
distributions, and an estimate that averages over it is too low. `kid` leaves such terms out; `kid_standard` is
the usual KID.
"""

import math
from dataclasses import dataclass

import numpy as np

from sgbench.metrics.base import Array, Estimate, Undefined
from sgbench.metrics.inception import PROTOCOL, InceptionMetric


def paired_discrepancy(x: Array, y: Array) -> Estimate:
    """Return the U-statistic for pairs, and its standard error by the jackknife.

    It is the mean over i ≠ j of k(xᵢ, xⱼ) + k(yᵢ, yⱼ) − k(xᵢ, yⱼ) − k(xⱼ, yᵢ), and may be negative (Gretton et al.,
    JMLR 2012, Eq. 4).

    Args:
        x: Vectors of one set, [N, D], N at least 2; computed in float64.
        y: Vectors of the other, [N, D], each the partner of that in ``x``.

    Returns:
        The value, exactly 0 for a set against itself; the standard error is None for N = 2, since the jackknife leaves
        one pair out and needs two.

    Raises:
        Undefined: If N is less than 2.
    """
    n = _size(x, y)
    if np.array_equal(x, y):  # products of a matrix with itself and with its copy are rounded differently
        return Estimate(0.0, None if n == 2 else 0.0)
    terms = _kernel(x, x) + _kernel(y, y) - _kernel(x, y) - _kernel(y, x)
    np.fill_diagonal(terms, 0)
    of_each = terms.sum(axis=1)
    total = of_each.sum()
    value = float(total / (n * (n - 1)))
    if n == 2:
        return Estimate(value, None)
    without_each = (total - 2 * of_each) / ((n - 1) * (n - 2))
    return Estimate(value, math.sqrt((n - 1) * without_each.var()))


def discrepancy(x: Array, y: Array) -> float:
    """Return the unbiased estimate for independent sets (Bińkowski et al., ICLR 2018), which may be negative.

    It is the mean over i ≠ j of k(xᵢ, xⱼ) + k(yᵢ, yⱼ), less twice the mean over all i and j of k(xᵢ, yⱼ).

    Args:
        x: Vectors of one set, [N, D], N at least 2; computed in float64.
        y: Vectors of the other, [N, D].

    Raises:
        Undefined: If N is less than 2.
    """
    n = _size(x, y)
    within = sum(gram.sum() - np.trace(gram) for gram in (_kernel(x, x), _kernel(y, y)))
    return float(within / (n * (n - 1)) - 2 * _kernel(x, y).mean())


def _size(x: Array, y: Array) -> int:
    if len(x) < 2:
        raise Undefined(f"a U-statistic needs at least 2 images, and the set has {len(x)}")
    return len(x)


def _kernel(x: Array, y: Array) -> Array:
    """Return k of each vector of ``x`` [N, D] with each of ``y`` [N, D], [N, N]."""
    gram: Array = (np.asarray(x, np.float64) @ np.asarray(y, np.float64).T / x.shape[1] + 1) ** 3
    return gram


@dataclass(frozen=True, kw_only=True)
class PairedKid(InceptionMetric):
    """KID of sets that show the same scenes."""

    def distance(self, sr: Array, hr: Array) -> Estimate:
        """Return `paired_discrepancy` of two sets of features, [N, 2048]."""
        return paired_discrepancy(sr, hr)


@dataclass(frozen=True, kw_only=True)
class StandardKid(InceptionMetric):
    """KID as it is defined for independent sets."""

    def distance(self, sr: Array, hr: Array) -> float:
        """Return `discrepancy` of two sets of features, [N, 2048]."""
        return discrepancy(sr, hr)


kid = PairedKid(
    name="kid",
    direction="lower",
    digits=4,
    rank=50,
    version="1",
    protocol={"implementation": "sgbench, all pairs i ≠ j of the set, kernel (a·b/2048 + 1)³, jackknife", **PROTOCOL},
    networks=("inception",),
    description="kernel inception distance of sets of the same scenes, paired, with its standard error",
    source="Bińkowski et al., ICLR 2018; Gretton et al., JMLR 2012, Eq. 4",
    reference="pytorch-fid 0.3.0, torch-fidelity 0.4.0",
    difference=1e-6,
)
kid_standard = StandardKid(
    name="kid_standard",
    direction="lower",
    digits=4,
    rank=60,
    version="1",
    protocol={"implementation": "sgbench, unbiased, the whole set at once, kernel (a·b/2048 + 1)³", **PROTOCOL},
    networks=("inception",),
    description="kernel inception distance as for independent sets; too low where both show the same scenes",
    source="Bińkowski et al., ICLR 2018",
    reference="pytorch-fid 0.3.0, torch-fidelity 0.4.0",
    difference=1e-6,
)
