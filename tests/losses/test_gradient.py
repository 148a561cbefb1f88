import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from sgbench.core.errors import InputError
from sgbench.losses import gradient
from sgbench.losses.gradient import SMOOTHING, SecondOrderGradient

EPS = 1e-8
every_operator = pytest.mark.parametrize("operator", SMOOTHING)
every_order = pytest.mark.parametrize("order", [1, 2])
sizes = pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2), (2, 5), (3, 3), (6, 4)])


def random(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def central_map(image, order):
    """M(I) of Eq. (5), taken `order` times: central differences of each channel, borders replicated."""
    for _ in range(order):
        padded = np.pad(image, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
        down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
        across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
        image = np.sqrt(down**2 + across**2 + EPS)
    return image


def sobel_map(image, order, divisor):
    def magnitude(plane):
        return np.sqrt(sum((ndimage.sobel(plane, axis, mode="nearest") / divisor) ** 2 for axis in (0, 1)) + EPS)

    for _ in range(order):
        image = np.array([[magnitude(plane) for plane in planes] for planes in image])
    return image


def reference(sr, hr, operator, order):
    """Eq. (6) in NumPy."""
    maps = {
        "central": lambda image: central_map(image, order),
        "sobel": lambda image: sobel_map(image, order, 4),
        "sobel-raw": lambda image: sobel_map(image, order, 1),
    }
    return float(np.abs(maps[operator](sr.numpy()) - maps[operator](hr.numpy())).mean())


shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


@every_operator
@every_order
@given(shape=shapes, seed=st.integers(0, 100), contrast=st.sampled_from([0.0, 1e-5, 1.0]))
def test_it_is_equation_6(operator, order, shape, seed, contrast):
    sr, hr = random(*shape, seed=seed) * contrast, random(*shape, seed=seed + 1)
    loss = SecondOrderGradient(operator=operator, order=order)(sr, hr)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(reference(sr, hr, operator, order), rel=1e-12, abs=1e-15)


def test_the_default_is_the_papers():
    sr, hr = random(2, 3, 7, 5), random(2, 3, 7, 5, seed=1)
    assert SecondOrderGradient()(sr, hr).item() == pytest.approx(reference(sr, hr, "central", 2), rel=1e-12)


@every_operator
@every_order
@sizes
def test_the_gradient_is_that_of_the_loss(operator, order, size):
    sr, hr = random(1, 2, *size).requires_grad_(), random(1, 2, *size, seed=1)
    loss = SecondOrderGradient(operator=operator, order=order)
    assert torch.autograd.gradcheck(lambda image: loss(image, hr), sr, atol=1e-7)


@every_operator
@every_order
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_is_what_autograd_finds_through_the_maps(operator, order, memory_format):
    sr, hr = (random(3, 3, 20, 17, seed=seed).to(memory_format=memory_format) for seed in (0, 1))
    loss = SecondOrderGradient(operator=operator, order=order)
    sr.requires_grad_()
    by_autograd = (loss.gradient_map(sr) - loss.gradient_map(hr)).abs().mean()
    (expected,) = torch.autograd.grad(by_autograd, sr)
    (found,) = torch.autograd.grad(7 * loss(sr, hr), sr)
    torch.testing.assert_close(found, 7 * expected, rtol=1e-9, atol=1e-15)
    assert found.stride() == sr.stride()


@pytest.mark.parametrize("chunk", [1, 3 * 8 * 8, 1000, 10**9])
def test_how_many_images_are_taken_at_a_time_does_not_matter(chunk, monkeypatch):
    sr, hr = random(5, 3, 8, 8).requires_grad_(), random(5, 3, 8, 8, seed=1)
    outcomes = []
    for size in (10**9, chunk):
        monkeypatch.setattr(gradient, "CHUNK", size)
        loss = SecondOrderGradient()(sr, hr)
        outcomes.append((loss, *torch.autograd.grad(loss, sr)))
    torch.testing.assert_close(*outcomes, rtol=1e-13, atol=0)


def test_a_graph_that_is_kept_gives_its_gradient_twice():
    sr, hr = random(1, 3, 8, 8).requires_grad_(), random(1, 3, 8, 8, seed=1)
    loss = SecondOrderGradient()(sr, hr)
    first, second = (torch.autograd.grad(loss, sr, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_a_second_derivative_is_refused():
    sr, hr = random(1, 3, 8, 8).requires_grad_(), random(1, 3, 8, 8, seed=1)
    with pytest.raises(RuntimeError, match="the SG loss has no second derivative"):
        torch.autograd.grad(SecondOrderGradient()(sr, hr), sr, create_graph=True)


@every_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("flat", ["both", "sr", "hr"])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_loss_and_gradient_are_finite_on_flat_images(operator, dtype, flat, value):
    constant, textured = torch.full((1, 3, 6, 6), value), random(1, 3, 6, 6)
    sr = (textured if flat == "hr" else constant).to(dtype).requires_grad_()
    hr = (textured if flat == "sr" else constant).to(dtype)
    loss = SecondOrderGradient(operator=operator)(sr, hr)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert (loss > 0) == (flat != "both")
    assert sr.grad.dtype == dtype
    assert sr.grad.isfinite().all()


@every_operator
@every_order
def test_the_least_eps_is_enough_for_a_finite_gradient(operator, order):
    sr = torch.full((1, 3, 8, 8), 0.7).requires_grad_()
    hr = random(1, 3, 8, 8, dtype=torch.float32)
    SecondOrderGradient(operator=operator, order=order, eps=gradient.EPS_FLOOR)(sr, hr).backward()
    assert sr.grad.isfinite().all()


@every_operator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_float32(operator, dtype):
    sr, hr = random(1, 3, 8, 8).to(dtype), random(1, 3, 8, 8, seed=1).to(dtype)
    loss = SecondOrderGradient(operator=operator)
    assert torch.equal(loss(sr, hr), loss(sr.float(), hr.float()))


@every_operator
@every_order
@sizes
@pytest.mark.parametrize(
    "turn",
    [lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2), lambda x: x.rot90(1, (-2, -1))],
    ids=["mirrored", "upside-down", "transposed", "rotated"],
)
def test_turning_both_images_changes_nothing(operator, order, size, turn):
    sr, hr = random(1, 3, *size), random(1, 3, *size, seed=1)
    loss = SecondOrderGradient(operator=operator, order=order)
    torch.testing.assert_close(loss(turn(sr), turn(hr)), loss(sr, hr), rtol=1e-12, atol=0)


@every_operator
@every_order
def test_it_is_linear_in_the_value_range_but_for_eps(operator, order):
    sr, hr = random(1, 3, 8, 8), random(1, 3, 8, 8, seed=1)
    without = SecondOrderGradient(operator=operator, order=order, eps=1e-20)
    torch.testing.assert_close(without(255 * sr, 255 * hr), 255 * without(sr, hr), rtol=1e-10, atol=0)
    coarse = SecondOrderGradient(operator=operator, order=order, eps=0.5)
    assert abs(coarse(255 * sr, 255 * hr) / (255 * coarse(sr, hr)) - 1) > 0.1


@every_operator
def test_brightness_does_not_matter(operator):
    sr, hr = random(1, 3, 8, 8), random(1, 3, 8, 8, seed=1)
    loss = SecondOrderGradient(operator=operator)
    torch.testing.assert_close(loss(sr + 0.3, hr - 0.1), loss(sr, hr), rtol=1e-9, atol=0)


def test_each_channel_has_its_own_map():
    sr, hr = random(1, 3, 8, 8), random(1, 3, 8, 8, seed=1)
    loss = SecondOrderGradient()
    alone = [loss(sr[:, i : i + 1], hr[:, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss(sr, hr), torch.stack(alone).mean())


@pytest.mark.parametrize(("operator", "gain"), [("central", 2), ("sobel", 2), ("sobel-raw", 8)])
def test_gain_on_a_ramp(operator, gain):
    """Sobel ÷ 4 has the gain of the central difference, so that one λ means the same with both."""
    ramp = torch.arange(8, dtype=torch.float64).expand(1, 1, 8, 8)
    inside = SecondOrderGradient(operator=operator, order=1, eps=1e-20).gradient_map(ramp)[..., 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, gain))


def test_the_target_gets_no_gradient():
    sr, hr = random(1, 3, 4, 4).requires_grad_(), random(1, 3, 4, 4, seed=1).requires_grad_()
    SecondOrderGradient()(sr, hr).backward()
    assert hr.grad is None
    assert sr.grad.abs().sum() > 0


@every_operator
def test_the_memory_format_does_not_matter(operator):
    outcomes = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        sr, hr = (random(2, 3, 7, 6, seed=seed).to(memory_format=memory_format) for seed in (0, 1))
        loss = SecondOrderGradient(operator=operator)(sr.requires_grad_(), hr)
        loss.backward()
        outcomes.append((loss.detach(), sr.grad))
    torch.testing.assert_close(*outcomes, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operator": "Sobel"}, "operator is 'Sobel'; one of central, sobel, sobel-raw is needed"),
        ({"order": 0}, "order is 0; 1 or 2 is needed"),
        ({"order": True}, "order is True; 1 or 2 is needed"),
        ({"eps": 0.0}, "eps is 0.0; a number from 1e-30 to below 1 is needed"),
        ({"eps": -1e-8}, "eps is -1e-08; a number from 1e-30 to below 1 is needed"),
        ({"eps": 1e-31}, "eps is 1e-31; a number from 1e-30 to below 1 is needed"),
        ({"eps": 1.0}, "eps is 1.0; a number from 1e-30 to below 1 is needed"),
        ({"eps": float("nan")}, "eps is nan; a number from 1e-30 to below 1 is needed"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        SecondOrderGradient(**options)
