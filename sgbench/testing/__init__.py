"""Checks for losses, backbones and metrics of one's own: those of ``sgbench check``, for a test of yours.

    import pytest
    from sgbench.testing import Check, checks

    @pytest.mark.parametrize("check", checks("my_module:MyLoss"), ids=str)
    def test_my_loss(check: Check) -> None:
        check()

A check is a small rule that training or scoring relies on, such as that a loss is finite where SR equals HR. What
breaks one fails with a sentence that says how, and what to do. `sgbench.runs.rehearsal` applies those without which no
run could be trusted to whatever a sweep names.
"""

import inspect
from collections.abc import Iterable
from itertools import chain

from torch import nn

from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.core.errors import InputError, unknown
from sgbench.core.plugins import foreign
from sgbench.core.registry import BACKBONES, LOSSES, METRICS, SHORT_NAMES, unfit
from sgbench.core.words import quoted
from sgbench.metrics import Metric
from sgbench.spec import Recipe, check_backbone, check_loss, split_backbone
from sgbench.spec.resolve import check_metric
from sgbench.testing.backbones import BackboneTrial
from sgbench.testing.base import Check, Outcome, Trial, outcomes
from sgbench.testing.losses import LossTrial
from sgbench.testing.metrics import MetricTrial

__all__ = ["BackboneTrial", "Check", "LossTrial", "MetricTrial", "Outcome", "Trial", "checks", "outcomes", "trials"]

SMALLEST = 8
"""Side of the smallest patch of a recipe."""


def checks(target: str, *, scale: int = 4, patch: int = 48, backbone: str = "edsr-tiny") -> list[Check]:
    """Return the checks for what a name stands for; none is tried yet, but a module in the name is imported.

    Args:
        target: A loss with its options, such as ``my_module:MyLoss(sigma=2)``, a backbone or a metric, by the name that
            a sweep would use. Of a sum of losses, each term is checked.
        scale: 2, 3 or 4.
        patch: Side of the LR images for losses and backbones, in pixels; fewer are faster, and some need many.
        backbone: The one whose layers a loss may ask for, and whose steps a loss's are timed beside.

    Raises:
        InputError: If there is no such loss, backbone or metric, an argument is out of its range, or a pretrained
            network is not available locally.
    """
    return [check for trial in trials(target, scale=scale, patch=patch, backbone=backbone) for check in trial.checks()]


def trials(target: str, *, scale: int, patch: int, backbone: str) -> list[Trial]:
    """Return what a name stands for, ready to be checked; more than one if it is a sum, or both a loss and a metric.

    Its arguments and exceptions are those of `checks`.
    """
    if scale not in (2, 3, 4) or patch < SMALLEST:
        raise InputError(f"scale is {scale} and patch {patch}; 2, 3 or 4 and at least {SMALLEST} are needed.")
    recipe = Recipe.model_validate({"scale": scale, "patch": patch, "batch": 2})
    found: list[Trial] = []
    for kind in _kinds(target):
        if kind == "loss":
            loss = check_loss(target)
            _require_networks(f"loss {quoted(target)}", networks_of(losses=[loss]))
            found += [LossTrial(term, recipe, [check_backbone(backbone)]) for term in loss.terms]
        elif kind == "backbone":
            found.append(BackboneTrial(check_backbone(target), recipe))
        else:
            metric = check_metric(target)
            _require_networks(f"metric {quoted(metric)}", networks_of(metrics=[metric]))
            found.append(MetricTrial(metric, recipe))
    return found


def _kinds(target: str) -> list[str]:
    """Return what a name is the name of: ``loss``, ``backbone`` or ``metric``.

    Raises:
        InputError: If it is none.
    """
    if set(target) & set("(+*"):
        return ["loss"]
    family, _ = split_backbone(target)
    if BACKBONES.is_provided(target) or METRICS.is_provided(target):
        return ["backbone" if BACKBONES.is_provided(target) else "metric"]
    if ":" in target:
        return [_kind(target, LOSSES.imported(family))]
    registries = {"loss": LOSSES.names(), "backbone": BACKBONES.names(), "metric": METRICS.names()}
    found = [kind for kind, names in registries.items() if {target, family} & set(names)]
    if not found and target in SHORT_NAMES:
        return ["metric"]
    if not found:
        raise unknown("loss, backbone or metric", target, sorted(chain(*registries.values())))
    return found


def _kind(name: str, entry: object) -> str:
    """Return what an object is: a class whose ``forward`` takes one image is a backbone, and one of two is a loss."""
    if isinstance(entry, Metric):
        return "metric"
    if not (isinstance(entry, type) and issubclass(entry, nn.Module)):
        needed = "a class of torch.nn.Module, or a metric, such as '@sgbench.metric(direction=…)' makes of a function,"
        raise unfit("loss, backbone or metric", name, entry, needed)
    with foreign(quoted(name)):
        parameters = inspect.signature(entry.forward).parameters.values()
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    images = [each for each in positional if each.default is each.empty]
    return "backbone" if len(images) == len(["self", "lr"]) else "loss"


def _require_networks(what: str, networks: Iterable[str]) -> None:
    for network in networks:
        if not Locator(download=False).find(network):
            raise InputError(
                f"{what} needs the pretrained network '{network}', which is not available locally; "
                f"'sgbench weights fetch {network}' gets it, or says where it is."
            )
