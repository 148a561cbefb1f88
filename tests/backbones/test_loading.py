import re
from typing import ClassVar

import pytest
import torch
from torch import nn

from sgbench.backbones import build_backbone, load_weights, unwrap
from sgbench.core.errors import InputError

TAIL = [("upsample.", "tail.0."), ("conv_last.", "tail.1.")]
PUBLIC = {
    "edsr": [
        ("conv_first.", "head.0."),
        ("body.N.conv1.", "body.N.body.0."),
        ("body.N.conv2.", "body.N.body.2."),
        ("conv_after_body.", "body.4."),
        *TAIL,
    ],
    "rcan": [
        ("conv_first.", "head.0."),
        ("body.N.residual_group.N.rcab.0.", "body.N.body.N.body.0."),
        ("body.N.residual_group.N.rcab.2.", "body.N.body.N.body.2."),
        ("body.N.residual_group.N.rcab.3.attention.1.", "body.N.body.N.body.3.conv_du.0."),
        ("body.N.residual_group.N.rcab.3.attention.3.", "body.N.body.N.body.3.conv_du.2."),
        ("body.N.conv.", "body.N.body.2."),
        ("conv_after_body.", "body.2."),
        *TAIL,
    ],
    "rdn": [
        ("sfe1.", "SFENet1."),
        ("sfe2.", "SFENet2."),
        ("rdbs.N.layers.N.conv.", "RDBs.N.convs.N.conv.0."),
        ("rdbs.N.lff.", "RDBs.N.LFF."),
        ("gff.", "GFF."),
        ("upscale.", "UPNet."),
        ("output.", "UPNet.LAST."),
    ],
}
"""Beginnings of own names, and what the other public form has in their place; every own name has one of them."""

MEAN = torch.tensor([0.4488, 0.4371, 0.4040])
MEANS = {
    "sub_mean.weight": torch.eye(3).view(3, 3, 1, 1),
    "sub_mean.bias": -255 * MEAN,
    "add_mean.weight": torch.eye(3).view(3, 3, 1, 1),
    "add_mean.bias": 255 * MEAN,
}


class Plain(nn.Module):
    """A backbone of one's own that says nothing of files."""

    def __init__(self, *, scale: int):
        super().__init__()
        self.module = nn.Linear(2, scale)


class Stubborn(Plain):
    """One with sizes that cannot be built for every scale."""

    sizes: ClassVar = {"big": {}}

    def __init__(self, *, scale: int):
        if scale == 2:
            raise RuntimeError("no")
        super().__init__(scale=scale)


def public(family, network, scale):
    """Return weights under the names of the other public form."""
    weights = {}
    for key, value in network.state_dict().items():
        for own, other in PUBLIC[family]:
            if match := re.match(re.escape(own).replace("N", r"(\d+)"), key):
                numbers = iter(match.groups())
                beginning = re.sub("N(?=[.])", lambda _, rest=numbers: next(rest), other)
                beginning = beginning.replace("LAST", "4" if scale == 4 else "2")
                weights[beginning + key[match.end() :]] = value
    assert len(weights) == len(network.state_dict())
    return weights


def load(network, weights, name="edsr-tiny"):
    load_weights(network, weights, source="weights.pt", name=name)


@pytest.fixture
def network():
    return build_backbone("edsr-tiny", 4)


# Key forms


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("form", ["own", "public"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("family", PUBLIC)
def test_both_public_forms_give_the_same_output(family, scale, form, prefix):
    other, own = (build_backbone(f"{family}-tiny", scale) for _ in range(2))
    weights = other.state_dict() if form == "own" else public(family, other, scale)
    if family != "rdn":
        weights = weights | MEANS
    load(own, {prefix + key: value for key, value in weights.items()}, f"{family}-tiny")
    image = torch.rand(1, 3, 5, 6)
    assert torch.equal(own(image), other(image))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("edsr-paper", ["conv_first", "body.31.conv1", "body.31.conv2", "conv_after_body", "upsample.2", "conv_last"]),
        (
            "rcan-paper",
            [
                "body.9.residual_group.19.rcab.0",
                "body.9.residual_group.19.rcab.2",
                "body.9.residual_group.19.rcab.3.attention.1",
                "body.9.residual_group.19.rcab.3.attention.3",
                "body.9.conv",
                "conv_after_body",
                "upsample.0",
                "conv_last",
            ],
        ),
        ("rdn-paper", ["sfe1", "sfe2", "rdbs.15.layers.7.conv", "rdbs.15.lff", "gff.1", "upscale.2", "output"]),
    ],
)
def test_own_names_are_those_of_a_public_form(name, keys):
    with torch.device("meta"):
        own = build_backbone(name, 4).state_dict()
    assert {f"{key}.{part}" for key in keys for part in ("weight", "bias")} <= own.keys()


def test_weights_in_half_precision_are_loaded_as_single(network):
    other = build_backbone("edsr-tiny", 4)
    load(network, {key: value.half() for key, value in other.state_dict().items()})
    assert network.conv_last.weight.dtype == torch.float32
    assert torch.equal(network.conv_last.weight, other.conv_last.weight.half().float())


def test_a_parameter_may_be_called_module():
    network = Plain(scale=3)
    load(network, {key: torch.ones_like(value) for key, value in network.state_dict().items()}, f"{__name__}:Plain")
    assert network.module.weight.sum() == 6


# What does not fit


def test_the_first_missing_and_the_first_unexpected_name_are_told_and_nothing_is_loaded(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    other = build_backbone("edsr-tiny", 4).state_dict()
    for wrong, message in [
        ({key: value for key, value in other.items() if "conv_last" not in key}, "it misses 'conv_last.weight'."),
        ({**other, "head.1.weight": torch.zeros(1), "tail": torch.zeros(1)}, "it has an unexpected 'head.1.weight'."),
        (
            {("body.9" if key == "conv_first.bias" else key): value for key, value in other.items()},
            "it misses 'conv_first.bias' and has an unexpected 'body.9'.",
        ),
        ({**other, "conv_last.bias": torch.zeros(4)}, "'conv_last.bias' has shape (4,) where (3,) is needed."),
        (
            {("module.tail.1.bias" if key == "conv_last.bias" else key): value[:1] for key, value in other.items()},
            "'conv_first.weight' has shape (1, 3, 3, 3) where (16, 3, 3, 3) is needed.",
        ),
        (
            {**public("edsr", network, 4), "tail.1.bias": torch.zeros(4)},
            "'tail.1.bias', here 'conv_last.bias', has shape (4,) where (3,) is needed.",
        ),
        ({}, "it misses 'conv_first.weight'."),
    ]:
        with pytest.raises(InputError) as error:
            load(network, wrong)
        assert str(error.value) == f"'weights.pt' is no checkpoint of backbone 'edsr-tiny': {message}"
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("first", ["conv_last.bias", "tail.1.bias"])
def test_a_parameter_that_a_file_has_twice_is_refused(network, first):
    weights = {first: torch.zeros(3), **network.state_dict(), "tail.1.bias": torch.zeros(3)}
    second = ({"conv_last.bias", "tail.1.bias"} - {first}).pop()
    with pytest.raises(InputError, match=f"it has an unexpected '{second}'"):
        load(network, weights)


@pytest.mark.parametrize(
    ("other", "scale", "relative"),
    [
        ("edsr-tiny", 2, "'edsr-tiny' at scale 2"),
        ("edsr-light", 4, "'edsr-light' at scale 4"),
        ("edsr-light", 3, "'edsr-light' at scale 3"),
    ],
)
def test_the_size_and_scale_of_a_relative_are_told(network, other, scale, relative):
    with pytest.raises(InputError, match=f"; it is one of {relative}.$"):
        load(network, build_backbone(other, scale).state_dict())


def test_a_relative_that_cannot_be_built_is_none():
    for weights, message in [
        (Plain(scale=3).state_dict(), f"; it is one of '{__name__}:Stubborn-big' at scale 3."),
        (Plain(scale=2).state_dict(), "'module.weight' has shape (2, 2) where (4, 2) is needed."),
    ]:
        with pytest.raises(InputError, match=re.escape(message) + "$"):
            load(Stubborn(scale=4), weights, f"{__name__}:Stubborn-big")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_trained_around_another_mean_or_range_are_refused(prefix):
    network = build_backbone("rcan-tiny", 4)
    weights = {**network.state_dict(), f"{prefix}sub_mean.bias": -MEAN}
    message = "'sub_mean.bias' is -0.4488, -0.4371, -0.404 where -114.444, -111.46, -103.02 is needed."
    with pytest.raises(InputError, match=re.escape(message)):
        load_weights(network, weights, source="weights.pt", name="rcan-tiny")


# Wrappers


TENSORS = {"a": torch.zeros(1), "b": torch.ones(2)}


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"params": TENSORS},
        {"params_ema": TENSORS, "params": {"a": torch.ones(1)}},
        {"params": {"a": torch.ones(1)}, "params_ema": TENSORS},
        {"epoch": 3, "state_dict": TENSORS, "optimizer": {}},
        {"model": TENSORS, "epoch": 3},
        {"state_dict": {"params": TENSORS}},
        {"params_ema": None, "params": TENSORS},
    ],
)
def test_wrappers_are_taken_off(content):
    weights = unwrap(content, source="weights.pt")
    assert weights.keys() == TENSORS.keys()
    assert all(weights[key] is TENSORS[key] for key in weights)


def test_a_parameter_may_be_called_like_a_wrapper():
    assert unwrap({"model": torch.zeros(1)}, source="weights.pt").keys() == {"model"}


@pytest.mark.parametrize(
    "content", [{}, [], None, torch.zeros(1), {"params": {}}, {"a": 1}, {"state_dict": {**TENSORS, "epoch": 3}}]
)
def test_what_holds_no_weights_is_bad_input(content):
    message = "'weights.pt' holds no weights: tensors by parameter name are needed."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        unwrap(content, source="weights.pt")
