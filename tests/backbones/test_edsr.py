import pytest
import torch
from torch import nn
from torch.nn import functional

from sgbench.backbones import build_backbone, count_parameters, load_weights
from sgbench.backbones.layers import MeanShift
from sgbench.errors import InputError


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
    ("name", "scale", "parameters"),
    [
        ("edsr-paper", 4, 43_089_923),
        ("edsr-light", 4, 1_517_571),
        # as published for EDSR and EDSR-baseline at the other scales
        ("edsr-paper", 2, 40_729_603),
        ("edsr-paper", 3, 43_680_003),
        ("edsr-light", 2, 1_369_859),
        ("edsr-light", 3, 1_554_499),
    ],
)
def test_number_of_parameters(name, scale, parameters):
    assert count_parameters(on_meta(name, scale)) == parameters


@pytest.mark.parametrize("name", ["edsr-paper", "edsr-light", "edsr-tiny"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 12)])
def test_shape_of_the_output(name, scale, size):
    height, width = size
    output = on_meta(name, scale)(torch.empty(2, 3, height, width, device="meta"))
    assert output.shape == (2, 3, scale * height, scale * width)


def test_no_buffer_is_stored_with_the_weights():
    network = build_backbone("edsr-tiny", 4)
    assert network.state_dict().keys() == dict(network.named_parameters()).keys()


def test_the_mean_shift_is_undone():
    shift, image = MeanShift().double(), torch.rand(1, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(shift.leave(shift.enter(image)), image)
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    torch.testing.assert_close(MeanShift().enter(mean + 0.1), torch.full((1, 3, 1, 1), 25.5))


def test_blocks_add_a_scaled_residual():
    """With res_scale 0.1 the last convolution of a block counts a tenth of what it counts with 1.0."""
    network = build_backbone("edsr-light", 2)
    block = network.body[0]
    x = torch.rand(1, 64, 5, 5)
    whole = block(x) - x
    block.res_scale = 0.1
    torch.testing.assert_close(block(x) - x, 0.1 * whole, rtol=1e-4, atol=1e-6)
    assert on_meta("edsr-paper", 2).body[0].res_scale == 0.1


def test_without_weights_the_output_is_the_mean_colour():
    network = build_backbone("edsr-tiny", 2)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(network(torch.rand(1, 3, 4, 4)), network.shift.mean.expand(1, 3, 8, 8))


def test_first_weights_depend_on_the_seed_alone():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build_backbone("edsr-tiny", 4).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["conv_first.weight"], states[2]["conv_first.weight"])


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


# Loading weights


@pytest.fixture
def network():
    return build_backbone("edsr-tiny", 4)


def load(network, weights):
    load_weights(network, weights, source="weights.pt", name="edsr-tiny")


def test_weights_that_fit_are_loaded(network):
    other = build_backbone("edsr-tiny", 4)
    load(network, other.state_dict())
    image = torch.rand(1, 3, 5, 5)
    assert torch.equal(network(image), other(image))


def test_the_first_missing_and_the_first_unexpected_name_are_told_and_nothing_is_loaded(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    other = build_backbone("edsr-tiny", 4).state_dict()
    for wrong, message in [
        ({key: value for key, value in other.items() if "conv_last" not in key}, "it misses 'conv_last.weight'."),
        ({**other, "head.0.weight": torch.zeros(1), "tail": torch.zeros(1)}, "it has an unexpected 'head.0.weight'."),
        (
            {("body.9" if key == "conv_first.bias" else key): value for key, value in other.items()},
            "it misses 'conv_first.bias' and has an unexpected 'body.9'.",
        ),
        (
            {**other, "conv_last.bias": torch.zeros(4)},
            "'conv_last.bias' has shape (4,) where (3,) is needed.",
        ),
        (build_backbone("edsr-tiny", 2).state_dict(), "it misses 'upsample.2.weight'."),
        ({}, "it misses 'conv_first.weight'."),
    ]:
        with pytest.raises(InputError) as error:
            load(network, wrong)
        assert str(error.value) == f"'weights.pt' is no checkpoint of backbone 'edsr-tiny': {message}"
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
