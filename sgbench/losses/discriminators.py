"""Discriminators, which tell HR from SR patches, under the names of parameters that published ones have.

A discriminator is a `torch.nn.Module` whose constructor takes ``features``, the number of its channels where it begins,
and which is called on images of shape [N, 3, H, W] with values in [0, 1], or about that, and returns logits of any
shape that begins with N: the greater, the more an image looks like HR. Register your own with `register_discriminator`
or the entry-point group ``sgbench.discriminators``, or refer to it as ``module:Class``.

Whatever one computes over a batch must be over the global one, of which each worker has a part: use `BatchNorm2d` of
this module instead of torch's.
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu
from torch.nn.utils import spectral_norm

from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.core.registry import DISCRIMINATORS, unfit
from sgbench.losses.group import total

register_discriminator = DISCRIMINATORS.register
"""Class decorator: ``@register_discriminator("name")``."""

SLOPE = 0.2
"""Of every leaky ReLU below 0."""


def check(name: str, entry: object) -> None:
    """Check the entry of a discriminator's name in the registry.

    Raises:
        InputError: If it is no class of `torch.nn.Module`.
    """
    if not (isinstance(entry, type) and issubclass(entry, nn.Module)):
        raise unfit("discriminator", name, entry, "a class of torch.nn.Module")


def build_discriminator(name: str, features: int) -> nn.Module:
    """Construct a discriminator.

    Raises:
        InputError: If there is none of this name, or it refuses the number of features.
    """
    entry = DISCRIMINATORS.load(name)
    with foreign(f"discriminator '{name}'"):
        return entry(features=features)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the global batch: in a process group, of the means and variances over all processes.

    Without a group, in evaluation, and in its parameters and buffers it is torch's. Unlike `torch.nn.SyncBatchNorm` it
    works on CPUs too.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised images, shape [N, C, H, W] like those that it is given."""
        if not (self.training and torch.distributed.is_initialized()):
            return super().forward(images)
        self._check_input_dim(images)
        count = total(images.new_tensor(images.numel() / images.shape[1]))
        mean = total(images.sum((0, 2, 3))) / count
        centred = images - mean[:, None, None]
        variance = total(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None])


class UNet(nn.Module):
    """A U-Net with spectral normalisation, which judges every pixel: Real-ESRGAN's ``UNetDiscriminatorSN``.

    ``forward`` takes [N, 3, H, W], H and W at least 8, and returns [N, 1, H, W].
    """

    source: ClassVar[str] = "Wang, Xie, Dong, Shan (Real-ESRGAN), ICCVW 2021; after Schönfeld et al., CVPR 2020"
    smallest: ClassVar[int] = 8
    """The least side of an image in pixels."""

    def __init__(self, *, features: int = 64) -> None:
        super().__init__()
        n = features
        self.conv0 = nn.Conv2d(3, n, 3, padding=1)
        self.conv1 = _halving(n, 2 * n)
        self.conv2 = _halving(2 * n, 4 * n)
        self.conv3 = _halving(4 * n, 8 * n)
        self.conv4 = _keeping(8 * n, 4 * n)
        self.conv5 = _keeping(4 * n, 2 * n)
        self.conv6 = _keeping(2 * n, n)
        self.conv7 = _keeping(n, n)
        self.conv8 = _keeping(n, n)
        self.conv9 = nn.Conv2d(n, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return a logit for each pixel.

        Raises:
            InputError: If the images are too small.
        """
        _check_size(images, self.smallest)
        maps = [leaky_relu(self.conv0(images), SLOPE)]
        for conv in (self.conv1, self.conv2, self.conv3):
            maps.append(leaky_relu(conv(maps[-1]), SLOPE))
        x = maps.pop()
        for conv in (self.conv4, self.conv5, self.conv6):
            skipped = maps.pop()
            x = interpolate(x, skipped.shape[-2:], mode="bilinear", align_corners=False)
            x = leaky_relu(conv(x), SLOPE) + skipped
        for conv in (self.conv7, self.conv8):
            x = leaky_relu(conv(x), SLOPE)
        logits: Tensor = self.conv9(x)
        return logits


def _halving(given: int, made: int) -> nn.Module:
    convolution: nn.Module = spectral_norm(nn.Conv2d(given, made, 4, stride=2, padding=1, bias=False))
    return convolution


def _keeping(given: int, made: int) -> nn.Module:
    convolution: nn.Module = spectral_norm(nn.Conv2d(given, made, 3, padding=1, bias=False))
    return convolution


class VGG(nn.Module):
    """Ten convolutions and two linear layers, which judge an image as a whole: BasicSR's ``VGGStyleDiscriminator``.

    ``forward`` takes [N, 3, H, W], H and W at least 32, and returns [N, 1]. The convolutions make a 32nd of each side;
    its means over 4×4 areas go to the linear layers, which for images of 128×128 are the 4×4 values themselves.
    """

    source: ClassVar[str] = "Ledig et al. (SRGAN), CVPR 2017, Fig. 4; Wang et al. (ESRGAN), ECCVW 2018"
    smallest: ClassVar[int] = 32
    """The least side of an image in pixels."""

    def __init__(self, *, features: int = 64) -> None:
        super().__init__()
        width = [features * factor for factor in (1, 2, 4, 8, 8)]
        for i, (given, made) in enumerate(pairwise([3, *width])):
            self.add_module(f"conv{i}_0", nn.Conv2d(given, made, 3, padding=1, bias=i == 0))
            if i > 0:
                self.add_module(f"bn{i}_0", BatchNorm2d(made))
            self.add_module(f"conv{i}_1", nn.Conv2d(made, made, 4, stride=2, padding=1, bias=False))
            self.add_module(f"bn{i}_1", BatchNorm2d(made))
        self.linear1 = nn.Linear(width[-1] * 4 * 4, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return a logit for each image.

        Raises:
            InputError: If the images are too small.
        """
        _check_size(images, self.smallest)
        x = images
        for i in range(5):
            for part in range(2):
                x = self.get_submodule(f"conv{i}_{part}")(x)
                if (i, part) != (0, 0):
                    x = self.get_submodule(f"bn{i}_{part}")(x)
                x = leaky_relu(x, SLOPE)
        logits: Tensor = self.linear2(leaky_relu(self.linear1(area_means(x, 4).flatten(1)), SLOPE))
        return logits


class Patch(nn.Module):
    """Five convolutions, which judge overlapping areas of 70×70 pixels: pix2pix's PatchGAN, ``NLayerDiscriminator``.

    ``forward`` takes [N, 3, H, W], H and W at least 24, and returns [N, 1, ⌊H/8⌋ − 2, ⌊W/8⌋ − 2].
    """

    source: ClassVar[str] = "Isola, Zhu, Zhou, Efros (pix2pix), CVPR 2017, Section 3.2.2"
    smallest: ClassVar[int] = 24
    """The least side of an image in pixels."""

    def __init__(self, *, features: int = 64) -> None:
        super().__init__()
        width = [features * factor for factor in (1, 2, 4, 8)]
        layers = [nn.Conv2d(3, features, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for given, made in pairwise(width):
            stride = 1 if made == width[-1] else 2
            layers += [nn.Conv2d(given, made, 4, stride=stride, padding=1, bias=False), BatchNorm2d(made)]
            layers += [nn.LeakyReLU(SLOPE)]
        self.model = nn.Sequential(*layers, nn.Conv2d(width[-1], 1, 4, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Return a logit for each area.

        Raises:
            InputError: If the images are too small.
        """
        _check_size(images, self.smallest)
        logits: Tensor = self.model(images)
        return logits


def _check_size(images: Tensor, smallest: int) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < smallest:
        raise InputError(f"patches are {width}×{height} HR pixels; {smallest}×{smallest} or more are needed")


def area_means(maps: Tensor, side: int) -> Tensor:
    """Return means over areas, as `torch.nn.functional.adaptive_avg_pool2d`, whose gradient a GPU sums in any order.

    Args:
        maps: Shape [N, C, H, W].
        side: Number of areas along each side.

    Returns:
        Shape [N, C, side, side].
    """
    if maps.shape[-2:] == (side, side):
        return maps
    rows, columns = (_areas(maps, length, side) for length in maps.shape[-2:])
    return rows @ maps @ columns.T


def _areas(maps: Tensor, length: int, side: int) -> Tensor:
    """Return the matrix, [side, length], whose rows average areas that cover a length and are about equal."""
    edges = torch.arange(side + 1, device=maps.device) * length
    first, end = edges[:-1] // side, (edges[1:] + side - 1) // side
    places = torch.arange(length, device=maps.device)
    inside = (first[:, None] <= places) & (places < end[:, None])
    return inside.to(maps.dtype) / (end - first)[:, None]
