"""Optimizers by the names of a recipe; every one keeps what it must not forget in its ``state_dict``."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sgbench.core.plugins import foreign
from sgbench.core.registry import OPTIMIZERS, unfit
from sgbench.spec import Optimizer

register_optimizer = OPTIMIZERS.register
"""Class decorator: ``@register_optimizer("name")``."""


def check(name: str, entry: object) -> None:
    """Check the entry of an optimizer's name in the registry.

    Raises:
        InputError: If it is no class of `torch.optim.Optimizer`.
    """
    if not (isinstance(entry, type) and issubclass(entry, torch.optim.Optimizer)):
        raise unfit("optimizer", name, entry, "a class of torch.optim.Optimizer")


def build_optimizer(options: Optimizer, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Construct the optimizer of a recipe; one of torch's does a step on a GPU in one kernel.

    Args:
        options: Its name, first rate and options.
        parameters: What it changes.

    Raises:
        InputError: If there is no such optimizer, or it refuses an option.
    """
    kind, parameters = OPTIMIZERS.load(options.name), list(parameters)
    fused: dict[str, Any] = {"fused": any(each.is_cuda for each in parameters)}
    with foreign(f"optimizer '{options.name}'"):
        return kind(parameters, **options.arguments, **(fused if OPTIMIZERS.is_built_in(options.name) else {}))
