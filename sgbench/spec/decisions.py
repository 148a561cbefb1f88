"""Questions that a sweep is to decide: which of two losses is better by a metric, asked before the first result."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sgbench.core.errors import InputError, unknown
from sgbench.core.registry import metric_named
from sgbench.core.words import quoted
from sgbench.spec import expression
from sgbench.spec.expression import Expression

ALL_SETS = "all sets"
"""Stands for all test sets together: their images are one sample, drawn from each set."""

_FORM = "'A vs B on METRIC', such as 'l1 vs l1 + 1.0*sg on lpips_alex'"

_QUESTION = re.compile(
    r"(?P<a>.+?)\s+vs\.?\s+(?P<b>.+)\s+on\s+(?P<metric>\S+)(?:\s+of\s+(?P<sets>.+?))?(?:\s+within\s+(?P<margin>\S+))?"
)


@dataclass(frozen=True)
class Question:
    """Whether loss B differs from loss A by a metric or, with a margin, whether both are equivalent within it.

    Attributes:
        a: The loss to compare against, in its canonical form, or a label.
        b: The loss to compare.
        metric: A metric.
        sets: The test sets on which it is asked, also `ALL_SETS`, which takes them together; if empty, each of them.
        margin: The largest difference, in the metric's unit, that counts as none; None if equivalence is not asked for.
    """

    a: str
    b: str
    metric: str
    sets: tuple[str, ...] = ()
    margin: float | None = None

    @classmethod
    def read(cls, text: str) -> "Question":
        """Read ``A vs B on METRIC [of SET, …] [within MARGIN]``.

        A and B may be labels, which the sweep knows; everything else is written in its canonical form.

        Raises:
            InputError: If it is not of that form, or the margin is no number above 0.
        """
        if not (found := _QUESTION.fullmatch(text.strip())):
            raise InputError(
                f"{quoted(text)} is no question; {_FORM}, is needed, then perhaps 'of SET', 'within MARGIN'."
            )
        a, b = (_loss(found[side]) for side in ("a", "b"))
        if a == b:
            raise InputError(f"{quoted(text)} compares {a} with itself; two different losses are needed.")
        sets = tuple(dict.fromkeys(each.strip() for each in (found["sets"] or "").split(",") if each.strip()))
        return cls(a, b, found["metric"], sets, _margin(found["margin"], text))

    def __str__(self) -> str:
        sets = f" of {', '.join(self.sets)}" if self.sets else ""
        margin = f" within {self.margin:.15g}" if self.margin is not None else ""
        return f"{self.a} vs {self.b} on {self.metric}{sets}{margin}"


def _loss(text: str) -> str:
    """Return a loss in its canonical form; what is no expression may be a label, and stays as it is."""
    try:
        loss = expression.parse_open(text)
    except InputError:
        return text.strip()
    if not isinstance(loss, Expression):
        raise InputError(f"a question names losses without λ, and {quoted(text)} has it; write a number in its place.")
    return str(loss)


def _margin(text: str | None, whole: str) -> float | None:
    if text is None:
        return None
    try:
        margin = expression.number(text)
    except (InputError, ValueError) as error:
        raise InputError(f"the margin of {quoted(whole)} is {quoted(text)}; a number above 0 is needed.") from error
    if not margin > 0:
        raise InputError(f"the margin of {quoted(whole)} is {quoted(text)}; a number above 0 is needed.")
    return margin


@dataclass(frozen=True)
class Asked:
    """A question as a sweep asks it, with nothing left open.

    Attributes:
        question: The question; its losses are expressions, and its sets are named.
        backbones: On which it is asked.
        seeds: The seeds in the order in which they are trained, as many as there may be.
        named: How many of them the sweep trains in any case.
    """

    question: Question
    backbones: tuple[str, ...]
    seeds: tuple[int, ...]
    named: int

    @classmethod
    def of(
        cls,
        question: Question,
        runs: Iterable[tuple[str, str, int]],
        most: int,
        *,
        labels: Mapping[str, str],
        sets: Mapping[str, Sequence[str]],
    ) -> "Asked":
        """Find a question's losses, backbones, seeds and sets in a sweep.

        Args:
            question: As a person wrote it.
            runs: Backbone, loss and seed of each run of the sweep.
            most: The most seeds that there may be.
            labels: The sweep's labels, by loss.
            sets: The test sets that each of its metrics can score.

        Raises:
            InputError: If the sweep lacks something that the question names, its losses have different seeds, or there
                are more than ``most``.
        """
        seeds: dict[str, dict[str, list[int]]] = {}
        for backbone, loss, seed in runs:
            seeds.setdefault(loss, {}).setdefault(backbone, []).append(seed)
        called = {_loss(label): loss for loss, label in labels.items()}
        a, b = (side if side in seeds else called.get(side, side) for side in (question.a, question.b))
        asked = f"question {quoted(str(question))}"
        for side in (a, b):
            if side not in seeds:
                raise InputError(f"{asked}: {unknown('loss', side, [*seeds, *labels.values()])}")
        if a == b:
            raise InputError(f"{asked} compares {a} with itself; two different losses are needed.")
        metric = metric_named(question.metric, sets)
        if metric not in sets:
            raise InputError(f"{asked}: {unknown('metric', metric, sets)}")
        there = sets[metric]
        if lacking := [name for name in question.sets if name not in (*there, ALL_SETS)]:
            raise InputError(f"{asked}: {unknown('test set', lacking[0], [*there, ALL_SETS])}")
        if ALL_SETS in question.sets and len(there) < 2:
            raise InputError(f"{asked} takes {ALL_SETS} together, and there is only {', '.join(there)}.")
        backbones = tuple(backbone for backbone in seeds[a] if backbone in seeds[b])
        if not backbones:
            raise InputError(f"{asked}: no backbone has both losses; name both in one grid.")
        first = seeds[a][backbones[0]]
        for loss, backbone in itertools.product((a, b), backbones):
            if (others := seeds[loss][backbone]) != first:
                raise InputError(
                    f"{asked} needs the same seeds everywhere, in one order, but there are {_in_words(first)} of {a} "
                    f"with {backbones[0]}, and {_in_words(others)} of {loss} with {backbone}."
                )
        if len(first) > most:
            raise InputError(f"{asked}: decide.max_seeds is {most}, and the grids have {len(first)} seeds.")
        more = range(max(first) + 1, max(first) + 1 + most - len(first))
        if more.stop > 2**63:
            raise InputError(f"{asked}: after seed {max(first)} there are no {len(more)} more; name smaller ones.")
        resolved = replace(question, a=a, b=b, metric=metric, sets=question.sets or tuple(there))
        return cls(resolved, backbones, (*first, *more), len(first))


def _in_words(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


_LOOKS = (3, 5, 7, 10, 14, 20)


def looks_until(most: int) -> tuple[int, ...]:
    """Return after how many seeds the images are tested, if there may be at most ``most`` seeds.

    Seeds are looked at after each one, at no price. The images stay the same, so that every look at them has its share
    of α, and there are few: 3, 5, 7, 10, 14, 20, 28, 40, … and ``most``.
    """
    looks = [*_LOOKS]
    while looks[-1] < most:
        looks.append(2 * looks[-2])
    return (*(count for count in looks if count < most), most)
