"""Sweeps on a cluster of several raylets: what runs where, what shares a GPU, and nodes that come and go."""

import functools
import json
from collections.abc import Iterator

import pytest
import torch
from place import FOLDER, PATIENCE_SECONDS, Place, assert_clean, wait_until
from raylets import Nodes, a_cluster
from stand_ins import metadata

from sgbench.cluster.notices import aws, watch
from sgbench.cluster.ray_internals import ENVIRONMENT
from sgbench.cluster.sweep import run_sweep
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.runs.execute import Job
from sgbench.runs.plan import Choices, make_plan, pack, read_sweep
from sgbench.runs.progress import Lane
from sgbench.store import Store

SLOW = 0.2

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def nodes(place: Place) -> Iterator[Nodes]:
    with a_cluster(place, **ENVIRONMENT) as nodes:
        yield nodes


def test_a_sweep_spreads_over_nodes_grows_when_one_joins_and_leaves_those_that_are_lost_or_will_be(
    place: Place, nodes: Nodes
) -> None:
    first, second = (nodes.add(name, num_cpus=1) for name in ("first", "second"))
    sweep = ("sweep", "tiny.yaml", "--loss", "odd_losses:Slow", "--seeds", "0,1,2", "--set", "checkpoint_seconds=0.3")
    sweep += ("--set", "recipe.steps=80")  # for longer than a node takes to join
    command = place.start(*sweep, "--results", "lossy", "--address", nodes.address, slow=SLOW)
    command.wait_until(lambda err: err.count(": step ") == 2)
    third = nodes.add("third", num_cpus=1)
    command.wait_until(lambda err: err.count("\nstarted ") == 3)  # while the others are at work
    assert "\ndone " not in command.stderr
    nodes.remove(first)
    with metadata() as service:  # of the cloud, which the program beside the worker asks
        service.end_in(PATIENCE_SECONDS)  # it could go on for longer than all takes
        watch(functools.partial(aws, service.url), [nodes.own(second)])  # returns when its run has left
    wait_until(lambda: len(nodes.processes("ray::ImplicitFunc")) == 1, PATIENCE_SECONDS)
    place.slow_down(0)
    assert command.end() == 0, command.stderr[-2000:]
    assert len(command.started()) == 5  # the run that was lost and the one that had to leave began again
    nodes.assert_idle()
    assert_clean(place, "lossy")

    said = place.call("query", "SELECT seed, node, host FROM runs ORDER BY seed", "--results", "lossy", "--json").stdout
    rows = json.loads(said)
    assert {row["node"] for row in rows} == {"third"}
    assert len({row["host"] for row in rows}) == 1

    nodes.remove(second, announced=True)
    nodes.call(*sweep, "--results", "undisturbed")
    nodes.remove(third, announced=True)
    assert place.outcome("lossy") == place.outcome("undisturbed")


class Lanes:
    """Counts the runs that are at work at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def started(self, run_id: str, label: str) -> None: ...

    def placed(self, run_id: str, lane: Lane) -> None: ...

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        self.now += step == 1
        self.most = max(self.most, self.now)

    def measured(self, run_id: str, step: int, values: object) -> None: ...

    def scoring(self, run_id: str) -> None:
        self.now -= 1

    def finished(self, run_id: str, end: str, message: str) -> None: ...


def test_a_share_of_a_gpu_packs_runs_on_one_and_a_whole_one_does_not(
    place: Place, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.add("gpus", num_cpus=2, num_gpus=1)  # as Ray is told: there need be none
    missing = "Ray has 1 GPU and torch sees 0: check the driver and the build of torch."
    found = json.loads(nodes.call("doctor", "--json", code=0 if torch.cuda.is_available() else 1).stdout)
    problems = {node["name"].partition(" ")[0]: node["problems"] for node in found}
    assert problems.pop("gpus") == ([] if torch.cuda.is_available() else [missing])
    assert list(problems.values()) == [[]]
    place.slow_down(SLOW)
    monkeypatch.chdir(place.folder)
    monkeypatch.syspath_prepend(place.folder)
    own = {"SGBENCH_CACHE": str(place.folder / "cache"), FOLDER: str(place.folder)}
    for name, value in {**ENVIRONMENT, **own}.items():
        monkeypatch.setenv(name, value)

    def most_at_once(share: float) -> int:
        store = Store(Storage(str(place.folder / f"share{share}")))
        choices = Choices(settings={"gpus": share}, losses=["odd_losses:Slow"], seeds=[0, 1])
        _, sweep = read_sweep("tiny.yaml", choices)
        data, lanes = pack(sweep), Lanes()
        jobs = [Job.of(run, data, sweep, store.storage) for run in make_plan("tiny", sweep, data, store).runs]
        assert run_sweep("tiny", jobs, sweep, store.storage, lanes).failed == {}
        assert {row["node"] for row in store.runs().to_pylist()} == {"gpus"}
        return lanes.most

    with nodes.connected():
        assert most_at_once(1) == 1
        assert most_at_once(0.5) == 2
        nodes.assert_idle()

        _, sweep = read_sweep("tiny.yaml", Choices(settings={"workers": 2}))
        never = r"a run takes 2 workers of 1 CPU and 1 GPU, which the cluster can never provide"
        with pytest.raises(InputError, match=never):
            run_sweep("tiny", [], sweep, Storage(str(place.folder / "never")), Lanes())
