import numpy as np
import pytest
import torch

from sgbench.core.errors import InputError
from sgbench.core.resize import downscale
from sgbench.losses.consistency import Consistency

every_scale = pytest.mark.parametrize("scale", [2, 3, 4])
ROUNDING = 1.125
"""The most that rounding after each of the two passes changes a pixel, in levels; see `tests/data/test_resize.py`."""


def images(scale, side=12):
    """Return an HR image of 8 bits and the LR that it is shrunk to, each as uint8 H×W×C."""
    hr = np.random.default_rng(0).integers(64, 192, (side * scale, (side + 1) * scale, 3), np.uint8)
    return hr, downscale(hr, scale)


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255


@every_scale
def test_hr_is_consistent_with_the_lr_that_it_was_shrunk_to(scale):
    hr, lr = map(tensor, images(scale))
    loss = Consistency()
    assert 0 < loss(hr, hr, lr=lr, scale=scale) < 0.5 / 255
    for row in range(2, 10):  # as the loss of LR moved by many levels is the distance of each pixel
        for column in range(2, 11):
            moved = lr.clone()
            moved[..., row, column] += 1
            change = loss(hr, hr, lr=moved, scale=scale) - loss(hr, hr, lr=lr, scale=scale)
            assert change.item() * 8 * 9 == pytest.approx(1, abs=2 * ROUNDING / 255)


@every_scale
def test_a_patch_of_an_image_is_as_consistent_as_the_image(scale):
    hr, lr = map(tensor, images(scale))
    patch = hr[..., 2 * scale : 9 * scale, 3 * scale : 11 * scale]
    loss = Consistency()(patch, patch, lr=lr[..., 2:9, 3:11], scale=scale)
    assert loss < 0.5 / 255


@every_scale
def test_the_gradient_is_that_of_the_loss(scale):
    hr, lr = map(tensor, images(scale, side=5))
    sr = (hr + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda image: Consistency()(image, hr, lr=lr, scale=scale), sr)


def test_an_image_whose_kernels_all_reach_over_a_border_is_refused():
    lr, sr = torch.zeros(1, 3, 4, 8), torch.zeros(1, 3, 8, 16)
    with pytest.raises(InputError, match="an LR image of 8×4 pixels; consistency needs 5×5 or more"):
        Consistency()(sr, sr, lr=lr, scale=2)
