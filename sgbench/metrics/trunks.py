"""The networks whose feature maps metrics compare."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Trunk:
    """A network whose feature maps LPIPS compares."""

    weights: str
    """Its name in the catalogue of pretrained networks, `sgbench.assets.catalogue`."""
    net: str
    """Its name in the `lpips` package."""
    title: str
    """Its name as it is displayed."""
    smallest: int
    """The least side of an image in pixels; below it nothing is left for its poolings."""
    bytes_per_pixel: int
    """Approximate memory of its feature maps for each pixel of the image."""


ALEXNET = Trunk("alexnet", "alex", "AlexNet", smallest=31, bytes_per_pixel=40)
VGG16 = Trunk("vgg16", "vgg", "VGG-16", smallest=16, bytes_per_pixel=488)
SQUEEZENET = Trunk("squeezenet", "squeeze", "SqueezeNet 1.1", smallest=17, bytes_per_pixel=144)
