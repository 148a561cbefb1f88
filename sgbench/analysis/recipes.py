"""Names for recipes: the settings in which they differ or, if that is too long, letters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sgbench.core.words import natural
from sgbench.store import RUNS

RECIPE: tuple[str, ...] = tuple(RUNS.names[RUNS.names.index("train_sha256") : RUNS.names.index("spec")])
"""The columns that, with backbone, loss, scale and seed, make up the identity of a run."""

_OF_KINDS = ("optimizer_", "schedule_")
"""How columns begin that depend on which optimizer or schedule a recipe has."""

LONG = 30
"""Above this number of characters, recipes are named by letters."""


class Run(Protocol):
    """What of a run, such as a `sgbench.analysis.view.Run`, its recipe is named after."""

    @property
    def recipe(self) -> tuple[Any, ...] | None:
        """The values of `RECIPE`; none if it was not trained."""

    @property
    def train(self) -> str | None:
        """What its training set is called."""

    @property
    def init(self) -> str | None:
        """What the weights are called with which its training started; None if all were drawn from the seed."""


@dataclass(frozen=True)
class Recipes:
    """The recipes of some runs.

    Attributes:
        names: How each differs from the others, such as ``steps=1200, train=photos@1a2b3c4d``, by the values of
            `RECIPE`; empty if there is only one.
        labels: The labels in tables: the name, or a letter.
        notes: What the letters mean, one sentence each.
    """

    names: Mapping[tuple[Any, ...], str]
    labels: Mapping[tuple[Any, ...], str]
    notes: tuple[str, ...]

    def name(self, run: Run) -> str:
        """Return how a run's recipe differs from the others."""
        return self.names.get(run.recipe or (), "")

    def label(self, run: Run) -> str:
        """Return the label of a run's recipe in tables."""
        return self.labels.get(run.recipe or (), "")

    @classmethod
    def of(cls, runs: Iterable[Run]) -> "Recipes":
        """Name the recipes of some runs; only trained runs have one."""
        firsts = {run.recipe: run for run in runs if run.recipe is not None}
        differing = [at for at in range(len(RECIPE)) if len({str(recipe[at]) for recipe in firsts}) > 1]
        names = {
            recipe: ", ".join(filter(None, (_setting(run, recipe, at) for at in differing)))
            for recipe, run in firsts.items()
        }
        if max(map(len, names.values()), default=0) <= LONG:
            return cls(names, names, ())
        letters = {
            recipe: _letter(at) for at, recipe in enumerate(sorted(names, key=lambda each: natural(names[each])))
        }
        return cls(names, letters, tuple(f"Recipe {letter}: {names[recipe]}." for recipe, letter in letters.items()))


def _setting(run: Run, recipe: tuple[Any, ...], at: int) -> str:
    if RECIPE[at] == "train_sha256":
        return f"train={run.train}@{str(recipe[at])[:8]}"
    if RECIPE[at] == "init_sha256" and recipe[at] is not None:
        return f"init={run.init}@{str(recipe[at])[:8]}"
    name = RECIPE[at].removesuffix("_sha256")
    if recipe[at] is None:  # what another optimizer or schedule has needs no word
        return "" if name.startswith(_OF_KINDS) else f"no {name}"
    return f"{name}={recipe[at]}"


def _letter(at: int) -> str:
    """Return A to Z, then A1 to Z1 and so on."""
    return chr(ord("A") + at % 26) + (str(at // 26) if at >= 26 else "")
