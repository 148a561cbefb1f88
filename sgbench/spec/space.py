"""What is searched when losses are tuned: ``l1 + 0.01:10*ssim``, ``charbonnier(eps=1e-4:0.1)``, ``sg(order=1|2)``.

In place of a coefficient or of the value of an option, a range ``LOW:HIGH`` may stand, and in place of the latter also
the values to choose from, with ``|`` between them. Ranges are searched on a logarithmic scale unless they begin at 0 or
below, or are of an option whose values are whole numbers.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sgbench.core.errors import InputError
from sgbench.core.words import quoted
from sgbench.spec.expression import Expression, Family, Open, Parser, Single, Term, labelled, number, split_label
from sgbench.spec.resolve import check_loss, check_written_loss, options_of

DIGITS = 4
"""Significant digits of a value that is searched in a range."""


@dataclass(frozen=True)
class Searched:
    """A setting of a loss that is searched: a coefficient, an option, or the learning rate.

    Attributes:
        name: What it is called, such as ``λ``, ``charbonnier.eps`` or `RATE`.
        low: The smallest value; None if it is one of ``choices``.
        high: The largest.
        log: Whether values are spread evenly over their logarithm.
        whole: Whether they are whole numbers.
        choices: The values that it may take; if empty, all from ``low`` to ``high``.
        default: What it is if nobody searches; None if that is not among its values.
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False
    choices: tuple[Single, ...] = ()
    default: Single | None = None

    @classmethod
    def ranged(cls, name: str, low: float, high: float, default: Any = None, *, whole: bool = False) -> "Searched":
        """Return a setting with a range.

        Args:
            name: What it is called.
            low: The smallest value.
            high: The largest.
            default: What it is if nobody searches, whether or not that is in the range.
            whole: Whether its values are whole numbers.
        """
        inside = isinstance(default, int | float) and low <= default <= high
        return cls(name, low, high, low > 0 and not whole, whole, default=default if inside else None)

    @property
    def count(self) -> float:
        """The number of its values, which may be infinite."""
        if self.choices:
            return len(self.choices)
        return math.floor(self.high or 0.0) - math.ceil(self.low or 0.0) + 1 if self.whole else math.inf

    def at(self, share: float) -> Single:
        """Return a value, in a range with `DIGITS` significant digits.

        Args:
            share: Where in the range or list, from 0 to 1.
        """
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        low, high = self.low or 0.0, self.high or 0.0
        if self.whole:
            return math.ceil(low) + min(int(share * self.count), int(self.count) - 1)
        return self.rounded(low * (high / low) ** share if self.log else low + (high - low) * share)

    def rounded(self, value: Single) -> Single:
        """Return a value with `DIGITS` significant digits, if it is of a range of fractions."""
        if self.low is None or self.high is None or self.whole or isinstance(value, str):
            return value
        return min(self.high, max(self.low, float(f"{value:.{DIGITS}g}")))

    def is_at_edge(self, value: Single) -> bool:
        """Return whether a value is so near to an end of its range that a better one may lie beyond."""
        if self.choices or self.low is None or self.high is None or isinstance(value, str):
            return False
        ends = self.low, self.high, float(value)
        low, high, at = map(math.log, ends) if self.log else ends
        return not 0.05 < (at - low) / (high - low) < 0.95


RATE = "learning rate"
"""What the learning rate is called among what is searched."""

Values = Mapping[str, Single]
"""A value of each setting that is searched, by `Searched.name`."""


def default_of(searched: Sequence[Searched]) -> Values | None:
    """Return what each setting is if nobody searches; None if one has no such value."""
    values = {each.name: each.default for each in searched if each.default is not None}
    return values if len(values) == len(searched) else None


@dataclass(frozen=True)
class Space:
    """A loss of which some settings are searched.

    Attributes:
        text: The loss as it is written.
        searched: What is searched.
        label: What a person calls the loss.
    """

    text: str
    searched: tuple[Searched, ...] = ()
    label: str | None = None

    @classmethod
    def of(cls, loss: Expression | Family, lambdas: Sequence[float] = ()) -> "Space":
        """Return the losses of a sweep that differ in λ, or the only loss that there is, as what is searched.

        Args:
            loss: The loss.
            lambdas: The values of λ.
        """
        if isinstance(loss, Expression):
            return cls(str(loss), (), loss.label)
        choices = tuple(dict.fromkeys(lambdas))
        return cls(str(loss), (Searched("λ", choices=choices, default=1.0 if 1.0 in choices else None),), loss.label)

    @classmethod
    def read(cls, written: object) -> "Space | None":
        """Read a loss as a person writes it; None if it has neither a range nor a choice, or cannot be parsed.

        Raises:
            InputError: If λ is open in it too, or one of its settings does not exist or cannot have the values at the
                ends of its range, or those to choose from.
        """
        try:
            label, text = split_label(written)
            parser = Parser(text)
            terms = list(parser.terms())
        except ValueError:  # whoever reads the sweep says where
            return None
        if not parser.open:
            return None
        if parser.varied:
            raise InputError(f"loss {quoted(text)} has λ and {parser.open[0]}; give a range in place of λ too.")
        names = _names(parser.open, terms)
        space = cls(" ".join(text.split()))
        searched = [_searched(name, each, terms[each.term]) for name, each in zip(names, parser.open, strict=True)]
        space = replace(space, searched=tuple(searched))
        for share in (0.0, 1.0):
            space.loss({each.name: each.at(share) for each in searched})
        for each in searched:
            for value in each.choices:
                space.loss({other.name: other.at(0.0) for other in searched} | {each.name: value})
        check_written_loss({"loss": str(space.start), "label": label} if label else str(space.start))
        return replace(space, label=label)

    @property
    def default(self) -> Values | None:
        """See `default_of`."""
        return default_of(self.searched)

    @property
    def start(self) -> Expression:
        """The loss at its default or, without one, at the beginning of each range."""
        return self.loss(self.default or {each.name: each.at(0.0) for each in self.searched})

    @property
    def count(self) -> float:
        """The number of different settings, which may be infinite."""
        return math.prod(each.count for each in self.searched)

    def loss(self, values: Values) -> Expression:
        """Return the loss with a value for each setting.

        Raises:
            InputError: If there is no such loss.
        """
        terms, opened, varied = self._parsed
        if varied:
            (lam,) = (values[each.name] for each in self.searched if each.name != RATE)
            terms = [*terms, replace(varied[0], weight=float(lam))]
        for name, each in zip(_names(opened, terms), opened, strict=True):
            term = terms[each.term]
            value = (
                {"weight": values[name]}
                if each.option is None
                else {"options": {**term.options, each.option: values[name]}}
            )
            terms = [*terms[: each.term], replace(term, **value), *terms[each.term + 1 :]]
        found = check_loss(str(Expression.of(terms, source=self.text)))
        assert isinstance(found, Expression)
        labelled_one = labelled(found, self.label)
        assert isinstance(labelled_one, Expression)
        return labelled_one

    @functools.cached_property
    def _parsed(self) -> tuple[list[Term], list[Open], list[Term]]:
        parser = Parser(self.text)
        return list(parser.terms()), parser.open, parser.varied


def read_range(text: str) -> tuple[float, float]:
    """Read ``1e-4:1e-2``.

    Raises:
        ValueError: If it is not of that form, with two numbers of which the second is larger.
    """
    low, colon, high = text.partition(":")
    try:
        ends = (number(low), number(high)) if colon else None
    except (ValueError, InputError):
        ends = None
    if ends is None or not ends[0] < ends[1]:
        raise ValueError("a range such as 1e-4:1e-2 is needed, from a smaller to a larger number")
    return ends


def _names(opened: Iterable[Open], terms: Sequence[Term]) -> list[str]:
    """Return what settings are called: ``λ`` if it is the only coefficient, else ``λ of ssim``; ``charbonnier.eps``."""
    opened = list(opened)
    coefficients = sum(each.option is None for each in opened)
    names: list[str] = []
    for each in opened:
        called = terms[each.term].name.rpartition(":")[2]
        name = f"{called}.{each.option}" if each.option else "λ" if coefficients == 1 else f"λ of {called}"
        names.append(f"{name} ({names.count(name) + 1})" if name in names else name)
    return names


def _searched(name: str, opened: Open, term: Term) -> Searched:
    default = 1.0 if opened.option is None else options_of(term.name).get(opened.option)
    if not opened.ranged:
        return Searched(name, choices=opened.values, default=default if default in opened.values else None)
    low, high = (float(value) for value in opened.values)
    whole = isinstance(default, int) and not isinstance(default, bool)
    return Searched.ranged(name, low, high, default, whole=whole)
