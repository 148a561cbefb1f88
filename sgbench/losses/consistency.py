"""The downscaling loss: SR that is shrunk as HR was must be LR."""

import functools
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from sgbench.core.bicubic import shrinking
from sgbench.core.errors import InputError

MARGIN = 2
"""LR pixels along each border of a patch for which the kernel, at any scale, reaches beyond the border of HR."""


class Consistency(nn.Module):
    """Mean absolute difference of LR and SR that is shrunk by MATLAB's bicubic imresize, whatever HR is.

    ``forward(sr, hr, *, lr, scale)`` takes SR and HR of shape [N, C, H·scale, W·scale] and LR of shape [N, C, H, W], H
    and W at least 5, values in [0, 1], and returns a scalar. SR is neither clamped nor rounded, so that the loss can be
    differentiated; with HR in its place the loss is what the rounding of LR to 8 bits leaves, about 0.001. The outer
    two pixels of LR do not count: they depend on what lies around a patch. Many images have the same LR, so that it
    needs another term beside it.

    Use it for LR images that were made by bicubic downscaling, as ours and those of the usual benchmarks were.
    """

    source: ClassVar[str] = "Menon et al. (PULSE), CVPR 2020, downscaling loss"
    reference: ClassVar[str] = "torch 2.14.1"
    difference: ClassVar[float] = 1e-6

    def forward(self, sr: Tensor, hr: Tensor, *, lr: Tensor, scale: int) -> Tensor:
        """Return mean |shrunk sr − lr|.

        Raises:
            InputError: If LR is smaller than 5×5 pixels.
        """
        height, width = lr.shape[-2:]
        if min(height, width) <= 2 * MARGIN:
            raise InputError(f"an LR image of {width}×{height} pixels; consistency needs 5×5 or more")
        rows, columns = _weights(height, scale).to(sr), _weights(width, scale).to(sr)
        return l1_loss(rows @ sr @ columns.T, lr[..., MARGIN:-MARGIN, MARGIN:-MARGIN])


@functools.lru_cache(maxsize=8)
def _weights(length: int, scale: int) -> Tensor:
    """Return the weight of each HR pixel in each LR pixel within the margin: shape [length − 4, length · scale]."""
    weights = torch.zeros(length - 2 * MARGIN, length * scale, dtype=torch.float64)
    for row, at in enumerate(range(MARGIN, length - MARGIN)):
        for offset, weight in shrinking(scale):
            if weight:
                weights[row, at * scale + offset] = weight
    return weights
