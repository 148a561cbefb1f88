"""Linear light and separable filters, from which FLIP and SSIMULACRA 2 are made; torch, on any device."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sgbench.metrics.base import Array, Image


def linear_rgb(image: Image, device: str) -> Tensor:
    """Return the linear RGB of an sRGB image (IEC 61966-2-1), float32 [3, H, W] in [0, 1]."""
    values = np.arange(256) / 255
    table = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return torch.from_numpy(table.astype(np.float32).take(image.pixels)).to(device)


def times(matrix: Array, colours: Tensor) -> Tensor:
    """Multiply colours, [3, …], by a matrix [3, 3]."""
    return torch.einsum("ij,j...->i...", torch.tensor(matrix, dtype=colours.dtype, device=colours.device), colours)


def filtered(
    maps: Tensor, across: Sequence[float], down: Sequence[float], border: Literal["replicate", "constant"]
) -> Tensor:
    """Correlate maps with the product of two filters.

    Adding shifted maps takes a quarter of the time of torch's convolution on a CPU, and gives equal values for whatever
    number of threads.

    Args:
        maps: [C, H, W].
        across: The filter along a row, of odd length.
        down: The one along a column.
        border: What is beyond the border: the values at the border, or zeros.
    """
    return _along(_along(maps, across, -1, border), down, -2, border)


def _along(maps: Tensor, weights: Sequence[float], dim: int, border: str) -> Tensor:
    radius, size = len(weights) // 2, maps.shape[dim]
    sides = (radius, radius, 0, 0) if dim == -1 else (0, 0, radius, radius)
    padded = functional.pad(maps[None], sides, mode=border)[0]
    total = padded.narrow(dim, 0, size) * weights[0]
    for offset, weight in enumerate(weights[1:], start=1):
        total.add_(padded.narrow(dim, offset, size), alpha=weight)
    return total
