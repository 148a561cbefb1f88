"""Perceptual losses: distances between the feature maps of a network that was trained to tell what images show."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.perceptual import trunks
from sgbench.perceptual.network import network_of, standardised
from sgbench.perceptual.trunks import Trunk


class _Perceptual(nn.Module):
    """Weighted sum of mean absolute differences between feature maps of a VGG network.

    ``forward(sr, hr)`` takes two tensors of shape [N, 3, H, W], H and W at least 16, RGB with HR in [0, 1], and returns
    a scalar, computed in float32.

    Args:
        conv1: Weight of the last convolution of the first block.
        conv2: Weight of that of the second block.
        conv3: Weight of that of the third block.
        conv4: Weight of that of the fourth block.
        conv5: Weight of that of the fifth block.
        relu: Whether maps are compared after the activation that follows the convolution, or before.

    Raises:
        InputError: If a weight is out of its range, or none is above 0.
        MissingWeights: If the network is not available locally.
    """

    reference: ClassVar[str] = "torchvision 0.29.1"
    difference: ClassVar[float] = 1e-5
    trunk: ClassVar[Trunk]
    """The network."""

    def __init__(
        self,
        *,
        conv1: float = 0.0,
        conv2: float = 0.0,
        conv3: float = 0.0,
        conv4: float = 0.0,
        conv5: float = 1.0,
        relu: bool = False,
    ) -> None:
        super().__init__()
        weights = (conv1, conv2, conv3, conv4, conv5)
        for block, weight in enumerate(weights, 1):
            if not 0 <= weight < float("inf"):
                raise InputError(f"conv{block} is {weight}; a finite number from 0 is needed")
        if not any(weights):
            raise InputError("conv1 to conv5 are all 0; one above 0 is needed")
        if type(relu) is not bool:
            raise InputError(f"relu is {relu}; true or false is needed")
        self.weights = [weight for weight in weights if weight]
        self.compared = [layer + relu for layer, weight in zip(self.trunk.blocks, weights, strict=True) if weight]
        self.pretrained = Locator(download=False).load(self.trunk.weights)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return Σ weight · mean |maps(sr) − maps(hr)|."""
        with torch.no_grad():
            targets = list(self._maps(hr))
        return torch.stack(
            [
                weight * l1_loss(maps, target)
                for weight, maps, target in zip(self.weights, self._maps(sr), targets, strict=True)
            ]
        ).sum()

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the maps that are compared."""
        network = network_of(self.trunk, self.pretrained, images.device, images.dtype)
        return network.maps(standardised(images), self.compared)


class VGG16(_Perceptual):
    """Weighted sum of mean absolute differences between feature maps of VGG-16, the perceptual loss.

    See `_Perceptual` for its options. The last convolutions of the five blocks are conv1_2, conv2_2, conv3_3, conv4_3
    and conv5_3. ESRGAN compares the last one before its activation, as is the default here; SRGAN, and Johnson et al.
    with all but ``conv5``, after it.
    """

    source: ClassVar[str] = "Johnson, Alahi, Fei-Fei, ECCV 2016, Eq. (2), as L1 distance like in BasicSR"
    networks: ClassVar[tuple[str, ...]] = ("vgg16",)
    trunk: ClassVar[Trunk] = trunks.VGG16


class VGG19(_Perceptual):
    """Weighted sum of mean absolute differences between feature maps of VGG-19, as in ESRGAN and Real-ESRGAN.

    It is ``vgg`` with the network that these use: ``vgg19`` is ESRGAN's loss, and ``vgg19(conv1=0.1, conv2=0.1,
    conv3=1, conv4=1)`` that of Real-ESRGAN. The last convolutions are conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4.
    """

    source: ClassVar[str] = "Wang et al. (ESRGAN), ECCVW 2018, Section 3.3"
    networks: ClassVar[tuple[str, ...]] = ("vgg19",)
    trunk: ClassVar[Trunk] = trunks.VGG19
