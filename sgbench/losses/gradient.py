"""The second-order gradient (SG) loss.

Lin, Zhang, Yang: "A pluggable single-image super-resolution algorithm based on second-order gradient loss",
BenchCouncil Transactions on Benchmarks, Standards and Evaluations 3 (2023) 100148, Eq. (5) and (6).
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sgbench.core.errors import InputError
from sgbench.core.words import quoted

SMOOTHING = {"central": None, "sobel": 0.25, "sobel-raw": 1.0}
"""Operators and the factor of their [1, 2, 1] smoothing across the difference; Eq. (5) itself has none.

``sobel`` is divided by 4, so that its gain is that of the central difference; ``sobel-raw`` has four times that gain.
"""

EPS_FLOOR = 1e-30
"""Well within what float32 can hold, so that a root is never differentiated at 0."""

CHUNK = 2**17
"""Values of a batch that a CPU takes at a time, for each of its threads.

Their maps stay in the cache, and in memory that the process keeps; that of a whole batch's goes back to the system, to
be handed out again page by page, cleared, in the next step.
"""


class SecondOrderGradient(nn.Module):
    """Mean absolute difference of second-order gradient maps, Eq. (6).

    ``forward(sr, hr)`` takes two tensors of shape [N, C, H, W], values in [0, 1], and returns a scalar. Each channel
    has its own gradient map and borders are replicated. Half-precision input is computed in float32. The gradient with
    respect to ``sr`` is finite everywhere and cannot be differentiated again; ``hr`` gets none.

    Args:
        operator: ``central`` is the central difference of Eq. (5); ``sobel`` is Sobel's kernel with the same gain and
            ``sobel-raw`` the kernel as it is.
        order: How often the gradient map is taken: 1, or 2 as in the paper.
        eps: Added inside the root of the magnitude, so that it can be differentiated where an image is flat.

    Raises:
        InputError: For an option out of its range.
    """

    source: ClassVar[str] = "Lin, Zhang, Yang, BenchCouncil Trans. 3 (2023) 100148, Eq. (5) and (6)"
    reference: ClassVar[str] = "kornia 0.8.2"
    difference: ClassVar[float] = 1e-6

    def __init__(self, *, operator: str = "central", order: int = 2, eps: float = 1e-8) -> None:
        super().__init__()
        if operator not in SMOOTHING:
            raise InputError(f"operator is {quoted(operator)}; one of {', '.join(SMOOTHING)} is needed.")
        if order not in (1, 2) or isinstance(order, bool):
            raise InputError(f"order is {order}; 1 or 2 is needed")
        if not EPS_FLOOR <= eps < 1:
            raise InputError(f"eps is {eps}; a number from {EPS_FLOOR} to below 1 is needed")
        self.operator, self.order, self.eps = operator, order, eps

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean |M(M(sr)) − M(M(hr))|, Eq. (6)."""
        loss: Tensor = _Loss.apply(_single(sr), _single(hr), SMOOTHING[self.operator], self.order, self.eps)
        return loss

    def gradient_map(self, image: Tensor) -> Tensor:
        """Return M(M(image)), or M(image) for order 1: shape [N, C, H, W], values at least √eps."""
        return _maps(_single(image), SMOOTHING[self.operator], self.order, self.eps)[-1].magnitude


class FirstOrderGradient(SecondOrderGradient):
    """Mean absolute difference of gradient magnitudes, the gradient loss.

    It is ``sg(order=1)``; see `SecondOrderGradient` for its options.
    """

    source: ClassVar[str] = "Ma et al. (SPSR), CVPR 2020, gradient loss, with replicated borders"
    reference: ClassVar[str] = "kornia 0.8.2"

    def __init__(self, *, operator: str = "central", eps: float = 1e-8) -> None:
        super().__init__(operator=operator, order=1, eps=eps)


class _Map(NamedTuple):
    """M(I) of Eq. (5) and the differences that it is made of, each of the shape of I."""

    across: Tensor
    down: Tensor
    magnitude: Tensor


def _maps(image: Tensor, smoothing: float | None, order: int, eps: float) -> list[_Map]:
    """Return the map of an image, the map of that one, and so on up to an order."""
    maps, floor = [], image.new_full((), eps)
    for _ in range(order):
        across, down = _differences(image, smoothing)
        image = floor.addcmul(across, across).addcmul_(down, down).sqrt_()  # √(eps + across² + down²)
        maps.append(_Map(across, down, image))
    return maps


def _differences(image: Tensor, smoothing: float | None) -> tuple[Tensor, Tensor]:
    """Return I(i, j+1) − I(i, j−1) and I(i+1, j) − I(i−1, j), borders replicated, smoothed where there is a factor."""
    padded = pad(image, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    if smoothing is not None:
        across, down = _smooth(across, (0, 0, 1, 1), smoothing), _smooth(down, (1, 1, 0, 0), smoothing)
    return across, down


def _transposed_differences(across: Tensor, down: Tensor, smoothing: float | None) -> Tensor:
    """Return Dxᵀ·across + Dyᵀ·down, where Dx and Dy are what `_differences` does to an image."""
    if smoothing is not None:  # with replicated borders the smoothing is its own transpose
        across, down = _smooth(across, (0, 0, 1, 1), smoothing), _smooth(down, (1, 1, 0, 0), smoothing)
    *batch, height, width = across.shape
    padded = across.new_zeros(*batch, height + 2, width + 2)
    padded[..., 1:-1, 2:].add_(across)
    padded[..., 1:-1, :-2].sub_(across)
    padded[..., 2:, 1:-1].add_(down)
    padded[..., :-2, 1:-1].sub_(down)
    padded[..., 1, :].add_(padded[..., 0, :])  # what was replicated beyond a border is the pixel on the border
    padded[..., -2, :].add_(padded[..., -1, :])
    padded[..., 1].add_(padded[..., 0])
    padded[..., -2].add_(padded[..., -1])
    return padded[..., 1:-1, 1:-1]


class _Loss(torch.autograd.Function):
    """Eq. (6), whose gradient is computed together with its value, while the maps are in the cache."""

    @staticmethod
    def forward(ctx: Any, sr: Tensor, hr: Tensor, smoothing: float | None, order: int, eps: float) -> Tensor:
        total, gradient = sr.new_zeros(()), torch.empty_like(sr)
        for sr_chunk, hr_chunk, out in zip(_chunks(sr), _chunks(hr), _chunks(gradient), strict=True):
            # Borders are replicated several times as fast in contiguous memory as in channels_last.
            target = _maps(hr_chunk.contiguous(), smoothing, order, eps)[-1].magnitude
            maps = _maps(sr_chunk.contiguous(), smoothing, order, eps)
            difference = maps[-1].magnitude - target
            if ctx.needs_input_grad[0]:
                slope = difference.sign()
                for across, down, magnitude in reversed(maps):
                    slope = slope / magnitude
                    slope = _transposed_differences(across.mul_(slope), down.mul_(slope), smoothing)
                out.copy_(slope)
            total += difference.abs_().sum()
        ctx.save_for_backward(gradient)
        return total / sr.numel()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        if torch.is_grad_enabled():  # a second derivative would silently come out as 0
            raise RuntimeError("the SG loss has no second derivative: call backward without create_graph")
        (gradient,) = ctx.saved_tensors
        return gradient * (upstream / gradient.numel()), None, None, None, None


def _chunks(batch: Tensor) -> tuple[Tensor, ...]:
    """Split a batch on a CPU into parts of about `CHUNK` values a thread; on a GPU, leave it whole."""
    values = batch.shape[1:].numel()
    images = CHUNK * torch.get_num_threads() // values if batch.device.type == "cpu" else len(batch)
    return torch.split(batch, max(1, images))


def _smooth(x: Tensor, margins: tuple[int, int, int, int], factor: float) -> Tensor:
    """Return factor · (x[i−1] + 2 x[i] + x[i+1]) along the dimension that has margins, borders replicated."""
    dim = -1 if margins[0] else -2
    before, after = (pad(x, margins, mode="replicate").narrow(dim, at, x.shape[dim]) for at in (0, 2))
    return (before + after).add_(x, alpha=2).mul_(factor)


def _single(image: Tensor) -> Tensor:
    return image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
