"""The backbone ``my_module:MyClass``, to be changed into your own.

sgbench check my_module:MyClass-tiny
sgbench sweep quick --backbone my_module:MyClass-tiny --loss l1 --loss 'l1 + 1.0*sg'
"""

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import interpolate


class MyClass(nn.Module):
    """A few convolutions, which learn what is missing in the bilinearly upscaled image.

    ``forward`` maps images of shape [N, 3, H, W], values in [0, 1], to [N, 3, scale·H, scale·W].

    Args:
        scale: 2, 3 or 4.
        channels: Width of the convolutions.
        depth: Their number.
    """

    source: ClassVar[str] = "the publication"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "light": {"channels": 64, "depth": 8},
        "tiny": {"channels": 16, "depth": 4},
    }

    def __init__(self, *, scale: int, channels: int, depth: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
        self.layers = nn.Sequential(*layers)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch."""
        missing: Tensor = self.layers(lr)
        return missing + interpolate(lr, scale_factor=self.scale, mode="bilinear")
