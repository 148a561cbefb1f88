import pytest
import torch
from scipy import ndimage
from torchmetrics.functional.image import total_variation

from sgbench.core.errors import InputError
from sgbench.losses.differences import Laplacian, TotalVariation

sizes = pytest.mark.parametrize("size", [(2, 2), (2, 5), (3, 3), (6, 4)])


def pair(*size):
    return torch.rand((2, 2, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@sizes
def test_the_laplacian_is_that_of_scipy(size):
    sr, hr = pair(*size)
    expected = ndimage.laplace(sr.numpy(), mode="nearest", axes=(2, 3)) - ndimage.laplace(
        hr.numpy(), mode="nearest", axes=(2, 3)
    )
    assert Laplacian()(sr, hr).item() == pytest.approx(abs(expected).mean(), rel=1e-12)


@sizes
def test_with_eight_neighbours_it_is_the_convolution_of_scipy(size):
    sr, hr = pair(*size)
    kernel = [[[[1, 1, 1], [1, -8, 1], [1, 1, 1]]]]
    expected = ndimage.convolve((sr - hr).numpy(), kernel, mode="nearest")
    assert Laplacian(neighbours=8)(sr, hr).item() == pytest.approx(abs(expected).mean(), rel=1e-12)


@sizes
def test_total_variation_is_that_of_torchmetrics_for_each_difference(size):
    sr, hr = pair(*size)
    down, across = (total_variation(sr, reduction="sum") for sr in _of_one_direction(sr))
    expected = across / sr.diff(dim=-1).numel() + down / sr.diff(dim=-2).numel()
    torch.testing.assert_close(TotalVariation()(sr, hr), expected)


def _of_one_direction(image):
    """Return an image's columns and its rows as images of their own, each of which varies in one direction only."""
    columns, rows = image.permute(0, 3, 1, 2)[..., None], image.permute(0, 2, 1, 3)[..., None, :]
    return columns.reshape(-1, *columns.shape[2:]), rows.reshape(-1, *rows.shape[2:])


@pytest.mark.parametrize("loss", [Laplacian(), Laplacian(neighbours=8), TotalVariation()])
def test_the_gradient_is_that_of_the_loss(loss):
    sr, hr = pair(4, 5)
    assert torch.autograd.gradcheck(lambda image: loss(image, hr), sr.requires_grad_())


@pytest.mark.parametrize("neighbours", [0, 6])
def test_another_number_of_neighbours_is_refused(neighbours):
    with pytest.raises(InputError, match=f"neighbours is {neighbours}; 4 or 8 is needed"):
        Laplacian(neighbours=neighbours)
