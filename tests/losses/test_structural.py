import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from sgbench.core.errors import InputError
from sgbench.losses.structural import SSIM

sides = st.integers(11, 24)
shapes = st.tuples(st.integers(1, 2), st.integers(1, 3), sides, sides)


def pair(shape, noise=0.1, seed=0, dtype=torch.float64):
    """A smooth image and the same with noise, so that SSIM is not near 0 as it is for two noises."""
    generator = torch.Generator().manual_seed(seed)
    hr = torch.rand(shape, generator=generator, dtype=dtype).cumsum(-1) / shape[-1]
    return hr + noise * torch.randn(shape, generator=generator, dtype=dtype), hr


def by_skimage(sr, hr):
    """Mean over images of the value that the metric ``ssim_rgb`` has before its crop."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return np.mean(
        [structural_similarity(a, b, channel_axis=0, **options) for a, b in zip(sr.numpy(), hr.numpy(), strict=True)]
    )


@given(shape=shapes, noise=st.sampled_from([0.0, 0.01, 0.1, 1.0]), seed=st.integers(0, 100))
def test_it_is_one_less_the_ssim_of_skimage(shape, noise, seed):
    sr, hr = pair(shape, noise, seed)
    assert 1 - SSIM()(sr, hr).item() == pytest.approx(by_skimage(sr, hr), abs=1e-6)
    assert 1 - SSIM()(sr.float(), hr.float()).item() == pytest.approx(by_skimage(sr, hr), abs=1e-5)


def test_it_is_one_less_that_of_torchmetrics_where_nothing_was_padded():
    sr, hr = pair((2, 3, 24, 17))
    _, padded = structural_similarity_index_measure(sr, hr, data_range=1.0, return_full_image=True)
    assert 1 - SSIM()(sr, hr).item() == pytest.approx(padded[..., 5:-5, 5:-5].mean().item(), abs=1e-6)


def test_the_gradient_is_that_of_the_loss():
    sr, hr = pair((1, 2, 13, 12))
    assert torch.autograd.gradcheck(SSIM(), (sr.requires_grad_(), hr))


@pytest.mark.parametrize("value", [0.0, 0.7, 1.0])
def test_flat_images_are_compared_by_their_brightness(value):
    sr, hr = torch.full((1, 3, 16, 16), value).requires_grad_(), torch.full((1, 3, 16, 16), 0.5)
    loss = SSIM()(sr, hr)
    loss.backward()
    assert 1 - loss.item() == pytest.approx((2 * value * 0.5 + 1e-4) / (value**2 + 0.25 + 1e-4), rel=3e-4)
    assert sr.grad.isfinite().all()


@pytest.mark.parametrize("size", [(10, 64), (64, 10)])
def test_an_image_smaller_than_the_window_is_refused(size):
    image = torch.zeros(1, 3, *size)
    with pytest.raises(InputError, match=f"{size[1]}×{size[0]} pixels; ssim needs 11×11 or more"):
        SSIM()(image, image)
