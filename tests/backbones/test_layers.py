import pytest
import torch
from torch.nn.functional import pixel_shuffle

from sgbench.backbones.layers import PixelShuffle

FORMATS = [torch.channels_last, torch.contiguous_format]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gradient_format", FORMATS)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("r", "shape"), [(2, (2, 12, 4, 5)), (3, (2, 18, 5, 4)), (2, (1, 4, 1, 1)), (4, (1, 48, 3, 2))]
)
def test_shuffling_moves_the_bits_that_torch_moves(r, shape, memory_format, gradient_format, dtype):
    n, channels, h, w = shape
    x = torch.randn(shape).to(dtype, memory_format=memory_format).requires_grad_()
    direction = torch.randn(n, channels // r**2, r * h, r * w).to(dtype, memory_format=gradient_format)
    ours, theirs = PixelShuffle(r)(x), pixel_shuffle(x, r)
    assert torch.equal(ours, theirs)
    assert ours.stride() == theirs.stride()
    (gradient,) = torch.autograd.grad(ours, x, direction)
    (expected,) = torch.autograd.grad(theirs, x, direction)
    assert torch.equal(gradient, expected)
    assert gradient.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_shuffle_can_be_differentiated_twice(memory_format):
    x = torch.randn(1, 8, 2, 3, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    assert torch.autograd.gradgradcheck(PixelShuffle(2), x)
