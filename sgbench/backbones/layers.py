"""Parts that several backbones share."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import channel_shuffle, pixel_shuffle

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of the DIV2K training images, in [0, 1]."""

VALUE_RANGE = 255.0
"""Most networks with a mean shift work on 8-bit values, as their public implementations and released weights do."""

PUBLISHED_SHIFT = {"sub_mean.bias": tuple(-VALUE_RANGE * mean for mean in DIV2K_MEAN)}
"""What public checkpoints of networks with a mean shift on 8-bit values store of it."""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3×3 convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class MeanShift(nn.Module):
    """Maps images from [0, 1] to the values that a network works on, minus the mean of DIV2K, and back.

    Args:
        value_range: White in the network's values.
    """

    mean: Tensor

    def __init__(self, value_range: float = VALUE_RANGE) -> None:
        super().__init__()
        self.value_range = value_range
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1), persistent=False)

    def enter(self, image: Tensor) -> Tensor:
        """Return value_range · (image − mean), for an image of shape [N, 3, H, W] in [0, 1]."""
        return (image - self.mean) * self.value_range

    def leave(self, image: Tensor) -> Tensor:
        """Undo `enter`."""
        return image / self.value_range + self.mean


class PixelShuffle(nn.PixelShuffle):
    """torch's PixelShuffle of [N, channels, H, W], bit for bit, but faster on a CPU.

    There torch's backward pass is slow in channels_last, and both passes are in contiguous memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, channels / r², r·H, r·W]: each r² channels become a square of r×r pixels."""
        r, (n, channels, h, w) = self.upscale_factor, x.shape
        if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            shuffled: Tensor = _ChannelsLastShuffle.apply(x, r)
            return shuffled
        squares = x.reshape(n, channels // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3)
        return squares.reshape(n, channels // r**2, r * h, r * w)


class _ChannelsLastShuffle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, r: int) -> Tensor:
        ctx.r = r
        return pixel_shuffle(x, r)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        r, (n, channels, h, w) = ctx.r, gradient.shape
        # The rows of a square, r pixels of all channels, are brought together first. What is left is to turn r² pixels
        # of channels into channels of r² pixels, and channel_shuffle is fast at that.
        rows = gradient.permute(0, 2, 3, 1).reshape(n, h // r, r, w // r, r * channels)
        squares = rows.transpose(2, 3).reshape(n, h // r, w // r, r**2 * channels).permute(0, 3, 1, 2)
        return channel_shuffle(squares, r**2), None


class Upsampler(nn.Sequential):
    """Sub-pixel upsampling of features: for ×2 and ×4 a 3×3 convolution and PixelShuffle(2) once or twice, for ×3 once.

    Shi et al., CVPR 2016. Maps [N, channels, H, W] to [N, channels, scale·H, scale·W].
    """

    def __init__(self, scale: int, channels: int) -> None:
        steps = [3] if scale == 3 else [2] * int(math.log2(scale))
        parts: list[nn.Module] = []
        for step in steps:
            parts += [conv3x3(channels, step * step * channels), PixelShuffle(step)]
        super().__init__(*parts)
