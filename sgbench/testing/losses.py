"""The rules for losses."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from sgbench.backbones import build_backbone
from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.core.registry import LOSSES
from sgbench.core.words import quoted
from sgbench.losses import Batch, WeightedSum, build_loss, scalar
from sgbench.spec import Expression, Recipe
from sgbench.spec.expression import Term, parse
from sgbench.spec.resolve import REQUIRED, checked, options_of
from sgbench.testing.base import (
    IMAGES,
    Trial,
    from_file,
    identical,
    in_milliseconds,
    not_finite,
    pickled,
    refuse_strangers,
    rule,
    same,
    seconds,
)
from sgbench.training.method import Learner, kept_outputs, learners_of
from sgbench.training.numerics import FORMATS

UNCLAMPED = (-0.1, 1.1)
"""Range of the SR values for a loss, as the output of networks is not clamped."""

FAR = (-10.0, 10.0)
"""Range of those that a network may give before it has learned anything."""

RANDOM = 0.05
"""By how much a loss may differ, relatively, where only rounding and random numbers of its own do."""

EPS = "add a small number inside roots, logarithms and denominators, as in (x.square() + 1e-12).sqrt()"


class LossTrial(Trial):
    """A loss, tried on two random images at a time.

    Args:
        term: The loss with its options; its coefficient does not matter.
        recipe: Of the training that it is for.
        backbones: Those whose layers the loss may ask for. If it does, it is tried with each, otherwise with the first.
    """

    def __init__(self, term: Term, recipe: Recipe, backbones: Sequence[str]) -> None:
        super().__init__("loss", term.call, recipe)
        self.term = term
        self._backbones = backbones

    def prepare(self) -> None:
        """Construct the loss, and keep the state that it begins with."""
        assert self._begun is not None

    @cached_property
    def loss(self) -> WeightedSum:
        """The loss alone."""
        return self._constructed()

    def _constructed(self) -> WeightedSum:
        torch.manual_seed(0)
        return build_loss(Expression((replace(self.term, weight=1.0),)))

    @cached_property
    def _learners(self) -> list[Learner]:
        return learners_of(self.loss, self.recipe)

    @cached_property
    def _begun(self) -> tuple[dict[str, Tensor], list[Any]]:
        """All tensors of the loss, and what a checkpoint would hold, before it is used."""
        states = [learner.optimizer.state_dict() for learner in self._learners]
        every = {key: value.clone() for key, value in _tensors(self.loss)}
        return every, copy.deepcopy([self.loss.changing_state(), *states])

    @rule("returns a scalar for SR and HR", fix="write forward(self, sr, hr) and return a mean", decisive=True)
    def call(self) -> None:
        """Call it as training does, but for the guard against writes."""
        assert self._called is not None

    @cached_property
    def _called(self) -> bool:
        """Call the loss and return whether it has written into the images."""
        written = False
        for batch in self._batches():
            given = _given(batch)
            asked = {key: getattr(given, key) for key in self.loss.wishes[0]}
            value = scalar(self.what, self.loss.losses[0](given.sr, given.hr, **asked))
            if value.requires_grad:
                torch.autograd.backward(value)
            written |= not all(map(torch.equal, _images(given), _images(batch)))
        return written

    @rule(
        "leaves the images as they are",
        fix="replace operations that end in an underscore, and +=, by those that make new tensors",
        decisive=True,
    )
    def images(self) -> None:
        """Compare the images with what they were."""
        if self._called:
            raise InputError(f"{self.what} writes into the images that it is given, which other terms share.")

    @rule("is finite for random images", fix=EPS, decisive=True)
    def value(self) -> None:
        """Train it for a step, and look at its values before and after, and at those of its own terms."""
        for values, _ in self._first:
            if not values.isfinite().all():
                low, high = UNCLAMPED
                raise InputError(
                    f"{self.what} is {not_finite(values)} for random images, HR in [0, 1] and SR, as networks give it, "
                    f"in [{low:g}, {high:g}]; a finite number is needed."
                )

    @rule("gives SR a finite gradient", fix=f"leave out round(), detach() and no_grad() on the way from SR; {EPS}")
    def gradient(self) -> None:
        """Look at the gradient to SR."""
        for _, gradient in self._first:
            if gradient is None or not gradient.any():
                raise InputError(
                    f"no gradient reaches the network through '{self.name}'; a loss that follows from SR is needed."
                )
            self._require_finite(gradient, "for random images")

    @rule("keeps what changes in its state_dict", fix="register_buffer('name', value), and no persistent=False")
    def state(self) -> None:
        """Train it for a step, put its state back as a checkpoint has it, and look for what has changed."""
        assert self._first is not None
        every, saved = self._begun
        self._put_back(from_file(saved))
        changed = [key.split(".", 2)[2] for key, value in _tensors(self.loss) if not torch.equal(value, every[key])]
        if changed:
            raise InputError(
                f"{self.what} changes {', '.join(map(repr, changed))}, which its state_dict lacks, so that a resumed "
                "run would differ."
            )

    @rule(
        "gives the same bits for the same images, state and seed",
        fix="keep what it remembers in buffers, and draw random numbers from torch alone",
        decisive=True,
    )
    def repeatable(self) -> None:
        """Train it for the same step again."""
        first = self._first
        for (values, gradient), (again, gradient_again) in zip(first, self._train(), strict=True):
            if not torch.equal(values, again):
                one, other = next((one, other) for one, other in zip(values, again, strict=True) if one != other)
                raise InputError(
                    f"{self.what} is {one.item()} and then {other.item()} for the same images, state_dict and seed; "
                    "what else it keeps between calls is not saved, so that a resumed run would differ."
                )
            if gradient is not None and gradient_again is not None and not torch.equal(gradient, gradient_again):
                raise InputError(f"{self.what} has two gradients for the same images, state_dict and seed.")

    @rule("is finite, with its gradient, where SR equals HR", fix=EPS)
    def equal(self) -> None:
        """Give it equal images."""
        _, hr = self._images
        self._look(hr, hr, "where SR equals HR")

    @rule("is finite, with its gradient, for constant images", fix=EPS)
    def constant(self) -> None:
        """Give it a black and a white image as SR and as HR, and beside grey ones."""
        sr, hr = self._images
        flat, grey = _black_and_white(hr), torch.full_like(hr, 0.5)
        for one, other, where in ((flat, hr, "SR is"), (sr, flat, "HR is"), (flat, grey, "both images are")):
            self._look(one, other, f"where {where} constant")

    @rule("is finite, with its gradient, for extreme images", fix="bound what grows without limit, such as exp()")
    def extreme(self) -> None:
        """Give it black against white, and SR far out of the range of images."""
        _, hr = self._images
        flat = _black_and_white(hr)
        self._look(flat, 1 - flat, "where SR is black and HR white, or the reverse")
        low, high = FAR
        random = torch.rand(hr.shape, generator=torch.Generator().manual_seed(IMAGES + 1))
        self._look(low + (high - low) * random, hr, f"for SR in [{low:g}, {high:g}], as networks give it at first")

    @rule("does not depend on the number of images", fix="return a mean over images, and no sum")
    def batch(self) -> None:
        """Compare the loss of two images with that of the same images twice, and try an image alone."""
        sr, hr = self._images
        once, twice = (self._look(sr.repeat(n, 1, 1, 1), hr.repeat(n, 1, 1, 1), "for random images") for n in (1, 2))
        self._look(sr[:1], hr[:1], "for one image alone")
        for one, other in zip(once, twice, strict=True):
            if not same(one, other, RANDOM):
                raise InputError(
                    f"{self.what} is {one.item():.4g} for two images and {other.item():.4g} for the same ones twice, "
                    "so that a coefficient would mean something else for another batch size."
                )

    @rule("is finite, with its gradient, for SR in bfloat16", fix=EPS)
    def bf16(self) -> str:
        """Give it the SR of a network in bfloat16, smooth, so that neighbours are equal when they are rounded."""
        _, hr = self._images
        smooth = torch.linspace(0.5, 0.6, hr.shape[-1]).expand(hr.shape).clone()
        exact = self._look(smooth, hr, "for a smooth SR")
        rounded = self._look(smooth.bfloat16(), hr, "for a smooth SR in bfloat16")
        differences = [abs(one / other - 1).item() for one, other in zip(rounded, exact, strict=True) if other]
        return f"differs by {max(differences, default=0):.1e} from that in float32"

    @rule(
        "takes images in either memory format",
        fix="use reshape() in place of view(), and name dimensions instead of relying on strides",
    )
    def layout(self) -> None:
        """Give it images as convolutions in `channels_last` return them, which is the default of training."""
        for batch in self._batches():
            values = []
            for name, memory_format in FORMATS.items():
                sr, hr = (image.contiguous(memory_format=memory_format) for image in (batch.sr, batch.hr))
                values.append(self._finite(replace(batch, sr=sr, hr=hr), f"for images in {name}"))
            if not same(values[0], values[1], RANDOM):
                raise InputError(f"{self.what} is {values[0]:.6g} in channels_last and {values[1]:.6g} otherwise.")

    @rule("moves to a GPU", fix="use register_buffer for constants, and device=sr.device for new tensors")
    def device(self) -> None:
        """Give it the images on a GPU, once it has computed what it keeps of images on the CPU."""
        assert self._called is not None
        batch = next(self._batches())

        def call(loss: nn.Module, make: Callable[..., Tensor]) -> None:
            lr, sr, hr = (make(*image.shape) for image in (batch.lr, batch.sr, batch.hr))
            features = {layer: make(*feature.shape) for layer, feature in batch.features.items()}
            loss(replace(batch, lr=lr, sr=sr, hr=hr, average_sr=hr.clone(), features=features))

        self._put_back()
        refuse_strangers(self.what, self.loss, call)

    @rule("can be pickled and copied", fix="use methods or functions of the module in place of lambdas")
    def pickles(self) -> None:
        """Compare a copy with the original."""
        original = self._constructed()
        one, other = self._both(original, pickled(original))
        if not identical(one, other):
            raise InputError(f"{self.what} is {one.item()}, and a copy of it is {other.item()}.")

    @rule(
        "has options that can be written, whose defaults do what leaving them out does",
        fix="use keyword-only options whose defaults are numbers, true or false, or words",
    )
    def options(self) -> str:
        """Write every default out, read it back, and construct the loss with them."""
        every = options_of(self.term.name).items()
        defaults = {key: value for key, value in every if value is not REQUIRED and value is not None}
        written = dict[str, Any]()
        for key, default in defaults.items():
            try:
                (term,) = parse(Term(self.term.name, options={key: default}).call).terms
                echoed = not checked(term, defaults).options
            except InputError:
                echoed = False
            if not echoed:
                raise InputError(
                    f"{self.what} has an option {quoted(key)} whose default {quoted(default)} cannot be written in an "
                    "expression."
                )
            written |= term.options
        written |= self.term.options
        left_out = self._constructed()
        torch.manual_seed(0)
        given = LOSSES.load(self.term.name)(**written)
        one, other = self._both(left_out, WeightedSum([(self.term.call, 1.0, given)]))
        if not identical(one, other):
            raise InputError(f"{self.what} is {one.item()}, and {other.item()} if its defaults are given.")
        return Term(self.term.name, options=written).call

    @rule("what it costs", fix="make it work in a step of training")
    def cost(self) -> str:
        """Time it, and what it learns itself, beside a step of training with L1."""
        batch = next(self._batches())
        backbone = self._backbones[0]
        network, l1 = build_backbone(backbone, self.recipe.scale), nn.L1Loss()

        def step() -> None:
            given = _given(batch)
            value: Tensor = self.loss(given)[0]
            if value.requires_grad:
                torch.autograd.backward(value)
            for learner in self._learners:
                learner.step([(1.0, replace(given, sr=given.sr.detach()))], 1.0)

        self._put_back()
        own, whole = seconds(step), seconds(lambda: l1(network(batch.lr), batch.hr).backward())
        times = own / whole
        share = f"{times:.0%} of" if times < 1 else f"{times:.3g} times"
        return f"{in_milliseconds(own)}, {share} a step of '{backbone}' with L1"

    @cached_property
    def _images(self) -> tuple[Tensor, Tensor]:
        """Two random images as SR and HR."""
        random = torch.Generator().manual_seed(IMAGES)
        side = self.recipe.patch * self.recipe.scale
        sr, hr = torch.rand((2, 2, 3, side, side), generator=random)
        low, high = UNCLAMPED
        return low + (high - low) * sr, hr

    @cached_property
    def _networks(self) -> list[tuple[str, nn.Module, dict[str, Tensor]]]:
        """The backbones whose layers the loss asks for, and what these have returned last."""
        found = []
        for backbone in self._backbones if self.loss.layers else ():
            with foreign(f"backbone '{backbone}'"):
                network = build_backbone(backbone, self.recipe.scale)
                found.append((backbone, network, kept_outputs(network, self.loss.layers, backbone)))
        return found

    def _batches(self, images: tuple[Tensor, Tensor] | None = None) -> Iterator[Batch]:
        """Yield SR and HR, by default random ones, with LR, a perfect average, and the features of each backbone."""
        sr, hr = images or self._images
        lr = avg_pool2d(hr, self.recipe.scale)
        batch = Batch(lr, sr, hr, self.recipe.scale, 0, self.recipe.steps, average_sr=hr.clone())
        if not self._networks:
            yield batch
        for backbone, network, features in self._networks:
            with foreign(f"backbone '{backbone}'"), torch.no_grad():
                network(lr.clone())
            yield replace(batch, features=dict(features))

    def _both(self, one: WeightedSum, other: WeightedSum) -> list[Tensor]:
        """Return the values of two losses for the same images and seed."""
        values = []
        for loss in (one, other):
            torch.manual_seed(0)
            values.append(loss(next(self._batches()))[0].detach())
        return values

    def _put_back(self, saved: list[Any] | None = None) -> None:
        """Give the loss the state that it began with."""
        loss, *optimizers = copy.deepcopy(self._begun[1]) if saved is None else saved
        self.loss.load_changing_state(loss)
        for learner, state in zip(self._learners, optimizers, strict=True):
            learner.optimizer.load_state_dict(state)

    @cached_property
    def _first(self) -> list[tuple[Tensor, Tensor | None]]:
        return self._train()

    def _train(self) -> list[tuple[Tensor, Tensor | None]]:
        """Train the loss for a step with each batch of random images; see `_learn`."""
        found = []
        for batch in self._batches():
            self._put_back()
            found.append(self._learn(batch))
        return found

    def _learn(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Train it for a step, and return its value, its own terms and then its value again, and the gradient to SR."""
        torch.manual_seed(0)
        leaf = batch.sr.clone().requires_grad_()
        given = replace(batch, lr=batch.lr.clone(), sr=leaf.clone(), hr=batch.hr.clone())
        for learner in self._learners:
            learner.optimizer.zero_grad()
        value: Tensor = self.loss(given)[0]
        if value.requires_grad:
            torch.autograd.backward(value)
        own = [learner.step([(1.0, replace(given, sr=given.sr.detach()))], 1.0) for learner in self._learners]
        again: Tensor = self.loss(given)[0]
        if not all(map(torch.equal, _images(given), _images(batch))):
            raise InputError(f"{self.what} writes into the images that it is given, which other terms share.")
        return torch.cat([value.detach()[None], *own, again.detach()[None]]), leaf.grad

    def _look(self, sr: Tensor, hr: Tensor, where: str) -> list[Tensor]:
        """Return the values for some images; see `_finite`."""
        return [self._finite(batch, where) for batch in self._batches((sr, hr))]

    def _finite(self, batch: Batch, where: str) -> Tensor:
        """Return the value for a batch.

        Raises:
            InputError: If the value or its gradient is not finite.
        """
        self._put_back()
        torch.manual_seed(0)
        given = _given(batch)
        value: Tensor = self.loss(given)[0]
        if not value.isfinite():
            raise InputError(f"{self.what} is {value.item()} {where}; a finite number is needed.")
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, given.sr, allow_unused=True)
            if gradient is not None:
                self._require_finite(gradient, where)
        return value.detach()

    def _require_finite(self, gradient: Tensor, where: str) -> None:
        if not gradient.isfinite().all():
            raise InputError(f"the gradient of {self.what} is {not_finite(gradient)} {where}; finite ones are needed.")


def _given(batch: Batch) -> Batch:
    """Return a batch whose images may be written into, SR in reach of a gradient."""
    leaf = batch.sr.detach().clone().requires_grad_()
    return replace(batch, lr=batch.lr.clone(), sr=leaf.clone(), hr=batch.hr.clone())


def _images(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return batch.lr, batch.sr, batch.hr


def _black_and_white(like: Tensor) -> Tensor:
    return torch.arange(2.0)[:, None, None, None].expand(like.shape).clone()


def _tensors(module: nn.Module) -> chain[tuple[str, Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())
