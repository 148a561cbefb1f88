"""Networks that upscale images.

A backbone is a `torch.nn.Module` class whose constructor takes ``scale`` and which maps [N, 3, H, W] in [0, 1] to
[N, 3, scale·H, scale·W]. A family may carry ``sizes``: named sets of the remaining constructor arguments, chosen as
``family-size``. Register one's own with `register_backbone`, through the entry-point group ``sgbench.backbones``, or
name it as ``module:Class``.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from sgbench.errors import InputError
from sgbench.registry import BACKBONES
from sgbench.spec import split_backbone

__all__ = ["build_backbone", "count_parameters", "load_weights", "register_backbone"]

register_backbone = BACKBONES.register
"""Class decorator: ``@register_backbone("name")``."""


def build_backbone(name: str, scale: int) -> nn.Module:
    """Build a network with freshly drawn weights.

    Args:
        name: ``family-size``, a registered name, or ``module:Class``.
        scale: 2, 3 or 4.

    Raises:
        InputError: If there is no such backbone.
    """
    family, size = split_backbone(name)
    backbone = BACKBONES.load(family)
    options = backbone.sizes[size] if size else {}
    network: nn.Module = backbone(scale=scale, **options)
    return network


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], *, source: str, name: str) -> None:
    """Load weights into a network, whole or not at all.

    Args:
        network: Built by `build_backbone`.
        weights: Tensors by parameter name.
        source: The file they come from, for messages.
        name: The backbone's name, for messages.

    Raises:
        InputError: If a name or a shape does not fit, naming the first missing and the first unexpected one.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    if missing or unexpected:
        kinds = {"misses": missing, "has an unexpected": unexpected}
        faults = [f"{fault} '{keys[0]}'" for fault, keys in kinds.items() if keys]
        raise InputError(f"'{source}' is no checkpoint of backbone '{name}': it {' and '.join(faults)}.")
    for key, value in own.items():
        if value.shape != weights[key].shape:
            raise InputError(
                f"'{source}' is no checkpoint of backbone '{name}': '{key}' has shape {tuple(weights[key].shape)} "
                f"where {tuple(value.shape)} is needed."
            )
    network.load_state_dict(dict(weights))
