"""The training of one run, readable from top to bottom.

What one step does is the method's (`sgbench.training.method`). The loop knows nothing of Ray: a process group that
exists is used, and each of its processes calls `train`. The global batch of a step, the learning rate and all
randomness are pure functions of (seed, step), so that a checkpoint needs to hold only the method's state and the step,
and a resumed run ends with the same bits as one that was never interrupted.
"""

import math
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import torch
import torch.distributed as dist
from torch import Tensor

from sgbench.core.errors import NotFiniteError
from sgbench.core.seeding import derive
from sgbench.data import PackedImages, PatchSampler
from sgbench.spec import RunSpec
from sgbench.store.rows import HistoryRow, ValidationRow
from sgbench.training.checkpoint import Checkpoints
from sgbench.training.feeding import nearest
from sgbench.training.memory import kept_memory
from sgbench.training.method import Supervised
from sgbench.training.numerics import FORMATS, pinned
from sgbench.training.schedules import rate_factor

CHECKPOINT_SHARE = 50
"""Training goes on for at least this many times as long as the last checkpoint took to write."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int
    steps: int
    loss: float
    """Mean since the last report, like the terms."""
    terms: dict[str, float]
    """Unweighted, by name."""
    lr: float
    steps_per_second: float
    validation: tuple[ValidationRow, ...] = ()
    """What the first process has found since the last report."""


class Means(TypedDict):
    """Means over some steps: of the loss, and of its terms, unweighted, by name."""

    loss: float
    terms: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        finished: Whether all steps are done and the final weights written; otherwise a checkpoint was.
        paused: Whether it is not finished because the steps that were asked for are done.
        exhausted: Whether it is not finished because the recipe's budget of hours is used up.
        step: Steps done.
        history: The training curve.
        wall_seconds: Time in the loop, that of interrupted calls included.
        peak_memory_bytes: Of the run on a GPU; on a CPU, of this process since it began, earlier runs included.
    """

    finished: bool
    paused: bool
    exhausted: bool
    step: int
    history: list[HistoryRow]
    wall_seconds: float
    peak_memory_bytes: int


class Validator(Protocol):
    """Scores weights on validation sets."""

    @property
    def every(self) -> int:
        """Steps between two validations; there is one more at the last step."""

    def __call__(self, weights: Mapping[str, Tensor], step: int, on_image: Callable[[], object]) -> list[ValidationRow]:
        """Score the weights that some steps have made, which changes nothing of what trains.

        Args:
            weights: By parameter name.
            step: The number of steps.
            on_image: Called before each image.
        """


def train(
    spec: RunSpec,
    images: PackedImages,
    checkpoints: Checkpoints,
    *,
    device: torch.device,
    recompute: bool = False,
    initial: Mapping[str, Tensor] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_complete: Callable[[], None] = lambda: None,
    history: list[HistoryRow] | None = None,
    validator: Validator | None = None,
    validated: list[ValidationRow] | None = None,
    checkpoint_seconds: float = 10.0,
    until: int | None = None,
) -> Outcome:
    """Train a network, from its newest checkpoint if there is one.

    In a process group every process calls this and takes its slice of each global batch; the first one writes.

    Args:
        spec: The run.
        images: Its packed training images.
        checkpoints: Where to resume from and to write to.
        device: CPU or GPU of this process.
        recompute: Whether the network's blocks recompute their activations in the backward pass: less memory and more
            time for the same numbers.
        initial: See `sgbench.training.method.Supervised`; needed if the recipe has ``init``.
        on_progress: Called a hundred times, or in a long run every hundred steps; at the same steps in every process.
        should_stop: Asked between steps; once true, a checkpoint is written and the call returns.
        on_complete: Called by the first process when all steps are done and in a checkpoint, before it writes the final
            weights.
        history: Receives the rows of the outcome's history as they are made, so that they survive an exception.
        validator: Called by the first process, for which the others wait; the time is not counted as training.
        validated: Receives what it returns; a resumed run has what it returned before.
        checkpoint_seconds: Least time between checkpoints, except before that of the last step.
        until: Steps after which training pauses, at a checkpoint; None is all of the recipe's.

    Returns:
        The outcome, the same in every process except for times and memory.

    Raises:
        NotFiniteError: If a loss is NaN or infinite; no checkpoint holds a step from there on.
        OSError: If the storage fails; the newest checkpoint stays.
        InputError: If an image is smaller than a patch, activations are to be recomputed and the network does not name
            its blocks, it is to be compiled and there is no compiler, the network returns another shape, or the code of
            a loss or backbone raises an exception.
    """
    recipe = spec.recipe
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    sampler = PatchSampler(
        images, patch=recipe.patch, batch=recipe.batch, seed=spec.seed, augment=recipe.augment, window=recipe.window
    )
    source = nearest(sampler, device)
    interval = max(1, min(100, recipe.steps // 100))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with pinned(recipe), kept_memory():
        method = Supervised(spec, device, recompute=recompute, initial=initial)
        meter = Meter(method.names, device)
        history = [] if history is None else history
        validated = [] if validated is None else validated
        done, earlier_seconds = 0, 0.0
        if state := _newest(checkpoints, spec, rank, world):
            method.load(state)
            meter.load(state["meter"])
            done, earlier_seconds = state["step"], state["seconds"]
            history[:] = state["history"]
            validated[:] = state.get("validation", [])
        told = sum(row["step"] <= history[-1]["step"] for row in validated) if history else 0

        def save() -> None:
            if rank == 0:
                checkpoints.save(
                    done,
                    {
                        "spec": spec.model_dump(mode="json"),
                        **method.state(),
                        "meter": meter.state(),
                        "history": history,
                        **({"validation": validated} if validated else {}),
                        "step": done,
                        "seconds": seconds(),
                    },
                )

        def seconds() -> float:
            return earlier_seconds + time.perf_counter() - began

        began = saved = ticked = time.perf_counter()
        wait = checkpoint_seconds
        ticked_step = done
        budget = math.inf if recipe.max_hours is None else 3600 * recipe.max_hours
        stop, spent = False, earlier_seconds >= budget
        last = recipe.steps if until is None else min(until, recipe.steps)
        while done < last and not (stop or spent):
            lr = method.set_rates(rate_factor(recipe.schedule, done, recipe.steps))
            # Noise inside a model, such as stochastic depth, is the one thing in which ranks differ.
            torch.manual_seed(derive(spec.seed, "noise", done, rank) % 2**63)
            lr_patches, hr_patches = (
                as_images(patches, device, recipe.memory_format) for patches in source.batch(done, rank, world)
            )
            # Means over slices of unequal size, weighted so that the mean over ranks is the mean over the batch.
            share = len(lr_patches) * world / recipe.batch
            loss, terms = method.step(lr_patches, hr_patches, done, share)
            done += 1
            meter.add(done, loss * share, terms * share)

            at_interval = done % interval == 0 or done == recipe.steps
            due = validator if validator and (done % validator.every == 0 or done == recipe.steps) else None
            if world == 1:
                stop, spent = should_stop(), seconds() >= budget
            elif at_interval:
                stop, spent = _any(should_stop(), device), _any(seconds() >= budget, device)
            if not (at_interval or due or stop or spent or done == last):
                continue
            meter.check()
            now = time.perf_counter()
            if due:
                validated += _validated(due, method.averaged() or method.weights(), done, device)
                pause = time.perf_counter() - now
                now, began, ticked = now + pause, began + pause, ticked + pause
            if at_interval:
                speed = (done - ticked_step) / (now - ticked)
                ticked, ticked_step = now, done
                means = meter.take()
                history.append({"run_id": str(spec.run_id), "step": done, "lr": lr, "steps_per_second": speed, **means})
                new, told = tuple(validated[told:]), len(validated)
                on_progress(Progress(done, recipe.steps, lr=lr, steps_per_second=speed, validation=new, **means))
            if stop or spent or done == last or now - saved > wait:
                save()
                saved = time.perf_counter()
                wait = max(checkpoint_seconds, CHECKPOINT_SHARE * (saved - now))
        finished = done == recipe.steps
        if finished and rank == 0:
            on_complete()
            checkpoints.save_weights(method.weights(), spec.model_dump(mode="json"), method.averaged())
    paused = done == last and not finished
    exhausted = spent and not (finished or paused)
    return Outcome(finished, paused, exhausted, done, history, seconds(), peak_memory(device))


def _validated(
    validator: Validator, weights: Mapping[str, Tensor], step: int, device: torch.device
) -> list[ValidationRow]:
    """Validate in the first process of the group, while the others wait.

    They hear at each image that it is still at work, because a process does not wait for another for ever.
    """
    if not dist.is_initialized():
        return validator(weights, step, lambda: None)
    rows: list[ValidationRow] = []
    if dist.get_rank() == 0:
        rows = validator(weights, step, lambda: _any(True, device))
    while _any(False, device):
        pass
    return rows


def as_images(patches: Any, device: torch.device, memory_format: str) -> Tensor:
    """Move uint8 values, an array or a tensor of shape [N, 3, H, W], to a device as float32 in [0, 1]."""
    tensor = torch.as_tensor(patches)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # from other memory a copy would wait for the steps before it
    moved = tensor.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=FORMATS[memory_format]).div_(255.0)


class Meter:
    """Means of the loss and of all terms since they were last read, and the first step that was not finite.

    Everything stays on the device until it is read, so that a step never waits for a GPU.

    Args:
        names: The terms.
        device: Where the losses are.
    """

    def __init__(self, names: list[str], device: torch.device) -> None:
        self.names = names
        self.sums = torch.zeros(1 + len(names), dtype=torch.float64, device=device)
        self.bad_step = torch.zeros((), dtype=torch.int64, device=device)
        self.bad_value = torch.zeros((), device=device)
        self.count = 0

    def add(self, step: int, loss: Tensor, terms: Tensor) -> None:
        """Add the loss of a step, a scalar, and its terms, shape [len(names)]."""
        values = torch.cat([loss[None], terms])
        self.sums += values
        self.count += 1
        all_finite_if_finite = values.sum()
        first_bad = (self.bad_step == 0) & ~torch.isfinite(all_finite_if_finite)
        self.bad_step = torch.where(first_bad, step, self.bad_step)
        self.bad_value = torch.where(first_bad, all_finite_if_finite, self.bad_value)

    def check(self) -> None:
        """Raise if any loss or term so far was not finite; in a process group every process raises alike.

        Raises:
            NotFiniteError: With the first such step.
        """
        never = torch.iinfo(torch.int64).max
        step = torch.where(self.bad_step == 0, never, self.bad_step)
        if dist.is_initialized():
            dist.all_reduce(step, dist.ReduceOp.MIN)
        is_nan = ((self.bad_step == step) & self.bad_value.isnan()).int()
        if dist.is_initialized():
            dist.all_reduce(is_nan, dist.ReduceOp.MAX)
        if step.item() != never:
            raise NotFiniteError(int(step.item()), "NaN" if is_nan.item() else "infinite")

    def take(self) -> Means:
        """Return the means over the global batches since the last call, and start anew."""
        sums = self.sums / self.count
        if dist.is_initialized():
            dist.all_reduce(sums)
            sums /= dist.get_world_size()
        loss, *terms = sums.tolist()
        self.sums.zero_()
        self.count = 0
        return {"loss": loss, "terms": dict(zip(self.names, terms, strict=True))}

    def state(self) -> dict[str, Any]:
        """Return the state to keep in a checkpoint."""
        return {"sums": self.sums, "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.sums.copy_(state["sums"])
        self.count = state["count"]


def _newest(checkpoints: Checkpoints, spec: RunSpec, rank: int, world: int) -> dict[str, Any] | None:
    """Return the newest checkpoint as the first process sees it: processes that looked for themselves could differ.

    Raises:
        OSError: In every process, if the storage fails in the first one.
    """
    seen: list[dict[str, Any] | OSError | None] = [None]
    if rank == 0:
        try:
            seen = [checkpoints.load(spec)]
        except OSError as error:
            seen = [error]
    if world > 1:
        dist.broadcast_object_list(seen, src=0)
    (state,) = seen
    if isinstance(state, OSError):
        raise state
    return state


def _any(mine: bool, device: torch.device) -> bool:
    """Return whether any process of the group says yes."""
    flag = torch.tensor(float(mine), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())


def peak_memory(device: torch.device) -> int:
    """Return the bytes that were in use at most; see `Outcome`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
