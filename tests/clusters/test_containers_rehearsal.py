"""The commands of KubeRay's containers and of SkyPilot's machines, on nodes of their own, with real Ray.

``make rehearse`` rehearses them; CI does not, as starting Ray like this takes a minute.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from place import PATIENCE_SECONDS, Place, a_place, wait_until
from slurm import CONTROL, Site, a_site, unavailable
from test_kuberay import Amounts, cluster, container_command
from test_skypilot import read

import sgbench

ROOT = Path(__file__).parents[2]
SWEEP = "slow.yaml"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif("SGBENCH_REHEARSE" not in os.environ, reason="only 'make rehearse' rehearses this"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """What the nodes share: images, a sweep file and stores."""
    with a_place(tmp_path_factory.mktemp("place")) as place:
        sweep = (place.folder / "tiny.yaml").read_text().replace("l1 + 1.0*sg, ", "")
        (place.folder / SWEEP).write_text(f"{sweep}checkpoint_seconds: 0.2\n")
        yield place


@pytest.fixture(scope="module")
def calm(place: Place) -> dict[str, Any]:
    """What the runs leave without Ray and without trouble."""
    for seed in ("0", "1"):
        place.call("train", SWEEP, "--seeds", seed, "--results", "calm")
    return place.outcome("calm")


@pytest.fixture
def site(place: Place) -> Iterator[Site]:
    if why := unavailable():
        pytest.skip(f"nodes cannot be made here, as root can: {why}")
    with a_site(["node1", "node2", "node3"], [place.folder, ROOT]) as site:
        yield site


class Containers:
    """Containers, one on each node, each with processes of its own, of which the first is bash.

    Args:
        site: With the nodes.
        place: What they see.
    """

    def __init__(self, site: Site, place: Place) -> None:
        self.site, self.place = site, place
        own = {"PATH": f"{sys.prefix}/bin:{os.environ['PATH']}", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        own |= {"RAY_AUTH_MODE": "token", "SGBENCH_CACHE": "/tmp/cache", CONTROL: f"{site.folder}/ctl"}
        self.environment = {**os.environ, **place.environment(place.mark), **own}
        self.environment["PYTHONPATH"] += f":{place.folder}"
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str, command: str, **variables: str) -> None:
        """Start a container on a node; what it prints is in a file of the node's name."""
        alone = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", command)
        with (self.place.folder / node).open("wb") as log:
            self.started[node] = subprocess.Popen(
                self.site.nodes[node].inside(*alone, folder=str(self.place.folder)),
                env=self.environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: bool(psutil.Process(self.started[node].pid).children()), PATIENCE_SECONDS)

    def said(self, node: str) -> str:
        return (self.place.folder / node).read_text()

    def first(self, node: str) -> psutil.Process:
        """Return what is process 1 in a container."""
        return psutil.Process(self.started[node].pid).children()[0]

    def inside(self, node: str, *command: str) -> list[str]:
        """Return a command line that runs a command in a container, as ``kubectl exec`` does."""
        first = self.first(node).pid
        return ["nsenter", "--target", str(first), "--net", "--mount", "--pid", f"--wdns={self.place.folder}", *command]

    def run(self, node: str, *command: str) -> subprocess.CompletedProcess[str]:
        there = self.inside(node, *command)
        return subprocess.run(there, env=self.environment, capture_output=True, text=True, check=False)


def test_the_containers_of_kuberay_run_a_sweep_whose_runs_leave_a_pod_before_it_ends(
    site: Site, place: Place, calm: dict[str, Any]
) -> None:
    for node in site.nodes.values():  # by its route, Ray finds its address
        subprocess.run(node.inside("ip", "route", "add", "default", "dev", "eth0"), check=True)
    spec = cluster("raycluster")
    (workers,) = spec.worker_group_specs
    (worker,) = workers.template.spec.containers
    worker.resources.limits = Amounts(cpu="1", memory="1Gi")  # one of this machine's, and no GPU
    containers = Containers(site, place)
    containers.start("node1", container_command(spec.head_group_spec, ""), RAY_ADDRESS="127.0.0.1:6379")
    healthy = ("ray", "health-check", "--address", "10.1.0.1:6379")
    wait_until(lambda: containers.run("node1", *healthy).returncode == 0, PATIENCE_SECONDS)
    for node in ("node2", "node3"):
        containers.start(node, container_command(workers, "10.1.0.1"), RAY_ADDRESS="10.1.0.1:6379")

    place.slow_down(1)  # for longer than the end of a pod takes
    containers.environment["RAY_ADDRESS"] = "10.1.0.1:6379"
    with (place.folder / "sweep").open("wb") as log:
        command = containers.inside("node1", "sgbench", "sweep", SWEEP, "--results", "pods", "--address", "auto")
        sweep = subprocess.Popen(command, env=containers.environment, stdout=log, stderr=subprocess.STDOUT)
    wait_until(
        lambda: {f"on 10.1.0.{i}" in containers.said("sweep") for i in (2, 3)} == {True} or sweep.poll() is not None,
        PATIENCE_SECONDS,
        lambda: containers.said("sweep"),
    )
    assert sweep.poll() is None, containers.said("sweep")[-2000:]

    end, grace = worker.lifecycle, workers.template.spec.termination_grace_period_seconds
    assert end is not None
    assert grace is not None
    begun = time.monotonic()  # Kubernetes ends a pod by the hook and SIGTERM, and by SIGKILL after the grace period
    hook = containers.run("node2", *end.pre_stop.exec.command)
    assert hook.returncode == 0, hook.stderr
    containers.first("node2").terminate()
    containers.started["node2"].wait(grace)
    assert time.monotonic() - begun < grace
    place.slow_down(0)
    assert sweep.wait(PATIENCE_SECONDS) == 0, containers.said("sweep")[-2000:]
    assert containers.said("sweep").count("\nstarted ") == 3  # one of the two began again
    assert place.outcome("pods") == calm
    assert set(sgbench.load_results(str(place.folder / "pods")).runs["node"].to_pylist()) == {"10.1.0.3"}

    listening = containers.run("node1", "ss", "-ltnH").stdout
    assert [line.split()[3] for line in listening.splitlines() if ":8265 " in line] == ["127.0.0.1:8265"]


def test_the_machines_of_skypilot_run_a_sweep_and_end_with_it(site: Site, place: Place, calm: dict[str, Any]) -> None:
    place.slow_down(0.3)
    containers = Containers(site, place)
    given = {"SWEEP": SWEEP, "RESULTS": "sky", "SKYPILOT_NUM_GPUS_PER_NODE": "0"}
    given |= {"SKYPILOT_NODE_IPS": "10.1.0.1\n10.1.0.2\n10.1.0.3"}
    for rank, node in enumerate(site.nodes):
        containers.start(node, read()["run"], SKYPILOT_NODE_RANK=str(rank), **given)
    wait_until(lambda: ": step " in containers.said("node1"), PATIENCE_SECONDS, lambda: containers.said("node1"))
    place.slow_down(0)
    assert [each.wait(PATIENCE_SECONDS) for each in containers.started.values()] == [0, 0, 0]
    assert place.outcome("sky") == calm
    nodes = set(sgbench.load_results(str(place.folder / "sky")).runs["node"].to_pylist())
    assert nodes <= {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
    assert site.processes() == {}
