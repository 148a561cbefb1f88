"""What a check is: a rule, how something is tried against it, and what to do if it breaks it."""

import copy
import io
import pickle
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # the only way to run code for a GPU without having one

from sgbench.assets import tensors
from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.spec import Recipe
from sgbench.training.numerics import pinned

T = TypeVar("T")

IMAGES = 7
"""Seed of random images; other than that of what is tried, whose own random numbers would be the same."""

NOWHERE = torch.device("cuda", 99)
"""A GPU that no machine has, so that nothing which code keeps for it is ever used."""


@dataclass(frozen=True)
class Rule:
    """A rule as a method of a `Trial` tries it."""

    text: str
    """What holds."""
    fix: str
    """What to do otherwise."""
    decisive: bool
    """Whether nothing else can be told of what breaks it."""
    method: Callable[[Any], str | None]


def rule(text: str, *, fix: str, decisive: bool = False) -> Callable[[Callable[[Any], str | None]], Rule]:
    """Return a decorator that makes a method of a `Trial` a `Rule`.

    The method raises an `InputError` if the rule is broken, and may return what it has found.
    """
    return lambda method: Rule(text, fix, decisive, method)


class Trial(ABC):
    """Something that is tried, as training or scoring would use it.

    Args:
        kind: ``loss``, ``backbone`` or ``metric``.
        name: Its name.
        recipe: Has the scale, the size of patches and the settings of torch.
    """

    def __init__(self, kind: str, name: str, recipe: Recipe) -> None:
        self.kind = kind
        self.name = name
        self.recipe = recipe
        self.what = f"{kind} '{name}'"

    @abstractmethod
    def prepare(self) -> None:
        """Construct it.

        Raises:
            InputError: If that fails.
        """

    def checks(self) -> list["Check"]:
        """Return a check for each rule, in the order in which they are written."""
        rules = vars(type(self)).items()
        return [Check(self, name, each) for name, each in rules if isinstance(each, Rule)]

    def require(self, *names: str) -> None:
        """Try some of the rules.

        Raises:
            InputError: If one is broken.
        """
        for name in names:
            Check(self, name, getattr(type(self), name)).run()


@dataclass(frozen=True)
class Check:
    """A rule for one loss, backbone or metric. Calling it tries it."""

    trial: Trial
    name: str
    rule: Rule

    def __str__(self) -> str:
        return self.name

    def run(self) -> str | None:
        """Try it with the settings of training, and leave torch's random state and settings as they are.

        Returns:
            What was found, where there is more to say than that the rule holds.

        Raises:
            InputError: If it does not hold, saying how.
        """
        with torch.random.fork_rng(devices=[]), pinned(self.trial.recipe):
            torch.manual_seed(0)
            self.trial.prepare()
            with foreign(self.trial.what):
                return self.rule.method(self.trial)

    def __call__(self) -> None:
        """Try it, as a test does.

        Raises:
            AssertionError: If it does not hold, saying how and what to do.
        """
        __tracebackhide__ = True  # pytest shows the sentence, and not these lines
        try:
            self.run()
        except InputError as error:
            raise AssertionError(f"{error} Fix: {self.rule.fix}.") from None


@dataclass(frozen=True)
class Outcome:
    """What came of a check."""

    check: Check
    passed: bool | None
    """None if it was not tried, because nothing can be told after an earlier one."""
    said: str | None
    """How the rule is broken, or what was found."""


def outcomes(checks: Iterable[Check]) -> Iterator[Outcome]:
    """Try the checks of one thing, one after another; after a decisive one that fails, no other is tried."""
    over = False
    for check in checks:
        if over:
            yield Outcome(check, None, None)
            continue
        try:
            yield Outcome(check, True, check.run())
        except InputError as error:
            over = check.rule.decisive
            yield Outcome(check, False, str(error))


def pickled(value: T) -> T:
    """Return what comes out when a value is pickled."""
    copied: T = pickle.loads(pickle.dumps(value))
    return copied


def from_file(state: Any) -> Any:
    """Return a state as a checkpoint gives it back.

    Raises:
        InputError: If a checkpoint cannot hold it.
    """
    with io.BytesIO() as file:
        torch.save(state, file)
        file.seek(0)
        try:
            return tensors.load(file)
        except Exception as error:  # torch.load raises whatever a pickle provokes
            raise InputError(
                "its state has more than tensors and plain values, which a checkpoint cannot hold."
            ) from error


def identical(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal, or not a number where the other is not."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def same(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Return whether two tensors are equal up to a tolerance, which is relative to the largest value."""
    return bool((one - other).abs().max() <= tolerance * max(one.abs().max().item(), torch.finfo(one.dtype).tiny))


def not_finite(values: Tensor) -> str:
    """Return ``nan``, ``inf`` or ``-inf``: the first of some values that is not finite."""
    return str(values[~values.isfinite()][0].item())


def seconds(call: Callable[[], object], most: float = 1.0) -> float:
    """Return the shortest time of up to four calls; there are fewer if they take longer than ``most`` together."""
    times: list[float] = []
    while len(times) < 4 and sum(times) < most:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def in_milliseconds(duration: float) -> str:
    """Return ``0.31 ms`` or ``1,240 ms``."""
    return f"{1e3 * duration:,.0f} ms" if duration >= 0.1 else f"{1e3 * duration:.2g} ms"


def refuse_strangers(what: str, module: nn.Module, call: Callable[[nn.Module, Callable[..., Tensor]], object]) -> None:
    """Refuse a module that puts tensors on the CPU together with those of a GPU. Only shapes are computed, on no GPU.

    Code that cannot run without values, such as that which looks at one, is not refused.

    Args:
        what: The module, for messages.
        module: It is copied.
        call: Called with the module on a GPU, and a function that makes a tensor of a shape there.

    Raises:
        InputError: If it does.
    """
    try:
        there = copy.deepcopy(module)
        with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            warnings.simplefilter("ignore")  # torch says that there is no GPU
            there._apply(  # type: ignore[no-untyped-call] # torch's has no types
                lambda tensor: torch.empty_like(tensor, device=NOWHERE)
            )
            call(there, lambda *shape: torch.empty(shape, device=NOWHERE))
    except Exception as error:
        if "same device" in str(error):
            raise InputError(f"{what} uses a tensor that stays on the CPU when it is moved to a GPU.") from error
