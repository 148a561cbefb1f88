"""Perceptual losses: distances between the feature maps of a network that was trained to tell what images show."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, normalize

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.perceptual import trunks
from sgbench.perceptual.network import network_of, standardised
from sgbench.perceptual.trunks import Trunk

LEAST = 1e-5
"""Keeps the ratios and the logarithm of the contextual loss finite, as in its published code."""

SHORTEST = 1e-4
"""Feature vectors of less length are not stretched to length 1: they are rounding errors, as of a flat image."""


class _Compared(nn.Module, ABC):
    """Weighted sum of distances between feature maps of a VGG network, after the last convolutions of its blocks.

    ``forward(sr, hr)`` takes two tensors of shape [N, 3, H, W], H and W at least 16, RGB with HR in [0, 1], and returns
    a scalar, computed in float32.

    Args:
        weights: That of each block's last convolution, the first block's first.
        relu: Whether maps are compared after the activation that follows the convolution, or before.
        bf16: Whether the network computes in bfloat16; everything else is float32.

    Raises:
        InputError: If a weight is out of its range, or none is above 0.
        MissingWeights: If the network is not available locally.
    """

    trunk: ClassVar[Trunk]
    """The network."""

    def __init__(self, weights: tuple[float, ...], relu: bool, bf16: bool = False) -> None:
        super().__init__()
        for block, weight in enumerate(weights, 1):
            _refuse_negative(f"conv{block}", weight)
        if not any(weights):
            raise InputError("conv1 to conv5 are all 0; one above 0 is needed")
        for name, value in (("relu", relu), ("bf16", bf16)):
            if type(value) is not bool:
                raise InputError(f"{name} is {value}; true or false is needed")
        self.bf16 = bf16
        self.weights = [weight for weight in weights if weight]
        self.compared = [layer + relu for layer, weight in zip(self.trunk.blocks, weights, strict=True) if weight]
        self.pretrained = Locator(download=False).load(self.trunk.weights)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the weighted sum of the distances."""
        with torch.no_grad():
            targets = list(self._maps(hr))
        compared = zip(self.weights, self._maps(sr), targets, strict=True)
        return torch.stack([weight * self._distance(maps, target) for weight, maps, target in compared]).sum()

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the maps that are compared."""
        network = network_of(self.trunk, self.pretrained, images.device, torch.bfloat16 if self.bf16 else images.dtype)
        return network.maps(standardised(images), self.compared)

    @abstractmethod
    def _distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the distance of two maps of one layer, shape [N, C, h, w]: a scalar."""


def _refuse_negative(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise InputError(f"{name} is {value}; a finite number from 0 is needed")


class _Perceptual(_Compared):
    """Weighted sum of mean absolute differences between feature maps of a VGG network, and between their Gram matrices.

    See `_Compared` for the images.

    Args:
        conv1: Weight of the last convolution of the first block.
        conv2: Weight of that of the second block.
        conv3: Weight of that of the third block.
        conv4: Weight of that of the fourth block.
        conv5: Weight of that of the fifth block.
        relu: Whether maps are compared after the activation that follows the convolution, or before.
        content: Weight of the differences of the maps.
        style: Weight of the differences of their Gram matrices, which hold how much each two channels go together,
            wherever in the image.
        bf16: Whether the network computes in bfloat16; everything else is float32.

    Raises:
        InputError: If a weight is out of its range, or none is above 0.
        MissingWeights: If the network is not available locally.
    """

    reference: ClassVar[str] = "torchvision 0.29.1"
    difference: ClassVar[float] = 1e-5

    def __init__(
        self,
        *,
        conv1: float = 0.0,
        conv2: float = 0.0,
        conv3: float = 0.0,
        conv4: float = 0.0,
        conv5: float = 1.0,
        relu: bool = False,
        content: float = 1.0,
        style: float = 0.0,
        bf16: bool = False,
    ) -> None:
        super().__init__((conv1, conv2, conv3, conv4, conv5), relu, bf16)
        _refuse_negative("content", content)
        _refuse_negative("style", style)
        if not content + style:
            raise InputError("content and style are both 0; one above 0 is needed")
        self.content, self.style = content, style

    def _distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return content · mean |sr − hr| + style · mean |G(sr) − G(hr)|."""
        of_maps = self.content * l1_loss(sr, hr) if self.content else sr.new_zeros(())
        return of_maps + self.style * l1_loss(_gram(sr), _gram(hr)) if self.style else of_maps


def _gram(maps: Tensor) -> Tensor:
    """Return the Gram matrices of maps [N, C, h, w], divided by the numbers of each: shape [N, C, C]."""
    vectors = maps.flatten(2)
    return vectors @ vectors.transpose(1, 2) / maps[0].numel()


class VGG16(_Perceptual):
    """Weighted sum of mean absolute differences between feature maps of VGG-16, the perceptual loss.

    See `_Perceptual` for its options. The last convolutions of the five blocks are conv1_2, conv2_2, conv3_3, conv4_3
    and conv5_3. ESRGAN compares the last one before its activation, as is the default here; SRGAN, and Johnson et al.
    with all but ``conv5``, after it. ``style`` is the style loss of Johnson et al., Eq. (4).
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


class Contextual(_Compared):
    """The contextual loss: whether each feature of HR, wherever it is, is near to one of SR; with VGG-16.

    Each place of HR looks for the place of SR whose feature vector is the nearest compared with all others, by the
    cosine of vectors from which HR's mean is subtracted. Images need not be aligned. Equal images have a loss of about
    0, or more where they repeat themselves. Memory grows with the square of the places: at conv3 there is one for 4×4
    pixels, so that a patch of 128×128 pixels has 1,024. The loss is the mean over images, each on its own; published
    code takes the mean of HR over the batch. See `_Compared` for the images.

    Args:
        conv1: Weight of conv1_2.
        conv2: Weight of conv2_2.
        conv3: Weight of conv3_3 (VGG-19: conv3_4).
        conv4: Weight of conv4_3 (conv4_4).
        conv5: Weight of conv5_3 (conv5_4).
        relu: Whether maps are compared after the activation that follows the convolution, or before.
        h: Bandwidth, above 0: the smaller, the more only the nearest vectors count.

    Raises:
        InputError: If a weight or the bandwidth is out of its range, or no weight is above 0.
        MissingWeights: If the network is not available locally.
    """

    source: ClassVar[str] = "Mechrez, Talmi, Zelnik-Manor, ECCV 2018, Eq. (1) to (5)"
    reference: ClassVar[str] = "S-aiueo32/contextual_loss_pytorch c886571"
    difference: ClassVar[float] = 1e-5
    networks: ClassVar[tuple[str, ...]] = ("vgg16",)
    trunk: ClassVar[Trunk] = trunks.VGG16

    def __init__(
        self,
        *,
        conv1: float = 0.0,
        conv2: float = 0.0,
        conv3: float = 1.0,
        conv4: float = 0.0,
        conv5: float = 0.0,
        relu: bool = True,
        h: float = 0.5,
    ) -> None:
        super().__init__((conv1, conv2, conv3, conv4, conv5), relu)
        if not 0 < h < float("inf"):
            raise InputError(f"h is {h}; a finite number above 0 is needed")
        self.h = h

    def _distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return −log CX(sr, hr), Eq. (1) and (5)."""
        mean = hr.mean(dim=(2, 3), keepdim=True)
        sr, hr = (normalize((maps - mean).flatten(2), dim=1, eps=SHORTEST) for maps in (sr, hr))
        distances = 1 - sr.transpose(1, 2) @ hr  # [N, places of SR, places of HR]
        relative = distances / (distances.amin(dim=2, keepdim=True) + LEAST)  # Eq. (2)
        similarities = torch.softmax((1 - relative) / self.h, dim=2)  # Eq. (3) and (4)
        return -(similarities.amax(dim=1).mean(dim=1) + LEAST).log().mean()


class Contextual19(Contextual):
    """The contextual loss with VGG-19, of which its authors compare conv3_4 for super-resolution."""

    source: ClassVar[str] = "Mechrez, Talmi, Shama, Zelnik-Manor, ACCV 2018"
    networks: ClassVar[tuple[str, ...]] = ("vgg19",)
    trunk: ClassVar[Trunk] = trunks.VGG19
