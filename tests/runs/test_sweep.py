"""The engine of a sweep, carried out in this process."""

import contextlib
import datetime
import errno
import hashlib
import importlib
import json
import os
import signal
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crash_points import NOW

from sgbench.analysis import View, load_results
from sgbench.core.errors import InputError, InterruptionError, MissingDataError
from sgbench.core.registry import LOSSES
from sgbench.core.storage import Storage
from sgbench.data import CATALOG, write_png
from sgbench.losses.pixel import L1
from sgbench.runs.delivery import parcels, send
from sgbench.runs.execute import Job, Watcher
from sgbench.runs.plan import pack
from sgbench.runs.shards import Shard
from sgbench.runs.sweep import Outcome, Quiet, Summary, carry_out, look, run_all_here
from sgbench.runs.verification import verify
from sgbench.spec import SweepSpec, build, expression
from sgbench.store import Store
from sgbench.store.layout import latest_step

STEPS = 3


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "store"))


@pytest.fixture
def sweep(train_folder: Path, test_folder: Path, cache: Path) -> SweepSpec:
    """Two runs of three steps."""
    fields = {"grids": [{"backbones": ["edsr-tiny"], "losses": ["l1", "l2"]}], "metrics": ["psnr_y"]}
    fields |= {"train": f"Mine={train_folder}", "tests": [f"Few={test_folder}"]}
    return build({**fields, "recipe": {"steps": STEPS, "batch": 2, "patch": 8}}, "two")


def here(sweep: SweepSpec, storage: Storage, observer: Quiet | None = None, **choices: Any) -> Outcome:
    return carry_out("two", sweep, storage, contextlib.nullcontext(run_all_here), observer or Quiet(), **choices)


@contextlib.contextmanager
def nobody() -> Any:
    pytest.fail("there is nothing to run")
    yield


def test_what_is_missing_is_done_once(sweep: SweepSpec, storage: Storage) -> None:
    first = here(sweep, storage)
    assert (first.plan.count("to do"), first.failed, first.interrupted) == (2, {}, False)
    assert [row["status"] for row in Store(storage).runs().to_pylist()] == ["done", "done"]
    assert Store(storage).totals().num_rows == 2
    assert list(Store(storage).plans()) == ["two"]
    assert carry_out("two", sweep, storage, nobody(), Quiet()).plan.count("done") == 2
    assert look("two", sweep, storage, Quiet()).count("done") == 2


def test_a_run_that_was_done_before_is_noted_as_one_of_the_sweep_that_varies_its_loss(
    train_folder: Path, test_folder: Path, cache: Path, storage: Storage
) -> None:
    def sweep(loss: str, **grid: Any) -> SweepSpec:
        fields = {"grids": [{"backbones": ["edsr-tiny"], "losses": [loss], **grid}], "metrics": ["psnr_y"]}
        fields |= {"train": f"Mine={train_folder}", "tests": [f"Few={test_folder}"]}
        return build({**fields, "recipe": {"steps": 1, "batch": 2, "patch": 8}}, "one")

    def noted(sweep: SweepSpec, **choices: Any) -> dict[str, Any]:
        assert carry_out("one", sweep, storage, nobody(), Quiet(), **choices).plan.count("done") == 1
        return Store(storage).runs().to_pylist()[0]

    plain, varied = sweep("l1 + 0.5*l2"), sweep("l1 + λ*l2", lambdas=[0.5])
    here(plain, storage)
    before = noted(plain)
    assert (before["lambda"], before["varied"]) == (0.0, None)
    assert noted(varied, command="train") == before
    after = noted(varied)
    changed = {key for key, value in after.items() if value != before[key]}
    assert (changed, after["lambda"], after["varied"]) == ({"lambda", "varied", "spec"}, 0.5, "l2")
    assert noted(plain) == after
    assert list(verify(Store(storage))) == []
    assert View(load_results(storage.root)).names.lambdas == {0.5}


def test_a_store_of_many_small_files_is_compacted_when_a_sweep_ends(
    sweep: SweepSpec, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(sweep, storage)  # of each run a file in each table
    store = Store(storage)
    before = [read().to_pylist() for read in (store.runs, store.scores, store.history)]
    monkeypatch.setattr("sgbench.runs.sweep.MANY_FILES", 7)
    assert carry_out("two", sweep, storage, nobody(), Quiet()).plan.count("done") == 2
    assert [len(files.list().small) for files in store.tables.values()] == [2, 2, 2, 0]
    monkeypatch.setattr("sgbench.runs.sweep.MANY_FILES", 6)
    assert carry_out("two", sweep, storage, nobody(), Quiet()).plan.count("done") == 2
    now = [(files.list().small, len(files.list().compacted)) for files in store.tables.values()]
    assert now == [*[((), 1)] * 3, ((), 0)]  # no run has been validated
    assert [read().to_pylist() for read in (store.runs, store.scores, store.history)] == before
    (Path(storage.path("history")) / f"{0:012x}.parquet").write_bytes(b"damaged")
    monkeypatch.setattr("sgbench.runs.sweep.MANY_FILES", 1)
    with pytest.warns(UserWarning, match=r"the store could not be compacted: .*000\.parquet"):
        carry_out("two", sweep, storage, nobody(), Quiet())


def test_the_label_of_the_last_sweep_holds_for_runs_that_were_done_before(sweep: SweepSpec, storage: Storage) -> None:
    began: list[str] = []

    class Seeing(Quiet):
        def started(self, run_id: str, label: str) -> None:
            began.append(label)

    fields = sweep.model_dump(mode="json")
    first, last = (
        build(fields | {"grids": [{"backbones": ["edsr-tiny"], "losses": losses}]}, "two")
        for losses in (["l1", "ours=l2"], ["base=l1", "theirs=l2"])
    )
    here(first, storage, Seeing(), command="train")
    assert sorted(began) == ["edsr-tiny · l1 · seed 0", "edsr-tiny · ours · seed 0"]
    assert [run.row["label"] for run in look("two", sweep, storage, Quiet()).runs] == [None, "ours"]
    assert [run.row["label"] for run in look("two", last, storage, Quiet()).runs] == ["base", "theirs"]
    assert Store(storage).labels() == {"l2": "ours"}
    assert carry_out("two", last, storage, nobody(), Quiet()).plan.count("done") == 2
    assert Store(storage).labels() == {"l1": "base", "l2": "theirs"}
    assert carry_out("two", sweep, storage, nobody(), Quiet()).plan.count("done") == 2  # which says nothing of labels
    assert [each.label for each in View(load_results(storage.root)).groups()] == ["base", "theirs"]
    assert sorted(Store(storage).runs()["name"].to_pylist()) == ["edsr-tiny · l1 · seed 0", "edsr-tiny · l2 · seed 0"]


def test_only_a_sweep_is_kept_as_a_plan(sweep: SweepSpec, storage: Storage) -> None:
    here(sweep, storage, command="train")
    assert Store(storage).plans() == {}


def test_the_store_is_locked_while_runs_go_and_says_by_which_command(sweep: SweepSpec, storage: Storage) -> None:
    @contextlib.contextmanager
    def runner() -> Any:
        with pytest.raises(InputError, match=r"in use by 'sgbench sweep two' \(process \d+ on "):
            here(sweep, storage)
        yield lambda *_: Summary()

    carry_out("two", sweep, storage, runner(), Quiet())


def test_a_run_that_fails_is_told_with_its_reason_now_and_until_it_is_tried_again(
    sweep: SweepSpec, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sgbench.losses.pixel.L2.forward", lambda self, sr, hr: (sr - hr).abs().mean() * float("nan"))
        first = here(sweep, storage)
    ((run_id, reason),) = first.failed.items()
    assert reason == "loss is NaN at step 1"
    again = carry_out("two", sweep, storage, nobody(), Quiet())
    assert (again.failed, again.plan.count("failed")) == ({run_id: reason}, 1)
    assert here(sweep, storage, retry=True).failed == {}


def test_a_fault_of_storage_ends_the_sweep_in_a_sentence_and_the_same_sweep_does_all(
    sweep: SweepSpec, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, began = Storage.write, list[str]()

    class Seeing(Quiet):
        def started(self, run_id: str, label: str) -> None:
            began.append(run_id)

    def full(storage: Storage, name: str, content: bytes) -> None:
        if name.startswith("weights/"):
            raise OSError(errno.ENOSPC, "No space left on device", storage.path(name))
        write(storage, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", full)
        with pytest.raises(InterruptionError, match=r"^1 of 2 runs were interrupted: .*No space left .* to resume[.]$"):
            here(sweep, storage, Seeing())
    assert len(began) == 1
    again = here(sweep, storage)
    assert (again.plan.count("resumable"), again.plan.count("to do"), again.failed) == (1, 1, {})
    assert [row["status"] for row in Store(storage).runs().to_pylist()] == ["done", "done"]


def test_a_signal_stops_the_run_that_is_going_and_those_behind_it(sweep: SweepSpec, storage: Storage) -> None:
    class Interrupting(Quiet):
        def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
            if step == 1:
                os.kill(os.getpid(), signal.SIGINT)

    stopped = here(sweep, storage, Interrupting())
    assert (stopped.interrupted, stopped.failed) == (True, {})
    asked = Store(storage).asked()
    steps = [latest_step(storage, str(run.spec.run_id)) for run in stopped.plan.runs]
    assert sorted(steps)[0] == 0 < sorted(steps)[1] < STEPS
    assert here(sweep, storage).plan.count("resumable") == 1
    assert [row["status"] for row in Store(storage).runs().to_pylist()] == ["done", "done"]
    rows = Store(storage).rows()
    assert {run_id: row["planned"] for run_id, row in rows.items()} == asked
    assert all(row["planned"] < row["started"] < row["finished"] for row in rows.values())


def test_a_run_keeps_the_time_at_which_it_was_first_asked_for(
    sweep: SweepSpec, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks again, whatever became of it meanwhile; what is not known of older stores stays unknown."""
    store, jobs = Store(storage), list[Job]()

    def asked(hour: int, name: str = "two", seeds: Sequence[int] = (0,), **choices: Any) -> list[int | None]:
        """Ask for runs and carry out none; return the hours at which they were first asked for, by loss and seed."""
        for module in ("store.store", "runs.sweep"):
            monkeypatch.setattr(f"sgbench.{module}.now", lambda: NOW + datetime.timedelta(hours=hour))
        jobs.clear()
        runner = contextlib.nullcontext(lambda name, some, *_: jobs.extend(some) or Summary())
        wanted = sweep.model_copy(update={"grids": (sweep.grids[0].model_copy(update={"seeds": tuple(seeds)}),)})
        carry_out(name, wanted, storage, runner, Quiet(), **choices)
        jobs.sort(key=lambda job: (str(job.spec.loss), job.spec.seed))
        return [None if job.planned is None else (job.planned - NOW) // datetime.timedelta(hours=1) for job in jobs]

    assert asked(1, command="train") == [1, 1]  # leaves no plan
    assert asked(2) == [2, 2]
    assert asked(3, seeds=[0, 1], shard=Shard(1, 1)) == [2, 3, 2, 3]
    assert asked(4, name="other", seeds=[1, 2]) == [3, 4, 3, 4]
    assert asked(5, seeds=[2]) == [4, 4]
    assert asked(6, command="train", seeds=[1]) == [3, 3]
    for job in jobs:
        store.write_run(job.columns | {"status": "failed"})
    storage.delete("plans/two.json")
    storage.delete("plans/other.json")
    assert asked(7, seeds=[1], retry=True) == [3, 3]
    store.compact()
    assert asked(8, seeds=[1], rerun=True) == [3, 3]
    store.forget(jobs[0].run_id)  # as the last step of a run that is retrained does
    assert asked(9, seeds=[1], retry=True) == [3, 3]
    (row,) = store.rows().values()
    store.write_run(row | {"planned": None})
    (first, second) = json.loads(storage.read("plans/two.json"))
    storage.write("plans/two.json", json.dumps([{**first, "planned": None}, second]).encode())
    assert asked(10, seeds=[1], retry=True) == [None, None]


def test_the_longest_runs_come_first(sweep: SweepSpec, storage: Storage) -> None:
    grids = [{"backbones": ["swinir-tiny", "edsr-tiny"], "losses": ["l1"]}]
    two = build(sweep.model_dump() | {"grids": grids}, "two")
    order: list[str] = []

    def runner(name: str, jobs: Sequence[Job], sweep: SweepSpec, storage: Storage, watcher: Watcher) -> Summary:
        order.extend(job.spec.backbone for job in jobs)
        return Summary(interrupted=True)

    assert carry_out("two", two, storage, contextlib.nullcontext(runner), Quiet()).interrupted
    assert order == ["edsr-tiny", "swinir-tiny"]


class Perceptual(L1):
    """A loss that names a pretrained network, and would fail without it."""

    networks = ("vgg16",)


def test_a_loss_whose_pretrained_network_is_not_available_is_refused_before_the_first_run(
    sweep: SweepSpec, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES._loaded, "perceptual", Perceptual)
    monkeypatch.setattr("sgbench.runs.sweep.fetch", lambda names, progress: dict.fromkeys(names, "bring its file."))
    grid = sweep.grids[0].model_copy(update={"losses": (expression.parse("l1 + 0.1*perceptual"),)})
    with pytest.raises(
        InputError, match=r"loss 'l1 \+ 0\.1\*perceptual' cannot be used for training: bring its file\."
    ):
        here(sweep.model_copy(update={"grids": (grid,)}), storage)
    assert Store(storage).runs().num_rows == 0


@pytest.fixture
def set5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set5 as its server has it, with other photographs, and an empty folder for sets."""
    path = tmp_path / "benchmark.tar"
    photos, random = tmp_path / "photos", np.random.default_rng(0)
    for i in range(5):
        write_png(photos / f"{i}.png", random.integers(0, 256, (44, 40, 3), dtype=np.uint8))
    with tarfile.open(path, "w") as archive:
        for inside in ("HR", "LR_bicubic/X2", "LR_bicubic/X3", "LR_bicubic/X4"):
            archive.add(photos, f"benchmark/Set5/{inside}")
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    entry = CATALOG["Set5"]
    archives = (replace(entry.archives[0], url=path.as_uri(), digest=digest),)
    catalog = {**CATALOG, "Set5": replace(entry, archives=archives)}
    monkeypatch.setattr(importlib.import_module("sgbench.data.fetch"), "CATALOG", catalog)
    monkeypatch.setenv("SGBENCH_DATA", str(tmp_path / "sets"))
    return tmp_path / "sets"


class Hears(Quiet):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_known_set_that_is_missing_is_downloaded_once_if_that_is_wanted(
    sweep: SweepSpec, storage: Storage, set5: Path
) -> None:
    wants = sweep.model_copy(update={"tests": ("Set5",)})
    with pytest.raises(MissingDataError, match="run 'sgbench data fetch Set5'"):
        here(wants, storage)
    assert not Path(storage.root).exists()
    first, second = Hears(), Hears()
    here(wants, storage, first, download=True)
    assert first.said[0] == f"downloading Set5 (250 MB) from this machine to '{set5}'"
    assert Store(storage).totals().column("n_images").to_pylist() == [5, 5]
    here(wants, storage, second, download=True)
    assert [line for line in second.said if "downloading" in line] == []


def test_a_set_in_the_store_is_what_was_packed_and_gives_the_same_runs(
    sweep: SweepSpec, storage: Storage, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pack(sweep)
    with Store(storage).writing("sgbench submit two"):
        send(parcels([data.train, *data.tests], [], storage), storage)
    known = {run.spec.run_id for run in look("two", sweep, storage, Quiet()).runs}
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "head"))
    (tests,) = data.tests
    there = {"train": f"Mine=packed:{data.train.digest}", "tests": (f"Few=packed:{tests.digest}",)}
    outcome = here(sweep.model_copy(update=there), storage)
    assert {run.spec.run_id for run in outcome.plan.runs} == known
    assert outcome.failed == {}
    monkeypatch.setenv("SGBENCH_CACHE", str(cache.parent))
    assert carry_out("two", sweep, storage, nobody(), Quiet()).plan.count("done") == 2
