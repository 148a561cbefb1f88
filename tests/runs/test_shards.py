"""Shards: the same parts each time, and together exactly one sweep, whoever of them dies."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from shard_processes import Started

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.runs.shards import Shard
from sgbench.runs.sweep import Quiet, carry_out, run_all_here
from sgbench.runs.verification import verify
from sgbench.spec import Recipe, RunSpec, SweepSpec, TrainingData, build
from sgbench.store import Store
from sgbench.store.layout import weights_of

BACKBONES = ("edsr-tiny", "rcan-tiny")
SPECS = [
    RunSpec(backbone=backbone, loss="l1", seed=seed, train=TrainingData(name="mine", sha256="ab" * 32), recipe=recipe)
    for seed in range(4)
    for backbone in BACKBONES
    for recipe in (Recipe(steps=10), Recipe(steps=25))
]


@settings(max_examples=50)
@given(st.lists(st.sampled_from(SPECS), unique=True), st.integers(1, 7))
def test_shards_are_a_partition_of_about_equal_work(runs: list[RunSpec], count: int) -> None:
    from sgbench.runs.forecast import step_work

    shards = [Shard(number, count).among(runs) for number in range(1, count + 1)]
    assert sorted(str(run.run_id) for shard in shards for run in shard) == sorted(str(run.run_id) for run in runs)
    work = [sum(run.recipe.steps * step_work(run) for run in shard) for shard in shards]
    longest = max((run.recipe.steps * step_work(run) for run in runs), default=0)
    assert max(work) - min(work) <= longest
    assert all(shard == [run for run in runs if run in shard] for shard in shards)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "1/4/2", "a/b", "-1/4", "1/99999", "", "١/٤", " 1/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--shard is '.*'; I/N is needed, with I from 1 to N and N at most 10000"):
        Shard.of(text, "--shard")


STEPS = 4


@pytest.fixture
def fields(train_folder: Path, test_folder: Path, cache: Path) -> dict[str, Any]:
    """Four runs of four steps, one of which has much more work than the others."""
    grids = [
        {"backbones": ["edsr-tiny"], "losses": ["l1", "l2", "charbonnier"]},
        {"backbones": ["rcan-tiny"], "losses": ["l1"]},
    ]
    fields = {"grids": grids, "metrics": ["psnr_y"], "train": f"Mine={train_folder}", "tests": [f"Few={test_folder}"]}
    return {**fields, "recipe": {"steps": STEPS, "batch": 2, "patch": 8}, "checkpoint_seconds": 0}


@pytest.fixture
def sweep(fields: dict[str, Any]) -> SweepSpec:
    return build(fields, "four")


def do(sweep: SweepSpec, storage: Storage, shard: str | None, observer: Quiet | None = None, **choices: Any) -> Any:
    part = Shard.of(shard) if shard else None
    runner = contextlib.nullcontext(run_all_here)
    return carry_out("four", sweep, storage, runner, observer or Quiet(), shard=part, **choices)


class Noting(Quiet):
    """Notes what begins and what is said."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.said: list[str] = []

    def started(self, run_id: str, label: str) -> None:
        self.began.append(run_id)

    def say(self, text: str) -> None:
        self.said.append(text)


def bits(storage: Storage, copied: str | None = None) -> dict[str, Any]:
    """Return what a store says that does not depend on the clock: weights, scores and the plan.

    All of its runs were first asked for when its plan says so, but for one that was copied from another store.
    """
    store = Store(storage)
    scores = store.scores().drop_columns(["scored", "seconds", "upscaling_seconds"]).to_pylist()
    history = store.history().select(["run_id", "step", "loss"]).to_pylist()
    weights = {run_id: storage.read(weights_of(run_id)) for run_id in store.rows()}
    rows = store.rows()
    own = [plan for plan in store.planned() if plan.run_id != copied]
    assert all(plan.planned == rows[plan.run_id]["planned"] is not None for plan in own)
    status = {run_id: row["status"] for run_id, row in rows.items()}
    plans = {name: [replace(each, planned=None) for each in plan] for name, plan in store.plans().items()}
    return {"scores": scores, "history": history, "weights": weights, "plans": plans, "status": status}


@pytest.fixture
def undisturbed(sweep: SweepSpec, tmp_path: Path) -> dict[str, Any]:
    """The bits of one sweep."""
    storage = Storage(str(tmp_path / "undisturbed"))
    do(sweep, storage, None)
    return bits(storage)


def test_shards_one_after_another_are_one_sweep(
    sweep: SweepSpec, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, noting = Storage(str(tmp_path / "store")), Noting()
    outcomes = [do(sweep, storage, f"{number}/3", noting) for number in (3, 1, 2)]
    assert [len(outcome.plan.runs) for outcome in outcomes] == [2, 1, 1] or sorted(
        len(outcome.plan.runs) for outcome in outcomes
    ) == [1, 1, 2]
    assert bits(storage) == undisturbed
    assert set(Counter(noting.began).values()) == {1}
    assert noting.said[0].startswith("shard 3/3 of four: ")
    noting.began.clear()
    monkeypatch.setattr("sgbench.runs.sweep.MANY_FILES", 1)
    assert do(sweep, storage, "7/9", noting).plan.runs == ()
    assert noting.said[-1] == "shard 7/9 of four: 0 runs; nothing to do"
    do(sweep, storage, None, noting)
    assert noting.began == []
    assert bits(storage) == undisturbed
    assert [files.list().small for files in Store(storage).tables.values()] == [()] * 4


def test_the_last_shard_compacts_and_cleans(sweep: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgbench.runs.sweep.MANY_FILES", 1)
    storage = Storage(str(tmp_path / "store"))
    with Store(storage).writing("a sweep that is killed"):
        storage.write("runs/.a.parquet.0123abcd", b"left")
    with Storage(storage.root).register("shard 2/2 of four"):
        do(sweep, storage, "1/2")
        assert storage.exists("runs/.a.parquet.0123abcd")
        assert Store(storage).tables["runs"].list().compacted == ()
    do(sweep, storage, "2/2")
    assert not storage.exists("runs/.a.parquet.0123abcd")
    assert [files.list().small for files in Store(storage).tables.values()] == [()] * 4


def test_a_shard_does_last_what_another_sweep_has_booked_unless_that_one_has_done_it(
    sweep: SweepSpec, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """Of two runs that another has booked, it does one and then ends."""
    storage, other, noting = Storage(str(tmp_path / "store")), Storage(str(tmp_path / "store")), Noting()
    of_loss = {str(spec.loss): run_id for run_id, spec in rows_of(sweep, storage) if spec.backbone == "edsr-tiny"}
    l1, l2 = of_loss["l1"], of_loss["l2"]
    holding = contextlib.ExitStack()
    holding.enter_context(other.register("run a of another"))
    other.book([l1, l2])

    def waiting(text: str) -> None:
        noting.said.append(text)
        if "waiting for" in text:
            copy = Storage(str(tmp_path / "undisturbed"))
            for name in copy.sizes():
                if l1 in name:
                    other.write(name, copy.read(name))
            threading.Timer(0.5, holding.close).start()

    noting.say = waiting  # type: ignore[method-assign]
    assert do(sweep, storage, "1/1", noting).failed == {}
    assert noting.said[1].startswith("shard 1/1 of four: waiting for 2 runs booked by 'run a of another' (process ")
    assert len(noting.said) == 2
    assert noting.began[-1] == l2
    assert l1 not in noting.began
    assert len(noting.began) == 3
    assert bits(storage, copied=l1) == undisturbed


def rows_of(sweep: SweepSpec, storage: Storage) -> list[tuple[str, RunSpec]]:
    """Return the runs of a sweep by their ids."""
    from sgbench.runs.plan import make_plan, pack

    plan = make_plan("four", sweep, pack(sweep), Store(storage))
    return [(str(run.spec.run_id), run.spec) for run in plan.runs]


# Processes that share nothing but the store


@pytest.fixture(params=["on a disk", "in an object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store that is empty."""
    if request.param != "in an object store":
        yield str(tmp_path / "store")
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    at = "{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=f"http://{at}", region_name="us-east-1").create_bucket(Bucket="bucket")
    yield f"s3://bucket/shards?endpoint_override={at}&scheme=http&region=us-east-1"
    server.stop()


def test_shards_side_by_side_of_which_one_is_killed_are_one_sweep_with_another_that_has_its_runs(
    fields: dict[str, Any], root: str, undisturbed: dict[str, Any]
) -> None:
    """One of two dies with a run in its hands, and a third, cut in another way, has the runs of both."""
    living, dying = Started("four", fields, root, "1/2"), Started("four", fields, root, "2/2", die_at=2)
    killed = list(dying.events())
    assert killed[-1][0] == "dies"
    events = [event for shard in (living, Started("four", fields, root, "1/1")) for event in shard.events()]
    assert [ended for what, ended in events if what == "ended"] == [[]] * 2, events
    began = Counter(run_id for what, run_id in (*killed, *events) if what == "started")
    (twice,) = (run_id for what, run_id in killed if what == "dies")
    assert began == dict.fromkeys(undisturbed["status"], 1) | {twice: 2}
    storage = Storage(root)
    assert bits(storage) == undisturbed
    assert storage.writers() == []
    assert storage.holder() is None
    assert list(verify(Store(storage))) == []
