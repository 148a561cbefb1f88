"""What every built-in backbone has in common, and backbones of one's own."""

import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from sgbench.backbones import build_backbone, count_parameters
from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES

FAMILIES = ["edsr", "rdn", "rcan", "swinir"]
SIZES = ["paper", "light", "tiny"]


class Repeat(nn.Module):
    """A backbone of one's own."""

    def __init__(self, *, scale: int):
        super().__init__()
        self.scale, self.gain = scale, nn.Parameter(torch.ones(()))

    def forward(self, lr):
        return self.gain * functional.interpolate(lr, scale_factor=self.scale)


def on_meta(name, scale):
    with torch.device("meta"):
        return build_backbone(name, scale)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # at ×2, ×3 and ×4, as torchsr's
    [
        ("edsr-paper", (40_729_603, 43_680_003, 43_089_923)),
        ("edsr-light", (1_369_859, 1_554_499, 1_517_571)),
        ("rdn-paper", (22_123_395, 22_308_035, 22_271_107)),
        ("rcan-paper", (15_444_643, 15_629_283, 15_592_355)),
    ],
)
def test_number_of_parameters(name, parameters):
    assert tuple(count_parameters(on_meta(name, scale)) for scale in (2, 3, 4)) == parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_go_from_the_papers_to_a_tiny_one(family):
    backbone = BACKBONES.load(family)
    assert list(backbone.sizes) == SIZES
    counts = [count_parameters(on_meta(f"{family}-{size}", 4)) for size in SIZES]
    assert counts == sorted(counts, reverse=True)
    assert counts[2] < 60_000


@pytest.mark.parametrize("family", FAMILIES)
def test_the_source_is_one_line_with_authors_title_and_year(family):
    assert re.fullmatch(r"""\w+ et al\., "[^"\n]+", [^\n]*\b20[12]\d\b[^\n]*""", BACKBONES.load(family).source)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("size", "scale"), [("paper", 4), ("light", 3), ("tiny", 2), ("tiny", 3), ("tiny", 4)])
def test_shape_of_the_output(family, size, scale):
    network = on_meta(f"{family}-{size}", scale)
    for height, width in [(1, 1), (7, 12)]:
        output = network(torch.empty(2, 3, height, width, device="meta"))
        assert output.shape == (2, 3, scale * height, scale * width)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (13, 10)])
def test_the_memory_format_changes_nothing_but_rounding(family, size):
    network, image = build_backbone(f"{family}-tiny", 3).eval(), torch.rand(2, 3, *size)
    expected = network(image)
    assert expected.isfinite().all()
    strided = image.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    torch.testing.assert_close(network(strided), expected, rtol=0, atol=2e-6)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(image.to(memory_format=torch.channels_last)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_input_is_left_as_it_was(family):
    image = torch.rand(1, 3, 8, 8)
    before = image.clone()
    build_backbone(f"{family}-tiny", 2)(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_gets_a_gradient(family):
    torch.manual_seed(0)
    network = build_backbone(f"{family}-tiny", 4)
    network(torch.rand(2, 3, 9, 11)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_buffer_is_stored_with_the_weights(family):
    network = build_backbone(f"{family}-tiny", 4)
    assert network.state_dict().keys() == dict(network.named_parameters()).keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_first_weights_depend_on_the_seed_alone(family):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build_backbone(f"{family}-tiny", 4).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("family", ["edsr", "rdn", "rcan"])
def test_convolutions_are_drawn_as_torch_draws_them(family):
    """Uniform within ±1/√(inputs · kernel area), weights and biases alike."""
    for module in build_backbone(f"{family}-light", 4).modules():
        if isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for values in (module.weight, module.bias):
                assert values.abs().max() <= bound
            if module.weight.numel() > 1000:
                assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_a_backbone_of_ones_own():
    network = build_backbone(f"{__name__}:Repeat", 3)
    assert network(torch.rand(1, 3, 4, 5)).shape == (1, 3, 12, 15)
    assert count_parameters(network) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rdnn-tiny", "unknown backbone 'rdnn'"),
        (f"{__name__}:Missing", "cannot be imported"),
    ],
)
def test_an_unknown_backbone_is_bad_input(name, message):
    with pytest.raises(InputError, match=message):
        build_backbone(name, 4)
