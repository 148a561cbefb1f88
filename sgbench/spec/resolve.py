"""From the names that a person writes to canonical names, checked against the registries.

Names here are meant to be run, so the code of plug-ins is imported, once per process; nothing is constructed.
`sgbench.spec.stored` reads the names in a file, and imports nothing.
"""

import contextlib
import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sgbench.core.errors import InputError, unknown
from sgbench.core.plugins import foreign
from sgbench.core.registry import (
    BACKBONES,
    DISCRIMINATORS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    TRACKERS,
    Registry,
    metric_named,
)
from sgbench.core.words import quoted, shortened
from sgbench.spec.expression import Expression, Family, OpenLoss, Term, labelled, number, parse_open, split_label

T = TypeVar("T")

REQUIRED = inspect.Parameter.empty
"""Stands for the default of an option that has none."""


def check_loss(text: str) -> OpenLoss:
    """Return the canonical form of a loss that exists: options checked, and left out where equal to a default.

    Raises:
        InputError: For an expression that cannot be parsed, an unknown loss, option or discriminator, or a value of
            another type than the option's default.
    """
    written = parse_open(text)
    terms = [checked(term, options_of(term.name)) for term in written.terms]
    loss: OpenLoss
    if isinstance(written, Family):
        loss = Family.of(terms[:-1], terms[-1], source=text)
    else:
        loss = Expression.of(terms, source=text)
    for name in discriminators_of([loss]):
        if not DISCRIMINATORS.is_built_in(name):
            _load(DISCRIMINATORS, name)
    return loss


def check_written_loss(written: object) -> OpenLoss:
    """Return a loss as a person writes it, with or without a label, see `sgbench.spec.expression.split_label`.

    Raises:
        ValueError: If it is not written like one.
        InputError: See `check_loss`; or if its label cannot be one, or is another loss.
    """
    label, text = split_label(written)
    loss = labelled(check_loss(text), label)
    if label is not None and label != str(loss) and _is_loss(label):
        raise InputError(f"label {quoted(label)} of loss {quoted(str(loss))} is itself a loss; choose another.")
    return loss


def _is_loss(text: str) -> bool:
    """Return whether a text is an expression of losses that have these names, without importing any."""
    try:
        terms = parse_open(text).terms
    except InputError:
        return False
    known = LOSSES.names()
    return all(":" in term.name or term.name in known for term in terms)


def discriminators_of(losses: Iterable[OpenLoss]) -> list[str]:
    """Return the names of the discriminators that the terms ``gan`` of losses are given, each once, sorted."""
    given = (term.options.get("discriminator") for loss in losses for term in loss.terms if term.name == "gan")
    return sorted({str(name) for name in given if name is not None})


def checked(term: Term, defaults: Mapping[str, Any]) -> Term:
    """Return a term without options equal to their defaults, the others converted to the types of their defaults.

    Args:
        term: A term as it is written.
        defaults: Every option of its loss; `REQUIRED` for one without a default.

    Raises:
        InputError: For an unknown option, or a value of another type.
    """
    values = _checked(f"loss {quoted(term.name)}", term.options, defaults, example=f"{shortened(term.name)}({{}}=…)")
    return replace(term, options=values)


def _checked(called: str, given: Mapping[str, Any], defaults: Mapping[str, Any], example: str) -> dict[str, Any]:
    """Return options without those equal to their defaults, the others converted to the types of their defaults.

    Args:
        called: Whose options they are, for messages.
        given: The options as they are written.
        defaults: Every option that there is; `REQUIRED` for one without a default.
        example: How an option is given, with ``{}`` for its name.

    Raises:
        InputError: For an unknown option, a missing one, or a value of another type.
    """
    for key in given:
        if key not in defaults:
            if not defaults:
                raise InputError(f"{called} takes no options, but was given {quoted(key)}.")
            raise unknown(f"option of {called}", key, defaults)
    for key, default in defaults.items():
        if default is REQUIRED and key not in given:
            raise InputError(f"{called} needs its option {quoted(key)}: {example.format(key)}.")
    values = {key: _like(value, defaults[key], f"{called}: {key}") for key, value in given.items()}
    return {key: value for key, value in values.items() if value != _immutable(defaults[key])}


def _immutable(default: Any) -> Any:
    return tuple(default) if isinstance(default, list) else default


def options_of(name: str) -> Mapping[str, Any]:
    """Return the options of a loss, with their defaults; only what is not built in is imported.

    Raises:
        InputError: If there is no such loss.
    """
    if declared := LOSSES.declaration(name):
        return declared.options
    return {
        key: parameter.default
        for key, parameter in inspect.signature(_load(LOSSES, name)).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }


def _like(value: Any, default: Any, what: str) -> Any:
    """Return ``value`` as the type of the option's default, so that ``eps=1`` and ``eps=1.0`` are one loss."""
    if isinstance(value, tuple) and isinstance(default, tuple | list) and default:
        likes = default if len(value) == len(default) else itertools.repeat(default[0], len(value))
        return tuple(_like(one, other, what) for one, other in zip(value, likes, strict=True))
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, int | float) and isinstance(value, str | tuple):
        needed = "true or false" if isinstance(default, bool) else "a number"
        given = quoted(list(value) if isinstance(value, tuple) else value)
        raise InputError(f"{what} is {given}; {needed} is needed.")
    return value


def check_optimizer(name: str) -> None:
    """Refuse the name of an optimizer that does not exist; what torch has is not imported.

    Raises:
        InputError: With the nearest name, or with what is there if that is no optimizer.
    """
    if not OPTIMIZERS.is_built_in(name):
        _load(OPTIMIZERS, name)


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an optimizer that is not built in, checked, and left out where equal to a default.

    Args:
        name: A registered name, or ``module:Class``.
        options: With ``lr``, which is always kept. Texts that are numbers, such as YAML's ``1e-8``, become numbers
            unless the default is a text.

    Raises:
        InputError: For an unknown option, a missing one, or a value of another type than the option's default.
    """
    own = list(inspect.signature(_load(OPTIMIZERS, name)).parameters.values())[1:]  # after the network's parameters
    defaults = {each.name: each.default for each in own if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    if any(each.kind is each.VAR_KEYWORD for each in own):
        defaults |= {key: None for key in options if key not in defaults}
    given = {key: value if isinstance(defaults.get(key), str) else _read(value) for key, value in options.items()}
    called = f"optimizer {quoted(name)}"
    return _checked(called, given, defaults, example="recipe.optimizer.{}=…") | {"lr": options["lr"]}


def _read(value: Any) -> Any:
    """Return a text that is a number as one, also inside tuples."""
    if isinstance(value, tuple):
        return tuple(map(_read, value))
    for read in (int, number) if isinstance(value, str) else ():
        with contextlib.suppress(ValueError):
            return read(value)
    return value


def split_backbone(name: str) -> tuple[str, str | None]:
    """Return the family, or target, and the size in a backbone's name; None if it has no size."""
    if BACKBONES.is_provided(name):
        return name, None
    if ":" in name:
        family, _, size = name.partition("-")
        return family, size or None
    families = [family for family in BACKBONES.names() if f"{name}-".startswith(f"{family}-")]
    family = max(families, key=len, default=name.partition("-")[0])
    return family, name[len(family) + 1 :] or None


def backbone_sizes(family: str) -> list[str]:
    """Return the sizes that a family, or target, has; a name without a size means the first one.

    Raises:
        InputError: If it cannot be imported, or is not a class of `torch.nn.Module`.
    """
    return list(getattr(_load(BACKBONES, family), "sizes", ()))


def check_backbone(name: str) -> str:
    """Return the canonical name of a backbone that exists: ``family-size``, or the family alone if it has no sizes.

    Raises:
        InputError: If there is no such family or size.
    """
    family, size = split_backbone(name)
    known = BACKBONES.names()
    if ":" not in family and family not in known:
        sized = []
        for each in known:
            with contextlib.suppress(InputError):  # a plug-in that cannot be imported is not what is wrong here
                sized += [f"{each}-{one}" for one in backbone_sizes(each)]
        raise unknown("backbone", name, [*known, *sized])
    sizes = backbone_sizes(family)
    if not sizes and size is None:
        return family
    if not sizes:
        raise InputError(f"backbone {quoted(family)} has no sizes, but {quoted(size)} is asked for.")
    size = size or sizes[0]
    if size not in sizes:
        raise unknown(f"size of backbone {quoted(family)}", size, sizes)
    return f"{family}-{size}"


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of metrics, each of which exists; see `check_metric`.

    Raises:
        InputError: With the nearest name for one that does not.
    """
    return tuple(map(check_metric, names))


def check_metric(name: str) -> str:
    """Return the name of a metric that exists, in full, see `sgbench.core.registry.metric_named`.

    Raises:
        InputError: With the nearest name if it does not, or with what is there if that is no metric of this name.
    """
    name = metric_named(name, METRICS.names())
    _load(METRICS, name)
    return name


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of trackers, each once; all exist, but the package of a built-in one may be missing here.

    Raises:
        InputError: With the nearest name for one that does not, or with what is there if that is no tracker.
    """
    for name in names:
        if not TRACKERS.is_built_in(name):
            _load(TRACKERS, name)
    return tuple(dict.fromkeys(names))


def _load(registry: Registry[T], name: str) -> T:
    with foreign(f"{registry.kind} {quoted(name)}"):
        return registry.load(name)
