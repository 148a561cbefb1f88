"""Questions that a sweep is to decide: which of two losses is better by a metric, asked before the first result."""

import re
from dataclasses import dataclass

from sgbench.core.errors import InputError
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
