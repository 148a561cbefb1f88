"""LPIPS, the learned perceptual image patch similarity (Zhang et al., CVPR 2018), version 0.1, of two feature maps.

The linear layers are the `lpips` package's, read from its file.
"""

import functools
import importlib.util
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from sgbench.assets.tensors import tensors_in
from sgbench.perceptual.network import per_channel
from sgbench.perceptual.trunks import Trunk

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of the RGB values, in [-1, 1], with which LPIPS gives images to its network."""

EPS = 1e-10
"""Added to the length of a feature vector by which it is divided."""


def scaled(images: Tensor) -> Tensor:
    """Return images, shape [N, 3, H, W], RGB in [-1, 1], as LPIPS gives them to its network."""
    shift, scale = (per_channel(values, images.device, images.dtype) for values in (SHIFT, SCALE))
    return (images - shift) / scale


@functools.cache
def linear_layers(trunk: Trunk, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return the weights of the channels of each map that is compared, shape [1, C, 1, 1]."""
    package = importlib.util.find_spec("lpips")  # which takes a second to import
    assert package is not None
    assert package.origin is not None
    state = tensors_in(Path(package.origin).parent / "weights" / "v0.1" / f"{trunk.net}.pth")
    layers = (state[f"lin{number}.model.1.weight"] for number in range(len(trunk.activations)))
    with torch.inference_mode(False):
        return tuple(layer.to(device, dtype) for layer in layers)


def distances(linear: Tensor, sr: Tensor, hr: Tensor) -> Tensor:
    """Return the distances of two maps of one layer, shape [N, C, h, w], at each place, shape [N, 1, h, w].

    Args:
        linear: The weights of the channels.
        sr: The map of SR.
        hr: That of HR.
    """
    return conv2d((_directions(sr) - _directions(hr)).square(), linear)


def _directions(maps: Tensor) -> Tensor:
    """Return the feature vectors at length 1; those of length 0 stay so, and have a gradient of 0."""
    squares = maps.square().sum(dim=1, keepdim=True)
    return maps / (squares.clamp_min(torch.finfo(maps.dtype).tiny).sqrt() + EPS)
