"""LPIPS, the learned perceptual image patch similarity (Zhang et al., CVPR 2018), version 0.1.

The network is the `lpips` package's own, with its linear layers; the convolutions of its backbone come from
`sgbench.metrics.weights` and are never downloaded behind one's back. Each image goes through the backbone once, and
`fd_alex` takes the features from there.
"""

import functools
import threading
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import lpips
import torch
from torch import Tensor

from sgbench.metrics.base import Image, ImageMetric, LoadedWeights, Pair, Runtime, Undefined

SMALLEST = 31
"""Pixels a side below which AlexNet's poolings have nothing left to work on."""

_building = threading.Lock()


def alexnet_features(image: Image, runtime: Runtime) -> tuple[Tensor, ...]:
    """Return AlexNet's five feature maps after their ReLUs, with LPIPS's input scaling, computed once an image.

    Returns:
        Float32 tensors [1, C, h, w] on the runtime's device, C being 64, 192, 384, 256 and 256.

    Raises:
        Undefined: If the image is smaller than the network can take.
    """
    width, height = image.size
    if min(width, height) < SMALLEST:
        raise Undefined(f"the image is {width}×{height} pixels, and AlexNet needs at least {SMALLEST}×{SMALLEST}")
    weights = runtime.weights["alexnet"]
    network = _network(weights, runtime.device)

    def compute() -> tuple[Tensor, ...]:
        with torch.inference_mode():
            pixels = torch.tensor(image.pixels, device=runtime.device)
            return tuple(network.net(network.scaling_layer(pixels[None] / 127.5 - 1)))

    return image.view(("alexnet", weights.sha256, runtime.device), compute)


@dataclass(frozen=True, kw_only=True)
class Lpips(ImageMetric):
    """LPIPS with AlexNet, over the whole image."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the distance of a pair, equal to ``lpips.LPIPS.forward`` on the same tensors.

        Raises:
            Undefined: If the images are smaller than the network can take.
        """
        linear = _network(runtime.weights["alexnet"], runtime.device).lins
        maps = zip(linear, alexnet_features(pair.sr, runtime), alexnet_features(pair.hr, runtime), strict=True)
        with torch.inference_mode():
            layers = [
                layer((lpips.normalize_tensor(sr) - lpips.normalize_tensor(hr)) ** 2).mean() for layer, sr, hr in maps
            ]
            return float(sum(layers))


@functools.cache
def _network(weights: LoadedWeights, device: str) -> Any:
    """Build `lpips.LPIPS` around located weights, once for a process and device."""
    with _building, warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision by argument names of old
        network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    convolutions = {
        f"slice{block}.{layer}.{part}": weights.state[f"features.{layer}.{part}"]
        for block, layer in enumerate((0, 3, 6, 8, 10), start=1)
        for part in ("weight", "bias")
    }
    network.net.load_state_dict(convolutions)
    return network.requires_grad_(False).eval().to(device)


lpips_alex = Lpips(
    name="lpips_alex",
    direction="lower",
    version=f"lpips {version('lpips')} (v0.1)",
    protocol={
        "implementation": "lpips, linear layers v0.1",
        "network": "AlexNet",
        "colour_space": "RGB",
        "value_range": [-1, 1],
        "border_crop": None,
        "resize": None,
    },
    networks=("alexnet",),
    description="LPIPS v0.1 with AlexNet, whole image",
)
