"""Sums and means over the global batch, of which each process of a group has a part."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def total(values: Tensor) -> Tensor:
    """Return the elementwise sum of a tensor over the process group; without a group, the tensor.

    Every process must call it alike, and go through it in the backward pass alike: each process's loss depends on what
    all of them have put in, so the gradient of a tensor is the sum of what the processes have for it.
    """
    if not dist.is_initialized():
        return values
    summed: Tensor = _Total.apply(values)
    return summed


def mean(values: Tensor) -> Tensor:
    """Return the mean of all values of all processes, a scalar."""
    return total(values.sum()) / total(values.new_tensor(values.numel()))


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return _summed(upstream)


def _summed(values: Tensor) -> Tensor:
    dense = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(dense)
    return dense
