"""The code of losses, backbones, metrics and other plug-ins on its way to workers that may be on other machines.

What was registered in the driver's process may be a class of a script or of a notebook's cell, which is in no module
that a worker could import, so it travels by value. The modules that no package installs travel as files. What an
installed package brings must be on every node.
"""

import functools
import io
from collections.abc import Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from ray import cloudpickle

from sgbench.core.errors import InputError
from sgbench.core.modules import Code, install, is_local
from sgbench.core.registry import BACKBONES, DISCRIMINATORS, LOSSES, OPTIMIZERS, Registry
from sgbench.metrics import METRICS
from sgbench.runs.code import code_of, names_of_jobs
from sgbench.runs.execute import Job

REGISTRIES: dict[str, Registry[Any]] = {
    registry.kind: registry for registry in (LOSSES, DISCRIMINATORS, BACKBONES, METRICS, OPTIMIZERS)
}


def pack(jobs: Sequence[Job], *, remote: bool) -> tuple[bytes, tuple[str, ...]]:
    """Return the code that jobs use, for `unpack`, and the distributions that must be installed where they run.

    Args:
        jobs: Of a sweep.
        remote: Whether workers may be on machines that lack modules of this one.

    Raises:
        InputError: If it cannot be sent.
    """
    names, entries, modules = names_of_jobs(jobs), [], set[str]()
    for registry, name in names:
        for entry in registry.registered([name]).values():
            try:
                pickled, referred = _pickled(entry)
            except Exception as error:  # what a person's class refers to may raise anything
                raise InputError(
                    f"{registry.kind} '{name}' cannot be sent to Ray's workers: {str(error).splitlines()[0]}; put it "
                    f"into a module and name it as 'module:{name}'."
                ) from error
            entries.append((registry.kind, name, pickled, registry.source(name)))
            modules |= referred
    code = code_of(names, modules) if remote else Code()
    return bytes(cloudpickle.dumps((code.modules, entries))), code.packages


@functools.cache
def unpack(packed: bytes) -> None:
    """Let this process import and find by name what `pack` returned, once."""
    modules, entries = cloudpickle.loads(packed)
    install(modules)
    for kind, name, pickled, source in entries:
        REGISTRIES[kind].receive(name, cloudpickle.loads(pickled), source)


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
