"""The language in which a loss is written: ``l1 + 1.0*sg(operator=sobel)``.

    expression  = term { "+" term }
    term        = [ coefficient "*" ] name [ "(" option "=" value { "," option "=" value } ")" ]
    coefficient = number | "λ" | "lambda"
    name        = identifier [ { "." identifier } ":" identifier ]
    value       = single | "[" [ single { "," single } ] "]"
    single      = number | true | false | word | path | text in quotes

and in a loss that is to be tuned, see `sgbench.spec.space`,

    coefficient = … | number ":" number
    value       = … | number ":" number | single "|" single { "|" single }

A path is a text without spaces that has a slash, such as ``./net.pt`` or ``s3://bucket/net.pt``. Any text may stand in
quotes of either kind; it ends at the next quotation mark of that kind.

An expression has one **canonical form**, which is what enters a run's identity: terms sorted by name and options,
equal terms merged by adding their coefficients, terms with coefficient 0 dropped, every coefficient written except a
leading 1, and quotation marks only around texts that need them. So ``sg + l1`` and ``l1 + 0.25*sg + 0.75*sg`` are both
``l1 + 1.0*sg``.

With λ as the coefficient of one term, it means a `Family` of losses, one for each λ.

This is only the grammar: nothing is imported or constructed, and any name is accepted. `sgbench.spec.resolve` checks
the names and options of an expression against the registered losses, and leaves out options equal to a default.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sgbench.core.errors import InputError
from sgbench.core.words import quoted, shortened

Single = bool | int | float | str
Value = Single | tuple[Single, ...]

_LONGEST = 2_000
"""Characters of an expression."""

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<path>(?:[A-Za-z][\w+.-]*:/|[\w~.-]*)/[\w/~.:@%=-]*)
      | (?P<number>[+-]?(?>\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
      | (?P<word>[A-Za-z_][\w.]*(?:-[A-Za-z_]\w*)*(?::[A-Za-z_][\w.]*)?)
      | (?P<text>"[^"]*"|'[^']*')
      | (?P<mark>[-+*(),=\[\]λ:|])
      | (?P<other>\S)
    )""",
    re.VERBOSE,
)


_LAMBDA = ("λ", "lambda")
"""What stands in place of the coefficient that is varied."""


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
    """A weighted sum of losses in canonical form; build it with `parse`. Two are equal if their texts are.

    Attributes:
        terms: Its terms.
        label: What a person calls it, which is no part of its text; see `labelled`.
    """

    terms: tuple[Term, ...]
    label: str | None = None

    @classmethod
    def of(cls, terms: Iterable[Term], *, source: str) -> "Expression":
        """Return the canonical form of a sum of terms.

        Args:
            terms: In any order, with any coefficients; equal ones are merged.
            source: What a person wrote, for messages.

        Raises:
            InputError: If the coefficients of a term add up to infinity, or no term is left.
        """
        if not (kept := _merged(terms, source)):
            raise InputError(f"loss {quoted(source)} has no term with a coefficient above 0; at least one is needed.")
        return cls(kept)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return _written(self.terms)

    def weight_of(self, name: str) -> float:
        """Return the sum of the coefficients of all terms called ``name``; 0.0 if there are none."""
        return math.fsum(term.weight for term in self.terms if term.name == name)

    def varying(self, name: str) -> "Family | None":
        """Return the losses in which λ is the coefficient of the term ``name``; None if there is no such term.

        Raises:
            InputError: If there are several.
        """
        found = [term for term in self.terms if term.name == name]
        if len(found) > 1:
            raise InputError(
                f"λ is ambiguous in {quoted(str(self))}: it has {len(found)} terms {quoted(name)}; one is needed."
            )
        return Family(tuple(term for term in self.terms if term.name != name), found[0]) if found else None


@dataclass(frozen=True, eq=False)
class Family:
    """Losses that differ in one coefficient, λ, such as ``l1 + λ*sg``; two are equal if their texts are.

    Attributes:
        rest: The other terms, in canonical form; there may be none.
        varied: The term with λ; its ``weight`` is that of the loss of which the family was made, if any.
        label: What a person calls them, which is no part of the text; see `labelled`.
    """

    rest: tuple[Term, ...]
    varied: Term
    label: str | None = None

    @classmethod
    def of(cls, rest: Iterable[Term], varied: Term, *, source: str) -> "Family":
        """Return the canonical form of a sum in which one coefficient is λ.

        Args:
            rest: The other terms; see `Expression.of`.
            varied: The term with λ.
            source: See there.

        Raises:
            InputError: If one of the others is equal to the term with λ, or their coefficients add up to infinity.
        """
        family = cls(_merged(rest, source), varied)
        if any(term.call == varied.call for term in family.rest):
            raise InputError(
                f"λ is ambiguous in {quoted(source)}: {quoted(varied.call)} has a coefficient beside λ; give it one."
            )
        return family

    @property
    def terms(self) -> tuple[Term, ...]:
        """All terms."""
        return (*self.rest, self.varied)

    @property
    def called(self) -> str | None:
        """The varied term without λ; None for the only term ``sg``, which is what is varied unless a run says else."""
        only = all(term.name != "sg" for term in self.rest)
        return None if self.varied.name == "sg" and only else self.varied.call

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Family) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return " + ".join(filter(None, (_written(self.rest), f"λ*{self.varied.call}")))

    def with_terms_of(self, loss: Expression) -> "Family | None":
        """Return these losses with the terms of one of them, whose λ is the weight; None if they do not have that loss.

        Args:
            loss: A loss; its options may be written otherwise, as 2.0 instead of 2.
        """
        what = (self.varied.name, self.varied.options)
        varied = [term for term in loss.terms if (term.name, term.options) == what]
        rest = tuple(term for term in loss.terms if term not in varied)
        if len(rest) != len(self.rest) or not all(term in self.rest for term in rest):
            return None
        return Family(rest, varied[0] if varied else replace(self.varied, weight=0.0))

    def at(self, lam: float) -> Expression:
        """Return the loss with a value for λ, without the varied term if that is 0.

        Raises:
            InputError: If nothing is left.
        """
        return Expression.of((*self.rest, replace(self.varied, weight=lam)), source=f"{self} with λ = {lam}")


OpenLoss = Expression | Family
"""A loss whose λ may be open."""


def parse(text: str) -> Expression:
    """Parse a loss expression without λ.

    Args:
        text: Such as ``"l1 + 0.1*sg(operator=sobel)"``.

    Returns:
        Its canonical form, options as they are written.

    Raises:
        InputError: As `parse_open` does, or if the expression has λ.
    """
    loss = parse_open(text)
    if isinstance(loss, Family):
        raise InputError(f"loss {quoted(text)} leaves its coefficient λ open; a number is needed in place of λ.")
    return loss


def parse_open(text: str) -> OpenLoss:
    """Parse a loss expression in which a coefficient may be λ.

    Raises:
        InputError: For a syntax error, a negative or infinite coefficient, a number that no float can hold, an
            expression without a coefficient above 0, λ in two places, or one of more than 2,000 characters.
    """
    if len(text) > _LONGEST:
        raise InputError(f"loss {quoted(text)} has {len(text):,} characters, where {_LONGEST:,} are the most.")
    parser = Parser(text)
    terms = list(parser.terms())
    if parser.open:
        raise InputError(
            f"loss {quoted(text)} has {parser.open[0]}, in which 'sgbench tune' searches; write one value in its place."
        )
    if len(parser.varied) > 1:
        raise InputError(f"λ is ambiguous in {quoted(text)}: it stands in {len(parser.varied)} places; one is needed.")
    if parser.varied:
        return Family.of(terms, parser.varied[0], source=text)
    return Expression.of(terms, source=text)


def _merged(terms: Iterable[Term], source: str) -> tuple[Term, ...]:
    equal: dict[str, list[Term]] = {}
    for term in terms:
        equal.setdefault(term.call, []).append(term)
    merged = [(same[0], _total(same, source)) for _, same in sorted(equal.items())]
    return tuple(replace(term, weight=weight) for term, weight in merged if weight != 0.0)


def _written(terms: Sequence[Term]) -> str:
    coefficients = (f"{term.weight!r}*" if at or term.weight != 1.0 else "" for at, term in enumerate(terms))
    return " + ".join(f"{coefficient}{term.call}" for coefficient, term in zip(coefficients, terms, strict=True))


_LONGEST_LABEL = 40
"""Characters of a label as it is given; where λ is varied, its value follows."""


def is_label(text: object, longest: int = 2 * _LONGEST_LABEL) -> bool:
    """Return whether something can be a label: what begins with ``_`` is not shown in the legends of figures."""
    if not isinstance(text, str) or len(text) > longest or not text.isprintable() or text != text.strip():
        return False
    return re.match(r"[^\W_]", text) is not None


def split_label(written: object) -> tuple[str | None, str]:
    """Return the label, if there is one, and the expression of a loss as a person writes it.

    Args:
        written: ``"l1 + 0.1*sg"``, ``"ours=l1 + 0.1*sg"``, or ``{"loss": "l1 + 0.1*sg", "label": "ours"}``.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(written, str):
        before, equals, after = written.partition("=")
        named = equals and before.count("(") == before.count(")")  # else it belongs to an option
        return (before.strip(), after) if named else (None, written)
    if isinstance(written, Mapping) and written.keys() <= {"loss", "label"}:
        label, loss = written.get("label"), written.get("loss")
        if isinstance(loss, str) and (label is None or isinstance(label, str)):
            return label, loss
    raise ValueError("a loss such as 'l1 + 0.1*sg' is needed, or with a label {loss: l1 + 0.1*sg, label: ours}")


def label_at(label: str, lam: float) -> str:
    """Return the label of one of several losses that differ in λ: ``ours (λ = 0.1)``."""
    return f"{label} (λ = {lam:.15g})"


def labelled(loss: OpenLoss, label: str | None) -> OpenLoss:
    """Return a loss with a label; one that is the loss's own text takes away the label that it had.

    Raises:
        InputError: If it cannot be one.
    """
    if label is None or label == str(loss):
        return replace(loss, label=label)
    if not is_label(label, _LONGEST_LABEL):
        raise InputError(
            f"label {quoted(label)}: a letter or digit and up to {_LONGEST_LABEL - 1} printable characters are needed."
        )
    return replace(loss, label=label)


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
    if isinstance(value, tuple):
        return f"[{', '.join(map(_write, value))}]"
    if isinstance(value, str):
        token = _TOKEN.fullmatch(value)
        if token and value in (token["word"], token["path"]) and value.lower() not in _TRUTH:
            return value
        return f"'{value}'" if '"' in value else f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


_TRUTH = {"true": True, "false": False}


class Open(NamedTuple):
    """What is written in place of one value.

    Attributes:
        term: The number of the term, from 0.
        option: The option; None if it is the coefficient.
        values: The ends of a range, or the values that there are.
        ranged: Whether it is a range.
    """

    term: int
    option: str | None
    values: tuple[Single, ...]
    ranged: bool

    def __str__(self) -> str:
        if self.ranged:
            return f"a range, {':'.join(f'{value:.15g}' for value in self.values)}"
        return f"a choice, {'|'.join(map(_write, self.values))}"


class Parser:
    """Recursive descent over the grammar in the module's docstring.

    Args:
        text: The expression.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [(m.lastgroup, m[m.lastgroup]) for m in _TOKEN.finditer(text) if m.lastgroup]
        self.at = 0
        self.varied: list[Term] = []
        """The terms with λ."""
        self.open: list[Open] = []
        """What is written in place of one value; such a coefficient is read as 1, and such an option is left out."""
        self._count = 0

    def terms(self) -> Iterator[Term]:
        """Yield the terms with a number."""
        yield from self._term()
        while self.at < len(self.tokens):
            kind, token = self.tokens[self.at]
            if kind == "number" and token.startswith("+"):  # "l1 +0.5*sg": the sign is the operator
                self.tokens[self.at] = (kind, token[1:])
            else:
                self._expect("+", "'+' and another term")
            yield from self._term()

    def _term(self) -> Iterator[Term]:
        weight, at = "1", self._count
        self._count += 1
        kind, token = self._next("a loss such as 'l1' or '0.1*sg'")
        if varied := token in _LAMBDA and self._peek() == "*":
            self.at += 1
            kind, token = self._next("the name of a loss")
        elif kind == "number":
            if self._peek() == ":":
                self._range(at, None, self._number("the range of a coefficient", token))
            else:
                weight = token
            self._expect("*", f"'*' and a loss after the coefficient {shortened(token)}")
            kind, token = self._next("the name of a loss")
        if kind != "word":
            raise self._wrong(token, "the name of a loss")
        options: dict[str, Value | None] = {}
        if self._peek() == "(":
            self.at += 1
            while self._peek() != ")":
                if options:
                    self._expect(",", "',' or ')'")
                key, value = self._option(at)
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
        term = Term(token, factor, {key: value for key, value in options.items() if value is not None})
        if varied:
            self.varied.append(term)
        else:
            yield term

    def _option(self, term: int) -> tuple[str, Value | None]:
        """Read an option of a term; its value is None if several are written in its place."""
        kind, key = self._next("an option such as 'order=2'")
        if kind != "word":
            raise self._wrong(key, "the name of an option")
        self._expect("=", f"'=' after {quoted(key)}")
        if self._peek() != "[":
            first = self._single(key)
            if self._peek() == ":":
                self._range(term, key, first)
                return key, None
            if self._peek() == "|":
                self._choice(term, key, first)
                return key, None
            return key, first
        self.at += 1
        values: list[Single] = []
        while self._peek() != "]":
            if values:
                self._expect(",", "',' or ']'")
            values.append(self._single(key))
        self.at += 1
        return key, tuple(values)

    def _range(self, term: int, option: str | None, low: Single) -> None:
        """Read the end of a range after its beginning."""
        what = f"the range of {quoted(option)}" if option else "the range of a coefficient"
        if isinstance(low, bool | str):
            raise self._wrong(":", f"',' or ')' after {_write(low)}")
        self._expect(":", "':'")
        kind, token = self._next(f"the end of {what}")
        if kind != "number":
            raise self._wrong(token, f"the end of {what}, a number,")
        high = self._number(what, token)
        if not low < high or (option is None and low < 0):
            raise InputError(
                f"loss {quoted(self.text)}: {what} is {low:.15g}:{high:.15g}; a smaller and a larger number are "
                f"needed{'' if option else ', both at least 0'}."
            )
        self.open.append(Open(term, option, (float(low), high), ranged=True))

    def _choice(self, term: int, option: str, first: Single) -> None:
        """Read the rest of the values of an option after the first."""
        values = [first]
        while self._peek() == "|":
            self.at += 1
            values.append(self._single(option))
        self.open.append(Open(term, option, tuple(dict.fromkeys(values)), ranged=False))

    def _single(self, key: str) -> Single:
        kind, token = self._next(f"a value for {quoted(key)}")
        if kind == "number":
            return int(token) if re.fullmatch(r"[+-]?\d{1,300}", token) else self._number(key, token)
        if kind == "word":
            return _TRUTH.get(token.lower(), token)
        if kind == "path":
            return token
        if kind == "text" and token.isprintable():
            return token[1:-1]
        if kind == "text":
            raise InputError(f"loss {quoted(self.text)}: {quoted(key)} has a character that cannot be printed.")
        if token in ("'", '"'):
            raise InputError(f"loss {quoted(self.text)}: the quotation mark after {quoted(key)} is not closed.")
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
