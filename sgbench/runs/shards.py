"""Shards: the parts of a sweep that several processes, which know nothing of each other, carry out side by side."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sgbench.core.errors import InputError
from sgbench.core.words import quoted
from sgbench.runs.forecast import step_work
from sgbench.spec import RunSpec

MOST = 10_000
"""The most shards of a sweep."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of a sweep, which all find the same parts because they follow from the sweep alone."""

    number: int
    """From 1 to ``count``."""
    count: int

    @classmethod
    def of(cls, text: str, what: str = "shard") -> "Shard":
        """Parse ``2/8``.

        Args:
            text: What a person wrote.
            what: What it is called, for messages.

        Raises:
            InputError: If it is no such text.
        """
        found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
        if found and 1 <= int(found[1]) <= int(found[2]) <= MOST:
            return cls(int(found[1]), int(found[2]))
        raise InputError(f"{what} is {quoted(text)}; I/N is needed, with I from 1 to N and N at most {MOST}: 2/8.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def among(self, runs: Sequence[RunSpec]) -> list[RunSpec]:
        """Return the part of the runs that is this shard's, in their order.

        The runs are dealt out, longest first, each to the shard with the least work so far. Work is counted in
        multiply-accumulate operations of the whole training, whatever is done already and however long it took.
        """
        work = {run: run.recipe.steps * step_work(run) for run in runs}
        loads = [0.0] * min(self.count, len(runs))
        mine = set()
        for run in sorted(runs, key=lambda run: -work[run]):
            lightest = loads.index(min(loads))
            loads[lightest] += work[run]
            if lightest == self.number - 1:
                mine.add(run)
        return [run for run in runs if run in mine]
