"""The structural similarity (SSIM) as a loss.

It is written out here because torchmetrics' pads by reflection, whose backward pass torch refuses on a GPU under
deterministic algorithms; skimage's, which scores the results, has no gradient.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from sgbench.core.errors import InputError

WINDOW = 11
"""Side of the Gaussian window in pixels."""
SIGMA = 1.5
"""Its standard deviation in pixels."""
C1, C2 = 0.01**2, 0.03**2
"""The constants that keep both ratios finite, for values in [0, 1]."""


class SSIM(nn.Module):
    """1 − SSIM, Eq. (13) of Wang et al., the mean over windows, channels and images.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], H and W at least 11, values in [0, 1], and returns a
    scalar between 0 and 2. Windows are 11×11 pixels, Gaussian with σ 1.5; only those that lie inside the image count,
    nothing is padded, and covariances are those of a population. So it is 1 minus the metric ``ssim_rgb``, except
    that the metric crops the border.
    """

    source: ClassVar[str] = "Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13 (2004) 600, Eq. (13)"

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = torch.exp(-(torch.arange(WINDOW) - WINDOW // 2).square() / (2 * SIGMA**2))
        self.register_buffer("window", weights / weights.sum(), persistent=False)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return 1 − mean SSIM(sr, hr).

        Raises:
            InputError: If the images are smaller than the window.
        """
        height, width = sr.shape[-2:]
        if min(height, width) < WINDOW:
            raise InputError(f"an image of {width}×{height} pixels; ssim needs {WINDOW}×{WINDOW} or more")
        maps = torch.cat([sr, hr, sr * sr + hr * hr, sr * hr], dim=1)
        mean_sr, mean_hr, squares, product = self._windowed(maps).chunk(4, dim=1)
        mean_product, mean_squares = mean_sr * mean_hr, mean_sr * mean_sr + mean_hr * mean_hr
        luminance = (2 * mean_product + C1) / (mean_squares + C1)
        contrast_and_structure = (2 * (product - mean_product) + C2) / (squares - mean_squares + C2)
        return 1 - (luminance * contrast_and_structure).mean()

    def _windowed(self, maps: Tensor) -> Tensor:
        """Return the weighted means over all windows: shape [N, C, H − 10, W − 10]."""
        maps = maps.contiguous(memory_format=torch.channels_last)  # one filter per channel is several times as fast so
        channels = maps.shape[1]
        column = self.window.to(maps).view(WINDOW, 1).expand(channels, 1, WINDOW, 1)
        return conv2d(conv2d(maps, column, groups=channels), column.transpose(-1, -2), groups=channels)
