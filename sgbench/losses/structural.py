"""The structural similarity (SSIM) as a loss, at one scale and at several.

It is written out here because torchmetrics' pads by reflection, whose backward pass torch refuses on a GPU under
deterministic algorithms; skimage's, which scores the results, has no gradient.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

from sgbench.core.errors import InputError

WINDOW = 11
"""Side of the Gaussian window in pixels."""
SIGMA = 1.5
"""Its standard deviation in pixels."""
C1, C2 = 0.01**2, 0.03**2
"""The constants that keep both ratios finite, for values in [0, 1]."""
SLIGHT = 1e-6
"""The least mean of a map that has a slope when it is raised to a power."""

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, from the finest."""


class SSIM(nn.Module):
    """1 − SSIM, Eq. (13) of Wang et al., the mean over windows, channels and images.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], H and W at least 11, values in [0, 1], and returns a
    scalar between 0 and 2. Windows are 11×11 pixels, Gaussian with σ 1.5; only those that lie inside the image count,
    nothing is padded, and covariances are those of a population. So it is 1 minus the metric ``ssim_rgb``, except
    that the metric crops the border.
    """

    source: ClassVar[str] = "Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13 (2004) 600, Eq. (13)"
    reference: ClassVar[str] = "pytorch-msssim 1.0.0"
    difference: ClassVar[float] = 2e-5

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
        similarity, _ = self._maps(sr, hr)
        return 1 - similarity.mean()

    def _maps(self, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """Return SSIM and its factor of contrast and structure for each window: shape [N, C, H − 10, W − 10]."""
        maps = torch.cat([sr, hr, sr * sr + hr * hr, sr * hr], dim=1)
        mean_sr, mean_hr, squares, product = self._windowed(maps).chunk(4, dim=1)
        mean_product, mean_squares = mean_sr * mean_hr, mean_sr * mean_sr + mean_hr * mean_hr
        luminance = (2 * mean_product + C1) / (mean_squares + C1)
        contrast_and_structure = (2 * (product - mean_product) + C2) / (squares - mean_squares + C2)
        return luminance * contrast_and_structure, contrast_and_structure

    def _windowed(self, maps: Tensor) -> Tensor:
        """Return the weighted means over all windows: shape [N, C, H − 10, W − 10]."""
        maps = maps.contiguous(memory_format=torch.channels_last)  # one filter per channel is several times as fast so
        channels = maps.shape[1]
        column = self.window.to(maps).view(WINDOW, 1).expand(channels, 1, WINDOW, 1)
        return conv2d(conv2d(maps, column, groups=channels), column.transpose(-1, -2), groups=channels)


class MultiScaleSSIM(SSIM):
    """1 − MS-SSIM, Eq. (7) of Wang et al., the mean over channels and images.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar between 0 and 1.
    Each scale has half the pixels of the one before, as means of 2×2. At each, the factor of contrast and structure,
    at the last one SSIM, is averaged over windows as in `SSIM`; means below 0 count as 0, and there have no slope.

    Args:
        scales: 1 to 5. A shorter side of 176 pixels is needed for 5, 88 for 4, 44 for 3, 22 for 2, and 11 for 1. The
            exponents of fewer are the first ones, in proportion, with the sum of all five.

    Raises:
        InputError: For an option out of its range.
    """

    source: ClassVar[str] = "Wang, Simoncelli, Bovik, Asilomar 2003, Eq. (7)"
    reference: ClassVar[str] = "pytorch-msssim 1.0.0"
    difference: ClassVar[float] = 1e-4

    def __init__(self, *, scales: int = 5) -> None:
        super().__init__()
        if type(scales) is not int or not 1 <= scales <= len(WEIGHTS):
            raise InputError(f"scales is {scales}; a whole number from 1 to {len(WEIGHTS)} is needed")
        ratio = sum(WEIGHTS) / sum(WEIGHTS[:scales])
        self.weights = [weight * ratio for weight in WEIGHTS[:scales]]

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return 1 − mean MS-SSIM(sr, hr).

        Raises:
            InputError: If the images are too small for so many scales.
        """
        height, width = sr.shape[-2:]
        if min(height, width) < (least := _least(len(self.weights))):
            fit = [scales for scales in range(1, len(self.weights)) if min(height, width) >= _least(scales)]
            instead = f", or ms_ssim(scales={fit[-1]})" if fit else ""
            raise InputError(f"an image of {width}×{height} pixels; ms_ssim needs {least}×{least} or more{instead}")
        *coarser, last = self.weights
        product = torch.ones((), device=sr.device, dtype=sr.dtype)
        for weight in coarser:
            product = product * _power(self._maps(sr, hr)[1], weight)
            sr, hr = avg_pool2d(sr, 2), avg_pool2d(hr, 2)
        return 1 - (product * _power(self._maps(sr, hr)[0], last)).mean()


def _least(scales: int) -> int:
    """Return the shorter side, in pixels, of an image whose coarsest of some scales has one window."""
    return WINDOW << scales - 1


def _power(maps: Tensor, exponent: float) -> Tensor:
    """Return the mean of each map, to the power of an exponent, where it is above 0, and else 0: shape [N, C]."""
    means = maps.mean((-2, -1))
    # The slope of a power has no limit at 0, and autograd multiplies it even where it is not taken.
    return torch.where(means > 0, means.clamp_min(SLIGHT) ** exponent, 0)
