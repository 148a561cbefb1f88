"""Losses for training, and weighted sums of them.

A loss is a `torch.nn.Module` whose options are keyword arguments with defaults and which is called as
``loss(sr, hr)`` on two tensors of shape [N, 3, H, W]: HR with values in [0, 1], and SR as the network gives it, not
clamped. It returns a scalar with a gradient to SR, writes into neither image, and has no parameters to train and no
state that changes, which a checkpoint would lack; `sgbench.runs.rehearsal` checks that. Register your own with
`register_loss` or the entry-point group ``sgbench.losses``, or refer to it as ``module:Class``.

A class that uses pretrained networks names them in its ``networks``, a tuple of names in `sgbench.assets.catalogue`:
they are downloaded before a sweep starts and sent to every node, where `sgbench.assets.locator.Locator` loads them.
"""

import torch
from torch import Tensor, nn

from sgbench.assets.catalogue import check_networks
from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.core.registry import LOSSES, unfit
from sgbench.spec import Expression
from sgbench.spec.expression import Term

__all__ = ["WeightedSum", "build_loss", "register_loss"]

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
    """

    def __init__(self, terms: list[tuple[str, float, nn.Module]]) -> None:
        super().__init__()
        self.names = [name for name, _, _ in terms]
        self.weights = [weight for _, weight, _ in terms]
        self.losses = nn.ModuleList(loss for _, _, loss in terms)

    def forward(self, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """Compare a batch.

        Args:
            sr: The network's output, shape [N, 3, H, W], any floating type.
            hr: The target, same shape, values in [0, 1].

        Returns:
            The sum, a scalar, and the detached unweighted terms, shape [len(names)].

        Raises:
            InputError: If a loss raises an exception, writes into the images, which other terms share, or returns no
                scalar.
        """
        with torch.autocast(sr.device.type, enabled=False):
            sr, hr = sr.float(), hr.float()
            values = [_checked(name, loss, sr, hr) for name, loss in zip(self.names, self.losses, strict=True)]
        total = torch.stack([weight * value for weight, value in zip(self.weights, values, strict=True)]).sum()
        return total, torch.stack([value.detach() for value in values])


def _checked(name: str, loss: nn.Module, sr: Tensor, hr: Tensor) -> Tensor:
    before = sr._version, hr._version  # which count the writes
    with foreign(f"loss '{name}'"):
        value = loss(sr, hr)
    if (sr._version, hr._version) != before:
        raise InputError(f"loss '{name}' writes into the images that it is given, which other terms share.")
    if not isinstance(value, Tensor) or value.shape != ():
        came = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"loss '{name}' returns {came}; a scalar is needed.")
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
