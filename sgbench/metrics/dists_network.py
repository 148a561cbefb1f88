"""DISTS of a pair of images, computed with VGG-16."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sgbench.metrics import feature_maps as kept
from sgbench.metrics.base import Image, Pair, Runtime
from sgbench.perceptual import dists
from sgbench.perceptual.network import network_of
from sgbench.perceptual.trunks import VGG16


@torch.inference_mode()
def distance(pair: Pair, runtime: Runtime) -> float:
    """Return the distance of a pair, equal to that of ``DISTS_pytorch.DISTS`` on the same tensors."""
    sr, hr = (_maps(image, runtime) for image in (pair.sr, pair.hr))
    return dists.distance(_strips(sr, hr), runtime.weights[dists.WEIGHTS]).item()


def _maps(image: Image, runtime: Runtime) -> Iterator[Tensor]:
    """Yield what represents an image, itself and maps of VGG-16: [1, C, h, w] on the runtime's device."""
    weights = runtime.weights[VGG16.weights]

    def compute(pixels: Tensor) -> Iterator[Tensor]:
        return dists.activations(network_of(VGG16, weights, runtime.device, torch.float32), pixels / 255)

    yield kept.tensor(image, runtime.device) / 255
    yield from kept.feature_maps(image, ("dists", weights.sha256), VGG16, compute, runtime.device)


def _strips(sr: Iterator[Tensor], hr: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a few channels of both at a time."""
    for ours in sr:
        theirs = next(hr)
        channels = max(1, kept.STRIP_BYTES // (2 * 4 * ours[0, 0].numel()))
        yield from zip(torch.split(ours, channels, dim=1), torch.split(theirs, channels, dim=1), strict=True)
        del ours, theirs  # before the next are computed
