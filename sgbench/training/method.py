"""What one step of training does."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sgbench.backbones import build_backbone, recompute_activations
from sgbench.core.errors import InputError, unknown
from sgbench.core.plugins import foreign
from sgbench.core.registry import BACKBONES
from sgbench.core.seeding import derive
from sgbench.losses import Batch, WeightedSum, build_loss, call, in_single_precision, scalar, wishes
from sgbench.spec import Recipe, RunSpec, split_backbone
from sgbench.training.averaging import Average
from sgbench.training.numerics import FORMATS, compiler_options
from sgbench.training.optimizers import build_optimizer

Part = tuple[float, Batch]
"""A part of a process's patches of a step, and its weight in their mean."""


class Supervised:
    """A network that learns to lower a loss, and the losses that learn beside it.

    In a process group every process has one, and all call theirs alike.

    Args:
        spec: The run.
        device: CPU or GPU of this process.
        recompute: Whether the network's blocks recompute their activations in the backward pass.
        initial: The weights of ``recipe.init``, by the network's names; what they lack is drawn from the seed.

    Attributes:
        names: Of the terms that `step` returns: those of the loss, and those that losses lower on their own.

    Raises:
        InputError: If activations are to be recomputed and the network does not name its blocks, it is to be compiled
            and there is no compiler, it has no layer of a name that a loss asks for, or the code of a loss or backbone
            raises an exception.
    """

    def __init__(
        self,
        spec: RunSpec,
        device: torch.device,
        *,
        recompute: bool = False,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        assert (initial is None) is (spec.recipe.init is None)
        self.spec = spec
        self.device = device
        recipe = spec.recipe
        # The same first weights on every device and for every loss: drawn on the CPU from the seed alone.
        torch.manual_seed(derive(spec.seed, "weights") % 2**63)
        self.network = build_backbone(spec.backbone, recipe.scale)
        if initial is not None:
            self.network.load_state_dict(initial, strict=False)
        self.network.to(device)
        self.network.to(memory_format=FORMATS[recipe.memory_format])
        if recompute:
            recompute_activations(self.network)
        self.criterion = build_loss(spec.loss).to(device)
        self.features = kept_outputs(self.network, self.criterion.layers, spec.backbone)
        if recipe.compiled:
            self.network.compile(dynamic=False, options=compiler_options(recipe))
        self.optimizer = build_optimizer(recipe.optimizer, self.network.parameters())
        self.average = Average(self.network, recipe.ema) if recipe.ema else None
        self._averaged = _averaged(spec, device) if needs_average(self.criterion, recipe) else None
        """A network that is given the average of the weights."""
        self.learners = learners_of(self.criterion, recipe)
        self.names = self.criterion.names + [name for learner in self.learners for name in learner.names]
        optimizers = [self.optimizer, *(learner.optimizer for learner in self.learners)]
        self._rates = [(optimizer, [group["lr"] for group in optimizer.param_groups]) for optimizer in optimizers]
        """Each optimizer, and the first learning rates of its groups of parameters."""
        saved = self.criterion.state_dict()
        self._buffers = [buffer for name, buffer in self.criterion.named_buffers() if name in saved]
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        distributed = _distributed(self.network, spec.backbone) if self.world > 1 else None
        self.model = distributed or self.network
        self._unsynchronised = distributed.no_sync if distributed else contextlib.nullcontext
        """In this context gradients gather in each process; outside, they are averaged together with the next ones."""

    def set_rates(self, factor: float) -> float:
        """Set every learning rate to its first value times a factor, and return the network's."""
        for optimizer, first in self._rates:
            for group, rate in zip(optimizer.param_groups, first, strict=True):
                group["lr"] = rate * factor
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, lr: Tensor, hr: Tensor, done: int, share: float) -> tuple[Tensor, Tensor]:
        """Train on one batch, or on this process's share of one.

        Args:
            lr: LR patches, float32, shape [N, 3, H, W], values in [0, 1].
            hr: HR patches, float32, shape [N, 3, H·scale, W·scale], values in [0, 1].
            done: Steps done before.
            share: The weight of this process's patches in a mean over processes, 1 if all have as many.

        Returns:
            The loss, a scalar, and all terms, unweighted, shape [len(names)]: of these patches, detached.

        Raises:
            InputError: If the network returns another shape, or the code of a loss or backbone raises an exception.
        """
        recipe = self.spec.recipe
        waits = self.criterion.waits(done)
        self.optimizer.zero_grad()
        for learner in self.learners:
            learner.optimizer.zero_grad()
        images = list(zip(lr.tensor_split(recipe.accumulate), hr.tensor_split(recipe.accumulate), strict=True))
        losses, terms, seen = [], [], list[Part]()
        for part in images:
            weight = len(part[0]) / len(lr)
            with contextlib.nullcontext() if part is images[-1] else self._unsynchronised():
                with torch.set_grad_enabled(not waits):
                    batch = self._upscaled(*part, done)
                loss, values = self.criterion(batch)
                if not waits:
                    with foreign(f"the gradient of '{self.spec.loss}' through '{self.spec.backbone}'"):
                        _backward(loss, share * weight)
            losses.append((weight, loss.detach()))
            terms.append((weight, values))
            if self.learners:
                seen.append((weight, _without_gradients(batch)))
        if not waits:
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
            with foreign(f"optimizer '{recipe.optimizer.name}'"):
                self.optimizer.step()
        if self.average:
            self.average.update()
        own = [learner.step(seen, share) for learner in self.learners if learner.own_terms or not waits]
        self.features.clear()
        if self.world > 1:
            _broadcast(self._buffers)
        return _mean(losses), torch.cat([_mean(terms), *own]) if own else _mean(terms)

    def _upscaled(self, lr: Tensor, hr: Tensor, done: int) -> Batch:
        recipe = self.spec.recipe
        with (
            foreign(f"backbone '{self.spec.backbone}'"),
            torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"),
        ):
            sr = self.model(lr.clone())  # which some networks write into, and losses see
            if sr.shape != hr.shape:  # losses would broadcast one to the other
                raise InputError(f"it returns {list(sr.shape)}; {list(hr.shape)} is needed.")
            average_sr = self._upscaled_by_average(lr)
        return Batch(lr, sr, hr, recipe.scale, done, recipe.steps, average_sr, self.features)

    @torch.no_grad()
    def _upscaled_by_average(self, lr: Tensor) -> Tensor | None:
        if not (self.average and self._averaged):
            return None
        self._averaged.load_state_dict(self.average.weights())
        average_sr: Tensor = self._averaged(lr.clone())
        return average_sr

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of the method."""
        state: dict[str, Any] = {"params": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average:
            state["params_ema"] = self.average.weights()
        if losses := self.criterion.changing_state():
            state["losses"] = losses
        if self.learners:
            state["loss_optimizers"] = [learner.optimizer.state_dict() for learner in self.learners]
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.network.load_state_dict(state["params"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load(state["params_ema"])
        if "losses" in state:
            self.criterion.load_changing_state(state["losses"])
        for learner, saved in zip(self.learners, state.get("loss_optimizers", ()), strict=True):
            learner.optimizer.load_state_dict(saved)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of the network."""
        return self.network.state_dict()

    def averaged(self) -> dict[str, Tensor] | None:
        """Return their average, which is scored instead; None if the recipe asks for none."""
        return self.average.weights() if self.average else None


class Learner:
    """A loss with parameters that are trained.

    Args:
        name: The loss's term in the expression.
        loss: The loss.
        recipe: Has the optimizer of a loss that does not make one.

    Attributes:
        names: Of the terms that its parameters lower, if those are trained in a step of their own.

    Raises:
        InputError: If the code of the loss raises an exception.
    """

    def __init__(self, name: str, loss: nn.Module, recipe: Recipe) -> None:
        self.name = name
        self.parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
        with foreign(f"the optimizer of loss '{name}'"):
            make = getattr(loss, "optimizer", partial(build_optimizer, recipe.optimizer))
            self.optimizer: torch.optim.Optimizer = make(self.parameters)
        self.own_terms = getattr(loss, "own_terms", None)
        self.own_names = tuple(getattr(loss, "own_names", ())) if self.own_terms else ()
        self.asked = wishes(name, self.own_terms) if self.own_terms else []
        self.names = [f"{name}.{own}" for own in self.own_names]
        if self.own_terms:
            self._require_gradients(False)

    def step(self, parts: Iterable[Part], share: float) -> Tensor:
        """Train the parameters, after the network's step.

        Args:
            parts: The batch of the network's step, without gradients.
            share: See `Supervised.step`.

        Returns:
            Its own terms, detached, shape [len(names)].
        """
        if not self.own_terms:
            self._update()
            return torch.empty(0, device=self.parameters[0].device)
        self._require_gradients(True)
        self.optimizer.zero_grad()
        terms = []
        for weight, batch in parts:
            values = self._own_values(batch)
            with foreign(f"the gradient of own_terms of loss '{self.name}'"):
                _backward(values.sum(), share * weight)
            terms.append((weight, values.detach()))
        self._update()
        self._require_gradients(False)
        return _mean(terms)

    def _own_values(self, batch: Batch) -> Tensor:
        assert self.own_terms
        with torch.autocast(batch.sr.device.type, enabled=False):
            found = call(self.name, self.own_terms, self.asked, in_single_precision(batch))
        if not (isinstance(found, dict) and set(found) == set(self.own_names)):
            raise InputError(f"own_terms of loss '{self.name}' needs to return a dict of {', '.join(self.own_names)}.")
        return torch.stack([scalar(f"own term '{name}' of '{self.name}'", found[name]) for name in self.own_names])

    def _update(self) -> None:
        if dist.is_initialized():
            _average_gradients(self.parameters)
        with foreign(f"the optimizer of loss '{self.name}'"):
            self.optimizer.step()

    def _require_gradients(self, required: bool) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(required)


def learners_of(criterion: WeightedSum, recipe: Recipe) -> list[Learner]:
    """Return the losses in a sum that have parameters to train.

    Raises:
        InputError: See `Learner`.
    """
    return [
        Learner(name, loss, recipe)
        for name, loss in zip(criterion.names, criterion.losses, strict=True)
        if any(parameter.requires_grad for parameter in loss.parameters())
    ]


def needs_average(criterion: WeightedSum, recipe: Recipe) -> bool:
    """Return whether a loss in a sum compares with what averaged weights make of the LR patches.

    Raises:
        InputError: If one does and the recipe averages none.
    """
    asking = criterion.asking_for("average_sr")
    if asking and recipe.ema is None:
        raise InputError(
            f"loss '{asking[0]}' needs the average of the network's weights, and recipe.ema is null; a decay between 0 "
            "and 1, such as 0.999, is needed."
        )
    return bool(asking)


def _averaged(spec: RunSpec, device: torch.device) -> nn.Module:
    """Return another network like that of a run, in evaluation mode; no random stream goes on."""
    with torch.random.fork_rng(devices=[]):
        network = build_backbone(spec.backbone, spec.recipe.scale)
    return network.to(device).to(memory_format=FORMATS[spec.recipe.memory_format]).eval().requires_grad_(False)


def kept_outputs(network: nn.Module, layers: Iterable[str], backbone: str) -> dict[str, Tensor]:
    """Return a dict into which each forward pass of a network puts what some of its layers return.

    Args:
        network: The network.
        layers: Names of modules in it.
        backbone: The network's name, for messages.

    Raises:
        InputError: If it has no such module.
    """
    outputs: dict[str, Tensor] = {}

    def keep(layer: str, module: nn.Module, given: Any, output: Tensor) -> None:
        outputs[layer] = output

    modules = dict(network.named_modules())
    for layer in layers:
        if layer not in modules:
            raise unknown(f"layer of backbone '{backbone}'", layer, filter(None, modules))
        modules[layer].register_forward_hook(partial(keep, layer))
    return outputs


def _backward(loss: Tensor, share: float) -> None:
    torch.autograd.backward(loss if share == 1 else loss * share)


def _mean(parts: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return the weighted sum of the values of parts; a single one has the weight 1."""
    return torch.stack([weight * value for weight, value in parts]).sum(0) if len(parts) > 1 else parts[0][1]


def _without_gradients(batch: Batch) -> Batch:
    features = {layer: feature.detach() for layer, feature in batch.features.items()}
    return replace(batch, sr=batch.sr.detach(), features=features)


def _average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace gradients by their means over the process group; a parameter without one has a gradient of 0."""
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    together = torch.cat([gradient.flatten() for gradient in gradients]) / dist.get_world_size()
    dist.all_reduce(together)
    parts = torch.split(together, [gradient.numel() for gradient in gradients])
    for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
        parameter.grad = gradient.copy_(part.view(gradient.shape))


def _broadcast(buffers: Sequence[Tensor]) -> None:
    """Make the first process's buffers everybody's."""
    for buffer in buffers:
        dense = buffer.contiguous()  # torch broadcasts no other
        dist.broadcast(dense, src=0)
        buffer.copy_(dense)


def _distributed(network: nn.Module, backbone: str) -> nn.parallel.DistributedDataParallel:
    """Return a network whose gradients are averaged over the process group.

    Each step looks for parameters that got no gradient, for which the others would wait, if a plug-in may have such.
    Buffers stay each process's own and the first one's are stored: torch cannot broadcast one in channels_last.
    """
    incomplete = not BACKBONES.is_built_in(split_backbone(backbone)[0])
    return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False, find_unused_parameters=incomplete)
