"""A custom backbone. Run in this folder, one command compares L1 + SG with L1 on it.

    sgbench sweep quick --backbone custom_backbone:ESPCN --loss l1 --loss 'l1 + 1.0*sg'

Without a size, the first one is used: ``custom_backbone:ESPCN-paper``.
"""

from typing import Any, ClassVar

from torch import Tensor, nn


class ESPCN(nn.Module):
    """Three convolutions and a pixel shuffle, on RGB.

    ``forward`` maps images of shape [N, 3, H, W], values in [0, 1], to [N, 3, scale·H, scale·W].

    Args:
        scale: 2, 3 or 4.
        channels: Width of the first layer; the second is half as wide.
    """

    source: ClassVar[str] = "Shi et al., CVPR 2016; paper is its 5-3-3 with 64 and 32 channels"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"channels": 64}, "tiny": {"channels": 16}}

    def __init__(self, *, scale: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(channels // 2, 3 * scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
        )

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch."""
        out: Tensor = self.layers(lr)
        return out
