"""Architectures of the library spandrel, as backbones ``spandrel:ARCH`` with freshly drawn weights.

spandrel (https://github.com/chaiNNer-org/spandrel, the extra ``sgbench[spandrel]``) holds the networks of some forty
publications, for inference: it infers a network's arguments from a checkpoint. Here each network is built with the
defaults of its constructor, a few of which have to be replaced, and the requested scale.
"""

import functools
import inspect
from typing import Any, ClassVar, get_args

from torch import Tensor, nn
from torch.nn import functional

from sgbench.core.errors import InputError, unknown

SCALE_ARGUMENTS = ("scale", "upscale", "up_scale", "upscale_factor", "upscaling_factor")
"""Names of the scale in constructors; a network without one of them does not upscale, or by a fixed factor."""

OPTIONS: dict[str, dict[str, Any]] = {
    "ATD": {"upsampler": "pixelshuffle"},
    "DRCT": {"upsampler": "pixelshuffle"},
    "GRL": {"upsampler": "pixelshuffle"},
    "HAT": {"window_size": 16},
    "SAFMN": {"dim": 36},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "Swin2SR": {"upsampler": "pixelshuffle", "window_size": 8},
    "SwinIR": {"upsampler": "pixelshuffle", "window_size": 8},
}
"""Arguments without a default, or whose default does not upscale or does not fit another default: as published."""

REFUSED = {
    "IPT": "takes images of 48×48 pixels only",
    "MMRealSR": "returns degrees of degradation besides an image",
    "SAFMNBCIE": "keeps the size of an image",
    "SwiftSRGAN": "upscales by 2 and 4 only",
}
"""Architectures that have an argument for the scale but cannot be backbones."""

SMALLEST = 16
"""Side in pixels that every architecture can take; smaller images are padded to it."""

MULTIPLE = {"DRCT": 16}
"""What the sides of an image must be multiples of, if anything."""


def architecture(name: str) -> type[nn.Module]:
    """Return a backbone class that is one of spandrel's networks, with spandrel's parameter names.

    Its ``forward`` maps [N, 3, H, W] in [0, 1] to [N, 3, scale·H, scale·W], not clamped, for any H and W: images that
    the network cannot take are padded at the right and the bottom, and the output is cropped.

    Args:
        name: spandrel's id of the architecture, such as ``SwinIR``.

    Raises:
        InputError: If spandrel is not installed, does not know the architecture, or it is no backbone.
    """
    networks = _networks()
    scale_arguments = _scale_arguments(networks)
    if name not in networks:
        raise unknown("architecture of spandrel", name, scale_arguments)
    if name not in scale_arguments:
        why = REFUSED.get(name, "has no argument for the scale")
        raise InputError(f"this architecture {why}; valid: {', '.join(sorted(scale_arguments))}.")
    return _backbone(name)


def __getattr__(name: str) -> type[nn.Module]:
    """Return the class of an architecture, which pickle looks for in this module."""
    if name.startswith("_"):  # Python itself looks for such names
        raise AttributeError(name)
    return architecture(name)


def usable() -> list[str]:
    """Return the ids of the architectures that are backbones, sorted.

    Raises:
        InputError: If spandrel is not installed.
    """
    return sorted(_scale_arguments(_networks()))


@functools.cache
def _backbone(name: str) -> type[nn.Module]:
    networks = _networks()
    network, scale_argument = networks[name], _scale_arguments(networks)[name]
    options, multiple = OPTIONS.get(name, {}), MULTIPLE.get(name, 1)

    class Backbone(network):  # type: ignore[misc, valid-type] # its base is known only now
        source: ClassVar[str] = f"{name} of the library spandrel, with the defaults of its constructor"

        def __init__(self, *, scale: int) -> None:
            super().__init__(**{scale_argument: scale, **options})

        def forward(self, lr: Tensor) -> Tensor:
            """Upscale a batch."""
            height, width = lr.shape[-2:]
            bottom, right = (max(SMALLEST - side, -side % multiple) for side in (height, width))
            # Even if nothing is to be padded: this makes a copy, and some networks write into their input.
            padded = functional.pad(lr, (0, right, 0, bottom), mode="replicate")
            out: Tensor = super().forward(padded)
            scale = out.shape[-1] // padded.shape[-1]
            return out[..., : scale * height, : scale * width]

    Backbone.__name__ = Backbone.__qualname__ = name
    return Backbone


def _networks() -> dict[str, type[nn.Module]]:
    """Return the network class of every architecture that spandrel knows, by id."""
    try:
        from spandrel import MAIN_REGISTRY
    except ImportError as error:
        raise InputError(f"spandrel is not installed ({error}); pip install 'sgbench[spandrel]'.") from error
    return {support.architecture.id: _network(type(support.architecture)) for support in MAIN_REGISTRY}


def _network(described: type) -> type[nn.Module]:
    """Return the network class X of a subclass of ``spandrel.Architecture[X]``, or the first of several."""
    (network,) = get_args(described.__orig_bases__[0])  # type: ignore[attr-defined] # every generic subclass has it
    first: type[nn.Module] = (*get_args(network), network)[0]
    return first


def _scale_arguments(networks: dict[str, type[nn.Module]]) -> dict[str, str]:
    """Return the name of the scale in each network that can be a backbone, by the id of its architecture."""
    found = {}
    for name, network in networks.items():
        arguments = [each for each in SCALE_ARGUMENTS if each in inspect.signature(network).parameters]
        if arguments and name not in REFUSED:
            found[name] = arguments[0]
    return found
