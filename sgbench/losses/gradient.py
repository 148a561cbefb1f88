"""The second-order gradient (SG) loss.

Lin, Zhang, Yang: "A pluggable single-image super-resolution algorithm based on second-order gradient loss",
BenchCouncil Transactions on Benchmarks, Standards and Evaluations 3 (2023) 100148, Eq. (5) and (6).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sgbench.errors import InputError

SMOOTHING = {"central": None, "sobel": 0.25, "sobel-raw": 1.0}
"""Operators and the factor of their [1, 2, 1] smoothing across the difference; Eq. (5) itself has none.

``sobel`` is divided by 4, so that its gain is that of the central difference; ``sobel-raw`` has four times that gain.
"""


class SecondOrderGradient(nn.Module):
    """Mean absolute difference of second-order gradient maps, Eq. (6).

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], H and W at least 2, values in [0, 1], and returns a
    scalar. Each channel has its own gradient map and borders are replicated. Half-precision input is computed in
    float32. The gradient with respect to ``sr`` is finite everywhere; ``hr`` gets none.

    Args:
        operator: ``central`` is the central difference of Eq. (5); ``sobel`` is Sobel's kernel with the same gain and
            ``sobel-raw`` the kernel as it is.
        order: How often the gradient map is taken: 1, or 2 as in the paper.
        eps: Added inside the root of the magnitude, so that it can be differentiated where an image is flat.

    Raises:
        InputError: For an option out of its range.
    """

    def __init__(self, *, operator: str = "central", order: int = 2, eps: float = 1e-8) -> None:
        super().__init__()
        if operator not in SMOOTHING:
            raise InputError(f"operator is '{operator}'; one of {', '.join(SMOOTHING)} is needed")
        if order not in (1, 2) or isinstance(order, bool):
            raise InputError(f"order is {order}; 1 or 2 is needed")
        if not 0 < eps < 1:
            raise InputError(f"eps is {eps}; a number between 0 and 1 is needed")
        self.operator, self.order, self.eps = operator, order, eps

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean |M(M(sr)) − M(M(hr))|."""
        with torch.no_grad():
            target = self.gradient_map(hr)
        return (self.gradient_map(sr) - target).abs().mean()

    def gradient_map(self, image: Tensor) -> Tensor:
        """Return M(M(image)), or M(image) for order 1: shape [N, C, H, W], values at least √eps."""
        image = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
        for _ in range(self.order):
            image = _Magnitude.apply(image, SMOOTHING[self.operator], self.eps)
        return image


class _Magnitude(torch.autograd.Function):
    """M(I) = √(dx² + dy² + eps) with its backward pass written out: dᵀ(g·dx/M) + dᵀ(g·dy/M)."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, smoothing: float | None, eps: float) -> Tensor:
        across, down = _difference(image, -1), _difference(image, -2)
        if smoothing is not None:
            across, down = _smooth(across, -2, smoothing), _smooth(down, -1, smoothing)
        magnitude = torch.addcmul(across * across, down, down).add_(eps).sqrt_()
        if ctx.needs_input_grad[0]:
            ctx.smoothing = smoothing
            ctx.save_for_backward(across, down, magnitude)
        return magnitude

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        across, down, magnitude = ctx.saved_tensors
        gradient = gradient / magnitude
        across, down = gradient * across, gradient * down
        if ctx.smoothing is not None:  # with replicated borders the smoothing is its own adjoint
            across, down = _smooth(across, -2, ctx.smoothing), _smooth(down, -1, ctx.smoothing)
        return _adjoint_difference(across, -1).add_(_adjoint_difference(down, -2)), None, None


def _difference(x: Tensor, dim: int) -> Tensor:
    """Return x[i+1] − x[i−1] along a dimension, borders replicated."""
    n = x.shape[dim]
    out = torch.empty_like(x)
    torch.sub(x.narrow(dim, 2, n - 2), x.narrow(dim, 0, n - 2), out=out.narrow(dim, 1, n - 2))
    torch.sub(x.narrow(dim, 1, 1), x.narrow(dim, 0, 1), out=out.narrow(dim, 0, 1))
    torch.sub(x.narrow(dim, n - 1, 1), x.narrow(dim, n - 2, 1), out=out.narrow(dim, n - 1, 1))
    return out


def _adjoint_difference(g: Tensor, dim: int) -> Tensor:
    """Return the transpose of `_difference` applied to g: g[i−1] − g[i+1], with g odd about either border."""
    n = g.shape[dim]
    out = torch.empty_like(g)
    torch.sub(g.narrow(dim, 0, n - 2), g.narrow(dim, 2, n - 2), out=out.narrow(dim, 1, n - 2))
    torch.add(g.narrow(dim, 0, 1), g.narrow(dim, 1, 1), out=out.narrow(dim, 0, 1)).neg_()
    torch.add(g.narrow(dim, n - 2, 1), g.narrow(dim, n - 1, 1), out=out.narrow(dim, n - 1, 1))
    return out


def _smooth(x: Tensor, dim: int, factor: float) -> Tensor:
    """Return factor · (x[i−1] + 2 x[i] + x[i+1]) along a dimension, borders replicated."""
    n = x.shape[dim]
    out = 2 * x
    out.narrow(dim, 1, n - 1).add_(x.narrow(dim, 0, n - 1))
    out.narrow(dim, 0, n - 1).add_(x.narrow(dim, 1, n - 1))
    out.narrow(dim, 0, 1).add_(x.narrow(dim, 0, 1))
    out.narrow(dim, n - 1, 1).add_(x.narrow(dim, n - 1, 1))
    return out.mul_(factor)
