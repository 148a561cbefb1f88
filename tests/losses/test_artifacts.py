import pytest
import torch

from sgbench.core.errors import InputError
from sgbench.losses.artifacts import LocallyDiscriminative


def images(count, size=(6, 7)):
    generator = torch.Generator().manual_seed(0)
    return torch.rand((count, 2, 3, *size), generator=generator, dtype=torch.float64)


def test_a_single_wrong_pixel_weighs_as_one_counts_by_hand():
    _, hr = images(2, (9, 9))
    sr = hr.clone()
    sr[0, 0, 4, 4] += 1
    # Of the 81 errors of the image, and of the 9 in the window of the pixel, one is 1 and the others are 0.
    whole, window = (1 / n for n in (81, 9))
    expected = whole ** (1 / 5) * window / sr.numel()
    loss = LocallyDiscriminative(window=3)
    assert loss(sr, hr, average_sr=hr).item() == pytest.approx(expected, rel=1e-12)
    assert loss(sr, hr, average_sr=sr).item() == pytest.approx(expected, rel=1e-12)


def test_where_the_average_has_the_larger_error_there_is_no_loss():
    sr, hr = images(2)
    loss = LocallyDiscriminative()
    assert loss(sr, hr, average_sr=hr + 2 * (sr - hr)) == 0
    assert loss(sr, hr, average_sr=hr) > 0


@pytest.mark.parametrize("window", [3, 7])
def test_the_gradient_is_that_of_the_loss(window):
    sr, hr, average_sr = images(3, (4, 5))
    loss = LocallyDiscriminative(window=window)
    assert torch.autograd.gradcheck(lambda image: loss(image, hr, average_sr=average_sr), sr.requires_grad_())


def test_an_image_too_small_to_be_mirrored_is_refused():
    image = torch.zeros(1, 3, 3, 8)
    with pytest.raises(InputError, match=r"an image of 8×3 pixels; ldl\(window=7\) needs 4×4 or more"):
        LocallyDiscriminative()(image, image, average_sr=image)


@pytest.mark.parametrize("window", [1, 4, 7.0, True])
def test_another_window_is_refused(window):
    with pytest.raises(InputError, match=f"window is {window}; an odd whole number from 3 is needed"):
        LocallyDiscriminative(window=window)
