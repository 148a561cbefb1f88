"""The feature maps of LPIPS's networks, and the distances computed with them.

An image goes through a network once, and `fd_alex` takes AlexNet's features from there.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sgbench.metrics import feature_maps as kept
from sgbench.metrics.base import Array, Image, Pair, Runtime, Undefined
from sgbench.perceptual.lpips import distances, linear_layers, scaled
from sgbench.perceptual.network import network_of
from sgbench.perceptual.trunks import Trunk


def feature_maps(image: Image, trunk: Trunk, runtime: Runtime) -> Iterator[Tensor]:
    """Return the feature maps of an image, with LPIPS's input scaling, the first layer's first.

    Returns:
        Float32 tensors [1, C, h, w] on the runtime's device; with AlexNet C is 64, 192, 384, 256 and 256.

    Raises:
        Undefined: If the image is smaller than the network can take.
    """
    width, height = image.size
    if min(width, height) < trunk.smallest:
        needed = f"{trunk.smallest}×{trunk.smallest}"
        raise Undefined(f"the image is {width}×{height} pixels, and {trunk.title} needs at least {needed}")
    weights = runtime.weights[trunk.weights]

    def compute(pixels: Tensor) -> Iterator[Tensor]:
        network = network_of(trunk, weights, runtime.device, torch.float32)
        return network.maps(scaled(pixels / 127.5 - 1), trunk.activations)

    return kept.feature_maps(image, ("lpips", weights.sha256), trunk, compute, runtime.device)


def distance(trunk: Trunk, pair: Pair, runtime: Runtime) -> float:
    """Return the distance of a pair, equal to ``lpips.LPIPS.forward`` on the same tensors.

    Raises:
        Undefined: If the images are smaller than the network can take.
    """
    return float(sum(layer.mean(dtype=torch.float64) for layer in _layers(trunk, pair, runtime)))


def distance_map(trunk: Trunk, pair: Pair, runtime: Runtime) -> Array:
    """Return the distance at each pixel, equal to that of ``lpips.LPIPS(spatial=True)``.

    Returns:
        [H, W], 0 or more.

    Raises:
        Undefined: If the images are smaller than the network can take.
    """
    width, height = pair.hr.size
    total = torch.zeros((1, 1, height, width), dtype=torch.float64)
    for layer in _layers(trunk, pair, runtime):
        total += interpolate(layer, (height, width), mode="bilinear").cpu()
    return total[0, 0].numpy()


@torch.inference_mode()
def _layers(trunk: Trunk, pair: Pair, runtime: Runtime) -> Iterator[Tensor]:
    """Yield the distances of each layer, [1, 1, h, w]."""
    sr, hr = (feature_maps(image, trunk, runtime) for image in (pair.sr, pair.hr))
    for linear in linear_layers(trunk, torch.device(runtime.device), torch.float32):
        yield _distances(linear, next(sr), next(hr))


def _distances(linear: Tensor, sr: Tensor, hr: Tensor) -> Tensor:
    """Return a layer's distances, [1, 1, h, w], computed a few rows at a time."""
    _, channels, _, width = sr.shape
    rows = max(1, kept.STRIP_BYTES // (2 * 4 * channels * width))
    strips = zip(torch.split(sr, rows, dim=2), torch.split(hr, rows, dim=2), strict=True)
    return torch.cat([distances(linear, *strip) for strip in strips], dim=2)
