"""Metrics made of functions and torch modules, by `metric`."""

from __future__ import annotations

import inspect
import math
import numbers
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.core.words import listed
from sgbench.metrics.base import UNRANKED, ImageMetric, Pair, Runtime

if TYPE_CHECKING:
    import torch

KEYWORDS = ("lr", "scale")
"""What a function may ask for by keyword-only parameters, as losses do."""


@dataclass(frozen=True, kw_only=True)
class FunctionMetric(ImageMetric):
    """A function or a torch module as a metric; `metric` makes one. Called itself, it does what the function does."""

    compute: Callable[..., Any] = field(repr=False)
    """The function, or the module."""
    wishes: tuple[str, ...]
    """Which of `KEYWORDS` it asks for."""
    crop: bool
    """Whether SR and HR come without a border of as many pixels as the scale."""
    uint8: bool
    """Whether images come as arrays, not as tensors."""

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """What it is made of, as `inspect` and `sgbench.core.registry` look for it."""
        return self.compute

    def __call__(self, *images: Any, **options: Any) -> Any:
        """Return what the function returns."""
        return self.compute(*images, **options)

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the value for one pair of images; tensors and the module are on the runtime's device.

        Raises:
            InputError: If what is returned is not one number.
            Undefined: If nothing is left of the image without its border, or the function says so.
        """
        import torch

        images = [image.pixels for image in ((pair.sr, pair.hr) if self.needs_hr else (pair.sr,))]
        if self.crop:
            images = [pair.without_border(pixels) for pixels in images]
        convert = _array if self.uint8 else partial(_tensor, device=runtime.device)
        wishes = {wish: convert(pair.lr.pixels) if wish == "lr" else pair.scale for wish in self.wishes}
        if isinstance(self.compute, torch.nn.Module):
            self.compute.eval().to(runtime.device)
        with torch.no_grad():
            return _number(self.compute(*map(convert, images), **wishes))


def metric(
    *,
    direction: Literal["lower", "higher"],
    name: str | None = None,
    unit: str = "",
    digits: int | None = None,
    rank: int = UNRANKED,
    crop: bool = False,
    uint8: bool = False,
    version: str = "1",
    description: str | None = None,
    source: str | None = None,
) -> Callable[[Callable[..., Any]], FunctionMetric]:
    """Return a decorator that makes a metric of a function ``(sr, hr) -> float``, or of a `torch.nn.Module`.

    It is called for each image with what a loss gets: float32 tensors of shape [1, 3, H, W], RGB, values in [0, 1], on
    the device of the run, whole images; gradients are off. It returns a number, or a tensor or array that holds one. A
    function ``(sr) -> float`` makes a no-reference metric, which also scores images without HR. The keyword-only
    parameters ``lr`` and ``scale`` get the LR image and the factor. If there is no value for an image, it raises
    `sgbench.metrics.Undefined` with the reason.

    A module is put into evaluation mode and moved to the device. If it names pretrained networks in its ``networks``,
    as losses do, their hashes become part of the protocol.

    Args:
        direction: Which values are better.
        name: What it is called; by default ``module:function``, as which it is named on the command line, and
            ``function`` in a script or a notebook. Needed for a module, which is an object.
        unit: Unit of the value, such as ``dB``.
        digits: Decimals with which values are shown; None stands for four significant digits.
        rank: Place among other metrics; tables begin with the lowest.
        crop: Leave out a border of as many pixels as the scale, as PSNR and SSIM do.
        uint8: Give NumPy arrays of uint8, shape [H, W, 3], RGB, in place of tensors.
        version: Another one has the scores computed anew, as another code of the function does by itself.
        description: One line for lists; by default the first one of the docstring.
        source: The publication that defines it.

    Raises:
        InputError: If an option is not valid.
    """

    def decorate(compute: Callable[..., Any]) -> FunctionMetric:
        if isinstance(compute, type) or not callable(compute):
            what = f"the class {compute.__name__}" if isinstance(compute, type) else f"a {type(compute).__name__}"
            raise InputError(f"sgbench.metric is given {what}; a function or an object of torch.nn.Module is needed.")
        own_name = getattr(compute, "__qualname__", None)
        module = getattr(compute, "__module__", "__main__")
        if name is None and own_name is None:
            raise InputError(
                f"sgbench.metric is given a {type(compute).__name__}, which has no name; name='module:attribute' "
                "is needed."
            )
        called = name or (str(own_name) if module == "__main__" else f"{module}:{own_name}")
        implementation = f"{module}:{own_name or type(compute).__qualname__}"
        images, wishes = _asked(called, compute)
        made = FunctionMetric(
            name=called,
            direction=direction,
            unit=unit,
            digits=digits,
            rank=rank,
            version=version,
            needs_hr=images > 1,
            needs_lr=bool(wishes),
            networks=tuple(getattr(compute, "networks", ())),
            protocol=_protocol(implementation, crop=crop, uint8=uint8),
            description=description or (inspect.getdoc(compute) or implementation).partition("\n")[0],
            source=source or implementation,
            compute=compute,
            wishes=wishes,
            crop=crop,
            uint8=uint8,
        )
        if isinstance(compute, FunctionType) and _found(compute) is not compute:
            compute.__qualname__ += ".compute"  # where it is found from now on, also by pickle
        return made

    return decorate


def _protocol(implementation: str, *, crop: bool, uint8: bool) -> Mapping[str, Any]:
    return {
        "implementation": implementation,
        "colour_space": "RGB",
        "value_range": [0, 255 if uint8 else 1],
        "border_crop": "scale" if crop else None,
        "resize": None,
    }


def _asked(name: str, compute: Callable[..., Any]) -> tuple[int, tuple[str, ...]]:
    """Return how many images a function asks for, 1 for SR or 2 for SR and HR, and which of `KEYWORDS`.

    Raises:
        InputError: If it asks for anything else.
    """
    with foreign(f"metric '{name}'"):
        parameters = inspect.signature(getattr(compute, "forward", compute)).parameters
    keywords = [key for key, each in parameters.items() if each.kind is each.KEYWORD_ONLY]
    wishes = tuple(key for key in keywords if key in KEYWORDS)
    needed = [each for key, each in parameters.items() if each.default is each.empty and key not in wishes]
    images = [each for each in needed if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if len(images) not in (1, 2) or len(needed) > len(images):
        asked = ", ".join(each if each in wishes else str(parameters[each]) for each in parameters)
        raise InputError(
            f"metric '{name}' asks for ({asked}); (sr, hr), or (sr) without a reference, with {listed(KEYWORDS)} as "
            "keywords if it wants them, is needed."
        )
    return len(images), wishes


def _found(function: FunctionType) -> object:
    """Return what its module has under the name of a function; while it is decorated, this is not yet the metric."""
    found: object = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found


def _array(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy of an image, shape [H, W, 3]."""
    return np.array(pixels.transpose(1, 2, 0), order="C")


def _tensor(pixels: NDArray[np.uint8], device: str) -> torch.Tensor:
    """Return an image as losses get it, shape [1, 3, H, W]."""
    import torch

    return torch.tensor(pixels, device=device)[None].float() / 255


def _number(value: Any) -> float:
    """Return what a function has returned.

    Raises:
        InputError: If it is not one number.
    """
    number = value.item() if math.prod(getattr(value, "shape", ())) == 1 and hasattr(value, "item") else value
    if not isinstance(number, numbers.Real):
        shape = f" of shape {list(value.shape)}" if hasattr(value, "shape") else ""
        raise InputError(f"it returns a {type(value).__name__}{shape}; one number is needed.")
    return float(number)
