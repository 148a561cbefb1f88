"""A cluster of several nodes on one machine, for commands that join it by its address."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import ray
from place import Place, kill, marked, wait_until
from ray.cluster_utils import Cluster


class Nodes:
    """Ray's test cluster: a head that takes no runs, and nodes that are all on this machine.

    This process is connected to it.

    Args:
        place: Whose commands join it.
        environment: Of the nodes, further variables.
    """

    def __init__(self, place: Place, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        self.environment = place.environment(self.mark) | environment
        self.environment["PYTHONPATH"] += f":{place.folder}"
        self.cluster = Cluster()

    def start(self) -> None:
        """Start the head and connect to it."""
        with self._as_environment():
            self.cluster.add_node(num_cpus=0, include_dashboard=False)
        ray.init(self.address, log_to_driver=False, logging_level="ERROR")
        ray._private.worker._worker_logs_enabled = False  # or what a raylet that is lost had logged is printed

    @property
    def address(self) -> str:
        return str(self.cluster.gcs_address)

    def add(self, name: str, **resources: float) -> Any:
        """Start a node under a name."""
        with self._as_environment():
            return self.cluster.add_node(node_name=name, **resources)

    def remove(self, node: Any) -> None:
        """End a node as when its machine is switched off."""
        self.cluster.remove_node(node, allow_graceful=False)

    def processes(self, words: str) -> list[int]:
        """Return the processes of the cluster that have some words in their command line."""
        return marked(self.mark, words)

    def raylet(self, node: Any) -> int:
        """Return the process that makes a node of what it is."""
        return int(node.all_processes["raylet"][0].process.pid)

    def assert_idle(self, seconds: float = 60) -> None:
        """Check that no run, no room and no placement group is held, and nobody had to help with that."""

        def held() -> object:
            groups = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
            used = {name: ray.available_resources().get(name) for name in ("CPU", "GPU")}
            total = {name: ray.cluster_resources().get(name) for name in ("CPU", "GPU")}
            return self.processes("ray::ImplicitFunc") + groups or (used if used != total else None)

        wait_until(lambda: held() is None, seconds, lambda: f"the cluster still holds {held()}")

    def shut_down(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()
        kill(self.processes(""))

    @contextlib.contextmanager
    def _as_environment(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextlib.contextmanager
def a_cluster(place: Place, **environment: str) -> Iterator[Nodes]:
    nodes = Nodes(place, **environment)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.shut_down()
