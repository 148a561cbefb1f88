"""The code behind the names of a sweep that other machines may lack: what is sent to them, and what they must have."""

from collections.abc import Iterable, Sequence
from typing import Any

from sgbench.core.modules import Code, collect
from sgbench.core.registry import BACKBONES, DISCRIMINATORS, LOSSES, OPTIMIZERS, TRACKERS, Registry, module_of
from sgbench.metrics import METRICS
from sgbench.runs.execute import Job
from sgbench.spec import SweepSpec, split_backbone
from sgbench.spec.expression import OpenLoss
from sgbench.spec.resolve import discriminators_of

Names = Sequence[tuple[Registry[Any], str]]
"""Names in registries."""


def names_of_sweep(sweep: SweepSpec) -> Names:
    """Return the losses, discriminators, backbones, metrics and the optimizer that a sweep names."""
    backbones = (name for grid in sweep.grids for name in grid.backbones)
    return _named(sweep.losses(), backbones, sweep.all_metrics(), [sweep.recipe.optimizer.name])


def names_of_command(sweep: SweepSpec) -> Names:
    """Return all that a sweep names: also its trackers, which only the process of its command needs."""
    return [*names_of_sweep(sweep), *((TRACKERS, name) for name in sweep.track)]


def names_of_jobs(jobs: Sequence[Job]) -> Names:
    """Return the losses, discriminators, backbones, metrics and optimizers that jobs use."""
    losses, optimizers = [job.spec.loss for job in jobs], [job.spec.recipe.optimizer.name for job in jobs]
    metrics = (metric for job in jobs for metric in job.metrics)
    return _named(losses, (job.spec.backbone for job in jobs), metrics, optimizers)


def _named(
    losses: Sequence[OpenLoss], backbones: Iterable[str], metrics: Iterable[str], optimizers: Iterable[str]
) -> Names:
    named = (
        (LOSSES, (term.name for loss in losses for term in loss.terms)),
        (DISCRIMINATORS, discriminators_of(losses)),
        (BACKBONES, (split_backbone(name)[0] for name in backbones)),
        (METRICS, metrics),
        (OPTIMIZERS, optimizers),
    )
    return [(registry, name) for registry, names in named for name in sorted(set(names))]


def code_of(names: Names, more: Iterable[str] = ()) -> Code:
    """Return the code that makes up some names, as far as not every installation of sgbench has it.

    Args:
        names: Names that have been loaded in this process.
        more: Further modules that they need.

    Raises:
        InputError: See `sgbench.core.modules.collect`.
    """
    modules, packages = list(more), list[str]()
    for registry, name in names:
        if registry.is_built_in(name):
            continue
        if (package := registry.distribution(name)) is not None:
            packages.append(package)
        if ":" in name:
            modules.append(name.partition(":")[0])
        if not registry.is_provided(name):
            modules.append(module_of(registry.load(name)))
    return collect(modules, packages)
