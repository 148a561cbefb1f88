"""Perceptual losses: distances between the feature maps of a network that was trained to tell what images show."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, max_pool2d, relu

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the RGB values, in [0, 1], of the images that torchvision's networks were trained on."""


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
    networks: ClassVar[tuple[str, ...]]
    """The name in the catalogue of pretrained networks, the only one."""
    convolutions: ClassVar[tuple[int, ...]]
    """Their number in each block of the network; blocks end with a pooling."""

    mean: Tensor
    std: Tensor

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
        self.weights, self.after = weights, relu
        last = max(block for block, weight in enumerate(weights) if weight)
        (network,) = self.networks
        layers = _convolutions(Locator(download=False).load(network).state)
        self.blocks = nn.ModuleList(nn.Sequential(*islice(layers, number)) for number in self.convolutions[: last + 1])
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return Σ weight · mean |maps(sr) − maps(hr)|."""
        with torch.no_grad():
            targets = list(self._maps(hr))
        weights = filter(None, self.weights)
        return torch.stack(
            [
                weight * l1_loss(maps, target)
                for weight, maps, target in zip(weights, self._maps(sr), targets, strict=True)
            ]
        ).sum()

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the maps whose weight is not 0."""
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        for block, convolutions in enumerate(self.blocks):
            if block:
                x = max_pool2d(x, 2)
            for convolution in convolutions.children():
                before = convolution(x)
                x = relu(before)
            if self.weights[block]:
                yield x if self.after else before


def _convolutions(state: Mapping[str, Tensor]) -> Iterator[nn.Conv2d]:
    """Yield the convolutions of a network of torchvision's, with constant parameters, in order."""
    layers = sorted(int(name.split(".")[1]) for name in state if name.endswith(".weight"))
    for layer in layers:
        weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
        with torch.device("meta"):  # no time is spent on random numbers
            convolution = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=1)
        weight = weight.contiguous(memory_format=torch.channels_last)
        convolution.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        yield convolution.requires_grad_(False)


class VGG16(_Perceptual):
    """Weighted sum of mean absolute differences between feature maps of VGG-16, the perceptual loss.

    See `_Perceptual` for its options. The last convolutions of the five blocks are conv1_2, conv2_2, conv3_3, conv4_3
    and conv5_3. ESRGAN compares the last one before its activation, as is the default here; SRGAN, and Johnson et al.
    with all but ``conv5``, after it.
    """

    source: ClassVar[str] = "Johnson, Alahi, Fei-Fei, ECCV 2016, Eq. (2), as L1 distance like in BasicSR"
    networks: ClassVar[tuple[str, ...]] = ("vgg16",)
    convolutions: ClassVar[tuple[int, ...]] = (2, 2, 3, 3, 3)


class VGG19(_Perceptual):
    """Weighted sum of mean absolute differences between feature maps of VGG-19, as in ESRGAN and Real-ESRGAN.

    It is ``vgg`` with the network that these use: ``vgg19`` is ESRGAN's loss, and ``vgg19(conv1=0.1, conv2=0.1,
    conv3=1, conv4=1)`` that of Real-ESRGAN. The last convolutions are conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4.
    """

    source: ClassVar[str] = "Wang et al. (ESRGAN), ECCVW 2018, Section 3.3"
    networks: ClassVar[tuple[str, ...]] = ("vgg19",)
    convolutions: ClassVar[tuple[int, ...]] = (2, 2, 4, 4, 4)
