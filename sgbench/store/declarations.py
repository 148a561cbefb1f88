"""What was declared before the first look at its results: a question, and how and on which runs it is decided."""

import dataclasses
import datetime
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgbench.core.words import listed
from sgbench.spec.decisions import ALL_SETS, Question
from sgbench.spec.models import canonical_json
from sgbench.spec.text import read_time


@dataclass(frozen=True)
class Declaration:
    """A question with everything that decides it, fixed before the first look.

    Attributes:
        question: The question; its losses are expressions and its sets are those of ``tests``, or `ALL_SETS`.
        alpha: Significance level, over all backbones and sets of the question.
        g: Prior variance of the effect, in squared standard deviations of the seeds' differences.
        seeds: The seeds in the order in which they may be trained, as many as there may be.
        looks: After how many of them the images are tested.
        backbones: On which it is asked.
        tests: The test sets with the hashes of their pixels.
        conditions: What all runs share, `sgbench.spec.RunSpec.conditions`.
        sweep: The sweep that declared it; not part of the digest, as the next.
        declared: When.
    """

    question: Question
    alpha: float
    g: float
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    backbones: tuple[str, ...]
    tests: tuple[tuple[str, str], ...]
    conditions: str
    sweep: str
    declared: datetime.datetime

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of what is declared."""
        fixed = {key: value for key, value in self.to_data().items() if key not in ("sweep", "declared")}
        return hashlib.sha256(canonical_json(fixed).encode()).hexdigest()[:12]

    @property
    def cells(self) -> frozenset[tuple[str, str]]:
        """The backbones and test sets on which it is decided, all as one family; sets by their hash, or `ALL_SETS`."""
        hashes = {ALL_SETS: ALL_SETS, **dict(self.tests)}
        return frozenset((backbone, hashes[name]) for backbone in self.backbones for name in self.question.sets)

    def to_data(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**dataclasses.asdict(self), "declared": self.declared.isoformat()}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Declaration":
        """Read what `to_data` returns, after JSON.

        Raises:
            ValueError: If it is something else; also a KeyError or TypeError.
        """
        asked = data["question"]
        declaration = cls(
            question=Question(asked["a"], asked["b"], asked["metric"], tuple(asked["sets"]), asked["margin"]),
            alpha=float(data["alpha"]),
            g=float(data["g"]),
            seeds=tuple(map(int, data["seeds"])),
            looks=tuple(map(int, data["looks"])),
            backbones=tuple(map(str, data["backbones"])),
            tests=tuple((str(name), str(sha256)) for name, sha256 in data["tests"]),
            conditions=str(data["conditions"]),
            sweep=str(data["sweep"]),
            declared=read_time(data["declared"]),
        )
        if unknown := {*declaration.question.sets} - {ALL_SETS, *dict(declaration.tests)}:
            raise ValueError(f"it asks about {listed(sorted(unknown))}, whose pixels it does not name")
        if not (0 < declaration.alpha < 1 and 0 < declaration.g < math.inf):
            raise ValueError(f"its alpha is {declaration.alpha:g} and its g {declaration.g:g}")
        if not declaration.looks or min(declaration.looks) < 2 or len({*declaration.seeds}) < len(declaration.seeds):
            raise ValueError("it needs looks after 2 seeds or more, and each seed once")
        return declaration
