"""The language in which a loss is written: ``l1 + 1.0*sg(operator=sobel)``.

    expression = term { "+" term }
    term       = [ weight "*" ] name [ "(" option "=" value { "," option "=" value } ")" ]
    name       = identifier [ { "." identifier } ":" identifier ]
    value      = number | true | false | word

An expression has one **canonical form**, which is what enters a run's identity: terms sorted by name and options,
equal terms merged by adding their weights, terms of weight zero dropped, options equal to the loss's default left out,
and every weight written except a leading 1. So ``sg + l1``, ``l1 + 0.5*sg + 0.5*sg(order=2)`` and ``l1 + 1*sg`` are
all ``l1 + 1.0*sg``.
"""

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sgbench.core.errors import InputError, unknown
from sgbench.core.registry import LOSSES

Value = bool | int | float | str

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
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
        weight: Its factor, finite and at least 0.
        options: The options that differ from the loss's defaults.
    """

    name: str
    weight: float = 1.0
    options: Mapping[str, Value] = field(default_factory=dict)

    @property
    def call(self) -> str:
        """The term without its weight: ``sg`` or ``sg(operator=sobel, order=1)``."""
        if not self.options:
            return self.name
        written = ", ".join(f"{key}={_write(value)}" for key, value in sorted(self.options.items()))
        return f"{self.name}({written})"


@dataclass(frozen=True)
class Expression:
    """A weighted sum of losses in canonical form; build it with `parse`."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        first, *rest = self.terms
        lead = first.call if first.weight == 1.0 else f"{first.weight!r}*{first.call}"
        return " + ".join([lead, *(f"{term.weight!r}*{term.call}" for term in rest)])

    def weight_of(self, name: str) -> float:
        """Return the sum of the weights of every term called ``name``; 0.0 where there is none."""
        return math.fsum(term.weight for term in self.terms if term.name == name)

    def with_weight(self, name: str, weight: float) -> "Expression":
        """Return this expression with the weight of ``name`` replaced, as λ of Eq. (7) is varied.

        An expression that has no such term is returned unchanged; a weight of 0 drops the term.

        Raises:
            InputError: If the expression has several terms of that name, or nothing is left.
        """
        found = [term for term in self.terms if term.name == name]
        if not found:
            return self
        if len(found) > 1:
            raise InputError(f"--lambda is ambiguous in '{self}': it has {len(found)} terms '{name}'; one is needed.")
        return _canonical(
            [Term(t.name, weight if t.name == name else t.weight, t.options) for t in self.terms],
            source=f"{self} with λ = {weight}",
        )


def parse(text: str) -> Expression:
    """Parse and check a loss expression; loads each loss that it names.

    Args:
        text: Such as ``"l1 + 0.1*sg(operator=sobel)"``.

    Returns:
        The canonical expression; ``str()`` of it is what a run's identity holds.

    Raises:
        InputError: For a syntax error, an unknown loss or option, a value that the loss refuses, a negative or infinite
            weight, or an expression whose every weight is zero.
    """
    terms = []
    for name, weight, options in _Parser(text).terms():
        if not math.isfinite(weight) or weight < 0:
            raise InputError(f"loss '{text}': the weight of '{name}' is {weight:g}; a finite number ≥ 0 is needed.")
        terms.append(Term(name, weight, _without_defaults(name, options)))
    return _canonical(terms, source=text)


def _canonical(terms: list[Term], *, source: str) -> Expression:
    equal: dict[str, list[Term]] = {}
    for term in terms:
        equal.setdefault(term.call, []).append(term)
    merged = [(same[0], _total(same, source)) for _, same in sorted(equal.items())]
    kept = tuple(Term(term.name, weight, term.options) for term, weight in merged if weight != 0.0)
    if not kept:
        raise InputError(f"loss '{source}' has no term of a weight above 0, so there is nothing to train with.")
    return Expression(kept)


def _total(terms: list[Term], source: str) -> float:
    """Return the sum of the weights, rounded once, so that it does not depend on their order."""
    try:
        return math.fsum(term.weight for term in terms)
    except OverflowError as error:
        raise InputError(f"loss '{source}': the weights of '{terms[0].name}' add up to infinity.") from error


def _without_defaults(name: str, options: Mapping[str, Value]) -> dict[str, Value]:
    """Check the options against the loss's constructor and drop those equal to a default."""
    loss = LOSSES.load(name)
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    for key in options:
        if key not in parameters:
            if not parameters:
                raise InputError(f"loss '{name}' takes no options, but was given '{key}'.")
            raise unknown(f"option of loss '{name}'", key, parameters)
    normal = {key: _like(value, parameters[key].default, f"loss '{name}': {key}") for key, value in options.items()}
    try:
        loss(**normal)
    except (TypeError, ValueError) as error:
        raise InputError(f"loss '{name}': {str(error).rstrip('.')}.") from error
    return {key: value for key, value in normal.items() if value != parameters[key].default}


def _like(value: Value, default: Any, what: str) -> Value:
    """Return ``value`` as the type of the option's default, so that ``eps=1`` and ``eps=1.0`` are one loss."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, int | float) and isinstance(value, str):
        needed = "true or false" if isinstance(default, bool) else "a number"
        raise InputError(f"{what} is '{value}'; {needed} is needed.")
    return value


def _write(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Parser:
    """Recursive descent over the grammar in the module's docstring."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [(m.lastgroup, m[m.lastgroup]) for m in _TOKEN.finditer(text) if m.lastgroup]
        self.at = 0

    def terms(self) -> Iterator[tuple[str, float, dict[str, Value]]]:
        yield self._term()
        while self.at < len(self.tokens):
            kind, token = self.tokens[self.at]
            if kind == "number" and token.startswith("+"):  # "l1 +0.5*sg": the sign is the operator
                self.tokens[self.at] = (kind, token[1:])
            else:
                self._expect("+", "'+' and another term")
            yield self._term()

    def _term(self) -> tuple[str, float, dict[str, Value]]:
        weight = 1.0
        kind, token = self._next("a loss such as 'l1' or '0.1*sg'")
        if kind == "number":
            weight = float(token)
            self._expect("*", f"'*' and a loss after the weight {token}")
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
                    raise InputError(f"loss '{self.text}': option '{key}' is given twice.")
                options[key] = value
            self.at += 1
        return token, weight, options

    def _option(self) -> tuple[str, Value]:
        kind, key = self._next("an option such as 'order=2'")
        if kind != "word":
            raise self._wrong(key, "the name of an option")
        self._expect("=", f"'=' after '{key}'")
        kind, token = self._next(f"a value for '{key}'")
        if kind == "number":
            return key, int(token) if re.fullmatch(r"[+-]?\d+", token) else float(token)
        if kind == "word":
            return key, {"true": True, "false": False}.get(token.lower(), token)
        raise self._wrong(token, f"a value for '{key}'")

    def _peek(self) -> str | None:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def _next(self, wanted: str) -> tuple[str, str]:
        if self.at == len(self.tokens):
            raise InputError(f"loss '{self.text}' ends where {wanted} is expected.")
        self.at += 1
        return self.tokens[self.at - 1]

    def _expect(self, mark: str, wanted: str) -> None:
        _, token = self._next(wanted)
        if token != mark:
            raise self._wrong(token, wanted)

    def _wrong(self, token: str, wanted: str) -> InputError:
        return InputError(f"loss '{self.text}': found '{token}' where {wanted} is expected.")
