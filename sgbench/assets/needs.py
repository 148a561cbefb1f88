"""Which pretrained networks metrics and losses need."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable

from sgbench.core.errors import InputError
from sgbench.core.registry import LOSSES, METRICS
from sgbench.spec.expression import OpenLoss


def networks_of(metrics: Iterable[str] = (), losses: Iterable[OpenLoss] = ()) -> list[str]:
    """Return the names of the pretrained networks that metrics and losses need, sorted; only plug-ins are imported.

    Raises:
        InputError: If one of them does not exist.
    """
    terms = {term.name for loss in losses for term in loss.terms}
    needed = [*map(_of_metric, metrics), *map(_of_loss, terms)]
    return sorted({network for networks in needed for network in networks})


def users_of_networks() -> dict[str, list[str]]:
    """Return the names of the metrics and losses that need each network; those that cannot be imported are left out."""
    users: defaultdict[str, dict[str, None]] = defaultdict(dict)  # a metric and a loss may have one name
    for registry, networks in ((METRICS, _of_metric), (LOSSES, _of_loss)):
        for name in registry.names():
            with contextlib.suppress(InputError):
                for network in networks(name):
                    users[network][name] = None
    return {network: list(names) for network, names in users.items()}


def _of_metric(name: str) -> tuple[str, ...]:
    return tuple(METRICS.load(name).networks)


def _of_loss(name: str) -> tuple[str, ...]:
    if declared := LOSSES.declaration(name):
        return declared.networks
    return tuple(getattr(LOSSES.load(name), "networks", ()))
