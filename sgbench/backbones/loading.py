"""Weights from files: what they are wrapped in, and how public checkpoints name a network's parameters."""

import contextlib
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sgbench.assets.tensors import fault_of
from sgbench.core.errors import InputError
from sgbench.core.words import quoted
from sgbench.spec import split_backbone

WRAPPERS = ("params_ema", "params", "state_dict", "model")
"""Keys under which files keep the tensors, the preferred one first: averaged weights are what their authors score."""


class Fit(NamedTuple):
    """Which tensors of a network a file has given."""

    loaded: tuple[str, ...]
    """Those that it has, by the network's names for them."""
    drawn: tuple[str, ...]
    """Those that it lacks or has in another shape, by the same names."""
    unused: tuple[str, ...]
    """What else it has, by its own names."""


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


def load_fitting(network: nn.Module, weights: Mapping[str, Tensor], *, source: str, name: str) -> "Fit":
    """Load those of some weights into a network that have the name and the shape of one of its tensors.

    Args:
        network: See `load_weights`, also for the others.
        weights: See there.
        source: See there.
        name: See there.

    Returns:
        What was loaded and what was not.

    Raises:
        InputError: If none fits, or they were made for a network with other constants.
    """
    own = network.state_dict()
    keys, unused = match_names(network, weights)
    fitting = {name: key for name, key in keys.items() if _unlike(own[name], weights[key]) is None}
    misfit = _other_constants(network, weights) or (None if fitting else "none of its tensors fits")
    if misfit:
        raise InputError(f"'{source}' does not even fit backbone '{name}' in part: {misfit}.")
    network.load_state_dict({name: weights[key] for name, key in fitting.items()}, strict=False)
    return Fit(
        loaded=tuple(name for name in own if name in fitting),
        drawn=tuple(name for name in own if name not in fitting),
        unused=(*(key for name, key in keys.items() if name not in fitting), *unused),
    )


def refuse_not_finite(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights with values that are not numbers.

    Raises:
        InputError: With the first tensor that has one.
    """
    if bad := next((key for key, value in tensors.items() if not value.isfinite().all()), None):
        raise InputError(f"'{source}' holds no weights that can be used: '{bad}' has NaN or infinite values.")


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
        if fault := _unlike(own[name], weights[key]):
            alias = f", here '{name}'," if key != name else ""
            return f"{quoted(key)}{alias} {fault}"
    return _other_constants(network, weights)


def _unlike(own: Tensor, there: Tensor) -> str | None:
    """Return why a tensor cannot take the place of a network's own, as a clause, or None if it can."""
    if there.shape != own.shape:
        return f"has shape {tuple(there.shape)} where {tuple(own.shape)} is needed"
    if there.is_floating_point() != own.is_floating_point():
        types = [str(each.dtype).removeprefix("torch.") for each in (there, own)]
        return f"is {types[0]} where {types[1]} is needed"
    return None


def _other_constants(network: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """Return a clause on a constant that weights have and that is not the network's, or None."""
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
