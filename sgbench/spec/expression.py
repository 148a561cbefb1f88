"""The language in which a loss is written: ``l1 + 1.0*sg(operator=sobel)``.

    expression = term { "+" term }
    term       = [ coefficient "*" ] name [ "(" option "=" value { "," option "=" value } ")" ]
    name       = identifier [ { "." identifier } ":" identifier ]
    value      = number | true | false | word

An expression has one **canonical form**, which is what enters a run's identity: terms sorted by name and options,
equal terms merged by adding their coefficients, terms with coefficient 0 dropped, and every coefficient written except
a leading 1. So ``sg + l1`` and ``l1 + 0.25*sg + 0.75*sg`` are both ``l1 + 1.0*sg``.

This is only the grammar: nothing is imported or constructed, and any name is accepted. `sgbench.spec.resolve` checks
the names and options of an expression against the registered losses, and leaves out options equal to a default.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sgbench.core.errors import InputError
from sgbench.core.words import quoted, shortened

Value = bool | int | float | str

_LONGEST = 2_000
"""Characters of an expression."""

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?>\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
      | (?P<word>[A-Za-z_][\w.]*(?:-[A-Za-z_]\w*)*(?::[A-Za-z_][\w.]*)?)
      | (?P<mark>[-+*(),=])
      | (?P<other>\S)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Term:
    """One loss of a weighted sum.

    Attributes:
        name: The registered name of the loss, or ``module:Class``.
        weight: Its coefficient, finite and at least 0.
        options: Options of the loss; in a run's specification, those that differ from its defaults.
    """

    name: str
    weight: float = 1.0
    options: Mapping[str, Value] = field(default_factory=dict)

    @property
    def call(self) -> str:
        """The term without its coefficient: ``sg`` or ``sg(operator=sobel, order=1)``."""
        if not self.options:
            return self.name
        written = ", ".join(f"{key}={_write(value)}" for key, value in sorted(self.options.items()))
        return f"{self.name}({written})"


@dataclass(frozen=True, eq=False)
class Expression:
    """A weighted sum of losses in canonical form; build it with `parse`. Two are equal if their texts are."""

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, terms: Iterable[Term], *, source: str) -> "Expression":
        """Return the canonical form of a sum of terms.

        Args:
            terms: In any order, with any coefficients; equal ones are merged.
            source: What a person wrote, for messages.

        Raises:
            InputError: If the coefficients of a term add up to infinity, or no term is left.
        """
        equal: dict[str, list[Term]] = {}
        for term in terms:
            equal.setdefault(term.call, []).append(term)
        merged = [(same[0], _total(same, source)) for _, same in sorted(equal.items())]
        kept = tuple(replace(term, weight=weight) for term, weight in merged if weight != 0.0)
        if not kept:
            raise InputError(f"loss {quoted(source)} has no term with a coefficient above 0; at least one is needed.")
        return cls(kept)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        first, *rest = self.terms
        lead = first.call if first.weight == 1.0 else f"{first.weight!r}*{first.call}"
        return " + ".join([lead, *(f"{term.weight!r}*{term.call}" for term in rest)])

    def weight_of(self, name: str) -> float:
        """Return the sum of the coefficients of all terms called ``name``; 0.0 if there are none."""
        return math.fsum(term.weight for term in self.terms if term.name == name)

    def with_weight(self, name: str, weight: float) -> "Expression":
        """Return this expression with the coefficient of ``name`` replaced, as λ of Eq. (7) is varied.

        An expression without such a term is returned unchanged; a coefficient of 0 drops the term.

        Raises:
            InputError: If the expression has several terms of that name, or nothing is left.
        """
        found = [term for term in self.terms if term.name == name]
        if not found:
            return self
        if len(found) > 1:
            raise InputError(
                f"λ is ambiguous in {quoted(str(self))}: it has {len(found)} terms {quoted(name)}; one is needed."
            )
        return Expression.of(
            (replace(term, weight=weight) if term.name == name else term for term in self.terms),
            source=f"{self} with λ = {weight}",
        )


def parse(text: str) -> Expression:
    """Parse a loss expression.

    Args:
        text: Such as ``"l1 + 0.1*sg(operator=sobel)"``.

    Returns:
        Its canonical form, options as they are written.

    Raises:
        InputError: For a syntax error, a negative or infinite coefficient, a number that no float can hold, an
            expression without a coefficient above 0, or one of more than 2,000 characters.
    """
    if len(text) > _LONGEST:
        raise InputError(f"loss {quoted(text)} has {len(text):,} characters, where {_LONGEST:,} are the most.")
    return Expression.of(_Parser(text).terms(), source=text)


def _total(terms: list[Term], source: str) -> float:
    """Return the sum of the coefficients, rounded once, so that it does not depend on their order."""
    try:
        return math.fsum(term.weight for term in terms)
    except OverflowError as error:
        raise InputError(
            f"loss {quoted(source)}: the coefficients of {quoted(terms[0].name)} add up to infinity."
        ) from error


def number(text: str) -> float:
    """Read a finite number.

    Raises:
        ValueError: If it is not a number.
        InputError: If it is too large or too small for a float: 1e-400 is not 0.
    """
    value = float(text)
    if not math.isfinite(value):
        raise InputError(f"{shortened(text)} is not finite.")
    if vanishes(text, value):
        raise InputError(f"{shortened(text)} is too small to differ from 0.")
    return value


def vanishes(text: str, value: float) -> bool:
    """Return whether the number in a text, which was read as ``value``, is no 0 and too small for a float."""
    return value == 0.0 and bool(re.search("[1-9]", re.split("[eE]", text)[0]))


def _write(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Parser:
    """Recursive descent over the grammar in the module's docstring."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [(m.lastgroup, m[m.lastgroup]) for m in _TOKEN.finditer(text) if m.lastgroup]
        self.at = 0

    def terms(self) -> Iterator[Term]:
        yield self._term()
        while self.at < len(self.tokens):
            kind, token = self.tokens[self.at]
            if kind == "number" and token.startswith("+"):  # "l1 +0.5*sg": the sign is the operator
                self.tokens[self.at] = (kind, token[1:])
            else:
                self._expect("+", "'+' and another term")
            yield self._term()

    def _term(self) -> Term:
        weight = "1"
        kind, token = self._next("a loss such as 'l1' or '0.1*sg'")
        if kind == "number":
            weight = token
            self._expect("*", f"'*' and a loss after the coefficient {shortened(token)}")
            kind, token = self._next("the name of a loss")
        if kind != "word":
            raise self._wrong(token, "the name of a loss")
        options: dict[str, Value] = {}
        if self._peek() == "(":
            self.at += 1
            while self._peek() != ")":
                if options:
                    self._expect(",", "',' or ')'")
                key, value = self._option()
                if key in options:
                    raise InputError(f"loss {quoted(self.text)}: option {quoted(key)} is given twice.")
                options[key] = value
            self.at += 1
        factor = self._number(f"the coefficient of {quoted(token)}", weight)
        if factor < 0:
            raise InputError(
                f"loss {quoted(self.text)}: the coefficient of {quoted(token)} is {shortened(weight)}; "
                "a finite number ≥ 0 is needed."
            )
        return Term(token, factor, options)

    def _option(self) -> tuple[str, Value]:
        kind, key = self._next("an option such as 'order=2'")
        if kind != "word":
            raise self._wrong(key, "the name of an option")
        self._expect("=", f"'=' after {quoted(key)}")
        kind, token = self._next(f"a value for {quoted(key)}")
        if kind == "number":
            return key, int(token) if re.fullmatch(r"[+-]?\d{1,300}", token) else self._number(key, token)
        if kind == "word":
            return key, {"true": True, "false": False}.get(token.lower(), token)
        raise self._wrong(token, f"a value for {quoted(key)}")

    def _number(self, what: str, token: str) -> float:
        try:
            return number(token)
        except InputError as error:
            raise InputError(f"loss {quoted(self.text)}: {what}: {error}") from error

    def _peek(self) -> str | None:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def _next(self, wanted: str) -> tuple[str, str]:
        if self.at == len(self.tokens):
            raise InputError(f"loss {quoted(self.text)} ends where {wanted} is expected.")
        self.at += 1
        return self.tokens[self.at - 1]

    def _expect(self, mark: str, wanted: str) -> None:
        _, token = self._next(wanted)
        if token != mark:
            raise self._wrong(token, wanted)

    def _wrong(self, token: str, wanted: str) -> InputError:
        return InputError(f"loss {quoted(self.text)}: found {quoted(token)} where {wanted} is expected.")
