"""FLIP's error map of a pair of images, computed with torch.

Andersson et al.: «FLIP: A Difference Evaluator for Alternating Images», HPG 2020. All filters are separable: those of
contrast sensitivity are sums of Gaussians. The paper's opponent space YyCxCz is used without its scales, 116, 500 and
200, and its offset, which the way back would undo: Y, X − Y and Y − Z relative to white.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sgbench.metrics.base import Array, Image, Pair
from sgbench.metrics.filters import filtered, linear_rgb, times

PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * math.pi / 180
"""Of an observer 0.7 m from a display that is 0.7 m and 3840 pixels wide."""

_QC, _QF = 0.7, 0.5
"""Exponents of the differences of colours and of features."""
_PC, _PT = 0.4, 0.95
"""Differences of colours up to the first fraction of the largest are mapped to errors up to the second."""
_FEATURE_DEGREES = 0.082
"""Width of the edges and points that are detected."""

_GAUSSIANS = ((1.0, 0.0047), (1.0, 0.0053), (34.1, 0.04), (13.5, 0.025))
"""Weight and width of the Gaussians of contrast sensitivity: one of Y, one of X − Y, and two of Y − Z."""

_XYZ = np.array([[20271104, 17577620, 8870150], [15678432, 52732860, 5322090], [1425312, 8788810, 70074185]])
_RGB_TO_XYZ = _XYZ / _XYZ.sum(axis=1, keepdims=True)
"""From linear sRGB to X, Y and Z relative to white, D65."""
_RGB_TO_OPPONENT = np.array([[0, 1, 0], [1, -1, 0], [0, 1, -1]]) @ _RGB_TO_XYZ


@torch.inference_mode()
def mean_error(pair: Pair, device: str) -> float:
    """Return the mean of the error map of a pair, in [0, 1].

    Args:
        pair: The images, of any size.
        device: Where torch computes.
    """
    key = ("flip", device)
    sr, hr = (image.view(key, functools.partial(_appearance, image, device)) for image in (pair.sr, pair.hr))
    colours = _colour_difference(sr[:3], hr[:3])
    largest = _largest_colour_difference()
    knee = _PC * largest
    steep = colours * (_PT / knee)
    flat = (colours - knee) * ((1 - _PT) / (largest - knee)) + _PT
    colours = torch.where(colours < knee, steep, flat)
    features = (sr[3:] - hr[3:]).abs_().amax(dim=0).mul_(1 / math.sqrt(2)).pow_(_QF)
    return float(np.mean(colours.pow_(1 - features).cpu().numpy(), dtype=np.float64))


def _appearance(image: Image, device: str) -> Tensor:
    """Return what is compared of an image: L*, a* and b* as they are seen, edges and points, float32 [5, H, W]."""
    filters = _filters()
    opponent = times(_RGB_TO_OPPONENT, linear_rgb(image, device))
    seen = [
        torch.stack([filtered(channel, each, each, "replicate") for each in sensitivity]).sum(dim=0)
        for channel, sensitivity in zip(opponent[:, None], filters.sensitivities, strict=True)
    ]
    luminance, bell = opponent[:1], filters.bell
    features = [
        torch.hypot(filtered(luminance, each, bell, "replicate"), filtered(luminance, bell, each, "replicate"))
        for each in filters.derivatives
    ]
    linear = times(np.linalg.inv(_RGB_TO_OPPONENT), torch.cat(seen)).clamp_(0, 1)
    return torch.cat([_lab(linear), *features])


def _lab(linear: Tensor) -> Tensor:
    """Return CIELAB of linear RGB, [3, …], with a* and b* multiplied by L*/100, the Hunt effect."""
    xyz = times(_RGB_TO_XYZ, linear)
    x, y, z = torch.where(xyz > (6 / 29) ** 3, xyz.pow(1 / 3), xyz * ((29 / 6) ** 2 / 3) + 4 / 29)
    lightness = 116 * y - 16
    return torch.stack([lightness, 5 * lightness * (x - y), 2 * lightness * (y - z)])


def _colour_difference(a: Tensor, b: Tensor) -> Tensor:
    """Return the power of a distance that is city-block in lightness and Euclidean in a* and b*."""
    lightness, *chroma = a - b
    return torch.hypot(*chroma).add_(lightness.abs_()).pow_(_QC)


@functools.cache
def _largest_colour_difference() -> float:
    """Return that of green and blue, the largest in sRGB."""
    _, green, blue = _lab(torch.eye(3, dtype=torch.float64)).T
    return float(_colour_difference(green, blue))


class _Filters(NamedTuple):
    """Separable filters in one dimension."""

    sensitivities: tuple[list[list[float]], ...]
    """Of each opponent channel, those whose products with themselves add up to the filter in two dimensions."""
    bell: list[float]
    derivatives: list[list[float]]
    """The first and the second of the bell."""


@functools.cache
def _filters() -> _Filters:
    radius = math.ceil(3 * math.sqrt(max(width for _, width in _GAUSSIANS) / 2) / math.pi * PIXELS_PER_DEGREE)
    degrees = np.arange(-radius, radius + 1) / PIXELS_PER_DEGREE
    roots = [
        math.sqrt(weight * math.sqrt(math.pi / width)) * np.exp(-((math.pi * degrees) ** 2) / width)
        for weight, width in _GAUSSIANS
    ]
    channels = (roots[:1], roots[1:2], roots[2:])
    norms = [math.hypot(*(root.sum() for root in channel)) for channel in channels]
    sensitivities = [
        [(root / norm).tolist() for root in channel] for channel, norm in zip(channels, norms, strict=True)
    ]

    sigma = _FEATURE_DEGREES / 2 * PIXELS_PER_DEGREE
    x = np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1.0)
    bell = np.exp(-(x**2) / (2 * sigma**2))
    derivatives = [_balanced(-x * bell), _balanced((x**2 / sigma**2 - 1) * bell)]
    return _Filters(tuple(sensitivities), (bell / bell.sum()).tolist(), [each.tolist() for each in derivatives])


def _balanced(weights: Array) -> Array:
    """Scale positive and negative weights so that they add up to 1 and -1."""
    positive = weights > 0
    balanced: Array = weights / np.where(positive, weights[positive].sum(), -weights[~positive].sum())
    return balanced
