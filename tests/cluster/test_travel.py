"""A sweep that is submitted from a machine whose files no node sees, to nodes that share nothing but a store in S3."""

import functools
import hashlib
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from outages import RIGHTS, a_server
from place import MARK, PATIENCE_SECONDS, a_place, environment, kill, marked, wait_until
from small_networks import STATE, as_file, put

import sgbench
from sgbench.cluster.jobs import Jobs
from sgbench.cluster.ray_internals import ENVIRONMENT
from sgbench.data import pack_set, write_png
from sgbench.spec import Recipe, RunSpec, TrainingData

SWEEP = """
grids:
- backbones: [edsr-tiny]
  losses: ["travelling:Near"]
  seeds: [0, 1]
train: mine=photos
tests: [few=tests]
metrics: [psnr_y]
recipe: {steps: 3, batch: 2, patch: 8}
"""

LOSS = """
import torch
from far.away import twice
from sgbench.assets.locator import Locator

class Near(torch.nn.Module):
    networks = ("small",)
    def __init__(self):
        super().__init__()
        self.factor = Locator(download=False).load("small").state["features.0.bias"].item()
    def forward(self, sr, hr):
        return twice(self.factor) * (sr - hr).abs().mean()
"""

PACKAGE = {
    "far/__init__.py": "",
    "far/away.py": "from pathlib import Path\n\n"
    "def twice(value):\n    return int(Path(__file__).with_name('two.txt').read_text()) * value\n",
    "far/two.txt": "2",
    "far-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: far\nVersion: 1.0\n",
    "far-1.0.dist-info/RECORD": "far/__init__.py,,\nfar/away.py,,\nfar/two.txt,,\nfar-1.0.dist-info/METADATA,,\n",
}
"""What is installed on the laptop alone."""

NETWORK = """
from sgbench.assets.catalogue import Network
small = Network(name="small", file="small.pth", url="http://127.0.0.1:9/nobody", sha256="{}", size={}, licence="none")
"""


class Machines:
    """Ray's nodes, each with folders of its own, and none sees those of another.

    Args:
        folder: Gets a folder for each, and one of what is installed on all of them.
        names: Of the machines.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folders = {name: folder / name for name in names}
        self.installed = folder / "installed"
        for each in (*self.folders.values(), self.installed):
            each.mkdir()
        self.mark = uuid.uuid4().hex

    def variables(self, name: str) -> dict[str, str]:
        """Return the environment of a machine."""
        own = {"SGBENCH_CACHE": "cache", "SGBENCH_DATA": "data", "HOME": "home", "TORCH_HOME": "torch"}
        programs = {
            "PYTHONPATH": f"{Path(sgbench.__file__).parent.parent}:{self.installed}",
            "PATH": f"{self.installed}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        folder = self.folders[name]
        return {key: str(folder / value) for key, value in own.items()} | programs | ENVIRONMENT | {MARK: self.mark}

    def start(self, name: str, *how: str, own: Sequence[str] = ()) -> None:
        """Start Ray on a machine by its command; for whatever runs there, the folders of others are empty.

        Args:
            name: Of the machine.
            how: Options of the command.
            own: Further folders that are empty there, and its own.
        """
        others = [folder for other, folder in self.folders.items() if other != name]
        hide = [f"mount -t tmpfs none {folder}" for folder in (*others, *own)]
        ports = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port")
        given = [f"--{port}={free_port()}" for port in (*ports, "metrics-export-port")]
        given += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats", f"--node-name={name}"]
        start = shlex.join(["ray", "start", "--block", "--node-ip-address=127.0.0.1", *given, *how])
        with (self.folders[name] / "log").open("wb") as log:
            subprocess.Popen(
                ["unshare", "-m", "sh", "-c", " && ".join([*hide, f"exec {start}"])],
                env=os.environ | RIGHTS | self.variables(name) | {"RAY_raylet_start_wait_time_s": "120"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.folders[name] / "log").read_text()

    def runs(self, name: str) -> bool:
        """Return whether a machine's Ray has started."""
        return "Ray runtime started" in self.log(name)

    def bytes_received(self, name: str) -> int:
        """Return the size of the sets and networks in a machine's cache."""
        return sum(path.stat().st_size for path in (self.folders[name] / "cache").rglob("*") if path.is_file())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """A laptop, which is in no cluster, and three machines."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("folders cannot be hidden from processes here; root can")
    machines = Machines(tmp_path, ("laptop", "head", "one", "two"))
    try:
        yield machines
    finally:
        kill(marked(machines.mark))


@pytest.mark.ray
@pytest.mark.slow
def test_images_networks_a_loss_and_a_package_reach_nodes_that_share_nothing_but_the_store(machines: Machines) -> None:
    content = as_file({**STATE, "padding": STATE["features.0.weight"].repeat(1, 1, 1, 5000)})
    (machines.installed / "their_networks.py").write_text(
        NETWORK.format(hashlib.sha256(content).hexdigest(), len(content))
    )
    (metadata := machines.installed / "theirs-1.0.dist-info").mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[sgbench.networks]\nsmall = their_networks:small\n")
    (program := machines.installed / "sgbench").write_text('#!/bin/sh\nexec python -m sgbench "$@"\n')
    program.chmod(0o755)

    laptop = machines.folders["laptop"]
    random = np.random.default_rng(0)
    for kind, count in (("photos", 6), ("tests", 2)):
        for i in range(count):
            write_png(laptop / kind / f"{i}.png", random.integers(0, 256, (176, 160, 3), dtype=np.uint8))
    put(laptop / "cache" / "weights", content, "small.pth")
    for name, text in PACKAGE.items():
        (path := laptop / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    address, dashboard = (f"127.0.0.1:{free_port()}" for _ in range(2))
    ports = [f"--port={address.partition(':')[2]}", f"--dashboard-port={dashboard.partition(':')[2]}"]
    with a_server() as server, a_place(laptop) as place, tempfile.TemporaryDirectory(prefix="ray-") as short:
        (laptop / "tiny.yaml").write_text(SWEEP)
        (laptop / "travelling.py").write_text(LOSS)
        store = server.uri("store")
        machines.start("head", "--head", "--num-cpus=0", f"--temp-dir={short}", *ports)
        wait_until(lambda: machines.runs("head"), PATIENCE_SECONDS, lambda: machines.log("head"))
        for name in ("one", "two"):
            machines.start(name, f"--address={address}", "--num-cpus=1", own=[short])
            wait_until(functools.partial(machines.runs, name), PATIENCE_SECONDS, functools.partial(machines.log, name))
        words = ("submit", "tiny.yaml", "--results", store, "--upload-data", "--with", "far", "--address", dashboard)
        variables = machines.variables("laptop")
        variables["PYTHONPATH"] += f":{laptop / 'site'}"
        job = place.run(*words, **variables).stdout.strip()
        said: list[str] = []
        with environment({}):
            assert Jobs(dashboard).follow(job, said.append).status == "succeeded", "".join(said)
        files = {name.partition("/store/")[2]: size for name, (size, _) in server.files("store").items()}
        results = sgbench.load_results(store)
        runs, scores = results.runs.to_pylist(), results.scores
        kill(marked(machines.mark))

    with environment({"SGBENCH_CACHE": str(laptop / "cache")}):
        train, test = (
            pack_set(f"mine={laptop / 'photos'}", "train", Recipe()),
            pack_set(f"few={laptop / 'tests'}", "test", Recipe()),
        )
    training = TrainingData(name="mine", sha256=train.sha256)
    recipe = Recipe.model_validate({"steps": 3, "batch": 2, "patch": 8})
    specs = [
        RunSpec(backbone="edsr-tiny", loss="travelling:Near", seed=seed, train=training, recipe=recipe)
        for seed in (0, 1)
    ]
    assert {row["run_id"]: row["status"] for row in runs} == {spec.run_id: "done" for spec in specs}
    assert {row["node"] for row in runs} == {"one", "two"}
    assert len(scores) == 2 * 3

    sent = {name: size for name, size in files.items() if name.startswith(("packed", "networks"))}
    assert {name.split("/")[1] for name in sent if name.startswith("packed")} == {train.digest, test.digest}
    assert sum(size for name, size in sent.items() if name.startswith("networks")) == len(content)
    assert {name: machines.bytes_received(name) for name in ("head", "one", "two")} == dict.fromkeys(
        ("head", "one", "two"), sum(sent.values())
    )
    assert not any((machines.folders[name] / "data").exists() for name in ("head", "one", "two"))
