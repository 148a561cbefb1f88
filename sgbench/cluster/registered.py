"""The code of losses, backbones, metrics and other plug-ins on its way to workers that may be on other machines.

What was registered in the driver's process may be a class of a script or of a notebook's cell, which is in no module
that a worker could import, so it travels by value. The modules that no package installs travel as files. What an
installed package brings must be on every node.
"""

import functools
import io
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from ray import cloudpickle

from sgbench.core.errors import InputError
from sgbench.core.modules import Code, install, is_local
from sgbench.core.plugins import foreign
from sgbench.core.registry import BACKBONES, DISCRIMINATORS, LOSSES, OPTIMIZERS, Registry
from sgbench.metrics import METRICS
from sgbench.runs.code import Names, code_of

REGISTRIES: dict[str, Registry[Any]] = {
    registry.kind: registry for registry in (LOSSES, DISCRIMINATORS, BACKBONES, METRICS, OPTIMIZERS)
}


@dataclass(frozen=True)
class Sent:
    """The code behind some names on its way to workers."""

    code: bytes = b""
    """For `unpack` and `load`."""
    packages: tuple[str, ...] = ()
    """The distributions that must be installed there."""


def pack(names: Names, *, remote: bool) -> Sent:
    """Return the code behind some names, which have been loaded in this process.

    Args:
        names: The names.
        remote: Whether workers may be on machines that lack modules of this one.

    Raises:
        InputError: If it cannot be sent.
    """
    entries, modules = [], set[str]()
    for registry, name in names:
        for entry in registry.registered([name]).values():
            try:
                pickled, referred = _pickled(entry)
            except Exception as error:  # what a person's class refers to may raise anything
                raise InputError(
                    f"{registry.kind} '{name}' cannot be sent to Ray's workers: {str(error).splitlines()[0]}; put it "
                    f"into a module and name it as 'module:{name}'."
                ) from error
            entries.append((registry.kind, name, pickled))
            modules |= referred
    code = code_of(names, modules) if remote else Code()
    plugins = [(registry.kind, name) for registry, name in names if not registry.is_built_in(name)]
    return Sent(bytes(cloudpickle.dumps((code.modules, entries, plugins))), code.packages)


@functools.cache
def unpack(packed: bytes) -> None:
    """Let this process import and find by name what `pack` returned, once."""
    modules, entries, _ = cloudpickle.loads(packed)
    install(modules)
    for kind, name, pickled in entries:
        REGISTRIES[kind].register(name)(cloudpickle.loads(pickled))


def load(packed: bytes) -> None:
    """Import all that `pack` was given, as a trial of whether this machine can.

    Raises:
        InputError: If it cannot.
    """
    with foreign("the code of plug-ins cannot be used"):
        unpack(packed)
        plugins = cloudpickle.loads(packed)[2]
    for kind, name in plugins:
        REGISTRIES[kind].load(name)


class _Pickler(cloudpickle.Pickler):
    """Notes the modules that a pickle refers to."""

    modules: set[str]

    def persistent_id(self, what: Any) -> None:
        if isinstance(what, ModuleType):
            self.modules.add(what.__name__)
        elif isinstance(what, type | FunctionType | BuiltinFunctionType) and what.__module__:
            self.modules.add(what.__module__)
        elif isinstance(what, str) and is_local(what):  # in an import inside a function
            self.modules.add(what)


def _pickled(entry: Any) -> tuple[bytes, set[str]]:
    with io.BytesIO() as file:
        pickler = _Pickler(file)
        pickler.modules = set()
        pickler.dump(entry)
        return file.getvalue(), pickler.modules
