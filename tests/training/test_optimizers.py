"""Optimizers are torch's, or classes of other packages, with the options of a recipe."""

import pytest
import torch
from pydantic import TypeAdapter

from sgbench.core.errors import InputError
from sgbench.core.registry import OPTIMIZERS
from sgbench.spec import Optimizer
from sgbench.training.optimizers import build_optimizer


class Lion(torch.optim.Optimizer):
    """Follows the sign of a mean of gradients (Chen et al., NeurIPS 2023)."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            first, second = group["betas"]
            for each in group["params"]:
                mean = self.state[each].setdefault("mean", torch.zeros_like(each))
                each.mul_(1 - group["lr"] * group["weight_decay"])
                each.sub_(group["lr"] * mean.lerp(each.grad, 1 - first).sign())
                mean.lerp_(each.grad, 1 - second)


def build(parameters, **fields):
    return build_optimizer(TypeAdapter(Optimizer).validate_python(fields), parameters)


def after_steps(make):
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.rand(3, 4))
    optimizer = make([parameter])
    for _ in range(4):
        parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize(
    ("fields", "theirs"),
    [
        ({}, lambda p: torch.optim.Adam(p, lr=1e-4)),
        ({"lr": 0.1, "weight_decay": 0.2}, lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2)),
        ({"name": "adamw"}, lambda p: torch.optim.AdamW(p, lr=1e-4)),
        (
            {"name": "adamw", "lr": 0.1, "beta1": 0.5, "beta2": 0.7, "eps": 1e-3, "weight_decay": 0.2},
            lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.5, 0.7), eps=1e-3, weight_decay=0.2),
        ),
        ({"name": "sgd", "lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
        (
            {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        ),
        (
            {"name": "torch.optim:RMSprop", "lr": 0.1, "alpha": 0.9, "centered": True},
            lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.9, centered=True),
        ),
        (
            {"name": f"{__name__}:Lion", "lr": 0.1, "betas": [0.8, 0.9]},
            lambda p: Lion(p, lr=0.1, betas=(0.8, 0.9)),
        ),
    ],
)
def test_steps_are_those_of_the_class(fields, theirs):
    assert torch.equal(after_steps(lambda p: build(p, **fields)), after_steps(theirs))


def test_what_a_class_refuses_is_told_in_a_sentence():
    with pytest.raises(InputError, match=r"^optimizer 'torch.optim:RMSprop': ValueError: Invalid alpha value: -1"):
        build([torch.zeros(1, requires_grad=True)], name="torch.optim:RMSprop", lr=0.1, alpha=-1)


def test_only_optimizers_are():
    with pytest.raises(InputError, match=r"is a Conv2d; a class of torch\.optim\.Optimizer is needed"):
        OPTIMIZERS.load("torch.nn:Conv2d")
