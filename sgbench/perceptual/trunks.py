"""The pretrained networks whose feature maps losses and metrics compare."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Trunk:
    """The convolutions of a network of torchvision's, whose layers are called by their numbers in its ``features``."""

    weights: str
    """Its name in the catalogue of pretrained networks, `sgbench.assets.catalogue`."""
    title: str
    """Its name as it is displayed."""
    first: tuple[int, int] = (1, 1)
    """Stride and padding of the first convolution; of the others they are 1 and what keeps the size."""
    pooling: tuple[int, bool] = (2, False)
    """Side of the windows of its poolings, in pixels, and whether the last window may reach over the edge; the stride
    is 2."""
    blocks: tuple[int, ...] = ()
    """Of a VGG network, the last convolution of each block."""
    net: str | None = None
    """Its name in the `lpips` package, if LPIPS is defined for it."""
    activations: tuple[int, ...] = ()
    """The layers that LPIPS compares."""
    smallest: int = 16
    """The least side of an image in pixels; below it nothing is left for its poolings."""
    bytes_per_pixel: int = 0
    """Approximate memory of what LPIPS compares for each pixel of the image."""


ALEXNET = Trunk(
    "alexnet",
    "AlexNet",
    first=(4, 2),
    pooling=(3, False),
    net="alex",
    activations=(1, 4, 7, 9, 11),
    smallest=31,
    bytes_per_pixel=40,
)
VGG16 = Trunk(
    "vgg16",
    "VGG-16",
    blocks=(2, 7, 14, 21, 28),
    net="vgg",
    activations=(3, 8, 15, 22, 29),
    bytes_per_pixel=488,
)
VGG19 = Trunk("vgg19", "VGG-19", blocks=(2, 7, 16, 25, 34))
SQUEEZENET = Trunk(
    "squeezenet",
    "SqueezeNet 1.1",
    first=(2, 0),
    pooling=(3, True),
    net="squeeze",
    activations=(1, 4, 7, 9, 10, 11, 12),
    smallest=17,
    bytes_per_pixel=144,
)
