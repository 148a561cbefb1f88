"""A cluster of several nodes on one machine, for commands that join it by its address."""

import contextlib
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from place import PATIENCE_SECONDS, Place, Said, environment, kill, marked, wait_until
from ray.cluster_utils import Cluster

from sgbench.cluster.ray_internals import Raylet, announce_end, own_raylets, silence_raylets


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


class Nodes:
    """Ray's test cluster: a head, and nodes that are all on this machine.

    Args:
        place: Whose commands join it.
        environment: Of the nodes, further variables.
    """

    def __init__(self, place: Place, **environment: str) -> None:
        self.place = place
        self.mark = uuid.uuid4().hex
        self.environment = place.environment(self.mark) | environment

    def start(self, cpus: int, folder: str, *, dashboard: bool) -> None:
        """Start the head and, if it is to have a dashboard, what starts jobs for that.

        Args:
            cpus: How many it has.
            folder: For what its Ray keeps, by which a job finds it; the usual one names the last Ray of the machine.
            dashboard: Whether it has one.
        """
        self.cluster = Cluster()
        with socket.create_server(("127.0.0.1", 0)) as free:
            agent = free.getsockname()[1]
        ports = {"dashboard_port": 0, "dashboard_agent_listen_port": agent}  # the usual ones may be another Ray's
        with environment(self.environment):
            self.cluster.add_node(
                num_cpus=cpus, temp_dir=folder, include_dashboard=dashboard, dashboard_host="127.0.0.1", **ports
            )
        (Path(folder) / "ray_current_cluster").write_text(self.address)
        if dashboard:
            wait_until(lambda: listens(agent), PATIENCE_SECONDS)

    @property
    def address(self) -> str:
        return str(self.cluster.gcs_address)

    @property
    def dashboard(self) -> str:
        return str(self.cluster.head_node.webui_url)

    def call(self, *arguments: str, code: int = 0) -> Said:
        """Run a command in this process that joins the cluster, and check that it leaves nothing there."""
        said = self.place.call(*arguments, "--address", self.address, code=code)
        self.assert_idle()
        return said

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Connect this process to the cluster for as long as the context lasts."""
        ray.init(self.address, log_to_driver=False, logging_level="ERROR")
        silence_raylets()  # or what a raylet that is lost had logged is printed
        try:
            yield
        finally:
            ray.shutdown()

    def add(self, name: str, **resources: float) -> Any:
        """Start a node under a name."""
        with environment(self.environment):
            return self.cluster.add_node(node_name=name, **resources)

    def remove(self, node: Any, *, announced: bool = False) -> None:
        """End a node as when its machine is switched off, unless it is announced; Ray else notices after a while."""
        self.cluster.remove_node(node, allow_graceful=announced)

    def give_notice(self, node: Any, seconds: float) -> None:
        """Tell Ray that a node will be taken away, as an autoscaler does of a spot instance."""
        announce_end(self.own(node), seconds)

    def own(self, node: Any) -> Raylet:
        """Return the raylet of a node as its machine sees it, where it would be the only one."""
        (raylet,) = [each for each in own_raylets() if each.node == node.node_id]
        return raylet

    def start_head_anew(self) -> None:
        """Start the head's ``gcs_server``, which was killed, again at the same port; it then knows no node."""
        self.cluster.head_node.kill_gcs_server(check_alive=False)
        with environment(self.environment):
            self.cluster.head_node.start_gcs_server()

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

        with contextlib.nullcontext() if ray.is_initialized() else self.connected():
            wait_until(lambda: held() is None, seconds, lambda: f"the cluster still holds {held()}")

    def shut_down(self) -> None:
        self.cluster.shutdown()
        kill(self.processes(""))


@contextlib.contextmanager
def a_cluster(place: Place, *, cpus: int = 0, dashboard: bool = False, **environment: str) -> Iterator[Nodes]:
    """Start a cluster of a head, by default one that takes no runs; see `Nodes`."""
    nodes = Nodes(place, **environment)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as short:  # a socket's path is short
        try:
            nodes.start(cpus, short, dashboard=dashboard)
            yield nodes
        finally:
            nodes.shut_down()
