"""RDN: Zhang et al., "Residual Dense Network for Image Super-Resolution", CVPR 2018."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sgbench.backbones.layers import Upsampler, conv3x3


class DenseLayer(nn.Module):
    """Appends relu(conv(x)), ``growth`` channels, to the channels of x (Section 3.2)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, growth)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return torch.cat([x, self.relu(self.conv(x))], 1)


class ResidualDenseBlock(nn.Module):
    """x + a 1×1 convolution of x and of all that dense layers append to it (Section 3.2), shape kept."""

    def __init__(self, layers: int, growth: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(DenseLayer(channels + i * growth, growth) for i in range(layers)))
        self.lff = nn.Conv2d(channels + layers * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        residual: Tensor = self.lff(self.layers(x))
        return x + residual


class RDN(nn.Module):
    """Residual dense blocks whose outputs are all fused.

    ``forward`` maps images of shape [N, 3, H, W], values in [0, 1], to [N, 3, scale·H, scale·W]. The output is not
    clamped. Any H and W will do.

    There is no mean shift, and the network works on [0, 1], as released weights with the keys ``sfe1``, ``sfe2`` do.
    Files with the keys ``SFENet1``, ``SFENet2`` come from networks on [0, 1] and on [0, 255] alike; nothing in them
    tells which, and they are loaded as they are. Since convolutions and ReLU commute with a positive factor, weights
    for [0, 255] become weights for [0, 1] when every bias is divided by 255.

    Args:
        scale: 2, 3 or 4.
        blocks: Number of residual dense blocks, the paper's D.
        layers: Dense layers in each, the paper's C.
        growth: Channels that each of them appends, the paper's G.
        channels: Width between blocks and of the upsampling, the paper's G0.
    """

    source: ClassVar[str] = (
        'Zhang et al., "Residual Dense Network for Image Super-Resolution", CVPR 2018; '
        "paper and light are its D16 C8 G64 and D20 C6 G32"
    )
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"blocks": 16, "layers": 8, "growth": 64, "channels": 64},
        "light": {"blocks": 20, "layers": 6, "growth": 32, "channels": 64},
        "tiny": {"blocks": 3, "layers": 3, "growth": 8, "channels": 16},
    }
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"SFENet", "sfe"),
        (r"RDBs\.(\d+)\.convs\.(\d+)\.conv\.0", r"rdbs.\1.layers.\2.conv"),
        (r"RDBs\.(\d+)\.LFF", r"rdbs.\1.lff"),
        (r"GFF", "gff"),
        (r"UPNet", "upscale"),
        (r"UPNet\.\d", "output"),  # the one that is no part of upscale: the third at ×2 and ×3, the fifth at ×4
    )
    recomputed: ClassVar[tuple[type[nn.Module], ...]] = (ResidualDenseBlock,)

    def __init__(self, *, scale: int, blocks: int, layers: int, growth: int, channels: int) -> None:
        super().__init__()
        self.sfe1 = conv3x3(3, channels)
        self.sfe2 = conv3x3(channels, channels)
        self.rdbs = nn.ModuleList(ResidualDenseBlock(layers, growth, channels) for _ in range(blocks))
        self.gff = nn.Sequential(nn.Conv2d(blocks * channels, channels, 1), conv3x3(channels, channels))
        self.upscale = Upsampler(scale, channels)
        self.output = conv3x3(channels, 3)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch."""
        shallow = self.sfe1(lr)
        deep, outputs = self.sfe2(shallow), []
        for block in self.rdbs:
            deep = block(deep)
            outputs.append(deep)
        fused = self.gff(torch.cat(outputs, 1)) + shallow
        out: Tensor = self.output(self.upscale(fused))
        return out
