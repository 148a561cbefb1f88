"""NIQE: statistics of an image's blocks, and how far they are from those of pristine images.

Mittal et al., IEEE Signal Processing Letters 20 (2013) 209; equations are those of this paper. The precision is that of
BasicSR's code, which sums in float64 and keeps the sums in float32: in flat areas, this rounding makes values exactly
0, and the fit leaves out zeros.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import gamma
from torch import Tensor

from sgbench.core.resize import shrunk
from sgbench.metrics.base import BT601, Array, Image, Undefined

Single = NDArray[np.float32]

BLOCK = 96
"""Side of a block in pixels."""

_MARGIN = 3
_WINDOW = np.exp(-(np.arange(-_MARGIN, _MARGIN + 1) ** 2) / (2 * (7 / 6) ** 2))
_WINDOW /= _WINDOW.sum()
"""The Gaussian by which local means are weighted, 7 pixels with σ 7/6, in one direction."""

_SHAPES = np.arange(0.2, 10.001, 0.001)
"""The shapes α of a generalized Gaussian distribution among which the fit chooses."""
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))
"""For each shape, E[|x|]² / E[x²]."""
_WIDTHS = np.sqrt(gamma(1 / _SHAPES) / gamma(3 / _SHAPES))
"""For each shape, β / σ."""
_MEANS = gamma(2 / _SHAPES) / gamma(1 / _SHAPES)
"""For each shape, the mean η / (β right − β left)."""

_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""From a pixel to its neighbours, in rows and columns."""

_PEAK = np.float32(255)


def luma(image: Image) -> Single:
    """Return Y of BT.601, [H, W], from 16 to 235, rounded; what lies between two integers as BasicSR rounds it."""
    weighted = sum(weight * (plane / _PEAK) for weight, plane in zip(np.array(BT601), image.pixels, strict=True)) + 16
    rounded: Single = np.round((weighted / 255).astype(np.float32) * _PEAK)
    return rounded


def distance(luma: Single, model: Mapping[str, Tensor]) -> float:
    """Return how far the blocks of an image are from a model of those of pristine images (equation 10).

    Args:
        luma: Y, [H, W], from 0 to 255.
        model: Of their features, the mean ``mu_pris_param``, [1, 36], and the covariance ``cov_pris_param``, [36, 36].

    Raises:
        Undefined: If there are fewer than two blocks, or fewer than two that are not flat.
    """
    height, width = luma.shape
    if (height // BLOCK) * (width // BLOCK) < 2:
        raise Undefined(f"{width}×{height} pixels are left, fewer than two of NIQE's {BLOCK}×{BLOCK} blocks")
    features = block_features(luma)
    complete = features[np.isfinite(features).all(axis=1)]
    if len(complete) < 2:
        some = f"{len(complete)} of {len(features)} blocks of {BLOCK}×{BLOCK} pixels"
        raise Undefined(f"{some} are not flat, and NIQE needs two")
    mean, covariance = (model[name].numpy() for name in ("mu_pris_param", "cov_pris_param"))
    apart = mean.ravel() - np.nanmean(features, axis=0)
    inverse = np.linalg.pinv((covariance + np.cov(complete, rowvar=False)) / 2)
    return float(np.sqrt(apart @ inverse @ apart))


def block_features(luma: Single) -> Array:
    """Return the features of each whole block, 18 of it and 18 of it at half the size, [N, 36].

    Those of a flat block are NaN, but for its shapes.
    """
    height, width = (side // BLOCK * BLOCK for side in luma.shape)
    whole = luma[:height, :width]
    half = shrunk((whole / _PEAK).astype(np.float64), 2).astype(np.float32) * _PEAK
    return np.concatenate([_at_scale(whole, BLOCK), _at_scale(half, BLOCK // 2)], axis=1)


def _at_scale(luma: Single, side: int) -> Array:
    """Return the 18 features of each block of this side, [N, 18]; one row of blocks is computed at a time."""
    padded = np.pad(luma, _MARGIN, mode="edge")
    features = []
    for top in range(0, len(luma), side):
        strip = _normalised(padded[top : top + side + 2 * _MARGIN])
        features.append(_features(strip.reshape(side, -1, side).swapaxes(0, 1)))
    return np.concatenate(features)


def _normalised(strip: Single) -> Single:
    """Return (Y − μ) / (σ + 1), with the local mean μ and deviation σ, of the pixels inside the margin (equation 1)."""
    mean = _local_mean(strip)
    deviation = np.sqrt(np.abs(_local_mean(np.square(strip)) - np.square(mean)))
    normalised: Single = (strip[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] - mean) / (deviation + 1)
    return normalised


def _local_mean(strip: Single) -> Single:
    columns = correlate1d(strip, _WINDOW, axis=0, output=np.float64)[_MARGIN:-_MARGIN]
    mean: Single = correlate1d(columns, _WINDOW, axis=1, output=np.float32)[:, _MARGIN:-_MARGIN]
    return mean


def _features(blocks: Single) -> Array:
    """Return the features of blocks [N, S, S] of normalised values, and of their products with neighbours, [N, 18]."""
    shape, left, right = _fit(blocks)
    features = [_SHAPES[shape], (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = _fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        features += [_SHAPES[shape], (right - left) * _MEANS[shape], left, right]  # equation 8
    return np.stack(features, axis=1)


def _fit(blocks: Single) -> tuple[NDArray[np.intp], Array, Array]:
    """Fit an asymmetric generalized Gaussian distribution (equation 7) to each block of values, by its moments.

    Returns:
        The position of its shape in `_SHAPES`, and its widths left and right of 0, NaN where no value lies there.
    """
    values = blocks.reshape(len(blocks), -1)
    above = np.maximum(values, 0)
    below = values - above
    squares_left, squares_right = (np.square(side).sum(axis=1) for side in (below, above))
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.sqrt(squares_left / np.count_nonzero(values < 0, axis=1))
        right = np.sqrt(squares_right / np.count_nonzero(values > 0, axis=1))
        ratio = (above - below).mean(axis=1) ** 2 / ((squares_left + squares_right) / values.shape[1])
        skew = left / right
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    after = np.searchsorted(_RATIOS, ratio).clip(1, len(_RATIOS) - 1)
    nearer = after - (ratio - _RATIOS[after - 1] <= _RATIOS[after] - ratio)
    shape = np.where(np.isfinite(ratio), nearer, 0)
    return shape, left * _WIDTHS[shape], right * _WIDTHS[shape]
