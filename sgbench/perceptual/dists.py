"""DISTS, the deep image structure and texture similarity (Ding et al., IEEE Trans. Pattern Anal. Mach. Intell., 2022).

An image is represented by itself and by the activations of VGG-16 after each block, whose poolings are replaced by
Hanning windows of the squares. Two images are compared by the means of their maps, which are texture, and by the
covariances, which are structure, weighted by α and β, which were fitted to the judgement of people.
"""

import functools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from sgbench.assets.base import LoadedWeights
from sgbench.perceptual.network import Network, per_channel, standardised
from sgbench.perceptual.trunks import VGG16

WEIGHTS = "dists"
"""The name of α and β in the catalogue of pretrained networks."""

C = 1e-6
"""Keeps both ratios finite."""

LEAST = 1e-12
"""Added to the mean of squares before its root is taken."""


def maps(network: Network, images: Tensor) -> Iterator[Tensor]:
    """Yield what represents images, shape [N, 3, H, W], RGB in [0, 1]: themselves and five maps of VGG-16."""
    yield images
    yield from activations(network, images)


def activations(network: Network, images: Tensor) -> Iterator[Tensor]:
    """Return the maps of VGG-16 that represent images, shape [N, 3, H, W], RGB in [0, 1], beside themselves."""
    return network.maps(standardised(images), VGG16.activations, pool=_pooled)


def distance(pairs: Iterable[tuple[Tensor, Tensor]], weights: LoadedWeights) -> Tensor:
    """Return the distance of each pair of images: shape [N], 0 for equal images, at most about 1.

    Args:
        pairs: The maps of SR and of HR, each of shape [N, C, h, w], or parts of their channels, in their order.
        weights: α and β.
    """
    first, total = 0, None
    for sr, hr in pairs:
        alpha, beta = (each[first : first + sr.shape[1]] for each in _fractions(weights, sr.device, sr.dtype))
        first += sr.shape[1]
        texture, structure = _dissimilarities(sr, hr)
        part = texture @ alpha + structure @ beta
        total = part if total is None else total + part
    assert total is not None
    return total


def _dissimilarities(sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 less the similarities of texture and of structure of each map, shape [N, C].

    Written as differences, they lose no digits where images are alike: 1 − (2ab + c) / (a² + b² + c) is
    (a − b)² / (a² + b² + c).
    """
    mean_sr, mean_hr = (maps.mean(dim=(2, 3), keepdim=True) for maps in (sr, hr))
    sr, hr = sr - mean_sr, hr - mean_hr
    squares, var_sr, var_hr = (each.square().mean(dim=(2, 3)) for each in (sr - hr, sr, hr))
    texture = (mean_sr - mean_hr).square() / (mean_sr.square() + mean_hr.square() + C)
    return texture[:, :, 0, 0], squares / (var_sr + var_hr + C)


@functools.cache
def _fractions(weights: LoadedWeights, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return α and β, shape [C], divided by the sum of all."""
    alpha, beta = (weights.state[name].flatten() for name in ("alpha", "beta"))
    with torch.inference_mode(False):
        total = alpha.sum() + beta.sum()
        return (alpha / total).to(device, dtype), (beta / total).to(device, dtype)


def _pooled(maps: Tensor) -> Tensor:
    """Return the roots of weighted means of squares over 3×3 windows, at every second pixel of each map."""
    side = per_channel((0.25, 0.5, 0.25), maps.device, maps.dtype)[:, 0]
    window = (side * side.T).expand(maps.shape[1], 1, 3, 3)
    means = conv2d(maps * maps, window, stride=2, padding=1, groups=maps.shape[1])
    return (means + LEAST).sqrt()
