"""The feature maps of images, kept where they fit.

Images are never batched, so that a value depends on its pair alone. On a CPU a batch of eight would save 5% of the time
at 512×512 pixels and a quarter at 256×256, and few images of a test set have one size.

Each map is kept by itself. What exceeds the budget of a cache are the maps of the first layers, which are the largest
and the quickest to compute, and what follows them need not be computed again: of VGG-16, the maps of the last three
blocks take a fifth of the memory of all, and two thirds of the time.

An image that is too large for its features to be kept is compared layer by layer, as the features of both images
appear. VGG-16 then needs about 820 bytes a pixel: two maps of 64 channels and the one that is being computed.
"""

from collections.abc import Callable, Hashable, Iterator
from itertools import islice

import torch
from torch import Tensor

from sgbench.metrics.base import Image
from sgbench.perceptual.trunks import Trunk

KEPT_BYTES = 256 << 20
"""An image whose feature maps take more is compared while they are computed."""

STRIP_BYTES = 16 << 20
"""Memory of the parts of two feature maps that are compared at a time."""


def feature_maps(
    image: Image, key: tuple[Hashable, ...], trunk: Trunk, compute: Callable[[Tensor], Iterator[Tensor]], device: str
) -> Iterator[Tensor]:
    """Return the feature maps of an image, in the order in which they are computed.

    If all of them fit in `KEPT_BYTES`, each is a view of the image and computed once; otherwise they are computed as
    they are consumed.

    Args:
        image: The image.
        key: Names what is computed, and all that it depends on besides the image and the device.
        trunk: The network, which has a map for each of its ``activations``.
        compute: Given the pixels, [1, 3, H, W] in [0, 255], on the device, it yields the maps.
        device: Where they are computed.
    """
    width, height = image.size
    computed = _without_gradients(compute, image, device)
    if width * height * trunk.bytes_per_pixel > KEPT_BYTES:
        return computed
    return _kept(image, (*key, device), len(trunk.activations), computed)


def tensor(image: Image, device: str) -> Tensor:
    """Return the pixels of an image on a device, uint8 [1, 3, H, W]."""
    return torch.tensor(image.pixels, device=device)[None]


def _kept(image: Image, key: tuple[Hashable, ...], count: int, computed: Iterator[Tensor]) -> Iterator[Tensor]:
    taken = 0

    def compute() -> Tensor:
        nonlocal taken
        before, taken = taken, index + 1
        return next(islice(computed, index - before, None))

    for index in range(count):
        yield image.view((*key, index), compute)


@torch.inference_mode()
def _without_gradients(compute: Callable[[Tensor], Iterator[Tensor]], image: Image, device: str) -> Iterator[Tensor]:
    yield from compute(tensor(image, device))
