"""Losses, backbones and metrics that were registered in the driver's process, on their way to the workers'.

A class of a script or of a notebook's cell is in no module that a worker could import, so that it travels by value, and
on a cluster so does one of a module beside the person. What an installed package brings is on every node, or nowhere.
"""

import contextlib
import functools
import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ray import cloudpickle

from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES, LOSSES, Registry
from sgbench.metrics import METRICS
from sgbench.runs.execute import Job
from sgbench.spec import split_backbone

REGISTRIES: tuple[Registry[Any], ...] = (LOSSES, BACKBONES, METRICS)


def pack(jobs: Sequence[Job], *, remote: bool) -> bytes:
    """Return what of the names that jobs use was registered in this process.

    Args:
        jobs: Of a sweep.
        remote: Whether workers may be on machines that lack modules of this one.

    Raises:
        InputError: If it cannot be sent.
    """
    names = (
        {term.name for job in jobs for term in job.spec.loss.terms},
        {split_backbone(job.spec.backbone)[0] for job in jobs},
        {metric for job in jobs for _, metric in job.missing},
    )
    packed = []
    for registry, used in zip(REGISTRIES, names, strict=True):
        entries = registry.registered(used)
        with contextlib.ExitStack() as stack:
            for entry in entries.values() if remote else ():
                stack.enter_context(_by_value(entry))
            for name, entry in entries.items():
                try:
                    packed.append((registry.kind, name, cloudpickle.dumps(entry)))
                except Exception as error:  # what a person's class refers to may raise anything
                    raise InputError(
                        f"{registry.kind} '{name}' cannot be sent to Ray's workers: {str(error).splitlines()[0]}; put "
                        f"it into a module and name it as 'module:{name}'."
                    ) from error
    return bytes(cloudpickle.dumps(packed))


@functools.cache
def unpack(packed: bytes) -> None:
    """Register in this process what `pack` returned, once."""
    registries = {registry.kind: registry for registry in REGISTRIES}
    for kind, name, entry in cloudpickle.loads(packed):
        registries[kind].register(name)(cloudpickle.loads(entry))


@contextlib.contextmanager
def _by_value(entry: Any) -> Iterator[None]:
    """Let the module of an entry travel with it, unless an installed package brings it."""
    name = (entry if isinstance(entry, type) else type(entry)).__module__
    on_every_node = {"__main__", "sgbench", *importlib.metadata.packages_distributions()}  # __main__ travels anyway
    if name.partition(".")[0] in on_every_node or name in cloudpickle.list_registry_pickle_by_value():
        yield
        return
    cloudpickle.register_pickle_by_value(sys.modules[name])
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[name])
