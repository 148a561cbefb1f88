import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from sgbench.core.errors import InputError
from sgbench.losses.structural import SSIM, MultiScaleSSIM

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


def test_one_scale_is_ssim_to_the_power_of_all_exponents():
    sr, hr = pair((1, 1, 24, 17))
    expected = (1 - SSIM()(sr, hr)) ** 1.0001
    torch.testing.assert_close(1 - MultiScaleSSIM(scales=1)(sr, hr), expected)


def test_the_gradient_at_two_scales_is_that_of_the_loss():
    sr, hr = pair((1, 1, 23, 22))
    assert torch.autograd.gradcheck(MultiScaleSSIM(scales=2), (sr.requires_grad_(), hr), fast_mode=True)


def test_structures_that_are_opposite_are_as_far_apart_as_can_be_and_leave_the_gradient_finite():
    sr, hr = pair((2, 3, 24, 24), noise=0.0)
    sr = (1 - sr).requires_grad_()
    loss = MultiScaleSSIM(scales=2)(sr, hr)
    (gradient,) = torch.autograd.grad(loss, sr)
    assert loss.item() == pytest.approx(1)
    assert torch.equal(gradient, torch.zeros_like(sr))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (128, "an image of 128×128 pixels; ms_ssim needs 176×176 or more, or ms_ssim\\(scales=4\\)"),
        (10, "an image of 10×10 pixels; ms_ssim needs 176×176 or more$"),
    ],
)
def test_an_image_too_small_for_the_scales_is_refused_with_the_most_that_fit(size, message):
    image = torch.zeros(1, 3, size, size)
    with pytest.raises(InputError, match=message):
        MultiScaleSSIM()(image, image)


@pytest.mark.parametrize("scales", [0, 6, 2.0, True])
def test_another_number_of_scales_is_refused(scales):
    with pytest.raises(InputError, match=f"scales is {scales}; a whole number from 1 to 5 is needed"):
        MultiScaleSSIM(scales=scales)
