"""What a file says of a run, read without importing or running any code that it names.

A stored specification is canonical already: its names were checked against the registries when the run was planned,
and their code need not be installed where it is read.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES, DISCRIMINATORS, LOSSES, OPTIMIZERS
from sgbench.spec.expression import Expression, Family, Term, parse, parse_open
from sgbench.spec.models import Recipe, RunSpec, path_of
from sgbench.spec.resolve import checked, discriminators_of, split_backbone
from sgbench.spec.text import read_json


def read_spec(spec: object, source: str) -> RunSpec:
    """Read the specification of a run.

    Args:
        spec: Its JSON, as in the column ``spec`` of `sgbench.store.schema.RUNS`, or its fields.
        source: Where it comes from, for messages.

    Raises:
        InputError: If it is no specification that this version can read.
    """
    with _explained(source):
        return RunSpec.model_validate(_fields(spec))


def read_recipe(spec: object, source: str) -> Recipe:
    """Read how a run was trained, whatever else its specification says.

    Args:
        spec: As `read_spec` takes it.
        source: See there.

    Raises:
        InputError: See there.
    """
    with _explained(source):
        return _OnlyRecipe.model_validate(_fields(spec)).recipe


def find_loss(text: str, stored: Iterable[str]) -> str:
    """Return the loss in a store that a person's spelling means.

    Terms may come in any order, numbers be written in any way, and defaults of built-in losses be spelled out.

    Args:
        text: As the person wrote it.
        stored: Losses in canonical form.

    Returns:
        One of them, or the canonical form of ``text`` if it means none.

    Raises:
        InputError: If ``text`` is no loss expression, or gives a built-in loss an unknown option.
    """
    there = list(stored)
    if text in there:
        return text
    asked = Expression.of(map(_without_defaults, parse(text).terms), source=text)
    return next((loss for loss in there if _same(asked, loss)), str(asked))


def read_family(text: str) -> Family | None:
    """Return the losses that a person means by an expression with λ; None if it has none.

    Raises:
        InputError: As `find_loss` does.
    """
    loss = parse_open(text)
    if not isinstance(loss, Family):
        return None
    *rest, varied = map(_without_defaults, loss.terms)
    return Family.of(rest, varied, source=text)


def plugins_of(backbone: str, loss: str, optimizer: str | None) -> list[tuple[str, str]]:
    """Return the kind and name of what a run uses that is neither built in nor made by a provider.

    Args:
        backbone: Its backbone, in canonical form.
        loss: Its loss, in canonical form.
        optimizer: The name of its optimizer; None in rows of older stores, which is Adam.
    """
    family, _ = split_backbone(backbone)
    known = BACKBONES.is_built_in(family) or BACKBONES.is_provided(family)
    expression = parse(loss)
    optimizers = [] if optimizer is None or OPTIMIZERS.is_built_in(optimizer) else [optimizer]
    return [
        *([] if known else [("backbone", family)]),
        *(("loss", term.name) for term in expression.terms if not LOSSES.is_built_in(term.name)),
        *(("discriminator", name) for name in discriminators_of([expression]) if not DISCRIMINATORS.is_built_in(name)),
        *(("optimizer", name) for name in optimizers),
    ]


def _without_defaults(term: Term) -> Term:
    declared = LOSSES.declaration(term.name)
    return checked(term, declared.options) if declared else term


def _same(asked: Expression, loss: str) -> bool:
    try:
        terms = parse(loss).terms
    except InputError:  # what a checkpoint says of itself may be anything
        return False
    return len(terms) == len(asked.terms) and all(term in terms for term in asked.terms)


class _OnlyRecipe(BaseModel):
    recipe: Recipe


def _fields(spec: object) -> object:
    fields = read_json(spec) if isinstance(spec, str) else spec
    if isinstance(fields, dict) and isinstance(recipe := fields.get("recipe"), dict):
        fields = fields | {"recipe": recipe | {"schedule": _of_one_kind(recipe.get("schedule", {}))}}
    return fields


_OF_OLDER = {"halve_every": ("step", 200_000), "final": ("cosine", 0.0)}
"""Fields that older specifications give to every schedule: whose they are, and their defaults."""


def _of_one_kind(schedule: Any) -> Any:
    """Leave out the defaults of other schedules, which older specifications hold."""
    if not isinstance(schedule, dict):
        return schedule
    others = {key: default for key, (kind, default) in _OF_OLDER.items() if schedule.get("name", "step") != kind}
    return {key: value for key, value in schedule.items() if key not in others or value != others[key]}


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error", first["msg"])
        said = ": ".join(filter(None, (path_of(first["loc"]), str(cause).rstrip("."))))
        raise InputError(f"{source} has a specification that cannot be read: {said}.") from error
    except ValueError as error:
        raise InputError(f"{source} has a specification that cannot be read: {error}.") from error
