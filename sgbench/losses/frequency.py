"""Losses that compare the discrete Fourier transforms of images.

Each channel has its own transform. It is orthonormal by default, so that a coefficient means the same for patches of
any size.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from sgbench.core.errors import InputError
from sgbench.core.words import quoted

PARTS = ("complex", "amplitude")
NORMS = ("ortho", "backward")


class Fourier(nn.Module):
    """Mean absolute difference of Fourier coefficients.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar. The mean is
    over frequencies from 0 up across and all down; the others have the same coefficients, conjugated.

    Args:
        part: ``complex`` compares real and imaginary parts; ``amplitude`` compares absolute values, which stay the same
            when an image is shifted.
        norm: ``ortho`` divides the transform by √(H·W); ``backward`` does not, as in publications, so that the loss is
            √(H·W) times as large: 128 times for patches of 128×128.

    Raises:
        InputError: For an option out of its range.
    """

    source: ClassVar[str] = "Cho et al. (MIMO-UNet), ICCV 2021; in super-resolution, SAFMN, ICCV 2023"
    reference: ClassVar[str] = "SAFMN abe5ffd"
    difference: ClassVar[float] = 1e-6

    def __init__(self, *, part: str = "complex", norm: str = "ortho") -> None:
        super().__init__()
        if part not in PARTS:
            raise InputError(f"part is {quoted(str(part))}; one of {', '.join(PARTS)} is needed")
        if norm not in NORMS:
            raise InputError(f"norm is {quoted(str(norm))}; one of {', '.join(NORMS)} is needed")
        self.part, self.norm = part, norm

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean |F(sr) − F(hr)| over real and imaginary parts, or mean ||F(sr)| − |F(hr)||."""
        if self.part == "complex":
            return torch.view_as_real(torch.fft.rfft2(sr - hr, norm=self.norm)).abs().mean()
        sr, hr = (torch.fft.rfft2(image, norm=self.norm).abs() for image in (sr, hr))
        return (sr - hr).abs().mean()


class FocalFrequency(nn.Module):
    """Mean squared difference of Fourier coefficients, weighted by how large each difference is.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar. The weight of a
    frequency is |F(sr) − F(hr)|^alpha, divided by the largest one of the same channel of the same image, and a constant
    for the gradient. As in the authors' code without its options for patches and statistics of a batch.

    Args:
        alpha: With 0 all weights are 1, and the loss is the mean squared error.
        log: Whether weights are log(1 + |F(sr) − F(hr)|^alpha), before they are divided.

    Raises:
        InputError: For an option out of its range.
    """

    source: ClassVar[str] = "Jiang, Dai, Wu, Loy, ICCV 2021, Eq. (8)"
    reference: ClassVar[str] = "focal-frequency-loss 0.3.0"
    difference: ClassVar[float] = 2e-5

    def __init__(self, *, alpha: float = 1.0, log: bool = False) -> None:
        super().__init__()
        if not 0 <= alpha < float("inf"):
            raise InputError(f"alpha is {alpha}; a finite number from 0 is needed")
        if type(log) is not bool:
            raise InputError(f"log is {log}; true or false is needed")
        self.alpha, self.log = alpha, log

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean w · |F(sr) − F(hr)|²."""
        distance = torch.view_as_real(torch.fft.fft2(sr - hr, norm="ortho")).square().sum(-1)
        with torch.no_grad():
            weights = distance.sqrt() ** self.alpha
            if self.log:
                weights = weights.log1p()
            largest = weights.amax((-2, -1), keepdim=True)
            weights = weights / largest.clamp_min(torch.finfo(weights.dtype).tiny)  # all are 0 where images are equal
        return (weights * distance).mean()
