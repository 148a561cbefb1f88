"""Parts that several backbones share."""

import math

import torch
from torch import Tensor, nn

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of the DIV2K training images, in [0, 1]."""

VALUE_RANGE = 255.0
"""Most networks with a mean shift work on 8-bit values, as their public implementations and released weights do."""

PUBLISHED_SHIFT = {"sub_mean.bias": tuple(-VALUE_RANGE * mean for mean in DIV2K_MEAN)}
"""What public checkpoints of networks with a mean shift on 8-bit values keep of it."""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3×3 convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class MeanShift(nn.Module):
    """Moves images from [0, 1] to the values that a network works on, less the mean of DIV2K, and back.

    Args:
        value_range: The white of the network's values.
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


class Upsampler(nn.Sequential):
    """Sub-pixel upsampling of features: for ×2 and ×4 a 3×3 convolution and PixelShuffle(2) once or twice, for ×3 once.

    Shi et al., CVPR 2016. Maps [N, channels, H, W] to [N, channels, scale·H, scale·W].
    """

    def __init__(self, scale: int, channels: int) -> None:
        steps = [3] if scale == 3 else [2] * int(math.log2(scale))
        parts: list[nn.Module] = []
        for step in steps:
            parts += [conv3x3(channels, step * step * channels), nn.PixelShuffle(step)]
        super().__init__(*parts)
