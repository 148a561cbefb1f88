"""The feature maps of images, kept where they fit.

Images are never batched, so that a value depends on its pair alone. On a CPU a batch of eight would save 5% of the time
at 512×512 pixels and a quarter at 256×256, and few images of a test set have one size.

An image that is too large for its features to be kept is compared layer by layer, as the features of both images
appear. VGG-16 then needs about 820 bytes a pixel: two maps of 64 channels and the one that is being computed.
"""

from collections.abc import Callable, Hashable, Iterator

import torch
from torch import Tensor

from sgbench.metrics.base import Image

KEPT_BYTES = 256 << 20
"""An image whose feature maps take more is compared while they are computed."""

STRIP_BYTES = 16 << 20
"""Memory of the parts of two feature maps that are compared at a time."""


def feature_maps(
    image: Image, key: Hashable, bytes_per_pixel: int, compute: Callable[[Tensor], Iterator[Tensor]], device: str
) -> Iterator[Tensor]:
    """Return the feature maps of an image, in the order in which they are computed.

    Those that fit in `KEPT_BYTES` are a view of the image and computed once; others are computed as they are consumed.

    Args:
        image: The image.
        key: Names what is computed, and all that it depends on besides the image.
        bytes_per_pixel: Approximate memory of all maps for each pixel of the image.
        compute: Given the pixels, [1, 3, H, W] in [0, 255], on the device, it yields the maps.
        device: Where they are computed.
    """

    def computed() -> Iterator[Tensor]:
        return _without_gradients(compute(torch.tensor(image.pixels, device=device)[None]))

    width, height = image.size
    if width * height * bytes_per_pixel > KEPT_BYTES:
        return computed()
    return iter(image.view(key, lambda: tuple(computed())))


@torch.inference_mode()
def _without_gradients(maps: Iterator[Tensor]) -> Iterator[Tensor]:
    yield from maps
