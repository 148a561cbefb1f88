"""EDSR: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR Workshops 2017."""

from typing import Any, ClassVar

from torch import Tensor, nn

from sgbench.backbones.layers import PUBLISHED_SHIFT, MeanShift, Upsampler, conv3x3


class ResidualBlock(nn.Module):
    """x + res_scale · conv(relu(conv(x))), shape kept."""

    def __init__(self, channels: int, res_scale: float) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(channels, channels)
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        residual: Tensor = self.conv2(self.relu(self.conv1(x)))
        return x + residual if self.res_scale == 1.0 else x + self.res_scale * residual


class EDSR(nn.Module):
    """Residual blocks without normalisation between a mean shift and its inverse.

    ``forward`` maps images of shape [N, 3, H, W], values in [0, 1], to [N, 3, scale·H, scale·W]. The output is not
    clamped. Any H and W will do.

    Args:
        scale: 2, 3 or 4.
        blocks: Number of residual blocks.
        channels: Width of every layer.
        res_scale: Factor of each block's residual.
    """

    source: ClassVar[str] = (
        'Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR Workshops 2017; '
        "light is its baseline"
    )
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"blocks": 32, "channels": 256, "res_scale": 0.1},
        "light": {"blocks": 16, "channels": 64, "res_scale": 1.0},
        "tiny": {"blocks": 4, "channels": 16, "res_scale": 1.0},
    }
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"head\.0", "conv_first"),
        (r"body\.(\d+)\.body\.0", r"body.\1.conv1"),
        (r"body\.(\d+)\.body\.2", r"body.\1.conv2"),
        (r"body\.\d+", "conv_after_body"),
        (r"tail\.0", "upsample"),
        (r"tail\.1", "conv_last"),
    )
    ignored: ClassVar[tuple[str, ...]] = (r"(sub|add)_mean\.",)
    constants: ClassVar[dict[str, tuple[float, ...]]] = PUBLISHED_SHIFT
    recomputed: ClassVar[tuple[type[nn.Module], ...]] = (ResidualBlock,)

    def __init__(self, *, scale: int, blocks: int, channels: int, res_scale: float) -> None:
        super().__init__()
        self.shift = MeanShift()
        self.conv_first = conv3x3(3, channels)
        self.body = nn.Sequential(*(ResidualBlock(channels, res_scale) for _ in range(blocks)))
        self.conv_after_body = conv3x3(channels, channels)
        self.upsample = Upsampler(scale, channels)
        self.conv_last = conv3x3(channels, 3)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch."""
        shallow = self.conv_first(self.shift.enter(lr))
        deep = self.conv_after_body(self.body(shallow)) + shallow
        out: Tensor = self.shift.leave(self.conv_last(self.upsample(deep)))
        return out
