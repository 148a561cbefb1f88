"""Trying everything that a sweep names on a tiny batch, in the planning process, before anything starts.

Built-ins are held to the same rules by sgbench's tests, so only losses among them are constructed, to check their
options, and called without numbers, to check that they take patches of the recipe's size. Everything else is run.
"""

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.core.registry import BACKBONES, DISCRIMINATORS, LOSSES, OPTIMIZERS
from sgbench.losses import Batch, WeightedSum, call
from sgbench.metrics import METRICS
from sgbench.spec import Expression, Optimizer, Recipe, SweepSpec, split_backbone
from sgbench.spec.expression import Term
from sgbench.spec.resolve import discriminators_of
from sgbench.testing import BackboneTrial, LossTrial, MetricTrial
from sgbench.testing.base import from_file
from sgbench.training.method import needs_average
from sgbench.training.optimizers import build_optimizer


def rehearse(sweep: SweepSpec) -> None:
    """Try each term of a sweep's losses, each backbone, each metric and the optimizer once.

    Of the checks of `sgbench.testing`, these are the ones without which no run could be trained, resumed or scored.

    A loss or metric whose pretrained networks are not available locally is skipped; a sweep fetches them first.

    Raises:
        InputError: Naming the first that cannot be used, and why.
    """
    terms = {term.call: term for grid in sweep.grids for loss in grid.losses for term in loss.terms}
    backbones = list(dict.fromkeys(name for grid in sweep.grids for name in grid.backbones))
    with torch.random.fork_rng(devices=[]):
        for term in terms.values():
            _try_term(term, sweep.recipe, backbones)
    for backbone in backbones:
        if not BACKBONES.is_built_in(split_backbone(backbone)[0]):
            BackboneTrial(backbone, sweep.recipe).require("call", "gradient", "repeatable", "layout")
    for metric in sweep.all_metrics():
        if not METRICS.is_built_in(metric) and _are_here(METRICS.load(metric).networks):
            MetricTrial(metric, sweep.recipe).require("call")
    if not OPTIMIZERS.is_built_in(sweep.recipe.optimizer.name):
        _try_optimizer(sweep.recipe.optimizer)


def _try_term(term: Term, recipe: Recipe, backbones: Sequence[str]) -> None:
    alone = Expression((term,))
    if not _are_here(networks_of(losses=[alone])):
        return
    trial = LossTrial(term, recipe, backbones)
    loss = trial.loss
    with foreign(trial.what):
        never = all(map(loss.waits, range(recipe.steps)))
    if never:
        raise InputError(
            f"{trial.what} lets the network wait in each of the steps, of which recipe.steps is {recipe.steps}; "
            "one in which the network is trained is needed."
        )
    needs_average(loss, recipe)
    if LOSSES.is_built_in(term.name) and all(map(DISCRIMINATORS.is_built_in, discriminators_of([alone]))):
        _try_size(loss, recipe)
    else:
        trial.require("call", "images", "value", "gradient", "state", "repeatable", "layout")


def _are_here(networks: Iterable[str]) -> bool:
    """Return whether pretrained networks are available locally."""
    return all(map(Locator(download=False).find, networks))


def _try_size(loss: WeightedSum, recipe: Recipe) -> None:
    """Call a loss on a batch of the recipe's size whose tensors have no values."""
    sides = recipe.patch, recipe.patch * recipe.scale
    lr, hr = (torch.empty(recipe.batch, 3, side, side, device="meta") for side in sides)
    batch = Batch(lr, hr, hr, recipe.scale, 0, recipe.steps, average_sr=hr)
    for name, each, asked in zip(loss.names, loss.losses, loss.wishes, strict=True):
        call(name, each.to("meta"), asked, batch)


def _try_optimizer(options: Optimizer) -> None:
    """Try an optimizer on a small network with random gradients, and whether one that is restored does the same."""
    called = f"optimizer '{options.name}'"
    with foreign(called), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 3)) for _ in range(2))
        begun = copy.deepcopy(first.state_dict())
        optimizer = build_optimizer(options, first.parameters())
        if any("lr" not in group for group in optimizer.param_groups):
            raise InputError("its groups of parameters have no 'lr', which a schedule could set.")
        _take_steps(optimizer, first, range(3))
        if all(torch.equal(value, begun[name]) for name, value in first.state_dict().items()):
            raise InputError("three steps change no parameter.")
        second.load_state_dict(first.state_dict())
        restored = build_optimizer(options, second.parameters())
        restored.load_state_dict(from_file(optimizer.state_dict()))
        for each, network in ((optimizer, first), (restored, second)):
            _take_steps(each, network, range(3, 5))
        if not all(map(torch.equal, first.parameters(), second.parameters())):
            raise InputError(
                "saved and restored, it does other steps; what its state_dict lacks is not saved, so that a resumed "
                "run would differ."
            )


def _take_steps(optimizer: torch.optim.Optimizer, network: nn.Module, steps: Iterable[int]) -> None:
    for step in steps:
        torch.manual_seed(step)
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
