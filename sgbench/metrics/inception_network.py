"""The Inception network of pytorch-fid, whose features FID and KID compare."""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils import fuse_conv_bn_eval

from sgbench.assets.base import LoadedWeights
from sgbench.metrics.base import Array, Image, Runtime


class Inception(nn.Module):
    """The Inception of pytorch-fid up to its last pooling, without its download.

    `pytorch_fid.inception.InceptionV3` fetches its weights while it is constructed; this one puts the same blocks into
    the same torchvision network and is given them. Batch normalisation is folded into the convolutions, which changes
    the features by 1e-7 of their size and saves a seventh of the time.

    ``forward`` takes RGB [N, 3, H, W] in [0, 1], which is resized to 299×299 (bilinear, no antialias, aspect ignored),
    and returns [N, 2048].

    Args:
        state: The content of ``pt_inception-2015-12-05-6726825d.pth``.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        from pytorch_fid import inception
        from torchvision.models.inception import BasicConv2d

        super().__init__()
        with torch.device("meta"):  # no time is spent on random numbers
            network = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
            network.Mixed_5b = inception.FIDInceptionA(192, pool_features=32)
            network.Mixed_5c = inception.FIDInceptionA(256, pool_features=64)
            network.Mixed_5d = inception.FIDInceptionA(288, pool_features=64)
            network.Mixed_6b = inception.FIDInceptionC(768, channels_7x7=128)
            network.Mixed_6c = inception.FIDInceptionC(768, channels_7x7=160)
            network.Mixed_6d = inception.FIDInceptionC(768, channels_7x7=160)
            network.Mixed_6e = inception.FIDInceptionC(768, channels_7x7=192)
            network.Mixed_7b = inception.FIDInceptionE_1(1280)
            network.Mixed_7c = inception.FIDInceptionE_2(2048)
        network.load_state_dict(state, assign=True)
        network.fc = nn.Identity()
        self.network = network.requires_grad_(False).eval()
        for module in self.network.modules():
            if isinstance(module, BasicConv2d):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)
                module.bn = nn.Identity()

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the pooled features [N, 2048] of images [N, 3, H, W] in [0, 1]."""
        resized = interpolate(rgb, size=(299, 299), mode="bilinear", align_corners=False)
        features: Tensor = self.network(2 * resized - 1)
        return features


def features(image: Image, runtime: Runtime) -> Array:
    """Return the network's features of an image, [2048], a view of the image."""
    weights = runtime.weights["inception"]
    network = _network(weights, runtime.device)

    def compute() -> Array:
        with torch.inference_mode():
            pixels = torch.tensor(image.pixels, device=runtime.device)[None]
            if runtime.device == "cpu":
                pixels = pixels.contiguous(memory_format=torch.channels_last)
            pooled: Tensor = network(pixels / 255)[0]
            return pooled.double().cpu().numpy()

    return image.view(("inception", weights.sha256, runtime.device), compute)


@functools.cache
def _network(weights: LoadedWeights, device: str) -> Inception:
    network = Inception(weights.state).to(device)
    return network.to(memory_format=torch.channels_last) if device == "cpu" else network
