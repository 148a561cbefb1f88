"""SwinIR; what it has in common with the other backbones is in test_backbones.py and test_recompute.py."""

import functools
import itertools
from importlib import import_module
from importlib.metadata import version

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend

from sgbench.backbones import build_backbone, count_parameters, load_weights, swinir, unwrap
from sgbench.backbones.swinir import Linear, SwinBlock, WindowAttention, attend, border_mask, mirrored
from sgbench.core.errors import InputError
from sgbench.spec import Recipe
from sgbench.training.numerics import pinned

spandrel_swinir = import_module("spandrel.architectures.SwinIR")

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # spandrel's

ARGUMENTS = {
    "paper": {"embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "upsampler": "pixelshuffle"},
    "light": {"embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "upsampler": "pixelshuffledirect"},
}


def spandrels(size, scale):
    return spandrel_swinir.SwinIR(upscale=scale, window_size=8, mlp_ratio=2.0, **ARGUMENTS[size])


def pair(size, scale=2):
    """Return our network and spandrel's with the same weights.

    As they are drawn, attention is nearly even and the normalisations do nothing more, which would hide much.
    """
    torch.manual_seed(0)
    theirs = spandrels(size, scale)
    for name, parameter in theirs.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, 0.5, 0.3)
        elif "bias" in name:
            nn.init.normal_(parameter, 0.0, 0.5 if "table" in name else 0.1)
    ours = build_backbone(f"swinir-{size}", scale)
    load_weights(ours, theirs.state_dict(), source="spandrel", name=f"swinir-{size}")
    return ours, theirs


def gradients(network, image, direction):
    """Return those of the product of the output with a direction, by name; the input's is called ''."""
    image = image.clone().requires_grad_()
    network.zero_grad()
    (network(image) * direction).sum().backward()
    return {"": image.grad} | {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def share_of_the_largest(ours, theirs):
    """Return the largest difference of two sets of gradients as a share of the largest gradient."""
    assert ours.keys() == theirs.keys()
    gaps = [(gradient - theirs[name]).abs().max() for name, gradient in ours.items()]
    return (max(gaps) / max(gradient.abs().max() for gradient in theirs.values())).item()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return build_backbone("swinir-tiny", 4)


# Against spandrel's


@pytest.mark.parametrize("size", ["paper", "light"])
def test_parity(size, agreement):
    """Outputs are compared in float32, both with fused attention and with that for training; gradients in float64.

    In float32 an input of the tail's LeakyReLU that is within rounding of zero may fall on either side of it.
    """
    ours, theirs = (network.eval() for network in pair(size))
    outputs = []
    for height, width in [(16, 16), (20, 13)]:
        image = torch.rand(2, 3, height, width)
        with torch.no_grad():
            expected, fused = theirs(image), ours(image)
        outputs += [(each - expected).abs().max().item() for each in (fused, ours(image))]
    image, direction = torch.rand(1, 3, 11, 16).double(), torch.randn(1, 3, 22, 32).double()
    sets = [gradients(network.double(), image, direction) for network in (ours, theirs)]
    peer = f"spandrel {version('spandrel')}"
    agreement(f"swinir-{size}, outputs", peer, max(outputs), 1e-5)
    agreement(f"swinir-{size}, gradients", peer, share_of_the_largest(*sets), 1e-5)


def test_parity_in_training_where_both_leave_out_the_same_residuals():
    ours, theirs = (network.double().train() for network in pair("light"))
    image, direction = torch.rand(4, 3, 8, 8).double(), torch.randn(4, 3, 16, 16).double()
    without = gradients(ours.eval(), image, direction)
    sets = []
    for network in (ours.train(), theirs):
        torch.manual_seed(5)
        sets.append(gradients(network, image, direction))
    assert share_of_the_largest(*sets) <= 1e-5
    assert share_of_the_largest(sets[0], without) > 1e-2


@pytest.mark.parametrize("scale", [3, 4])
def test_parity_at_other_scales(scale):
    for size in ARGUMENTS:
        ours, theirs = (network.eval() for network in pair(size, scale))
        image = torch.rand(1, 3, 8, 9)
        with torch.no_grad():
            torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", ["paper", "light"])
def test_number_of_parameters_is_spandrels(size, scale):
    with torch.device("meta"):
        ours = build_backbone(f"swinir-{size}", scale)
    assert count_parameters(ours) == count_parameters(spandrels(size, scale))


def test_number_of_parameters_is_the_published_one():
    """For the lightweight model the paper has 878K, 886K and 897K, without the convolution after the body."""
    with torch.device("meta"):
        assert count_parameters(build_backbone("swinir-paper", 4)) == 11_900_199
        light = [build_backbone("swinir-light", scale) for scale in (2, 3, 4)]
    counts = [count_parameters(network) - count_parameters(network.conv_after_body) for network in light]
    assert [round(count / 1000) for count in counts] == [878, 886, 897]


@pytest.mark.parametrize("wrapper", ["params", "params_ema"])
def test_a_public_checkpoint_loads_with_its_buffers(wrapper):
    theirs = spandrels("light", 2)
    released = theirs.state_dict()
    assert {key.rpartition(".")[2] for key in released} >= {"attn_mask", "relative_position_index"}
    ours = build_backbone("swinir-light", 2)
    load_weights(ours, unwrap({wrapper: released}, source="file"), source="file", name="swinir-light")
    own = ours.state_dict()
    assert all(torch.equal(own[key], released[key]) for key in own)
    assert {key.rpartition(".")[2] for key in released.keys() - own.keys()} == {"attn_mask", "relative_position_index"}
    with pytest.raises(InputError, match="it is one of 'swinir-light' at scale 2"):
        load_weights(build_backbone("swinir-tiny", 2), released, source="file", name="swinir-tiny")


# Attention


def test_the_bias_of_two_positions_is_the_tables_entry_for_their_offset():
    index = spandrels("light", 2).layers[0].residual_group.blocks[0].attn.relative_position_index
    attention = WindowAttention(12, 3, shifted=False)
    expected = attention.relative_position_bias_table[index].permute(2, 0, 1)[None]
    assert torch.equal(attention.bias(), expected)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_attention_looks_at_its_window_and_never_across_the_border(shifted, fused):
    """The parts of a side of 16 that see each other are 0–7, 8–15, or, shifted by 4, 0–3, 4–11, 12–15."""
    attention = WindowAttention(12, 3, shifted=shifted).double().requires_grad_(not fused)
    x = torch.randn(1, 16, 24, 12, dtype=torch.float64, requires_grad=True)
    out = attention(x)
    starts = (0, 4, 12, 20, 24) if shifted else (0, 8, 16, 24)
    parts = list(itertools.pairwise(starts))
    for (top, bottom), (left, right) in itertools.product([part for part in parts if part[0] < 16], parts):
        seen = torch.zeros(16, 24, dtype=torch.bool)
        seen[top:bottom, left:right] = True
        for i, j in [(top, left), (min(bottom, 16) - 1, right - 1)]:
            (gradient,) = torch.autograd.grad(out[0, i, j].sum(), x, retain_graph=True)
            assert torch.equal(gradient[0].abs().amax(-1) > 0, seen)


@pytest.mark.parametrize("shifted", [True, False])
def test_the_gradients_that_a_cpu_trains_with_are_those_of_the_scores_it_computes(shifted):
    """By differences, in float64, of both what is attended to and the table of biases."""
    windows = 4 if shifted else 1
    qkv = torch.randn(2, 16, 16, 12, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(windows, 2, 64, 64, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attend, (qkv, bias), fast_mode=True)


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_a_cpu_attends_alike_in_training_and_in_use(dtype, apart, shifted):
    qkv = torch.randn(2, 16, 24, 72).to(dtype)
    bias = torch.randn(6 if shifted else 1, 2, 64, 64).to(dtype)
    expected = attend(qkv.float(), bias.float())
    for found in (attend(qkv, bias.clone().requires_grad_()), attend(qkv, bias)):
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=apart)


def test_a_cpu_normalises_in_full_precision_under_autocast(tiny):
    """As autocast does it on a GPU."""
    found = []
    for module in tiny.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda module, inputs, out: found.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        tiny(torch.rand(1, 3, 16, 16))
    assert set(found) == {torch.float32}


@pytest.mark.parametrize("width", [1, 9])
def test_a_linear_map_is_torchs_on_every_pixel(width):
    linear = Linear(width, 7)
    x = torch.randn(2, 8, 16, width)
    torch.testing.assert_close(linear(x), nn.functional.linear(x, linear.weight, linear.bias))
    assert linear(x).is_contiguous()


@pytest.mark.parametrize(("channels", "heads", "width"), [(180, 6, 32), (60, 6, 16), (24, 2, 16), (16, 2, 8)])
def test_heads_are_as_wide_as_fused_kernels_for_gpus_take_them(channels, heads, width, monkeypatch):
    shapes = []

    def kernel(q, k, v, *, attn_mask, scale):
        assert scale == (channels / heads) ** -0.5
        shapes.extend(part.shape for part in (q, k, v))
        return v

    monkeypatch.setattr(functional, "scaled_dot_product_attention", kernel)
    with torch.no_grad():
        WindowAttention(channels, heads, shifted=False)(torch.rand(2, 8, 24, channels))
    assert shapes == [(6, heads, 64, width)] * 3


def test_blocks_share_a_mask_that_is_made_once_and_does_for_training_too(tiny):
    border_mask.cache_clear()
    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        tiny.eval()(image)
    assert border_mask.cache_info()[:2] == (1, 1)  # hits and misses of the two shifted blocks
    tiny.train()(image).sum().backward()
    assert border_mask.cache_info()[:2] == (3, 1)
    assert border_mask(2, 2, torch.device("cpu"), torch.float32) is border_mask(
        2, 2, torch.device("cpu"), torch.float32
    )


def test_masks_of_many_sizes_do_not_pile_up(tiny):
    with torch.inference_mode():
        for side in range(8, 80, 8):
            tiny(torch.rand(1, 3, side, 8))
    assert border_mask.cache_info().currsize <= 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("size", ["light", "tiny"])
def test_a_gpu_fuses_attention_and_gives_the_same_gradients(size, monkeypatch):
    monkeypatch.setattr(swinir, "KERNELS", [SDPBackend.EFFICIENT_ATTENTION])  # none may stand in for it
    network = build_backbone(f"swinir-{size}", 2).eval()
    image, direction = torch.rand(2, 3, 16, 24), torch.randn(2, 3, 32, 48)
    expected = gradients(network, image, direction)
    with pinned(Recipe()):
        found = gradients(network.cuda(), image.cuda(), direction.cuda())
        with torch.autocast("cuda", torch.bfloat16):
            rough = gradients(network, image.cuda(), direction.cuda())
    assert share_of_the_largest({name: each.cpu() for name, each in found.items()}, expected) <= 1e-4
    assert share_of_the_largest({name: each.cpu() for name, each in rough.items()}, expected) <= 0.1


# Sizes


@given(st.integers(1, 20), st.integers(1, 20))
def test_images_go_on_as_their_mirror_image(height, width):
    image = np.random.default_rng(0).random((2, 3, height, width))
    expected = np.pad(image, ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8)), mode="reflect")
    np.testing.assert_array_equal(mirrored(torch.from_numpy(image)).numpy(), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 8), (13, 70)])
def test_any_size_is_upscaled_as_its_continuation_is_and_cut(height, width, tiny):
    image = torch.rand(1, 3, height, width)
    with torch.no_grad():
        whole = tiny.eval()(mirrored(image))
        assert torch.equal(tiny(image), whole[:, :, : 4 * height, : 4 * width])
    assert whole.isfinite().all()


# Training


def test_first_weights():
    """Linear layers and tables are drawn from a normal distribution of deviation 0.02, convolutions as torch does."""
    torch.manual_seed(0)
    network = build_backbone("swinir-light", 4)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert not module.bias.any()
        elif isinstance(module, WindowAttention):
            assert module.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.1)
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
        elif isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound
            assert 0 < module.bias.abs().max() <= bound


@pytest.mark.parametrize("size", ["paper", "light", "tiny"])
def test_the_share_of_residuals_left_out_rises_from_0_to_a_tenth(size):
    with torch.device("meta"):
        network = build_backbone(f"swinir-{size}", 2)
    drops = [module.drop for module in network.modules() if isinstance(module, SwinBlock)]
    assert drops == pytest.approx(np.linspace(0.0, 0.1, len(drops)))


def test_each_residual_of_each_image_is_left_out_by_a_draw_of_its_own():
    block, images = SwinBlock(4, 1, shifted=False, drop=0.25), 2000
    for linear in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(linear.weight)
    nn.init.constant_(block.attn.proj.bias, 3.0)
    nn.init.constant_(block.mlp.fc2.bias, 30.0)
    draw = functools.partial(block, torch.zeros(images, 8, 8, 4))
    torch.manual_seed(0)
    out = draw()
    assert torch.equal(out, out[:, :1, :1, :1].expand_as(out))
    values, counts = out[:, 0, 0, 0].unique(return_counts=True)
    assert values.tolist() == [0.0, 4.0, 40.0, 44.0]
    assert (counts / images).tolist() == pytest.approx([1 / 16, 3 / 16, 3 / 16, 9 / 16], abs=0.03)
    assert not torch.equal(draw(), out)
    torch.manual_seed(0)
    assert torch.equal(draw(), out)
    block.eval()
    assert (draw() == 33.0).all()


def test_deterministic_algorithms_suffice(tiny):
    image, direction = torch.rand(2, 3, 16, 9), torch.randn(2, 3, 64, 36)
    sets = []
    with pinned(Recipe(deterministic=True)):
        for _ in range(2):
            torch.manual_seed(0)
            sets.append(gradients(tiny, image, direction))
    assert all(torch.equal(sets[0][name], sets[1][name]) for name in sets[0])


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_changes_little(training):
    network = pair("light")[0].train(training)
    image = torch.rand(2, 3, 16, 9)

    def run():
        torch.manual_seed(0)
        return network(image)

    with torch.set_grad_enabled(training):
        expected = run()
        with torch.autocast("cpu", torch.bfloat16):
            out = run()
    assert out.dtype == torch.float32
    assert (out - expected).abs().max() < 0.1 * expected.std()
    if training:
        out.square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
