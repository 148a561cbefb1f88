"""The networks of LPIPS, and the distances computed with them.

They are the `lpips` package's own, with its linear layers; the convolutions of their trunks come from `sgbench.assets`
and are never downloaded implicitly. An image goes through a trunk once, and `fd_alex` takes AlexNet's features
from there. Images are never batched, so that a value depends on its pair alone. On a CPU a batch of eight would save 5%
of the time at 512×512 pixels and a quarter at 256×256, and few images of a test set have one size.

An image that is too large for its features to be kept is compared layer by layer, as the features of both images
appear. VGG-16 then needs about 820 bytes a pixel: two maps of 64 channels and the one that is being computed.
"""

import functools
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sgbench.assets.base import LoadedWeights
from sgbench.assets.tensors import tensors_in
from sgbench.metrics.base import Array, Image, Pair, Runtime, Undefined
from sgbench.metrics.trunks import Trunk

KEPT_BYTES = 256 << 20
"""An image whose feature maps take more is compared while they are computed."""

STRIP_BYTES = 16 << 20
"""Memory of the rows of two feature maps that are compared at a time."""

_building = threading.Lock()


def feature_maps(image: Image, trunk: Trunk, runtime: Runtime) -> Iterator[Tensor]:
    """Return the feature maps of an image, with LPIPS's input scaling, the first layer's first.

    Those that fit in `KEPT_BYTES` are a view of the image and computed once; others are computed as they are consumed.

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
    network = _network(trunk, weights, runtime.device)
    if width * height * trunk.bytes_per_pixel > KEPT_BYTES:
        return _forward(network, image, runtime.device)
    key = (trunk.weights, weights.sha256, runtime.device)
    return iter(image.view(key, lambda: tuple(_forward(network, image, runtime.device))))


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
    for linear in _network(trunk, runtime.weights[trunk.weights], runtime.device).lins:
        yield _distances(linear, next(sr), next(hr))


@torch.inference_mode()
def _forward(network: Any, image: Image, device: str) -> Iterator[Tensor]:
    """Yield each map once it is computed, holding no other."""
    pixels = torch.tensor(image.pixels, device=device)[None]
    maps = network.scaling_layer((pixels / 127.5 - 1).contiguous(memory_format=_memory_format(device)))
    for block in range(1, network.net.N_slices + 1):
        for module in getattr(network.net, f"slice{block}"):
            maps = module(maps)
        yield maps


def _distances(linear: Any, sr: Tensor, hr: Tensor) -> Tensor:
    """Return a layer's weighted squared differences, [1, 1, h, w], computed a few rows at a time."""
    from lpips import normalize_tensor

    _, channels, height, width = sr.shape
    rows = max(1, STRIP_BYTES // (2 * 4 * channels * width))
    strips = []
    for top in range(0, height, rows):
        ours, theirs = (normalize_tensor(maps[:, :, top : top + rows]) for maps in (sr, hr))
        strips.append(linear(ours.sub_(theirs).square_()))
    return torch.cat(strips, dim=2)


@functools.cache
def _network(trunk: Trunk, weights: LoadedWeights, device: str) -> Any:
    """Build `lpips.LPIPS` around located weights, once for a process and device."""
    import lpips

    with _building, warnings.catch_warnings(), torch.device("meta"):  # no time is spent on random numbers
        warnings.simplefilter("ignore", UserWarning)  # lpips uses old argument names of torchvision
        network = lpips.LPIPS(net=trunk.net, pretrained=False, pnet_rand=True, verbose=False)
    names = network.net.state_dict()  # slice2.3.weight is torchvision's features.3.weight
    state = {f"net.{name}": weights.state[f"features.{name.partition('.')[2]}"] for name in names}
    linear = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{trunk.net}.pth"
    network.load_state_dict(state | tensors_in(linear), strict=False, assign=True)
    return network.requires_grad_(False).eval().to(device=device, memory_format=_memory_format(device))


def _memory_format(device: str) -> torch.memory_format:
    """Return the order of values in memory in which a device convolves fastest in float32."""
    return torch.channels_last if device == "cpu" else torch.contiguous_format
