"""The resources that a run takes of a cluster, and whether the cluster can ever provide them."""

import os
from dataclasses import dataclass

import ray

from sgbench.core.errors import InputError
from sgbench.spec import SweepSpec


@dataclass(frozen=True)
class Placement:
    """The resources that a run takes."""

    each: dict[str, float]
    """What one worker takes, by resource."""
    workers: int
    """At least 1: without a worker group it is the process that schedules the run."""

    @property
    def use_gpu(self) -> bool:
        """Whether workers have a GPU, or a share of one."""
        return "GPU" in self.each

    def room(self, nodes: list[dict[str, float]]) -> int:
        """Return how many workers some nodes have room for, each of which must be on one of them."""
        return sum(int(min(node.get(name, 0) / amount for name, amount in self.each.items())) for node in nodes)

    def lanes(self) -> int:
        """Return how many runs there is room for at once on the connected cluster, as it is or can grow."""
        return max(self.room(_nodes()), self.room([_promised()])) // self.workers

    def has_room(self) -> bool:
        """Return whether the connected cluster, as it is, has room for a run if nothing else is on it."""
        return self.room(_nodes()) >= self.workers

    def against(self) -> str:
        """Return what a run takes and what the connected cluster has, for a person who waits for one to start."""
        has = [f"{resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU" for resources in _free_and_all()]
        return f"a run takes {self}, and the cluster has {has[0]} free of {has[1]}"

    def __str__(self) -> str:
        each = " and ".join(f"{amount:g} {name}" for name, amount in self.each.items())
        return each if self.workers == 1 else f"{self.workers} workers of {each}"


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _free_and_all() -> tuple[dict[str, float], dict[str, float]]:
    return ray.available_resources(), ray.cluster_resources()


def _promised() -> dict[str, float]:
    """Return what all workers will have together by ``SGBENCH_GROWS_TO``, such as ``CPU=64,GPU=8``; nothing without.

    The autoscaler that comes with Ray tells nobody what it could start.

    Raises:
        InputError: If the variable is malformed.
    """
    text = os.environ.get("SGBENCH_GROWS_TO", "")
    parts = [part.partition("=") for part in text.split(",") if part]
    if not all(name in ("CPU", "GPU") and amount.isdigit() for name, _, amount in parts):
        raise InputError(
            f"SGBENCH_GROWS_TO is '{text}'; the resources of all workers are needed, such as CPU=64,GPU=8."
        )
    return {name: float(amount) for name, _, amount in parts}


def place(sweep: SweepSpec) -> Placement:
    """Return what each run of a sweep takes of the connected cluster.

    Each worker takes ``recipe.threads`` CPUs and, if the cluster has GPUs or can start nodes that do, ``gpus``.

    Raises:
        InputError: If the cluster can never place a run, neither as it is nor, if it can grow, at its largest.
    """
    nodes, most = _nodes(), _promised()
    gpus = any(there.get("GPU", 0) for there in (*nodes, most))
    each: dict[str, float] = {"CPU": sweep.recipe.threads, **({"GPU": sweep.gpus} if gpus else {})}
    placement = Placement(each, max(1, sweep.workers))
    if placement.room(nodes) < placement.workers and placement.room([most]) < placement.workers:
        there = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
        raise InputError(
            f"a run takes {placement}, which the cluster can never provide (its nodes: {there}); lower recipe.threads, "
            f"workers{' or gpus' if gpus else ''}, or add nodes."
        )
    return placement
