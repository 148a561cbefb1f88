"""Losses for training, and weighted sums of them.

A loss is a `torch.nn.Module` whose options are keyword arguments with defaults and which is called as
``loss(sr, hr)`` on two tensors of shape [N, 3, H, W]: HR with values in [0, 1], and SR as the network gives it, not
clamped. It returns a scalar with a gradient to SR and writes into neither image. A loss that needs more asks for it by
keyword-only parameters named like the attributes of `Batch`: ``def forward(self, sr, hr, *, lr, step)``. Register your
own with `register_loss` or the entry-point group ``sgbench.losses``, or refer to it as ``module:Class``.

What changes while a loss is in use belongs into its ``state_dict``: parameters, persistent buffers, or torch's extra
state. Checkpoints hold it, and the first worker's buffers are everybody's. Parameters that require a gradient are
trained, by the optimizer that the loss's ``optimizer(parameters)`` returns or, without this method, by the recipe's:

* together with the network, to lower the sum of all losses; or
* for a loss that has ``own_terms``, in a step of their own after the network's, in which the sum of the terms that it
  returns is lowered. It is called like ``forward``, with an SR that leads no gradient to the network, and returns a
  scalar for each name in the loss's ``own_names``. While the network is trained these parameters are constants. In a
  step for which the loss's ``waits(step)`` is true, if it has such a method, only such parameters are trained.

The classes here name their publication in ``source``, the code of others that they were compared with in ``reference``,
and in ``difference`` how much they and their gradients differ from it at most, relative to the loss and to the largest
slope, in float32. ``sgbench losses`` lists them.

A class that uses pretrained networks names them in its ``networks``, a tuple of names in `sgbench.assets.catalogue`:
they are downloaded before a sweep starts and sent to every node, where `sgbench.assets.locator.Locator` loads them. A
class or instance that uses what layers of the network return names these modules of the network in its ``layers``.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from sgbench.assets.catalogue import check_networks
from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.core.registry import LOSSES, unfit
from sgbench.core.words import listed
from sgbench.losses.batch import Batch
from sgbench.spec import Expression
from sgbench.spec.expression import Term

__all__ = ["Batch", "WeightedSum", "build_loss", "register_loss"]

register_loss = LOSSES.register
"""Class decorator: ``@register_loss("name")``."""


def check(name: str, entry: object) -> None:
    """Check the entry of a loss's name in the registry.

    Raises:
        InputError: If it is no class of `torch.nn.Module`, or needs a pretrained network that is not in the catalogue.
    """
    if not (isinstance(entry, type) and issubclass(entry, nn.Module)):
        raise unfit("loss", name, entry, "a class of torch.nn.Module")
    check_networks("loss", name, getattr(entry, "networks", ()))


class WeightedSum(nn.Module):
    """A weighted sum of losses, computed in float32 whatever the network's precision.

    Args:
        terms: For each term, its name as in the expression, its weight and the loss.

    Raises:
        InputError: If a loss asks for what a `Batch` does not have.
    """

    def __init__(self, terms: list[tuple[str, float, nn.Module]]) -> None:
        super().__init__()
        self.names = [name for name, _, _ in terms]
        self.weights = [weight for _, weight, _ in terms]
        self.losses = nn.ModuleList(loss for _, _, loss in terms)
        self.wishes = [wishes(name, loss.forward) for name, _, loss in terms]
        self.layers = list(dict.fromkeys(layer for loss in self.losses for layer in getattr(loss, "layers", ())))
        """The layers of the network whose outputs the losses ask for."""
        self.constants = [name for name, value in self.named_parameters() if not value.requires_grad]
        """Parameters that are not trained."""

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compare a batch.

        Args:
            batch: Images and features of any floating type.

        Returns:
            The sum, a scalar, and the detached unweighted terms, shape [len(names)].

        Raises:
            InputError: If a loss raises an exception, writes into the images, which other terms share, or returns no
                scalar.
        """
        with torch.autocast(batch.sr.device.type, enabled=False):
            seen = in_single_precision(batch)
            values = [
                _value(name, loss, asked, seen)
                for name, loss, asked in zip(self.names, self.losses, self.wishes, strict=True)
            ]
        total = torch.stack([weight * value for weight, value in zip(self.weights, values, strict=True)]).sum()
        return total, torch.stack([value.detach() for value in values])

    def asking_for(self, attribute: str) -> list[str]:
        """Return the names of the losses whose ``forward`` or ``own_terms`` asks for an attribute of a `Batch`."""
        own = (getattr(loss, "own_terms", None) for loss in self.losses)
        return [
            name
            for name, asked, own_terms in zip(self.names, self.wishes, own, strict=True)
            if attribute in asked or (own_terms and attribute in wishes(name, own_terms))
        ]

    def waits(self, step: int) -> bool:
        """Return whether the network is not trained in a step, counted from 0, because a loss is not ready.

        Raises:
            InputError: If a loss raises an exception.
        """
        for name, loss in zip(self.names, self.losses, strict=True):
            asked = getattr(loss, "waits", None)
            with foreign(f"loss '{name}'"):
                if asked is not None and asked(step):
                    return True
        return False

    def changing_state(self) -> dict[str, Any]:
        """Return what may change while the losses are in use: their ``state_dict`` without constant parameters."""
        return {key: value for key, value in self.state_dict().items() if key not in self.constants}

    def load_changing_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `changing_state` returned."""
        self.load_state_dict({key: self.get_parameter(key) for key in self.constants} | dict(state))


def in_single_precision(batch: Batch) -> Batch:
    """Return a batch whose images and features are float32."""
    features = {layer: feature.float() for layer, feature in batch.features.items()}
    average_sr = None if batch.average_sr is None else batch.average_sr.float()
    return replace(
        batch,
        lr=batch.lr.float(),
        sr=batch.sr.float(),
        hr=batch.hr.float(),
        average_sr=average_sr,
        features=features,
    )


def wishes(name: str, function: Callable[..., object]) -> list[str]:
    """Return what a loss's ``forward`` or ``own_terms`` asks for besides SR and HR.

    Raises:
        InputError: If that is not in a `Batch`.
    """
    known = [each.name for each in fields(Batch) if each.name not in ("sr", "hr")]
    asked = list[str]()
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if key in known:
            asked.append(key)
        elif parameter.default is parameter.empty:
            raise InputError(f"loss '{name}' asks for {key!r}; besides sr and hr, a loss can have {listed(known)}.")
    return asked


def call(name: str, function: Callable[..., Any], asked: list[str], batch: Batch) -> Any:
    """Call a loss or its ``own_terms`` with what they ask for.

    Raises:
        InputError: If it raises an exception, or writes into the images.
    """
    images = batch.lr, batch.sr, batch.hr
    before = [image._version for image in images]  # which count the writes
    with foreign(f"loss '{name}'"):
        value = function(batch.sr, batch.hr, **{key: getattr(batch, key) for key in asked})
    if [image._version for image in images] != before:
        raise InputError(f"loss '{name}' writes into the images that it is given, which other terms share.")
    return value


def _value(name: str, loss: nn.Module, asked: list[str], batch: Batch) -> Tensor:
    return scalar(f"loss '{name}'", call(name, loss, asked, batch))


def scalar(what: str, value: object) -> Tensor:
    """Return what code for a loss returned, which is a scalar.

    Raises:
        InputError: If it is anything else.
    """
    if not isinstance(value, Tensor) or value.shape != ():
        came = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"{what} returns {came}; a scalar is needed.")
    return value


def build_loss(expression: Expression) -> WeightedSum:
    """Construct the losses of an expression, each once.

    Raises:
        InputError: If there is no such loss, or it refuses an option.
    """
    return WeightedSum([(term.call, term.weight, _constructed(term)) for term in expression.terms])


def _constructed(term: Term) -> nn.Module:
    loss = LOSSES.load(term.name)
    with foreign(f"loss '{term.name}'"):
        return loss(**term.options)
