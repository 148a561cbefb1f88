"""The code of the plug-ins of runs as it is now, and whether runs were trained with it; nothing is imported.

Code is known by `sgbench.core.sources.Source.digest`. A run that was resumed with other code than it began with has the
hashes of both, joined by ``+``.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES, DISCRIMINATORS, LOSSES, METRICS, OPTIMIZERS, Registry
from sgbench.core.sources import Source
from sgbench.core.words import listed
from sgbench.spec.models import RunSpec
from sgbench.spec.stored import plugins_of
from sgbench.spec.text import read_json

Code = Mapping[str, str]
"""The hash of the code of each plug-in of a run, by its kind and name, such as ``loss mine:Loss``."""

_REGISTRIES: dict[str, Registry[Any]] = {
    each.kind: each for each in (BACKBONES, DISCRIMINATORS, LOSSES, METRICS, OPTIMIZERS)
}


class Sources:
    """The code of plug-ins on this machine, each looked at once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Source | None] = {}

    def of(self, backbone: str, loss: str, optimizer: str | None) -> dict[str, Source]:
        """Return the code of each plug-in of a run, by its kind and name, as far as it is here; see `plugins_of`.

        Raises:
            InputError: If the loss is no expression.
        """
        found: dict[str, Source] = {}
        for kind, name in plugins_of(backbone, loss, optimizer):
            if (source := self._source(kind, name)) is not None:
                found[f"{kind} {name}"] = source
        return found

    def _source(self, kind: str, name: str) -> Source | None:
        if (kind, name) not in self._found:
            self._found[kind, name] = _REGISTRIES[kind].source(name)
        return self._found[kind, name]

    def of_run(self, spec: RunSpec) -> dict[str, Source]:
        """Return `of` for the run of a specification."""
        return self.of(spec.backbone, str(spec.loss), spec.recipe.optimizer.name)

    def of_metrics(self, names: Iterable[str]) -> Code:
        """Return the hashes of the code of metrics that are not built in, by their names, as far as they are here."""
        found = {name: self._source("metric", name) for name in names}
        return {name: source.digest for name, source in found.items() if source is not None}

    def code_of_row(self, row: Mapping[str, Any]) -> Code:
        """Return the hashes of the code of the plug-ins that a row of a store names, which may hold any text."""
        named = str(row["backbone"]), str(row["loss"]), row.get("optimizer_name")
        with contextlib.suppress(InputError):
            return {name: source.digest for name, source in self.of(*named).items()}
        return {}


def read_code(column: str | None) -> dict[str, str]:
    """Return the code in the column ``code`` of a run; null is a run without plug-ins or of an older sgbench.

    Raises:
        ValueError: If it is no JSON.
        AttributeError: If it is no object.
    """
    return {str(name): str(digest) for name, digest in read_json(column or "{}").items()}


def joined(before: Code, now: Code) -> dict[str, str]:
    """Return the code of a run that began with some code and goes on with what may be other."""
    return {
        name: "+".join(dict.fromkeys([*before.get(name, digest).split("+"), digest])) for name, digest in now.items()
    }


def changed(before: Code, now: Code) -> list[str]:
    """Return the plug-ins whose code is another now; where either is not known, none is.

    Args:
        before: With which a run was trained.
        now: As it is.
    """
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def changed_since(row: Mapping[str, Any], sources: Sources) -> tuple[str, ...]:
    """Return the plug-ins of the row of a run whose code is another now than the row has."""
    return tuple(changed(read_code(row["code"]), sources.code_of_row(row))) if row["code"] else ()


def in_words(plugins: Iterable[str]) -> str:
    """Return ``loss 'mine:Loss' and optimizer 'mine:Lion'`` for keys of `Code`."""
    return listed([f"{kind} '{name}'" for kind, _, name in (each.partition(" ") for each in plugins)])
