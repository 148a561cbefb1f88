"""Losses that compare images pixel by pixel."""

from torch import Tensor, nn


class L1(nn.Module):
    """Mean absolute error, Eq. (4) of Lin et al., BenchCouncil Trans. 3 (2023) 100148.

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar.
    """

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean |sr − hr|."""
        return (sr - hr).abs().mean()
