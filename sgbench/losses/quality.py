"""Measures of image quality that were fitted to the judgement of people, as losses: LPIPS and DISTS."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.perceptual import dists, lpips, trunks
from sgbench.perceptual.network import network_of
from sgbench.perceptual.trunks import Trunk


class LPIPS(nn.Module):
    """LPIPS v0.1 with AlexNet, the distance that the metric `lpips_alex` scores.

    ``forward(sr, hr)`` takes two tensors of shape [N, 3, H, W], RGB with HR in [0, 1], and returns the mean over the
    images, a scalar of 0 or more, computed in float32: what ``lpips.LPIPS(net="alex")(sr, hr, normalize=True)``
    returns, except that the gradient is finite where all features of a place are 0.

    Args:
        bf16: Whether the network computes in bfloat16; everything else is float32.

    Raises:
        InputError: If bf16 is neither true nor false.
        MissingWeights: If the network is not available locally.
    """

    source: ClassVar[str] = "Zhang, Isola, Efros, Shechtman, Wang, CVPR 2018, Eq. (1), v0.1"
    reference: ClassVar[str] = "lpips 0.1.4"
    difference: ClassVar[float] = 2e-5
    networks: ClassVar[tuple[str, ...]] = ("alexnet",)
    trunk: ClassVar[Trunk] = trunks.ALEXNET

    def __init__(self, *, bf16: bool = False) -> None:
        super().__init__()
        if type(bf16) is not bool:
            raise InputError(f"bf16 is {bf16}; true or false is needed")
        self.bf16 = bf16
        self.pretrained = Locator(download=False).load(self.trunk.weights)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the mean distance of the images.

        Raises:
            InputError: If the images are smaller than the network can take.
        """
        (height, width), least = sr.shape[-2:], self.trunk.smallest
        if min(height, width) < least:
            raise InputError(f"an image of {width}×{height} pixels; {self.trunk.title} needs {least}×{least} or more")
        network = network_of(self.trunk, self.pretrained, sr.device, torch.bfloat16 if self.bf16 else sr.dtype)
        with torch.no_grad():
            targets = list(network.maps(lpips.scaled(2 * hr - 1), self.trunk.activations))
        maps = network.maps(lpips.scaled(2 * sr - 1), self.trunk.activations)
        linear = lpips.linear_layers(self.trunk, sr.device, sr.dtype)
        return torch.stack([lpips.distances(*each).mean() for each in zip(linear, maps, targets, strict=True)]).sum()


class LPIPSVGG(LPIPS):
    """LPIPS v0.1 with VGG-16, the distance that the metric `lpips_vgg` scores."""

    networks: ClassVar[tuple[str, ...]] = ("vgg16",)
    trunk: ClassVar[Trunk] = trunks.VGG16


class LPIPSSqueeze(LPIPS):
    """LPIPS v0.1 with SqueezeNet 1.1, the distance that the metric `lpips_squeeze` scores."""

    networks: ClassVar[tuple[str, ...]] = ("squeezenet",)
    trunk: ClassVar[Trunk] = trunks.SQUEEZENET


class DISTS(nn.Module):
    """DISTS, the distance that the metric `dists` scores: structure and texture in the features of VGG-16.

    ``forward(sr, hr)`` takes two tensors of shape [N, 3, H, W], RGB with HR in [0, 1], and returns the mean over the
    images, a scalar of 0 or more, computed in float32: what ``DISTS_pytorch.DISTS()(sr, hr, require_grad=True,
    batch_average=True)`` returns.

    Raises:
        MissingWeights: If the network, or its α and β, are not available locally.
    """

    source: ClassVar[str] = "Ding, Ma, Wang, Simoncelli, IEEE Trans. Pattern Anal. Mach. Intell. 44 (2022) 2567"
    reference: ClassVar[str] = "DISTS-pytorch 0.1"
    difference: ClassVar[float] = 5e-5
    networks: ClassVar[tuple[str, ...]] = ("dists", "vgg16")

    def __init__(self) -> None:
        super().__init__()
        locator = Locator(download=False)
        self.weights, self.pretrained = locator.load(dists.WEIGHTS), locator.load(trunks.VGG16.weights)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the mean distance of the images."""
        network = network_of(trunks.VGG16, self.pretrained, sr.device, sr.dtype)
        with torch.no_grad():
            targets = list(dists.maps(network, hr))
        return dists.distance(zip(dists.maps(network, sr), targets, strict=True), self.weights).mean()
