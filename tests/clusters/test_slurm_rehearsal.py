"""The Slurm script on nodes of its own, with real Ray: what befalls a job, it ends with the same bits.

CI rehearses the time limit. ``make rehearse`` rehearses all.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from place import PATIENCE_SECONDS, Place, a_place, wait_until
from slurm import Job, Site, a_site, unavailable

import sgbench

ROOT = Path(__file__).parents[2]
RUNS = ("tiny.yaml", "--loss", "odd_losses:Slow")

pytestmark = [pytest.mark.ray, pytest.mark.slow]
in_full = pytest.mark.skipif("SGBENCH_REHEARSE" not in os.environ, reason="only 'make rehearse' rehearses all")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """What the home folder and the shared storage of the site hold."""
    with a_place(tmp_path_factory.mktemp("place")) as place:
        script = (ROOT / "clusters" / "slurm.sbatch").read_text()
        (place.folder / "slurm.sbatch").write_text(script.replace("REPLACE", "standin"))
        yield place


@pytest.fixture(scope="module")
def calm(place: Place) -> dict[str, Any]:
    """What the runs leave without Ray and without trouble."""
    for seed in ("0", "1"):
        place.call("train", *RUNS, "--seeds", seed, "--results", "calm")
    return place.outcome("calm")


@pytest.fixture
def site(place: Place) -> Iterator[Site]:
    if why := unavailable():
        pytest.skip(f"nodes cannot be made here, as root can: {why}")
    with a_site(["node1", "node2"], [place.folder, ROOT]) as site:
        yield site


def submit(site: Site, place: Place, store: str, *options: str, slow: float = 0.3, **more: str) -> Job:
    place.slow_down(slow)
    environment = {"SGBENCH_ENV": sys.prefix, **place.environment(place.mark), **more}
    small = ("--nodes=2", "--gpus-per-node=0", "--cpus-per-task=1", *options, str(place.folder / "slurm.sbatch"))
    sweep = (*RUNS, "--results", store, "--set", "checkpoint_seconds=0.2")
    return site.submit(*small, *sweep, folder=place.folder, **environment)


def wait_for(job: Job, words: str, count: int = 1) -> None:
    def happened() -> bool:
        assert not job.ended.is_set(), job.log[-2000:]
        return job.log.count(words) >= count

    wait_until(happened, PATIENCE_SECONDS, lambda: job.log[-2000:])


def assert_done(job: Job, site: Site, place: Place, store: str, calm: dict[str, Any], restarts: int) -> None:
    """The job has shown its table, nothing is left of it on its nodes, and its bits are those of a calm sweep."""
    assert job.ended.wait(PATIENCE_SECONDS), job.log[-2000:]
    assert (job.state, job.restarts, job.left) == ("COMPLETED", restarts, []), job.log[-2000:]
    assert "few      edsr-tiny  odd_losses:Slow  15.22 ± 0.08" in job.log
    assert place.outcome(store) == calm
    for node in site.nodes.values():
        left = subprocess.run(node.inside("ls", "/tmp"), capture_output=True, text=True, check=True).stdout
        assert "sgbench-" not in left


def hosts(place: Place, store: str) -> set[str]:
    return set(sgbench.load_results(str(place.folder / store)).runs["node"].to_pylist())


def test_a_job_whose_time_is_over_queues_itself_again_and_resumes(
    site: Site, place: Place, calm: dict[str, Any]
) -> None:
    job = submit(site, place, "timed")
    wait_for(job, ": step ", 2)
    site.time_is_nearly_over(job)
    wait_for(job, "tiny: 2 runs: 2 resumable")
    place.slow_down(0)
    assert_done(job, site, place, "timed", calm, restarts=1)
    assert hosts(place, "timed") == {"node1", "node2"}


@in_full
def test_a_node_that_is_lost_leaves_its_runs_to_the_others(site: Site, place: Place, calm: dict[str, Any]) -> None:
    job = submit(site, place, "lost", slow=1)
    wait_for(job, ": step ", 2)
    site.lose("node2")
    assert_done(job, site, place, "lost", calm, restarts=0)
    assert hosts(place, "lost") == {"node1"}


@in_full
def test_a_job_that_loses_the_node_of_its_script_starts_again(site: Site, place: Place, calm: dict[str, Any]) -> None:
    job = submit(site, place, "headless")
    wait_for(job, ": step ", 2)
    site.lose("node1")
    assert_done(job, site, place, "headless", calm, restarts=1)
    assert hosts(place, "headless") == {"node2"}


@in_full
@pytest.mark.parametrize("grace", [0.0, 20.0])
def test_a_job_that_is_preempted_resumes(site: Site, place: Place, calm: dict[str, Any], grace: float) -> None:
    store = f"preempted{grace:g}"
    job = submit(site, place, store, slow=1)
    wait_for(job, ": step ", 2)
    site.preempt(job, grace)
    place.slow_down(0)
    assert_done(job, site, place, store, calm, restarts=1)


@in_full
def test_two_jobs_on_one_node_do_not_disturb_each_other(site: Site, place: Place, calm: dict[str, Any]) -> None:
    one, other = (submit(site, place, store, "--nodes=1", slow=1) for store in ("one", "other"))
    for job in (one, other):
        wait_for(job, ": step ")
    site.cancel(one)
    assert one.ended.wait(PATIENCE_SECONDS)
    assert (one.state, one.restarts, one.left) == ("CANCELLED", 0, []), one.log[-2000:]
    assert "Interrupted; run the same command to resume." in one.log
    place.slow_down(0)
    assert_done(other, site, place, "other", calm, restarts=0)
    assert_done(submit(site, place, "one", slow=0), site, place, "one", calm, restarts=0)


@in_full
def test_a_network_can_be_chosen(site: Site, place: Place, calm: dict[str, Any]) -> None:
    job = submit(site, place, "ib", slow=0, SGBENCH_INTERFACE="ib0")
    assert_done(job, site, place, "ib", calm, restarts=0)
    assert "joining the Ray cluster at 10.2.0.1:" in job.log
