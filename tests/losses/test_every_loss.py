"""What holds for every loss that has a name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sgbench.core.registry import LOSSES
from sgbench.losses import Batch, build_loss
from sgbench.spec import check_loss
from sgbench.spec.expression import parse

pytestmark = pytest.mark.usefixtures("networks")

DISTANCES = ["charbonnier", "charbonnier(eps=0.1)", "l1", "l2", "sg", "sg(operator=sobel)", "gradient", "ssim"]
DISTANCES += ["ms_ssim(scales=1)", "laplacian", "laplacian(neighbours=8)", "fft", "fft(part=amplitude, norm=backward)"]
DISTANCES += ["focal_frequency", "focal_frequency(alpha=0)", "focal_frequency(alpha=0.5, log=true)"]
DISTANCES += ["vgg(conv1=1, conv2=0.5, conv5=0)", "vgg19(conv2=1, conv5=0, relu=true)"]
DISTANCES += ["lpips", "lpips_squeeze", "lpips_vgg", "dists"]
DISTANCES += ["vgg(conv3=1, conv5=0, content=0.5, style=10)"]
EVERY = [*DISTANCES, "consistency", "ldl", "tv", "contextual", "contextual19(conv4=1, h=0.1)"]
LEAST = {"lpips": 32, "lpips_squeeze": 18}
"""The least side of an image in pixels, an even number; of others it is 16."""
AT_EQUALITY = {"charbonnier": 1e-3, "charbonnier(eps=0.1)": 0.1}
CONSTANT_WEIGHTS = ["focal_frequency", "focal_frequency(alpha=0.5, log=true)"]
"""Their gradient is, as published, not that of the loss."""
every_loss = pytest.mark.parametrize("name", EVERY)
every_distance = pytest.mark.parametrize("name", DISTANCES)

shapes = st.tuples(st.integers(1, 3), st.just(3), st.integers(0, 4), st.integers(0, 4))
"""Images, channels, and by how many pixels the images are larger than the least."""
seeds = st.integers(0, 1000)


def loss_of(name, to="cpu"):
    """Return a loss, on a device or of a type, as a function of SR and HR; see `batch` for what else it may ask for."""
    loss = build_loss(check_loss(name)).to(to)

    def of(sr, hr):
        return loss.losses[0](sr, hr, **{key: getattr(batch(sr, hr), key) for key in loss.wishes[0]})

    return of


def batch(sr, hr):
    return Batch(hr[..., ::2, ::2], sr, hr, 2, step=0, steps=1, average_sr=1 - hr)


def images(name, shape, seed=0, dtype=torch.float32):
    number, channels, height, width = shape
    least = LEAST.get(name, 16)
    shape = number, channels, least + height, least + width
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_gradient(loss, sr, hr):
    sr = sr.detach().requires_grad_()
    value = loss(sr, hr)
    return value.detach(), *torch.autograd.grad(value, sr)


def test_every_built_in_loss_is_tested_here():
    assert {parse(name).terms[0].name for name in EVERY} == set(LOSSES._targets) - {"gan"}  # which is no distance


@every_loss
def test_it_names_its_source_and_describes_itself_in_one_line(name):
    kind = LOSSES.load(parse(name).terms[0].name)
    assert len(kind.source.splitlines()) == 1
    assert any(year in kind.source for year in map(str, range(1990, 2030)))
    assert kind.reference[-1].isalnum()
    assert 0 < kind.difference <= 1e-4
    assert kind.__doc__.splitlines()[0].endswith((".", "images."))


@every_distance
@settings(max_examples=30)
@given(shape=shapes, seed=seeds)
def test_it_is_a_scalar_that_is_never_negative_and_does_not_care_which_image_comes_first(name, shape, seed):
    sr, hr = images(name, shape, seed), images(name, shape, seed + 1)
    loss = loss_of(name)
    assert loss(sr, hr).shape == ()
    assert loss(sr, hr) > 0
    torch.testing.assert_close(loss(sr, hr), loss(hr, sr))


@every_distance
@settings(max_examples=30)
@given(shape=shapes, seed=seeds)
def test_equal_images_have_the_least_loss_and_no_slope(name, shape, seed):
    image = images(name, shape, seed)
    value, gradient = value_and_gradient(loss_of(name), image, image)
    assert value.item() == pytest.approx(AT_EQUALITY.get(name, 0.0), abs=1e-6)
    assert gradient.abs().max() < 1e-6


@every_loss
def test_it_is_the_mean_over_images(name):
    sr, hr = images(name, (5, 3, 0, 2)), images(name, (5, 3, 0, 2), 1)
    loss = loss_of(name)
    alone = torch.stack([loss(sr[i : i + 1], hr[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(loss(sr, hr), alone.mean())
    turned = [4, 2, 0, 1, 3]
    torch.testing.assert_close(loss(sr[turned], hr[turned]), loss(sr, hr))


@every_loss
def test_the_memory_format_of_either_image_does_not_matter(name):
    sr, hr = images(name, (2, 3, 0, 2)), images(name, (2, 3, 0, 2), 1)
    expected = value_and_gradient(loss_of(name), sr, hr)
    last = torch.channels_last
    for pair in [(sr.to(memory_format=last), hr.to(memory_format=last)), (sr.to(memory_format=last), hr)]:
        found = value_and_gradient(loss_of(name), *pair)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


@every_loss
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_images_are_left_as_they_are(name, memory_format):
    sr, hr = (images(name, (2, 3, 0, 0), seed).to(memory_format=memory_format) for seed in (0, 1))
    before = sr.clone(), hr.clone()
    value_and_gradient(loss_of(name), sr, hr)
    assert torch.equal(sr, before[0])
    assert torch.equal(hr, before[1])


@pytest.mark.parametrize("name", [name for name in EVERY if name not in CONSTANT_WEIGHTS])
def test_the_gradient_says_how_the_loss_changes(name):
    sr, hr = images(name, (1, 3, 0, 0), dtype=torch.float64), images(name, (1, 3, 0, 0), 1, torch.float64)
    direction = images(name, (1, 3, 0, 0), 2, torch.float64) - 0.5
    loss, step = loss_of(name, torch.float64), 1e-6
    _, gradient = value_and_gradient(loss, sr, hr)
    slope = (loss(sr + step * direction, hr) - loss(sr - step * direction, hr)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-9)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("level", [0.0, 0.7])
@pytest.mark.parametrize("flat", ["both", "sr", "hr"])
def test_training_on_flat_images_stays_finite_in_every_precision(name, dtype, level, flat):
    textured = images(name, (2, 3, 0, 0))
    constant = torch.full_like(textured, level)
    network = torch.nn.Conv2d(3, 3, 1)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        sr = network(textured if flat == "hr" else constant)
        hr = textured if flat == "sr" else constant
        total, terms = build_loss(check_loss(name))(batch(sr, hr))
    total.backward()
    assert sr.dtype == dtype
    assert total.dtype == torch.float32
    assert total.isfinite()
    assert terms.isfinite().all()
    assert network.weight.grad.isfinite().all()


@every_loss
def test_deterministic_algorithms_give_the_same_bits_each_time(name):
    sr, hr = images(name, (4, 3, 16, 16)), images(name, (4, 3, 16, 16), 1)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (value_and_gradient(loss_of(name), sr, hr) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@every_loss
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_gpu_gives_what_the_cpu_gives_and_is_deterministic(name, memory_format):
    sr, hr = (images(name, (4, 3, 32, 24), seed).to(memory_format=memory_format) for seed in (0, 1))
    expected = value_and_gradient(loss_of(name), sr, hr)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (value_and_gradient(loss_of(name, "cuda"), sr.cuda(), hr.cuda()) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first[1], second[1])
    torch.testing.assert_close(tuple(each.cpu() for each in first), expected, rtol=1e-4, atol=1e-7)
