"""Rates are those of torch's schedulers, at every step, and need no state."""

from itertools import repeat

import pytest
import torch
from pydantic import TypeAdapter
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, MultiStepLR, StepLR

from sgbench.spec import Adam, Schedule, Step
from sgbench.training.schedules import rate_factor

STEPS, RATE = 60, 2e-3

THEIRS = {
    "step": ({"halve_every": 7}, lambda optimizer: StepLR(optimizer, 7, gamma=0.5)),
    "milestones": (
        {"milestones": [1, 10, 11, 59, 99], "gamma": 0.3},
        lambda optimizer: MultiStepLR(optimizer, [1, 10, 11, 59, 99], gamma=0.3),
    ),
    "cosine": ({"final": 0.05}, lambda optimizer: CosineAnnealingLR(optimizer, STEPS, eta_min=0.05 * RATE)),
    "constant": ({}, lambda optimizer: ConstantLR(optimizer, factor=1.0)),
}


def schedule(**fields):
    return TypeAdapter(Schedule).validate_python(fields)


def rates_of_torch(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = make(optimizer)
    for _ in range(STEPS + 1):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


def warming_up(warmup, start):
    """Theirs has the share at step 0, ours one part of the way from it to 1."""
    return lambda optimizer: LinearLR(optimizer, start + (1 - start) / warmup, total_iters=warmup - 1)


@pytest.mark.parametrize("warm", [(0, 0.0), (2, 0.5), (12, 0.0), (60, 0.25)])
@pytest.mark.parametrize("name", THEIRS)
def test_every_rate_is_that_of_torch(name, warm):
    fields, make = THEIRS[name]
    ours = schedule(name=name, warmup=warm[0], warmup_from=warm[1], **fields)
    shares = (rate / RATE for rate in rates_of_torch(warming_up(*warm))) if warm[0] else repeat(1.0)
    for step, (rate, share) in enumerate(zip(rates_of_torch(make), shares, strict=False)):
        assert RATE * rate_factor(ours, step, STEPS) == pytest.approx(rate * share, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("steps", "final"), [(100, 0.0), (77, 0.1), (1, 0.0), (10, 1.0)])
def test_cosine_ends_where_that_of_torch_does(steps, final):
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-3)
    theirs = CosineAnnealingLR(optimizer, T_max=steps, eta_min=1e-3 * final)
    for step in range(steps + 1):
        rate = 1e-3 * rate_factor(schedule(name="cosine", final=final), step, steps)
        assert rate == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-15)
        optimizer.step()
        theirs.step()


def test_the_papers_rate_is_halved_every_200_000_steps():
    steps = (0, 199_999, 200_000, 399_999, 400_000, 499_999)
    rates = [Adam().lr * rate_factor(Step(), step, 500_000) for step in steps]
    assert rates == [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5, 2.5e-5]


def test_warming_up_rises_by_equal_amounts_and_ends_with_all_of_the_rate():
    warm = [rate_factor(schedule(name="constant", warmup=4, warmup_from=0.2), step, 10) for step in range(6)]
    assert warm == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0, 1.0])
