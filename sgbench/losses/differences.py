"""Losses of the differences between neighbouring pixels."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import pad

from sgbench.core.errors import InputError


class Laplacian(nn.Module):
    """Mean absolute difference of Laplacians, which sharp edges and noise have and smooth areas lack.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar. Borders are
    replicated.

    Args:
        neighbours: 4 for the kernel [0, 1, 0; 1, −4, 1; 0, 1, 0], or 8 for [1, 1, 1; 1, −8, 1; 1, 1, 1].

    Raises:
        InputError: For an option out of its range.
    """

    source: ClassVar[str] = "Zamir et al. (MPRNet), CVPR 2021, edge loss, here as L1 distance"
    reference: ClassVar[str] = "kornia 0.8.2"
    difference: ClassVar[float] = 1e-6

    def __init__(self, *, neighbours: int = 4) -> None:
        super().__init__()
        if neighbours not in (4, 8):
            raise InputError(f"neighbours is {neighbours}; 4 or 8 is needed")
        self.neighbours = neighbours

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean |Δ(sr) − Δ(hr)|."""
        difference = sr - hr
        across, down = _second(difference, -1), _second(difference, -2)
        if self.neighbours == 4:
            return (across + down).abs().mean()
        # A sum over 3×3 pixels is one over rows of one over columns, each of which is 3x plus the second difference.
        return (3 * (across + down) + _second(across, -2)).abs().mean()


class TotalVariation(nn.Module):
    """Total variation of SR: its mean absolute differences across and down, whatever HR is.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], H and W at least 2, values in [0, 1], and returns a
    scalar. It is a prior for smooth images, and needs another term beside it.
    """

    source: ClassVar[str] = "Rudin, Osher, Fatemi, Physica D 60 (1992) 259, anisotropic, per pixel as in BasicSR"
    reference: ClassVar[str] = "basicsr 1.4.2"
    difference: ClassVar[float] = 1e-6

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean |sr(i, j+1) − sr(i, j)| + mean |sr(i+1, j) − sr(i, j)|."""
        return sr.diff(dim=-1).abs().mean() + sr.diff(dim=-2).abs().mean()


def _second(image: Tensor, dim: int) -> Tensor:
    """Return x[i−1] − 2 x[i] + x[i+1] along a dimension, borders replicated: the difference beyond a border is 0."""
    return pad(image.diff(dim=dim), (1, 1) if dim == -1 else (0, 0, 1, 1)).diff(dim=dim)
