"""Networks that upscale images.

A backbone is a `torch.nn.Module` class whose constructor takes ``scale`` and which maps [N, 3, H, W] in [0, 1] to
[N, 3, scale·H, scale·W], not clamped. Register your own with `register_backbone` or the entry-point group
``sgbench.backbones``, or refer to it as ``module:Class``. Nothing more is needed; a class may also have:

- ``sizes``: named sets of the constructor's other arguments, all of them keyword-only, chosen as ``family-size``.
  Built-in backbones have ``paper``, ``light`` and ``tiny``, in this order.
- ``source``: in one line, the publication, and where a size is from if it is not from there.
- ``renames``: pairs of a regular expression and its replacement, which turn the keys of public checkpoints into the
  class's own parameter names. They apply to the beginning of a key; the first that gives such a name is used.
- ``ignored``: regular expressions for the beginnings of keys in such files that are no parameters.
- ``constants``: the values that some of the ignored keys must have: weights made for others would load and be wrong.
- ``recomputed``: the types of the blocks whose activations `recompute_activations` does not keep.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sgbench.backbones.loading import Fit, load_fitting, load_weights, refuse_not_finite, unwrap
from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.core.registry import BACKBONES, unfit
from sgbench.spec import split_backbone

__all__ = [
    "Fit",
    "build_backbone",
    "count_parameters",
    "load_fitting",
    "load_weights",
    "recompute_activations",
    "refuse_not_finite",
    "register_backbone",
    "unwrap",
]

register_backbone = BACKBONES.register
"""Class decorator: ``@register_backbone("name")``."""


def check(name: str, entry: object) -> None:
    """Check the entry of a backbone's name in the registry.

    Raises:
        InputError: If it is no class of `torch.nn.Module`.
    """
    if not (isinstance(entry, type) and issubclass(entry, nn.Module)):
        raise unfit("backbone", name, entry, "a class of torch.nn.Module")


def build_backbone(name: str, scale: int) -> nn.Module:
    """Build a network with freshly drawn weights.

    Args:
        name: ``family-size``, a registered name, or ``module:Class``.
        scale: 2, 3 or 4.

    Raises:
        InputError: If there is no such backbone, or it cannot be constructed.
    """
    family, size = split_backbone(name)
    backbone = BACKBONES.load(family)
    sizes: Mapping[str, Mapping[str, Any]] = getattr(backbone, "sizes", {})
    options = sizes[size] if size else {}
    with foreign(f"backbone '{name}'"):
        return backbone(scale=scale, **options)


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def recompute_activations(network: nn.Module) -> None:
    """Make a network keep only the inputs of its blocks in training, and compute the rest again in the backward pass.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016: less memory for about a third more time, and
    the same numbers, also where a block is random. Names of parameters and what is computed without gradients or in
    evaluation stay as they are.

    Args:
        network: Its class names the types of its blocks as ``recomputed``; changed in place.

    Raises:
        InputError: If it does not.
    """
    kinds = getattr(network, "recomputed", ())
    if not kinds:
        raise InputError(f"backbone '{type(network).__name__}' does not name its 'recomputed' blocks.")
    for block in network.modules():
        if isinstance(block, kinds):
            block.forward = functools.partial(_recomputing, block)


def _recomputing(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Replace a block's ``forward``; it belongs to the module, so that networks can be copied and pickled."""
    forward = functools.partial(type(block).forward, block)
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)
