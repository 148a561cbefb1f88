"""`sgbench status`: how far sweeps are, from the store alone, and the jobs of a cluster."""

import contextlib
import dataclasses
import datetime
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sgbench.cluster.jobs import Submitted
from sgbench.core.errors import unknown
from sgbench.core.storage import Storage
from sgbench.runs.plan import make_plan, pack, read_sweep
from sgbench.runs.progress import Lane, Running, Snapshot
from sgbench.store import Planned, Store
from sgbench.store.layout import progress_of
from sgbench.training import Checkpoints

Run = Callable[..., tuple[str, str]]

BEGAN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
ENDED = BEGAN + datetime.timedelta(seconds=75)

ONE = ("train", "tiny.yaml", "--loss", "l1", "--seeds", "0")


@pytest.fixture
def store(place: Path) -> Store:
    """The store of a sweep of four runs, none of which has begun."""
    store = Store(Storage(str(place / "results" / "tiny")))
    _, sweep = read_sweep("tiny.yaml")
    store.write_plan("tiny", make_plan("tiny", sweep, pack(sweep), store).records())
    return store


def counts(run: Run) -> dict[str, dict[str, int]]:
    sweeps = json.loads(run("status", "--json")[0])["sweeps"]
    return {sweep.pop("sweep"): {key: count for key, count in sweep.items() if count} for sweep in sweeps}


def by_name(store: Store) -> dict[str, Planned]:
    return {f"{planned.run['loss']} {planned.run['seed']}": planned for planned in store.planned()}


def test_a_store_tells_how_far_each_sweep_is(store: Store, run: Run) -> None:
    assert counts(run) == {"tiny": {"runs": 4, "to do": 4}}
    planned = by_name(store)

    run(*ONE)
    Checkpoints(store.storage, planned["l1 1"].run_id).save(2, {})
    failed = planned["l1 + 1.0*sg 1"].run
    store.write_run({**failed, "status": "failed", "error": "loss is NaN", "step": 2})
    assert counts(run) == {"tiny": {"runs": 4, "done": 1, "resumable": 1, "to do": 1, "failed": 1}}

    store.write_plan("one more metric", [Planned(planned["l1 0"].run, planned["l1 0"].tests, ("psnr_y", "ssim_y"))])
    assert counts(run)["one more metric"] == {"runs": 1, "to score": 1}
    run("eval", planned["l1 0"].run_id, "--results", "results/tiny", "--test", "few=test", "--metric", "ssim_y")
    assert counts(run)["one more metric"] == {"runs": 1, "done": 1}


def test_a_score_that_failed_makes_its_run_one_that_failed(store: Store, run: Run) -> None:
    run(*ONE)
    rows = [row for row in store.scores().to_pylist() if row["image"] is None]
    store.write_scores([{**row, "status": "failed", "value": None} for row in rows])
    assert counts(run) == {"tiny": {"runs": 4, "to do": 3, "failed": 1}}


def test_a_run_without_weights_that_lacks_a_score_is_to_be_trained_again(store: Store, run: Run) -> None:
    run(*ONE)
    planned = by_name(store)["l1 0"]
    store.write_plan("tiny", [Planned(planned.run, planned.tests, ("psnr_y", "ssim_y"))])
    assert counts(run) == {"tiny": {"runs": 1, "to score": 1}}
    store.storage.delete(f"weights/{planned.run_id}.pt")
    assert counts(run) == {"tiny": {"runs": 1, "to retrain": 1}}


def test_a_score_of_other_images_of_that_name_is_none(store: Store, run: Run) -> None:
    run(*ONE)
    planned = by_name(store)["l1 0"]
    store.write_plan("tiny", [Planned(planned.run, (planned.tests[0]._replace(sha256="0" * 64),), planned.metrics)])
    assert counts(run) == {"tiny": {"runs": 1, "to score": 1}}


def test_status_says_who_is_at_work_and_disturbs_nobody(store: Store, run: Run) -> None:
    out, err = run("status")
    assert out.split()[-11:] == ["tiny", "4", "0", "0", "0", "0", "0", "4", "0", "0", "0"]
    assert err == "Not in use.\n"
    with store.storage.lock("sgbench sweep tiny"):
        _, err = run("status", "--results", "results/tiny")
        said = json.loads(run("status", "--json")[0])
    who = said["in_use_by"]
    assert err == f"In use by {who}; lock: the kernel's.\n"
    assert said["lock"] == "the kernel's"
    assert who.startswith(f"'sgbench sweep tiny' (process {os.getpid()} on ")
    assert json.loads(run("status", "--json")[0])["in_use_by"] is None


def test_status_names_the_shards_that_are_at_work_with_what_they_do(store: Store, run: Run) -> None:
    ids = [planned.run_id for planned in store.planned()]
    with contextlib.ExitStack() as stack:
        for number, run_id in ((1, ids[0]), (3, ids[1])):
            storage = Storage(store.storage.root)
            stack.enter_context(storage.register(f"shard {number}/8 of tiny"))
            trained = Running(f"seed {number}", None, number, 3, 0.03125, 12.0)
            snapshot = Snapshot("tiny", 100.0 * number, {run_id: trained})
            storage.write(progress_of(str(storage.fence)), json.dumps(dataclasses.asdict(snapshot)).encode())
        assert counts(run) == {"tiny": {"runs": 4, "running": 2, "to do": 2}}
        _, err = run("status")
        told = json.loads(run("status", "--json")[0])
    who = r"shards 1/8 and 3/8 of tiny, since \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.fullmatch(rf"In use by {who}; tiny: ETA 5:00; lock: the kernel's\.\n", err)
    assert re.fullmatch(who, told["in_use_by"])
    assert {each["run_id"]: each["step"] for each in told["running"]} == {ids[0]: 1, ids[1]: 3}
    assert counts(run) == {"tiny": {"runs": 4, "to do": 4}}


def test_the_runs_that_are_going_are_shown_with_step_place_and_time_left(store: Store, run: Run) -> None:
    ids = [planned.run_id for planned in store.planned()]
    trained = Running("edsr-tiny · l1 · seed 0", Lane("node2", "1", "NVIDIA H100"), 120, 1200, 0.03125, 12.0)
    going = {ids[0]: trained, ids[1]: Running("edsr-tiny · l1 · seed 1")}
    with store.storage.lock("sgbench sweep tiny"):
        assert store.storage.fence is not None
        content = json.dumps(dataclasses.asdict(Snapshot("tiny", 3661.0, going))).encode()
        store.storage.write(progress_of(store.storage.fence), content)
        store.storage.write(progress_of("0" * 16), content)  # of one that was killed
        store.storage.write(progress_of("1" * 16), b"no JSON")
        assert counts(run) == {"tiny": {"runs": 4, "running": 2, "to do": 2}}
        out, err = run("status")
        told = json.loads(run("status", "--json")[0])
        (row, *_) = json.loads(run("plan", "tiny.yaml", "--json")[0])
    shown = r"node2, GPU 1 \(NVIDIA H100\) +120/1200 +0.03125 +12 +1:30"
    assert re.search(rf"seed 0 +{ids[0]} +{shown} *\n.*seed 1 +{ids[1]} +starting", out)
    assert err == f"In use by {told['in_use_by']}; tiny: ETA 1:01:01; lock: the kernel's.\n"
    assert told["seconds_left"] == {"tiny": 3661.0}
    first, second = told["running"]
    expected = {
        "run_id": ids[0],
        "sweep": "tiny",
        "doing": "training",
        "step": 120,
        "steps": 1200,
        "seconds_left": 90.0,
    }
    assert first.items() >= {**expected, "node": "node2", "gpu": "1", "gpu_type": "NVIDIA H100"}.items()
    assert second.items() >= {"run_id": ids[1], "doing": "starting", "step": 0, "node": None}.items()
    assert (row["status"], row["step"]) == ("running", "120/3")

    # Once nobody has the lock, nothing is running, whatever is left.
    assert counts(run) == {"tiny": {"runs": 4, "to do": 4}}
    assert json.loads(run("status", "--json")[0])["running"] == []
    run("results", "clean", "--results", "results/tiny", "--yes")
    assert store.storage.list("progress") == []


def test_a_folder_without_plans_is_no_store(place: Path, run: Run) -> None:
    _, err = run("status", "--results", "train", code=2)
    assert err.endswith("/train' has no record of a sweep: the folder 'plans' is missing.\n")
    assert "the folder 'results' has no store" in run("status", code=2)[1]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """A cluster with two jobs; the addresses at which it was asked."""
    asked: list[str | None] = []
    there = {
        "sgbench-b": Submitted(
            "sgbench-b", "running", "sgbench sweep b.yaml", "b", "--rerun", "s3://bucket/b", BEGAN, None, None
        ),
        "sgbench-a": Submitted(
            "sgbench-a", "failed", "sgbench sweep a.yaml", None, None, None, BEGAN, ENDED, "no such folder"
        ),
    }

    def get(job: str) -> Submitted:
        if job not in there:
            raise unknown("job", job, there)
        return there[job]

    def jobs(address: str | None) -> SimpleNamespace:
        asked.append(address)
        return SimpleNamespace(list=lambda: [] if address == "empty" else list(there.values()), get=get)

    monkeypatch.setattr("sgbench.cluster.jobs.Jobs", jobs)
    return asked


def test_with_an_address_or_a_job_it_is_the_cluster_that_is_asked(run: Run, cluster: list[str | None]) -> None:
    out, _ = run("status", "--address", "head:8265")
    assert out.index("sgbench-b") < out.index("sgbench-a")
    assert "2026-01-02 03:04 UTC" in out
    assert re.search("sgbench-b +b +--rerun +s3://bucket/b +running +2026-01-02 03:04 UTC +[0-9]+ d", out)
    assert re.search("sgbench-a +sgbench sweep a.yaml +failed +2026-01-02 03:04 UTC +1:15 *\n", out)
    assert "sgbench-b" not in run("status", "sgbench-a")[0]
    (job,) = json.loads(run("status", "sgbench-a", "--json")[0])
    assert (job["status"], job["started"], job["message"]) == ("failed", str(BEGAN), "no such folder")
    assert "unknown job 'sgbench-c'" in run("status", "sgbench-c", code=2)[1]
    assert cluster == ["head:8265", None, None, None]
    assert run("status", "--address", "empty") == ("", "No sweep has been submitted to this cluster.\n")
    assert run("status", "--address", "empty", "--json")[0] == "[]\n"


def test_a_store_and_a_cluster_at_once_are_refused(run: Run) -> None:
    for words in (["--address", "head:8265"], ["sgbench-a"]):
        _, err = run("status", "--results", "results/tiny", *words, code=2)
        assert err == "error: status shows either a store or jobs of a cluster; give --results, or JOB and --address.\n"


def test_a_cluster_that_does_not_answer_is_bad_input(run: Run) -> None:
    _, err = run("status", "--address", "127.0.0.1:1", code=2)
    assert "no Ray dashboard answers at 'http://127.0.0.1:1'" in err
