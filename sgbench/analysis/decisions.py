"""Where the questions stand that sweeps have declared: which comparisons are decided, and which need more seeds."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sgbench.analysis.compare import Comparison, Verdict, comparisons
from sgbench.analysis.stats import holm, sign_flip_floor
from sgbench.analysis.view import View, labels_of
from sgbench.core.errors import InputError
from sgbench.store import Declaration


class State(StrEnum):
    """Where one comparison of a question stands."""

    DECIDED = "decided"
    """The difference is significant and, with a margin, an improvement, larger than the margin, or within it."""
    EQUIVALENT = "equivalent"
    """The difference is within the margin."""
    UNDECIDABLE = "undecidable by seeds"
    """Its images are too few for any number of seeds."""
    UNDECIDED = "undecided"
    """Nothing of that, so far."""


@dataclass(frozen=True)
class Decision:
    """A comparison of a declared question, with one backbone on one test set.

    Attributes:
        declaration: What was declared.
        backbone: ``family-size``.
        dataset: The test set, or `sgbench.spec.ALL_SETS`.
        comparison: What is known; None if neither loss has been scored there.
        state: Where it stands.
    """

    declaration: Declaration
    backbone: str
    dataset: str
    comparison: Comparison | None
    state: State

    @property
    def used(self) -> int:
        """How many of the declared seeds have been compared."""
        sequences = self.comparison.sequences if self.comparison else ()
        return next((len(each.seeds) for each in sequences if each.declaration == self.declaration.digest), 0)

    @property
    def most(self) -> int:
        """How many may be."""
        return len(self.declaration.seeds)

    @property
    def row(self) -> dict[str, Any]:
        """Its fields for programs."""
        return {
            "question": str(self.declaration.question),
            "declaration": self.declaration.digest,
            "backbone": self.backbone,
            "dataset": self.dataset,
            "state": self.state,
            "seeds": self.used,
            "max_seeds": self.most,
            "p": self.comparison.p if self.comparison else None,
        }


def decisions(view: View | None, declaration: Declaration) -> list[Decision]:
    """Return where each comparison of a declared question stands, by what is in a store.

    Args:
        view: The store; None if it has nothing yet.
        declaration: What was declared.
    """
    asked, cells = declaration.question, []
    with contextlib.suppress(InputError):  # none of their runs has been scored, or is to be
        cells = comparisons(view, asked.a, asked.b, metrics=[asked.metric]) if view else []
    found = [
        (backbone, dataset, _of(declaration, (cell for cell in cells if _is_at(cell, backbone, dataset))))
        for backbone in declaration.backbones
        for dataset in asked.sets
    ]
    return [Decision(declaration, backbone, dataset, cell, _state(cell)) for backbone, dataset, cell in found]


def undecidable(images: Sequence[int], declaration: Declaration) -> list[bool]:
    """Return of which comparisons the images are too few for any number of seeds.

    Args:
        images: Their numbers of images, or 0 for a metric without a value per image, of all comparisons of a question.
        declaration: What is declared.
    """
    floors = [len(declaration.looks) * sign_flip_floor(count) if count else 0.0 for count in images]
    return [p > declaration.alpha for p in holm(floors)]


def fewest_seeds(declaration: Declaration) -> int:
    """Return with how many seeds anything can be decided at the earliest.

    With n seeds, the e-process is at most (1 + n g)^((n − 1)/2), however large the effect is, and the first comparison
    of a family of m has to reach m/α.
    """
    family = len(declaration.backbones) * len(declaration.question.sets)
    counts = range(2, len(declaration.seeds))
    reached = ((1 + n * declaration.g) ** ((n - 1) / 2) >= family / declaration.alpha for n in counts)
    return next((n for n, enough in zip(counts, reached, strict=True) if enough), len(declaration.seeds))


def _is_at(cell: Comparison, backbone: str, dataset: str) -> bool:
    return cell.backbone == backbone and bool(labels_of(dataset, [cell.dataset]))


def _of(declaration: Declaration, cells: Iterable[Comparison]) -> Comparison | None:
    """Return the comparison of what was declared, of those at one place; one without pairs may be of anything."""
    cells = list(cells)
    judged = [cell for cell in cells if any(each.declaration == declaration.digest for each in cell.sequences)]
    return next(iter(judged or [cell for cell in cells if not cell.seeds]), None)


def _state(cell: Comparison | None) -> State:
    if cell and cell.verdict is Verdict.SIGNIFICANT:
        return State.DECIDED if _answers(cell) else State.UNDECIDED
    if cell and cell.verdict is Verdict.EQUIVALENT:
        return State.EQUIVALENT
    if not (cell and cell.by_seed and cell.verdict is Verdict.INCONCLUSIVE):
        return State.UNDECIDED
    one_sided = cell.by_image.floor / 2 if cell.by_image else 0.0  # of the tests for equivalence
    within_reach = cell.margin is not None and one_sided <= cell.alpha
    return State.UNDECIDED if within_reach else State.UNDECIDABLE


def _answers(cell: Comparison) -> bool:
    """Return whether a significant difference leaves nothing to ask; with a margin, harm may be within it or beyond."""
    if cell.margin is None or cell.better or not cell.estimate:
        return True
    interval, within = cell.estimate.interval, cell.equivalence
    beyond = interval.low > cell.margin or interval.high < -cell.margin
    return beyond or (within is not None and within.p <= cell.alpha)
