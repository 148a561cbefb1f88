"""Runs that are trained again: what there is of them stays until its replacement is complete, whatever dies when."""

import contextlib
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.registry import LOSSES
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.runs.execute import Job, begin, conclude, run_here, train_job, unreplaced
from sgbench.runs.maintenance import clean, remove
from sgbench.runs.plan import Data, Plan, make_plan, refuse_losses
from sgbench.runs.verification import verify
from sgbench.spec import SweepSpec, build
from sgbench.store import Dataset, Store
from sgbench.store.layout import has_weights, image_of, latest_step
from sgbench.training import Checkpoints

STEPS = 2
LOCAL = Locator(download=False)


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Silent:
    """A watcher that looks away."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *told: None


@pytest.fixture
def data(train_images: PackedImages, test_images: PackedImages) -> Data:
    return Data(train_images, (test_images,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "store")))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """While it holds anything, the loss ``fragile`` is NaN."""
    is_broken: list[bool] = []

    class Fragile(nn.Module):
        def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
            return (sr - hr).abs().mean() * (torch.nan if is_broken else 1.0)

    monkeypatch.setitem(LOSSES._loaded, "fragile", Fragile)
    return is_broken


def a_sweep(*metrics: str, losses: tuple[str, ...] = ("l1",)) -> SweepSpec:
    fields: dict[str, Any] = {"grids": [{"backbones": ["edsr-tiny"], "losses": list(losses)}], "train": "Photos"}
    fields |= {"tests": ["Photos"], "metrics": list(metrics), "recipe": {"steps": STEPS, "batch": 2, "patch": 8}}
    return build(fields, "tiny")


def planned(store: Store, data: Data, sweep: SweepSpec, **asked: bool) -> tuple[Plan, list[Job]]:
    plan = make_plan("tiny", sweep, data, store, locator=LOCAL, **asked)
    return plan, [Job.of(run, data, sweep, store.storage) for run in plan.pending]


def do(store: Store, data: Data, sweep: SweepSpec, **asked: bool) -> list[str]:
    """Do what a sweep would, without Ray; return how its runs ended."""
    plan, jobs = planned(store, data, sweep, **asked)
    refuse_losses(plan, LOCAL)
    begin(jobs)
    ends = [run_here(job, Silent())[0] for job in jobs]
    if "interrupted" not in ends:
        conclude(store, [str(run.spec.run_id) for run in (plan.runs if asked.get("rerun") else plan.pending)])
    return ends


def statuses(store: Store, data: Data, sweep: SweepSpec, **asked: bool) -> list[str]:
    return [run.status for run in planned(store, data, sweep, **asked)[0].runs]


def said(store: Store) -> list[Any]:
    """What a store says of its runs, with the times at which it was said."""
    return [table.to_pylist() for table in (store.runs(), store.scores(), store.history())]


def metrics_of(store: Store) -> set[str]:
    return set(store.totals().column("metric").to_pylist())


def drop_weights(store: Store) -> None:
    store.storage.delete_folder("weights")


# Asking


def test_a_run_without_weights_is_trained_again_only_if_that_is_asked_for(data: Data, store: Store) -> None:
    sweep, more = a_sweep("psnr_y"), a_sweep("ssim_y")
    assert do(store, data, sweep) == ["done"]
    drop_weights(store)
    before = said(store)
    assert (statuses(store, data, sweep), statuses(store, data, more)) == (["done"], ["to retrain"])
    assert do(store, data, more) == []
    assert said(store) == before
    assert do(store, data, more, retrain=True) == ["done"]
    assert metrics_of(store) == {"psnr_y", "ssim_y"}  # those that it had are of the new weights
    assert store.run(store.runs().column("run_id")[0].as_py()) != before[0][0]
    assert min(row["scored"] for row in store.scores().to_pylist()) > before[0][0]["finished"]
    assert statuses(store, data, a_sweep("psnr_y", "ssim_y")) == ["done"]


def test_training_again_is_refused_where_it_would_lose_scores(data: Data, store: Store) -> None:
    assert do(store, data, a_sweep("psnr_y")) == ["done"]
    drop_weights(store)
    row = store.totals().to_pylist()[0]
    store.write_scores(
        [{**row, "dataset": "Others"}, {**row, "dataset_sha256": "0" * 64}, {**row, "metric": "mine:metric"}]
    )
    before = said(store)
    with pytest.raises(InputError, match=r"mine:metric on Photos \(1 of the runs\), psnr_y on Others .*snr_y on Photo"):
        do(store, data, a_sweep("ssim_y"), retrain=True)
    assert said(store) == before
    store.write_scores([{**row, "metric": "lpips_alex"}])
    none = Locator(download=False)
    none.find = lambda name: None  # type: ignore[method-assign]
    with pytest.raises(InputError, match="lpips_alex on Photos"):
        refuse_losses(planned(store, data, a_sweep("ssim_y"), retrain=True)[0], none)


def test_a_run_that_fails_when_it_is_trained_again_keeps_what_it_had(
    data: Data, store: Store, broken: list[bool]
) -> None:
    sweep = a_sweep("psnr_y", losses=("fragile",))
    assert do(store, data, sweep) == ["done"]
    before, weights = said(store), store.storage.sizes("weights")
    broken.append(True)
    _, jobs = planned(store, data, sweep, rerun=True)
    begin(jobs)
    assert train_job(jobs[0]) == ("failed", "loss is NaN at step 1; its previous results are kept")
    assert unreplaced(jobs, store) == {jobs[0].run_id}
    assert (said(store), store.storage.sizes("weights")) == (before, weights)

    drop_weights(store)
    more = a_sweep("ssim_y", losses=("fragile",))
    assert do(store, data, more, retrain=True) == ["failed"]
    assert said(store) == before
    assert statuses(store, data, more) == ["to retrain"]
    broken.clear()
    assert do(store, data, more, retrain=True) == ["done"]


# Again from nothing


def test_a_rerun_replaces_images_and_leaves_nothing_else_of_before(data: Data, store: Store) -> None:
    sweep = a_sweep("psnr_y")
    do(store, data, sweep)
    files, before = set(store.storage.sizes()), said(store)
    run_id = before[0][0]["run_id"]
    store.storage.write(f"images/{run_id}/Photos@01234567/photo0.png", b"old")
    Checkpoints(store.storage, run_id).save(1, {"of": "another training"})
    assert do(store, data, sweep, rerun=True) == ["done"]
    assert set(store.storage.sizes()) == files
    assert min(row["scored"] for row in store.scores().to_pylist()) > before[0][0]["finished"]
    assert [row["value"] for row in store.scores().to_pylist()] == [row["value"] for row in before[1]]


def test_a_rerun_that_is_interrupted_goes_on_run_by_run(data: Data, store: Store) -> None:
    sweep = a_sweep("psnr_y", losses=("l1", "l2", "charbonnier", "ssim"))
    do(store, data, sweep)
    before = {row["run_id"]: row for row in store.runs().to_pylist()}
    _, jobs = planned(store, data, sweep, rerun=True)
    begin(jobs)
    assert run_here(jobs[0], Silent())[0] == "done"
    assert train_job(jobs[1], should_stop=lambda: True)[0] == "stopped"

    after = {row["run_id"]: row for row in store.runs().to_pylist()}
    assert [after[job.run_id] == before[job.run_id] for job in jobs] == [False, True, True, True]
    assert store.scores().num_rows == 4 * 3
    assert statuses(store, data, sweep) == ["done"] * 4  # without --rerun nothing is to be done
    clean(store)
    assert statuses(store, data, sweep, rerun=True) == ["done", "resumable", "to do", "to do"]
    assert do(store, data, sweep, rerun=True) == ["done"] * 3
    ended = {row["run_id"]: row for row in store.runs().to_pylist()}
    assert [ended[job.run_id] == after[job.run_id] for job in jobs] == [True, False, False, False]
    assert store.replaced() == {}
    assert statuses(store, data, sweep) == ["done"] * 4
    assert statuses(store, data, sweep, rerun=True) == ["to do"] * 4  # the next rerun is a new one


def test_what_a_replaced_run_was_scored_on_is_still_to_be_computed_when_nobody_asks_for_it(
    data: Data, store: Store
) -> None:
    do(store, data, a_sweep("psnr_y"))
    drop_weights(store)
    _, jobs = planned(store, data, a_sweep("ssim_y"), retrain=True)
    begin(jobs)
    assert train_job(jobs[0])[0] == "done"  # and killed before it is scored
    plan, _ = planned(store, data, a_sweep("psnr_rgb"))
    assert [run.missing for run in plan.runs] == [(("Photos", "psnr_rgb"), ("Photos", "psnr_y"))]


def test_of_a_run_that_is_removed_nothing_is_owed(data: Data, store: Store) -> None:
    sweep = a_sweep("psnr_y")
    do(store, data, sweep)
    _, jobs = planned(store, data, sweep, rerun=True)
    begin(jobs)
    assert set(store.replaced()) == {jobs[0].run_id}
    remove(store, jobs[0].run_id)
    assert store.replaced() == {}


def test_of_another_sweep_nothing_is_forgotten(data: Data, store: Store) -> None:
    first, second = a_sweep("psnr_y", losses=("l1",)), a_sweep("psnr_y", losses=("l2",))
    for sweep in (first, second):
        do(store, data, sweep)
    _, jobs = planned(store, data, first, rerun=True)
    begin(jobs)
    assert train_job(jobs[0], should_stop=lambda: True)[0] == "stopped"
    assert do(store, data, second, rerun=True) == ["done"]
    assert statuses(store, data, first, rerun=True) == ["resumable"]


# Every point


class Faults:
    """An error at one of the operations that change a storage, instead of what it would do."""

    def __init__(self) -> None:
        self.left = 0
        self.error: BaseException | None = None

    def set(self, operation: int, error: BaseException) -> None:
        """Have the operation of a number, counted from 0, raise an error."""
        self.left, self.error = operation, error

    def clear(self) -> bool:
        """Have no operation raise; return whether one did."""
        raised, self.error = self.left < 0, None
        return raised

    def passes(self) -> None:
        self.left -= 1
        if self.left == -1 and self.error:
            raise self.error


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    faults = Faults()
    for name in ("write", "delete", "delete_folder"):
        original = getattr(Storage, name)

        def changing(self: Storage, *arguments: Any, real: Callable[..., None] = original) -> None:
            faults.passes()
            real(self, *arguments)

        monkeypatch.setattr(Storage, name, changing)
    return faults


@pytest.mark.slow
@pytest.mark.parametrize("error", [KilledError(), OSError(5, "Input/output error")], ids=["dies", "fails"])
@pytest.mark.parametrize("asked", ["retrain", "rerun"])
def test_at_every_operation_of_a_replacement_the_old_run_is_whole_or_the_new_one_is_resumed(
    tmp_path: Path, data: Data, faults: Faults, asked: str, error: BaseException
) -> None:
    first, more, whole = a_sweep("psnr_y", "ssim_y"), a_sweep("psnr_rgb"), a_sweep("psnr_y", "ssim_y", "psnr_rgb")
    original = Store(Storage(str(tmp_path / "original")))
    do(original, data, first)
    old = said(original)
    ((old_row,), old_scores, _) = old
    run_id, old_times = old_row["run_id"], {score["scored"] for score in old_scores}
    weights = Checkpoints(original.storage, run_id).load_weights()
    original.storage.write(image_of(run_id, Dataset("Photos", data.tests[0].sha256).versioned, "photo0"), b"old")
    if asked == "retrain":
        drop_weights(original)
    else:
        original.compact()

    for operation in itertools.count():
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        shutil.copytree(tmp_path / "original", tmp_path / "store")
        store = Store(Storage(str(tmp_path / "store")))
        checkpoints = Checkpoints(store.storage, run_id)
        faults.set(operation, error)
        with contextlib.suppress(KilledError, OSError):
            do(store, data, more, **{asked: True})
        raised = faults.clear()
        row, times = store.run(run_id), {score["scored"] for score in store.scores().to_pylist()}
        assert list(verify(store)) == []
        if row == old_row:
            assert said(store) == old
            assert store.storage.exists(f"images/{run_id}")
        elif row and row["status"] == "done":
            assert has_weights(checkpoints.storage, checkpoints.run_id)
            assert not store.storage.exists(f"images/{run_id}")
            assert times.isdisjoint(old_times)
        else:  # all steps are done, and nothing is shown of the old run
            assert latest_step(checkpoints.storage, checkpoints.run_id) == STEPS
            assert row is None or not times
        if not raised:
            break

        clean(store)
        do(store, data, more, **{asked: True})
        assert list(verify(store)) == []
        assert store.run(run_id) != old_row
        assert statuses(store, data, whole) == ["done"]
        assert {score["scored"] for score in store.scores().to_pylist()}.isdisjoint(old_times)
        again = checkpoints.load_weights()
        assert all(torch.equal(again[name], weights[name]) for name in weights)
        clean(store)
        assert not [name for name in store.storage.sizes() if name.startswith(("checkpoints", "images"))]
    assert statuses(store, data, whole) == ["done"]
    assert operation >= 15
