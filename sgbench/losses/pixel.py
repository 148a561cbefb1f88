"""Losses that compare images pixel by pixel."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from sgbench.core.errors import InputError

EPS_FLOOR = 1e-15
"""Its square is still a number in float32."""


class L1(nn.Module):
    """Mean absolute error.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar.
    """

    source: ClassVar[str] = "Lin, Zhang, Yang, BenchCouncil Trans. 3 (2023) 100148, Eq. (4)"
    reference: ClassVar[str] = "basicsr 1.4.2"
    difference: ClassVar[float] = 1e-6

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean |sr − hr|."""
        return l1_loss(sr, hr)


class L2(nn.Module):
    """Mean squared error.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar.
    """

    source: ClassVar[str] = "Dong, Loy, He, Tang (SRCNN), IEEE Trans. Pattern Anal. Mach. Intell. 38 (2016) 295"
    reference: ClassVar[str] = "basicsr 1.4.2"
    difference: ClassVar[float] = 1e-6

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean (sr − hr)²."""
        return mse_loss(sr, hr)


class Charbonnier(nn.Module):
    """Mean of √(difference² + eps²): an absolute error that is smooth at 0.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar, which for equal
    images is ``eps``. This is the form of LapSRN, with ``eps`` squared; with t = difference / eps, Charbonnier et al.
    have 2·√(1 + t²) − 2, the same but for constants.

    Args:
        eps: Where the loss turns from a square to an absolute value, in units of the images' values.

    Raises:
        InputError: For an option out of its range.
    """

    source: ClassVar[str] = "Lai, Huang, Ahuja, Yang (LapSRN), CVPR 2017; after Charbonnier et al., ICIP 1994"
    reference: ClassVar[str] = "basicsr 1.4.2"
    difference: ClassVar[float] = 1e-6

    def __init__(self, *, eps: float = 1e-3) -> None:
        super().__init__()
        if not EPS_FLOOR <= eps < 1:
            raise InputError(f"eps is {eps}; a number from {EPS_FLOOR} to below 1 is needed")
        self.eps = eps

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean √((sr − hr)² + eps²)."""
        return (sr - hr).square().add_(self.eps**2).sqrt_().mean()
