"""SSIMULACRA 2.1 of a pair of images, computed with torch.

What is computed is what the C++ of github.com/cloudinary/ssimulacra2, version 2.1, computes. Its Gaussian filter is the
recursive one of Charalampidis (IEEE TSP 64, 2016), which without rounding is a filter of nine values, a sum of three
cosines. In float32, the errors of the recursion add up along a row. They lower scores, by up to 0.1 below 60 and by up
to 0.5 where images hardly differ. With the recursion in float64, the C++ differs from ours by up to 0.005.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sgbench.metrics.base import Image, Pair, Undefined
from sgbench.metrics.filters import filtered, linear_rgb, times

SMALLEST = 8
"""The shorter side of the smallest image; also of the smallest scale that is halved."""
_SCALES = 6
_C2 = 9e-4
_SIGMA = 1.5

_RED, _GREEN, _BLUE = 0.3, 0.23, (0.24342268924547819, 0.20476744424496821)
_OPSIN = np.array([[_RED, 1 - 0.078 - _RED, 0.078], [_GREEN, 1 - 0.078 - _GREEN, 0.078], [*_BLUE, 1 - sum(_BLUE)]])
"""From linear RGB to the absorbances of three kinds of cones."""
_BIAS = 0.0037930732552754493
_XYB = np.array([[7.0, -7.0, 0], [0.5, 0.5, 0], [-0.5, -0.5, 1]])
"""From cube roots of absorbances to X, Y and B − Y, each scaled to about [0, 1] after `_OFFSETS` are added."""
_OFFSETS = (0.42, 0.01, 0.55)

# fmt: off
_WEIGHTS = (
    0.0, 0.0007376606707406586, 0.0,
    0.0, 0.0007793481682867309, 0.0,
    0.0, 0.0004371155730107379, 0.0,
    1.1041726426657346, 0.00066284834129271, 0.00015231632783718752,
    0.0, 0.0016406437456599754, 0.0,
    1.8422455520539298, 11.441172603757666, 0.0,
    0.0007989109436015163, 0.000176816438078653, 0.0,
    1.8787594979546387, 10.94906990605142, 0.0,
    0.0007289346991508072, 0.9677937080626833, 0.0,
    0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053,
    0.0004550992113792063, 0.0, 0.0,
    0.0013648766163243398, 0.0, 0.0,
    0.0, 0.0, 0.0,
    7.466890328078848, 0.0, 17.445833984131262,
    0.0006235601634041466, 0.0, 0.0,
    6.683678146179332, 0.00037724407979611296, 1.027889937768264,
    225.20515300849274, 0.0, 0.0,
    19.213238186143016, 0.0011401524586618361, 0.001237755635509985,
    176.39317598450694, 0.0, 0.0,
    24.43300999870476, 0.28520802612117757, 0.0004485436923833408,
    0.0, 0.0, 0.0,
    34.77906344483772, 44.835625328877896, 0.0,
    0.0, 0.0, 0.0,
    0.0, 0.0, 0.0,
    0.0, 0.0008680556573291698, 0.0,
    0.0, 0.0, 0.0,
    0.0, 0.0005313191874358747, 0.0,
    0.00016533814161379112, 0.0, 0.0,
    0.0, 0.0, 0.0,
    0.0004179171803251336, 0.0017290828234722833, 0.0,
    0.0020827005846636437, 0.0, 0.0,
    8.826982764996862, 23.19243343998926, 0.0,
    95.1080498811086, 0.9863978034400682, 0.9834382792465353,
    0.0012286405048278493, 171.2667255897307, 0.9807858872435379,
    0.0, 0.0, 0.0,
    0.0005130064588990679, 0.0, 0.00010854057858411537,
)
# fmt: on
"""Of each channel, scale and norm (mean and 4-norm), those of `_errors`: structure, artefacts, lost detail."""


@torch.inference_mode()
def score(pair: Pair, device: str) -> float:
    """Return the score of a pair, up to 100.

    Images with a side below 113 pixels have fewer than six scales. Their norms are then weighted by the first of
    `_WEIGHTS`, as in the original, so that their scores are not comparable with those of larger images.

    Args:
        pair: The images.
        device: Where torch computes.

    Raises:
        Undefined: If a side is shorter than `SMALLEST`.
    """
    width, height = pair.sr.size
    if min(width, height) < SMALLEST:
        raise Undefined(f"the image is {width}×{height} pixels, and SSIMULACRA 2 needs {SMALLEST}×{SMALLEST}")
    key = ("ssimulacra2", device)
    sr, hr = (image.view(key, functools.partial(_scales, image, device)) for image in (pair.sr, pair.hr))
    norms = torch.stack([_norms(_errors(*each)) for each in zip(sr, hr, strict=True)], dim=1).flatten().tolist()
    error = 0.9562382616834844 * math.fsum(map(math.prod, zip(norms, _WEIGHTS, strict=False)))
    error = 2.326765642916932 * error - 0.020884521182843837 * error**2 + 6.248496625763138e-05 * error**3
    return 100 - 10 * math.pow(max(error, 0), 0.6276336467831387)


def _scales(image: Image, device: str) -> tuple[Tensor, ...]:
    """Return what is compared of an image at each scale: colours, local means and variances, float32 [3, 3, H, W]."""
    linear = linear_rgb(image, device)
    scales: list[Tensor] = []
    while len(scales) < _SCALES and min(linear.shape[1:]) >= SMALLEST:
        if scales:
            linear = functional.avg_pool2d(linear, 2, ceil_mode=True)
        colours = _xyb(linear)
        mean = _blurred(colours)
        scales.append(torch.stack([colours, mean, _blurred(colours**2) - mean**2]))
    return tuple(scales)


def _xyb(linear: Tensor) -> Tensor:
    roots = (times(_OPSIN, linear) + _BIAS).pow_(1 / 3) - _BIAS ** (1 / 3)
    return times(_XYB, roots) + torch.tensor(_OFFSETS, device=linear.device)[:, None, None]


def _errors(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the errors at one scale: of structure, of artefacts and of lost detail, [3, 3, H, W]."""
    (ours, our_mean, our_variance), (theirs, their_mean, their_variance) = sr, hr
    # 1 - SSIM without the denominator of its first term; with the variance of the difference instead of the covariance,
    # nothing large is subtracted
    luminance = (our_mean - their_mean) ** 2
    contrast = (_blurred((ours - theirs) ** 2) - luminance) / (our_variance + their_variance + _C2)
    edges = (1 + (ours - our_mean).abs_()) / (1 + (theirs - their_mean).abs_()) - 1
    return torch.stack([luminance + contrast - luminance * contrast, edges, -edges]).clamp_(min=0)


def _norms(errors: Tensor) -> Tensor:
    """Return [channel, norm, error] of errors [error, channel, H, W]."""
    means = [power.mean(dim=(-2, -1), dtype=torch.float64).T for power in (errors, errors.square().square())]
    return torch.stack([means[0], means[1] ** 0.25], dim=1)


def _blurred(maps: Tensor) -> Tensor:
    bell = _bell()
    return filtered(maps, bell, bell, "constant")


@functools.cache
def _bell() -> list[float]:
    """Return the Gaussian as a sum of truncated cosines; numbers of equations are Charalampidis's."""
    radius = round(3.2795 * _SIGMA + 0.2546)  # (57)
    omega = np.array([1, 3, 5]) * math.pi / (2 * radius)
    signs = np.array([1, -1, 1])
    p = signs / np.tan(omega / 2)  # (37)
    r = signs * p**2 / np.sin(omega)  # (44)
    rho = np.exp(-(_SIGMA**2) * omega**2 / 2) / radius  # (50)
    zeta = np.cross(p, r)  # (52)
    beta = np.linalg.solve(np.stack([p, r, zeta]), np.array([1, radius**2 - _SIGMA**2, zeta @ rho]))  # (53, 55, 56)
    bell: list[float] = (np.cos(np.outer(np.arange(1 - radius, radius), omega)) @ beta).tolist()
    return bell
