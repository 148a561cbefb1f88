"""RCAN: Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", ECCV 2018."""

from typing import Any, ClassVar

from torch import Tensor, nn

from sgbench.backbones.layers import PUBLISHED_SHIFT, MeanShift, Upsampler, conv3x3


class ChannelAttention(nn.Module):
    """Scales each channel by a number in (0, 1) computed from the means of all channels (Section 3.3), shape kept."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the attention."""
        gains: Tensor = self.attention(x)
        return x * gains


class AttentionBlock(nn.Module):
    """x + attention(conv(relu(conv(x)))) (Section 3.4), shape kept."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.rcab = nn.Sequential(
            conv3x3(channels, channels),
            nn.ReLU(inplace=True),
            conv3x3(channels, channels),
            ChannelAttention(channels, reduction),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        residual: Tensor = self.rcab(x)
        return x + residual


class ResidualGroup(nn.Module):
    """x + conv(blocks(x)) (Section 3.2), shape kept."""

    def __init__(self, blocks: int, channels: int, reduction: int) -> None:
        super().__init__()
        self.residual_group = nn.Sequential(*(AttentionBlock(channels, reduction) for _ in range(blocks)))
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the group."""
        residual: Tensor = self.conv(self.residual_group(x))
        return x + residual


class RCAN(nn.Module):
    """Groups of residual blocks with channel attention between a mean shift and its inverse.

    ``forward`` maps images of shape [N, 3, H, W], values in [0, 1], to [N, 3, scale·H, scale·W]. The output is not
    clamped. Any H and W will do.

    Args:
        scale: 2, 3 or 4.
        groups: Number of residual groups.
        blocks: Residual blocks in each.
        channels: Width of every layer except inside an attention.
        reduction: Divisor of the width inside an attention.
    """

    source: ClassVar[str] = (
        'Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", ECCV 2018; '
        "light has as many blocks as the EDSR baseline"
    )
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"groups": 10, "blocks": 20, "channels": 64, "reduction": 16},
        "light": {"groups": 4, "blocks": 4, "channels": 64, "reduction": 16},
        "tiny": {"groups": 2, "blocks": 2, "channels": 16, "reduction": 4},
    }
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"head\.0", "conv_first"),
        (r"body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.0", r"body.\1.residual_group.\2.rcab.3.attention.1"),
        (r"body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.2", r"body.\1.residual_group.\2.rcab.3.attention.3"),
        (r"body\.(\d+)\.body\.(\d+)\.body", r"body.\1.residual_group.\2.rcab"),
        (r"body\.(\d+)\.body\.\d+", r"body.\1.conv"),
        (r"body\.\d+", "conv_after_body"),
        (r"tail\.0", "upsample"),
        (r"tail\.1", "conv_last"),
    )
    ignored: ClassVar[tuple[str, ...]] = (r"(sub|add)_mean\.",)
    constants: ClassVar[dict[str, tuple[float, ...]]] = PUBLISHED_SHIFT
    recomputed: ClassVar[tuple[type[nn.Module], ...]] = (ResidualGroup,)

    def __init__(self, *, scale: int, groups: int, blocks: int, channels: int, reduction: int) -> None:
        super().__init__()
        self.shift = MeanShift()
        self.conv_first = conv3x3(3, channels)
        self.body = nn.Sequential(*(ResidualGroup(blocks, channels, reduction) for _ in range(groups)))
        self.conv_after_body = conv3x3(channels, channels)
        self.upsample = Upsampler(scale, channels)
        self.conv_last = conv3x3(channels, 3)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch."""
        shallow = self.conv_first(self.shift.enter(lr))
        deep = self.conv_after_body(self.body(shallow)) + shallow
        out: Tensor = self.shift.leave(self.conv_last(self.upsample(deep)))
        return out
