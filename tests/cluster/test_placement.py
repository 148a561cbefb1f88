"""What a run takes of clusters of many kinds, none of which is started."""

import threading
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune import grid_search
from ray.tune.experiment import Experiment

from sgbench.cluster import placement
from sgbench.cluster.placement import place
from sgbench.cluster.sweep import Lanes, _Waiting
from sgbench.core.errors import InputError
from sgbench.spec import SweepSpec, build


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes Ray say that it has these nodes, and can have so much at its largest."""

    def says(*nodes: dict[str, float], most: dict[str, int] | None = None) -> None:
        told = [{"Alive": True, "Resources": node} for node in nodes] + [{"Alive": False, "Resources": {"CPU": 999}}]
        monkeypatch.setattr(placement.ray, "nodes", lambda: told)
        text = ",".join(f"{name}={amount}" for name, amount in (most or {}).items())
        monkeypatch.setenv("SGBENCH_GROWS_TO", text)

    return says


def a_sweep(threads: int = 1, **fields: Any) -> SweepSpec:
    grids = [{"backbones": ["edsr-tiny"], "losses": ["l1"]}]
    return build(
        {"grids": grids, "train": "a", "tests": ["b"], "metrics": ["psnr_y"], "recipe": {"threads": threads}, **fields},
        "mine",
    )


def test_a_run_takes_its_threads_and_a_gpu_where_there_is_one(cluster: Any) -> None:
    cluster({"CPU": 4})
    assert place(a_sweep(threads=2)).each == {"CPU": 2}
    cluster({"CPU": 4}, {"CPU": 8, "GPU": 1})
    made = place(a_sweep(threads=2))
    assert (made.each, made.workers, made.use_gpu) == ({"CPU": 2, "GPU": 1}, 1, True)


def test_small_runs_share_a_gpu(cluster: Any) -> None:
    cluster({"CPU": 8, "GPU": 1})
    made = place(a_sweep(gpus=0.25))
    assert made.each == {"CPU": 1, "GPU": 0.25}
    assert made.room([{"CPU": 8, "GPU": 1}]) == 4


def test_gpus_that_an_autoscaler_would_start_are_asked_for(cluster: Any) -> None:
    cluster({"CPU": 0}, most={"CPU": 64, "GPU": 8})
    assert place(a_sweep()).each == {"CPU": 1, "GPU": 1}
    assert place(a_sweep(workers=8)).workers == 8
    with pytest.raises(
        InputError, match="a run takes 9 workers of 1 CPU and 1 GPU, which the cluster can never provide"
    ):
        place(a_sweep(workers=9))


def test_a_worker_is_on_one_node(cluster: Any) -> None:
    cluster({"CPU": 2}, {"CPU": 2})
    assert place(a_sweep(threads=2, workers=2)).workers == 2
    with pytest.raises(InputError) as refused:
        place(a_sweep(threads=3))
    assert str(refused.value) == (
        "a run takes 3 CPU, which the cluster can never provide (its nodes: 2 CPU, 0 GPU; 2 CPU, 0 GPU); lower "
        "recipe.threads, workers, or add nodes."
    )


def test_there_is_room_for_as_many_runs_as_the_cluster_has_or_can_have(cluster: Any) -> None:
    cluster({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 3})
    pairs = place(a_sweep(workers=2))
    assert pairs.lanes() == 2
    cluster({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 3}, {"CPU": 8, "GPU": 1})  # a node has joined
    assert pairs.lanes() == 3
    cluster({"CPU": 8, "GPU": 2}, most={"CPU": 64, "GPU": 8})
    assert pairs.lanes() == 4


def test_worker_groups_are_begun_one_more_than_there_is_room_for(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("sgbench.cluster.sweep.time", SimpleNamespace(monotonic=lambda: now))
    cluster({"CPU": 2})
    lanes = Lanes(place(a_sweep(workers=1)))
    lanes.add_configurations([Experiment("tune", lambda config: None, config={"job": grid_search(list(range(9)))})])
    begun = [lanes.next_trial() for _ in range(4)]
    assert begun[3] is None
    assert all(begun[:3])
    lanes.on_trial_complete(begun[0].trial_id)
    assert lanes.next_trial()
    cluster({"CPU": 2}, {"CPU": 1})  # a node has joined
    assert lanes.next_trial() is None
    now += Lanes.LOOK_SECONDS + 1
    assert lanes.next_trial()
    assert lanes.next_trial() is None


@pytest.mark.parametrize("text", ["CPU", "CPU=many", "TPU=8", "CPU=1.5", "64"])
def test_what_a_cluster_grows_to_is_checked(cluster: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster({"CPU": 4})
    monkeypatch.setenv("SGBENCH_GROWS_TO", text)
    with pytest.raises(InputError, match=f"SGBENCH_GROWS_TO is '{text}'; the resources of all workers are needed"):
        place(a_sweep())


@pytest.mark.parametrize("gpus", [0, -1, 1.5])
def test_a_share_of_a_gpu_is_one(gpus: float) -> None:
    with pytest.raises(InputError, match="gpus is"):
        a_sweep(gpus=gpus)


def test_a_person_is_told_once_each_time_that_all_runs_wait_for_room(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks(times: int) -> list[str]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert [waiting.stop_all() for _ in range(times)] == [False] * times
        return [str(each.message) for each in told]

    monkeypatch.setattr(_Waiting, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(_Waiting, "LOOK_SECONDS", -1.0)
    monkeypatch.setattr(placement.ray, "available_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(placement.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    events: Any = SimpleNamespace(running=set())
    cluster({"CPU": 4, "GPU": 1})
    waiting = _Waiting(events, threading.Event(), threading.Event(), place(a_sweep(threads=2)))
    said = (
        "no run has been at work for 0 s: a run takes 2 CPU and 1 GPU, and the cluster has 1 CPU, 0 GPU free of 4 CPU, "
        "1 GPU; the sweep waits for room, for nodes, or for its processes to start."
    )
    assert looks(3) == [said]
    events.running.add("a run")
    assert looks(1) == []
    cluster()  # it is a worker group whose node was lost
    assert looks(3) == [said]
