"""Trying everything that a sweep names on a tiny batch, in the planning process, before anything starts.

Built-ins are held to the same rules by sgbench's tests, so only losses among them are constructed, to check their
options, and called without numbers, to check that they take patches of the recipe's size. Everything else is run.
"""

import copy
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sgbench.assets import tensors
from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.backbones import build_backbone
from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.core.registry import BACKBONES, DISCRIMINATORS, LOSSES, OPTIMIZERS
from sgbench.core.status import ScoreStatus
from sgbench.losses import Batch, WeightedSum, build_loss, call
from sgbench.metrics import METRICS, Pair, Suite
from sgbench.spec import Expression, Optimizer, Recipe, SweepSpec, split_backbone
from sgbench.spec.expression import Term
from sgbench.spec.resolve import discriminators_of
from sgbench.training.method import Learner, kept_outputs, learners_of
from sgbench.training.optimizers import build_optimizer

ODD = (37, 29)
"""Height and width of the image for a backbone: odd, as test images may be."""

UNCLAMPED = (-0.1, 1.1)
"""Range of the SR values for a loss, as the output of networks is not clamped."""

SIDE = 64
"""Side of the images for a metric, in pixels."""


def rehearse(sweep: SweepSpec) -> None:
    """Try each term of a sweep's losses, each backbone, each metric and the optimizer once.

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
            _try_backbone(backbone, sweep.recipe)
    for metric in sweep.all_metrics():
        if not METRICS.is_built_in(metric):
            _try_metric(metric, sweep.recipe.scale)
    if not OPTIMIZERS.is_built_in(sweep.recipe.optimizer.name):
        _try_optimizer(sweep.recipe.optimizer)


def _try_term(term: Term, recipe: Recipe, backbones: Sequence[str]) -> None:
    alone = Expression((replace(term, weight=1.0),))
    if not all(map(Locator(download=False).find, networks_of(losses=[alone]))):
        return
    torch.manual_seed(0)
    loss = build_loss(alone)
    with foreign(f"loss '{term.call}'"):
        never = all(map(loss.waits, range(recipe.steps)))
    if never:
        raise InputError(
            f"loss '{term.call}' lets the network wait in each of the steps, of which recipe.steps is {recipe.steps}; "
            "one in which the network is trained is needed."
        )
    if LOSSES.is_built_in(term.name) and all(map(DISCRIMINATORS.is_built_in, discriminators_of([alone]))):
        _try_size(loss, recipe)
        return
    learners = learners_of(loss, recipe)
    for backbone in backbones if loss.layers else backbones[:1]:
        _try_loss(term.call, loss, learners, recipe, backbone)


def _try_size(loss: WeightedSum, recipe: Recipe) -> None:
    """Call a loss on a batch of the recipe's size whose tensors have no values."""
    sides = recipe.patch, recipe.patch * recipe.scale
    lr, hr = (torch.empty(recipe.batch, 3, side, side, device="meta") for side in sides)
    batch = Batch(lr, hr, hr, recipe.scale, 0, recipe.steps)
    for name, each, asked in zip(loss.names, loss.losses, loss.wishes, strict=True):
        call(name, each.to("meta"), asked, batch)


def _try_loss(name: str, loss: WeightedSum, learners: list[Learner], recipe: Recipe, backbone: str) -> None:
    """Try a loss on two patches of random images, SR in `UNCLAMPED`, and what it asks for of a backbone's layers.

    It is trained for a step, its state is put back to what a checkpoint of before has, and it is trained again.
    """
    random = torch.Generator().manual_seed(0)
    low, high = UNCLAMPED
    lr = torch.rand((2, 3, recipe.patch, recipe.patch), generator=random)
    sr, hr = torch.rand((2, 2, 3, recipe.patch * recipe.scale, recipe.patch * recipe.scale), generator=random)
    sr = low + (high - low) * sr
    batch = Batch(lr, sr, hr, recipe.scale, 0, recipe.steps, _features(loss, backbone, recipe.scale, lr))
    before = {key: value.clone() for key, value in _tensors(loss)}
    with foreign(f"loss '{name}'"):
        saved = _from_file([loss.changing_state(), *(learner.optimizer.state_dict() for learner in learners)])
        first, gradient = _learn(name, loss, learners, batch)
        loss.load_changing_state(saved[0])
        for learner, state in zip(learners, saved[1:], strict=True):
            learner.optimizer.load_state_dict(state)
        changed = [key.split(".", 2)[2] for key, value in _tensors(loss) if not torch.equal(value, before[key])]
        again, _ = _learn(name, loss, learners, batch)
    if not first.isfinite().all():
        value = first[~first.isfinite()][0].item()
        raise InputError(
            f"loss '{name}' is {value} for random images, HR in [0, 1] and SR, as networks give it, in "
            f"[{low:g}, {high:g}]; a finite number is needed."
        )
    if gradient is None or not gradient.any():
        raise InputError(f"no gradient reaches the network through '{name}'; a loss that follows from SR is needed.")
    if changed:
        raise InputError(
            f"loss '{name}' changes {', '.join(map(repr, changed))}, which its state_dict lacks, so that a resumed run "
            "would differ."
        )
    if not torch.equal(first, again):
        one, other = next((one, other) for one, other in zip(first, again, strict=True) if one != other)
        raise InputError(
            f"loss '{name}' is {one.item()} and then {other.item()} for the same images, state_dict and seed; what "
            "else it keeps between calls is not saved, so that a resumed run would differ."
        )


def _learn(name: str, loss: WeightedSum, learners: list[Learner], batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Train a loss for a step, and return its value, its own terms and then its value again, and the gradient to SR."""
    torch.manual_seed(0)
    leaf = batch.sr.clone().requires_grad_()
    given = replace(batch, sr=leaf.clone(), hr=batch.hr.clone())
    for learner in learners:
        learner.optimizer.zero_grad()
    value: Tensor = loss(given)[0]
    if value.requires_grad:
        torch.autograd.backward(value)
    own = [learner.step([(1.0, replace(given, sr=given.sr.detach()))], 1.0) for learner in learners]
    again: Tensor = loss(given)[0]
    if not all(map(torch.equal, (given.sr, given.hr), (batch.sr, batch.hr))):
        raise InputError(f"loss '{name}' writes into the images that it is given, which other terms share.")
    return torch.cat([value.detach()[None], *own, again.detach()[None]]), leaf.grad


def _features(loss: WeightedSum, backbone: str, scale: int, lr: Tensor) -> dict[str, Tensor]:
    """Return what the layers that a loss asks for return."""
    if not loss.layers:
        return {}
    with foreign(f"backbone '{backbone}'"), torch.no_grad():
        network = build_backbone(backbone, scale)
        features = kept_outputs(network, loss.layers, backbone)
        network(lr)
    return features


def _tensors(module: nn.Module) -> chain[tuple[str, Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())


def _try_backbone(name: str, recipe: Recipe) -> None:
    """Try a backbone on a random image of an odd size and, in training, on up to two patches."""
    height, width = ODD
    with foreign(f"backbone '{name}'"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_backbone(name, recipe.scale)
        with torch.no_grad():
            _check_output(name, network.eval()(torch.rand(1, 3, height, width)), recipe.scale)
        patches = torch.rand(min(recipe.batch, 2), 3, recipe.patch, recipe.patch)
        before = copy.deepcopy(network.state_dict())
        first = _in_training(network, patches)
        if first.requires_grad:
            torch.autograd.backward(first.sum())
        network.load_state_dict(before)
        again = _in_training(network, patches)
    if all(parameter.grad is None for parameter in network.parameters()):
        raise InputError(f"backbone '{name}' cannot be trained: no gradient reaches a parameter of it.")
    if not torch.equal(first, again):
        raise InputError(
            f"backbone '{name}' returns different images for the same patches, state and seed; what it keeps between "
            "calls is not saved, so that a resumed run would differ."
        )


def _in_training(network: nn.Module, patches: Tensor) -> Tensor:
    torch.manual_seed(0)
    sr: Tensor = network.train()(patches.clone())
    return sr


def _check_output(name: str, sr: Any, scale: int) -> None:
    """Check the output for an image of the size `ODD`."""
    height, width = ODD
    if not (isinstance(sr, Tensor) and sr.is_floating_point() and sr.ndim == 4):
        what = f"{sr.dtype} of shape {tuple(sr.shape)}" if isinstance(sr, Tensor) else type(sr).__name__
        raise InputError(f"backbone '{name}' returns {what}; floating-point images [N, 3, H, W] are needed.")
    if sr.shape[1] != 3:
        raise InputError(f"backbone '{name}': 3 channels are needed, {sr.shape[1]} came.")
    if sr.shape != (1, 3, scale * height, scale * width):
        raise InputError(
            f"backbone '{name}' makes {len(sr)} image of {sr.shape[3]}×{sr.shape[2]} pixels from one of "
            f"{width}×{height}; one of {scale * width}×{scale * height} is needed."
        )
    if not sr.isfinite().all():
        raise InputError(f"backbone '{name}' returns values that are not finite for a random image in [0, 1].")


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
        restored.load_state_dict(_from_file(optimizer.state_dict()))
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


def _from_file(state: Any) -> Any:
    """Return a state as a checkpoint gives it back."""
    with io.BytesIO() as file:
        torch.save(state, file)
        file.seek(0)
        try:
            return tensors.load(file)
        except Exception as error:  # torch.load raises whatever a pickle provokes
            raise InputError(
                "its state has more than tensors and plain values, which a checkpoint cannot hold."
            ) from error


def _try_metric(name: str, scale: int) -> None:
    """Try a metric that needs no network on two pairs of random images."""
    if METRICS.load(name).networks:
        return
    random = np.random.default_rng(0)
    with foreign(f"metric '{name}'"):
        suite = Suite([name], Locator(download=False))
        for image in "ab":
            sr, hr = random.integers(0, 256, (2, 3, SIDE, SIDE), np.uint8)
            suite.add(suite.measure(Pair(image, sr, hr, crop=scale)))
        results = suite.results()
    for result in results:
        if result.score.status == ScoreStatus.FAILED:
            raise InputError(f"metric '{name}' fails on random images: {result.score.reason}.")
