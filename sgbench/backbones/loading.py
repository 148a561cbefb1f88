"""Weights from files: what they are wrapped in, and how public checkpoints name a network's parameters."""

import contextlib
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sgbench.assets.tensors import fault_of
from sgbench.core.errors import InputError
from sgbench.core.words import quoted
from sgbench.spec import split_backbone

WRAPPERS = ("params_ema", "params", "state_dict", "model")
"""Keys under which files keep the tensors, the preferred one first: averaged weights are what their authors score."""


def unwrap(content: Any, *, source: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, whatever it wraps them in.

    Args:
        content: What was read from the file.
        source: The file, for messages.

    Raises:
        InputError: If there are none, other things among them, or tensors without plain values, such as sparse ones.
    """
    for _ in WRAPPERS:  # a file may hold itself
        if not isinstance(content, Mapping):
            break
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    weights = dict(content) if isinstance(content, Mapping) else {}
    if not weights or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()):
        raise InputError(f"'{source}' holds no weights: tensors by parameter name are needed.")
    for name, value in weights.items():
        if fault := fault_of(value):
            raise InputError(f"'{source}' holds no weights that can be used: {quoted(name)} {fault}.")
    return weights


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], *, source: str, name: str) -> None:
    """Load weights into a network, all or none.

    Args:
        network: Built by `sgbench.backbones.build_backbone`.
        weights: Tensors by name: the network's own names, or those of a public checkpoint, see `match_names`.
        source: The file they come from, for messages.
        name: The backbone's name, for messages.

    Raises:
        InputError: If a name or a shape does not fit, with the first missing and the first unexpected one, and with
            the size and scale of the same family that the weights do fit.
    """
    if misfit := _misfit(network, weights):
        relative = _relative(type(network), split_backbone(name)[0], weights)
        hint = f"; it is one of {relative}" if relative else ""
        raise InputError(f"'{source}' is no checkpoint of backbone '{name}': {misfit}{hint}.")
    keys, _ = match_names(network, weights)
    network.load_state_dict({own: weights[key] for own, key in keys.items()})


def match_names(network: nn.Module, keys: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Find a network's parameters among the keys of a file, with or without the prefix ``module.``.

    A key is a parameter's own name, or becomes one by the first of the ``renames`` of the network's class that gives
    one.

    Returns:
        The key by the parameter's own name, for those that were found; and the keys left over, except those that the
        class has ``ignored``. If two keys fit one parameter, the second is left over.
    """
    own = network.state_dict().keys()
    found: dict[str, str] = {}
    unexpected = []
    for key in keys:
        bare = key if key in own else key.removeprefix("module.")
        candidates = [bare, *(_renamed(bare, *rename) for rename in getattr(network, "renames", ()))]
        name = next((candidate for candidate in candidates if candidate in own), None)
        if name is not None and name not in found:
            found[name] = key
        elif not any(re.match(pattern, bare) for pattern in getattr(network, "ignored", ())):
            unexpected.append(key)
    return found, unexpected


def _renamed(key: str, pattern: str, replacement: str) -> str | None:
    """Return a key with its beginning replaced, or None if it does not match."""
    match = re.match(pattern, key)
    return match.expand(replacement) + key[match.end() :] if match else None


def _misfit(network: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """Return a clause on why weights are not those of a network, or None if they are."""
    own = network.state_dict()
    keys, unexpected = match_names(network, weights)
    missing = [name for name in own if name not in keys]
    if missing or unexpected:
        kinds = {"misses": missing, "has an unexpected": unexpected}
        return "it " + " and ".join(f"{fault} {quoted(names[0])}" for fault, names in kinds.items() if names)
    for name, key in keys.items():
        shape, needed = tuple(weights[key].shape), tuple(own[name].shape)
        alias = f", here '{name}'," if key != name else ""
        if shape != needed:
            return f"{quoted(key)}{alias} has shape {shape} where {needed} is needed"
        if weights[key].is_floating_point() != own[name].is_floating_point():
            types = [str(each.dtype).removeprefix("torch.") for each in (weights[key], own[name])]
            return f"{quoted(key)}{alias} is {types[0]} where {types[1]} is needed"
    for key, values in getattr(network, "constants", {}).items():
        there = weights.get(key, weights.get(f"module.{key}"))
        if there is not None and not torch.allclose(there.float().cpu(), torch.tensor(values), rtol=1e-3):
            needed_values = ", ".join(f"{value:g}" for value in values)
            return f"'{key}' is {', '.join(f'{value:g}' for value in there.tolist())} where {needed_values} is needed"
    return None


def _relative(backbone: Any, family: str, weights: Mapping[str, Tensor]) -> str | None:
    """Return the size and scale of a class that weights fit, or None if they fit none."""
    for size, scale in itertools.product(getattr(backbone, "sizes", ()), (2, 3, 4)):
        with contextlib.suppress(Exception), torch.device("meta"):  # a plug-in may refuse a scale or the device
            if not _misfit(backbone(scale=scale, **backbone.sizes[size]), weights):
                return f"'{family}-{size}' at scale {scale}"
    return None
