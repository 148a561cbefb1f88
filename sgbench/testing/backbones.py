"""The rules for backbones."""

import copy
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from sgbench.backbones import build_backbone, count_parameters
from sgbench.backbones.cost import without_values
from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES
from sgbench.core.words import some
from sgbench.spec import Recipe, backbone_sizes, split_backbone
from sgbench.testing.base import IMAGES, Trial, in_milliseconds, pickled, refuse_strangers, rule, same, seconds
from sgbench.training.numerics import FORMATS

ODD = (37, 29)
"""Height and width of an image: odd, as test images may be."""

ROUNDING = 1e-3
"""By how much another order of sums may change what a network returns, relative to its largest value."""

REFERENCE = "edsr-tiny"
"""The backbone beside which others are timed."""


class BackboneTrial(Trial):
    """A backbone, tried on an image of an odd size and, in training, on up to two patches.

    Args:
        name: Its canonical name.
        recipe: Of the training that it is for.
    """

    def __init__(self, name: str, recipe: Recipe) -> None:
        super().__init__("backbone", name, recipe)

    def prepare(self) -> None:
        """Construct the network, and keep the state that it begins with."""
        assert self._begun is not None

    @cached_property
    def _network(self) -> nn.Module:
        return self._drawn(0)

    @cached_property
    def _begun(self) -> dict[str, Any]:
        return copy.deepcopy(self._network.state_dict())

    def _drawn(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build_backbone(self.name, self.recipe.scale)

    @rule(
        "upscales an image of any size",
        fix="return a floating-point tensor [N, 3, scale·H, scale·W], and pad what needs even sides",
        decisive=True,
    )
    def call(self) -> None:
        """Upscale an image of an odd size as scoring does."""
        with torch.no_grad():
            self._check_output(self._network.eval()(torch.rand(1, 3, *ODD)))

    @rule("is trained: a gradient reaches its parameters", fix="use torch's operations from the input to the output")
    def gradient(self) -> str | None:
        """Train it for a step on random patches."""
        assert self._first is not None
        parameters = dict(self._network.named_parameters())
        without = [name for name, parameter in parameters.items() if parameter.grad is None]
        if len(without) == len(parameters):
            raise InputError(f"{self.what} cannot be trained: no gradient reaches a parameter of it.")
        self._require_finite(self._first, "random patches")
        return f"none reaches {some(without)}" if without else None

    @rule(
        "gives the same bits for the same patches, state and seed",
        fix="keep what it remembers in buffers, and draw random numbers from torch alone",
    )
    def repeatable(self) -> None:
        """Give it the same patches again, with the state that it began with."""
        first = self._first
        if not torch.equal(first, self._in_training(self._patches)):
            raise InputError(
                f"{self.what} returns different images for the same patches, state and seed; what it keeps between "
                "calls is not saved, so that a resumed run would differ."
            )

    @rule("is finite, with its gradients, for black and white images", fix="add a small number inside denominators")
    def constant(self) -> None:
        """Train it on a black and a white patch."""
        flat = torch.arange(2.0)[:, None, None, None].expand(2, *self._patches.shape[1:])
        self._require_finite(self._in_training(flat), "black and white patches")

    @rule("treats each image of a batch alone in evaluation", fix="compute statistics of a batch only in training")
    def batch(self) -> None:
        """Upscale two images together, and each alone."""
        self._put_back()
        with torch.no_grad():
            together = self._network.eval()(self._patches.clone())
            alone = torch.cat([self._network(patch[None].clone()) for patch in self._patches])
        if not same(together, alone, ROUNDING):
            raise InputError(f"{self.what} returns another image if there are others in the batch, in evaluation too.")

    @rule("has all that it has learned in its state_dict", fix="use parameters, register_buffer() and submodules")
    def state(self) -> None:
        """Load its weights into another network, as scoring loads final weights, and compare what both return."""
        trained, loaded = self._network, self._drawn(1)
        self._in_training(self._patches)
        loaded.load_state_dict(trained.state_dict())
        with torch.no_grad():
            images = [network.eval()(self._patches.clone()) for network in (trained, loaded)]
        if not torch.equal(*images):
            raise InputError(f"{self.what} returns another image after its state_dict is loaded into a new network.")

    @rule("draws its first weights from torch's seed", fix="draw them with torch's functions, and not with NumPy's")
    def seed(self) -> None:
        """Construct it twice with one seed."""
        one, other = (self._drawn(2).state_dict() for _ in range(2))
        different = [key for key, value in one.items() if not torch.equal(value, other[key])]
        if different:
            raise InputError(f"{self.what} begins with different values of {some(different)} for the same seed.")

    @rule("is finite, with its gradients, in bfloat16", fix="compute norms and sums of many values in float32")
    def bf16(self) -> None:
        """Train it for a step with precision bf16."""
        with torch.autocast("cpu", torch.bfloat16):
            sr = self._in_training(self._patches)
        self._require_finite(sr, "random patches in bfloat16")

    @rule("takes images in either memory format", fix="use reshape() in place of view()")
    def layout(self) -> None:
        """Train it for a step, and compare what it returns in evaluation, with network and patches in each format."""
        images = []
        for memory_format in FORMATS.values():
            network, patches = copy.deepcopy(self._network), self._patches.contiguous(memory_format=memory_format)
            network.load_state_dict(self._begun)
            network.to(memory_format=memory_format)
            _step(network.train(), patches)
            network.load_state_dict(self._begun)
            with torch.no_grad():
                images.append(network.eval()(patches.clone()))
        if not same(images[0], images[1], ROUNDING):
            raise InputError(f"{self.what} returns another image in channels_last, which is the default of training.")

    @rule("moves to a GPU", fix="use register_buffer for constants, and device=x.device for new tensors")
    def device(self) -> None:
        """Give it an image on a GPU, once it has computed what it keeps of images on the CPU."""
        assert self._first is not None
        refuse_strangers(self.what, self._network, _call)

    @rule("can be pickled and copied", fix="use methods or functions of the module in place of lambdas")
    def pickles(self) -> None:
        """Compare a copy with the original."""
        copied = pickled(self._network)
        with torch.no_grad():
            images = [network.eval()(self._patches.clone()) for network in (self._network, copied)]
        if not torch.equal(*images):
            raise InputError(f"{self.what} returns another image than a copy of it.")

    @rule("can be constructed in each of its sizes", fix="let the constructor take what 'sizes' names")
    def sizes(self) -> str:
        """Construct each size without values."""
        family, _ = split_backbone(self.name)
        sizes = [] if BACKBONES.is_provided(family) else backbone_sizes(family)
        for size in sizes:
            without_values(f"{family}-{size}", self.recipe.scale)
        return ", ".join(sizes) or "it has none"

    @rule("what it costs", fix="make it work in a step of training")
    def cost(self) -> str:
        """Count its parameters, and time a step beside one of `REFERENCE`."""
        reference = build_backbone(REFERENCE, self.recipe.scale)
        own, other = (seconds(partial(_step, each.train(), self._patches)) for each in (self._network, reference))
        return (
            f"{count_parameters(self._network):,} parameters; {in_milliseconds(own)} a step, {own / other:.2g} times "
            f"that of '{REFERENCE}'"
        )

    @cached_property
    def _patches(self) -> Tensor:
        random = torch.Generator().manual_seed(IMAGES)
        side = self.recipe.patch
        return torch.rand(min(self.recipe.batch, 2), 3, side, side, generator=random)

    @cached_property
    def _first(self) -> Tensor:
        return self._in_training(self._patches)

    def _put_back(self) -> None:
        self._network.load_state_dict(copy.deepcopy(self._begun))

    def _in_training(self, patches: Tensor) -> Tensor:
        """Return what the network makes of patches in training, with gradients of its parameters."""
        self._put_back()
        torch.manual_seed(0)
        self._network.zero_grad()
        sr: Tensor = self._network.train()(patches.clone())
        if sr.requires_grad:
            torch.autograd.backward(sr.float().mean())
        return sr

    def _require_finite(self, sr: Tensor, images: str) -> None:
        if not sr.isfinite().all():
            raise InputError(f"{self.what} returns values that are not finite for {images}.")
        for name, parameter in self._network.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise InputError(f"{self.what} has a gradient of '{name}' that is not finite for {images}.")

    def _check_output(self, sr: Any) -> None:
        """Check the output for an image of the size `ODD`."""
        height, width, scale = *ODD, self.recipe.scale
        if not (isinstance(sr, Tensor) and sr.is_floating_point() and sr.ndim == 4):
            what = f"{sr.dtype} of shape {tuple(sr.shape)}" if isinstance(sr, Tensor) else type(sr).__name__
            raise InputError(f"{self.what} returns {what}; floating-point images [N, 3, H, W] are needed.")
        if sr.shape[1] != 3:
            raise InputError(f"{self.what}: 3 channels are needed, {sr.shape[1]} came.")
        if sr.shape != (1, 3, scale * height, scale * width):
            raise InputError(
                f"{self.what} makes {len(sr)} image of {sr.shape[3]}×{sr.shape[2]} pixels from one of "
                f"{width}×{height}; one of {scale * width}×{scale * height} is needed."
            )
        if not sr.isfinite().all():
            raise InputError(f"{self.what} returns values that are not finite for a random image in [0, 1].")


def _call(network: nn.Module, make: Callable[..., Tensor]) -> None:
    network(make(1, 3, *ODD))


def _step(network: nn.Module, patches: Tensor) -> None:
    sr: Tensor = network(patches.clone())
    if sr.requires_grad:
        torch.autograd.backward(sr.mean())
