import numpy as np
import pytest
import torch

from sgbench.core.errors import InputError
from sgbench.losses.frequency import FocalFrequency, Fourier


def pair(*size):
    return torch.rand((2, 2, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("norm", ["ortho", "backward"])
@pytest.mark.parametrize("size", [(1, 1), (4, 6), (5, 3)])
def test_it_is_that_of_numpys_transforms(norm, size):
    sr, hr = pair(*size)
    first, second = (np.fft.rfft2(image.numpy(), norm=norm) for image in (sr, hr))
    parts = [abs((first - second).real).mean(), abs((first - second).imag).mean()]
    assert Fourier(norm=norm)(sr, hr).item() == pytest.approx(np.mean(parts), rel=1e-12)
    amplitudes = abs(abs(first) - abs(second)).mean()
    assert Fourier(norm=norm, part="amplitude")(sr, hr).item() == pytest.approx(amplitudes, rel=1e-12)


def test_amplitudes_stay_when_an_image_is_shifted():
    image, _ = pair(6, 8)
    shifted = image.roll((2, 3), (-2, -1))
    assert Fourier(part="amplitude")(image, shifted).item() == pytest.approx(0, abs=1e-12)
    assert Fourier()(image, shifted) > 0.1


def test_the_orthonormal_loss_of_noise_is_the_same_for_patches_of_any_size():
    small, large = (Fourier()(*pair(side, side)) for side in (32, 128))
    torch.testing.assert_close(small, large, rtol=0.05, atol=0)


def test_without_focus_it_is_the_mean_squared_error():
    """By Parseval's theorem."""
    sr, hr = pair(5, 6)
    torch.testing.assert_close(FocalFrequency(alpha=0)(sr, hr), (sr - hr).square().mean())


@pytest.mark.parametrize("loss", [Fourier(), Fourier(part="amplitude"), FocalFrequency(alpha=0)])
def test_the_gradient_is_that_of_the_loss(loss):
    sr, hr = pair(4, 5)
    assert torch.autograd.gradcheck(lambda image: loss(image, hr), sr.requires_grad_())


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (Fourier, {"part": "phase"}, "part is 'phase'; one of complex, amplitude is needed"),
        (Fourier, {"norm": "forward"}, "norm is 'forward'; one of ortho, backward is needed"),
        (FocalFrequency, {"alpha": -1.0}, "alpha is -1.0; a finite number from 0 is needed"),
        (FocalFrequency, {"alpha": float("inf")}, "alpha is inf; a finite number from 0 is needed"),
        (FocalFrequency, {"log": 1}, "log is 1; true or false is needed"),
    ],
)
def test_an_option_out_of_range_is_refused(loss, options, message):
    with pytest.raises(InputError, match=message):
        loss(**options)
