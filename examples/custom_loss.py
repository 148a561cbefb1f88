"""A custom loss. Run in this folder, one command compares it with L1.

    sgbench sweep quick --loss l1 --loss 'l1 + 0.1*custom_loss:FrequencyL1'

Its option is set like those of any loss: ``custom_loss:FrequencyL1(amplitude=true)``.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn


class FrequencyL1(nn.Module):
    """Mean absolute difference of Fourier coefficients.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar.

    Args:
        amplitude: Compare the amplitudes only, which do not change when an image is shifted.
    """

    source: ClassVar[str] = "Cho et al. (MIMO-UNet), ICCV 2021, with the same weight of 0.1"

    def __init__(self, *, amplitude: bool = False) -> None:
        super().__init__()
        self.amplitude = amplitude

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean |F(sr) − F(hr)|, or mean ||F(sr)| − |F(hr)||."""
        sr, hr = torch.fft.fft2(sr, norm="ortho"), torch.fft.fft2(hr, norm="ortho")
        if self.amplitude:
            sr, hr = sr.abs(), hr.abs()
        return (sr - hr).abs().mean()
