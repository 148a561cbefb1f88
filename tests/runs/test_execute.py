"""One run from its plan to its rows, and everything that can come in between."""

import contextlib
import dataclasses
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import STATE, as_file, put
from torch import Tensor, nn

import sgbench
from sgbench.assets.base import networks_folder
from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.locator import Locator
from sgbench.core.errors import InterruptionError
from sgbench.core.registry import BACKBONES, LOSSES
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, prepare, resolve, write_png
from sgbench.losses.pixel import L1
from sgbench.runs.delivery import parcels, send
from sgbench.runs.execute import Job, record_failure, run_here, score_job, stop_signal, train_job
from sgbench.runs.plan import Data, make_plan
from sgbench.runs.progress import Lane
from sgbench.runs.verification import verify
from sgbench.scoring.evaluation import score_subject
from sgbench.scoring.subjects import trained
from sgbench.spec import Degradation, build
from sgbench.store import Store, now
from sgbench.store.layout import has_weights, latest_step
from sgbench.training import Checkpoints

STEPS = 5


class Witness:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.values: dict[int, dict[str, float]] = {}

    def started(self, run_id: str, label: str) -> None:
        self.seen.append(("started", run_id, label))

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        self.seen.append(("progress", run_id, step, steps))

    def measured(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        self.values.setdefault(step, {}).update(values)

    def scoring(self, run_id: str) -> None:
        self.seen.append(("scoring", run_id))

    def finished(self, run_id: str, end: str, message: str) -> None:
        self.seen.append(("finished", run_id, end, message))


class SilentError(Exception):
    """Has no message that can be made."""

    def __str__(self) -> str:
        raise RuntimeError


RAISED: dict[str, BaseException] = {
    "RuntimeError": RuntimeError("no room\nfor a second line"),
    "OSError": OSError(28, "No space left on device"),
    "SystemExit": SystemExit(0),
    "StopIteration": StopIteration(),
    "SilentError": SilentError(),
    "MemoryError": MemoryError("no room"),
    "allocator": RuntimeError("[alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    "group": RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer"),
    "KeyboardInterrupt": KeyboardInterrupt(),
}


class BreaksAtThird(nn.Module):
    """L1 for two calls."""

    def __init__(self, *, how: str = "nan") -> None:
        super().__init__()
        self.how = how
        self.calls = 0

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        self.calls += 1
        loss = (sr - hr).abs().mean()
        if self.calls != 3:
            return loss
        if self.how in RAISED:
            raise RAISED[self.how]
        return loss * float(self.how)


@pytest.fixture(autouse=True)
def _breaking_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES._loaded, "breaks", BreaksAtThird)


@pytest.fixture
def data(train_images: PackedImages, test_images: PackedImages) -> Data:
    return Data(train_images, (test_images,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "store")))


def a_job(
    data: Data, store: Store, loss: str = "l1", metrics: tuple[str, ...] = ("psnr_y", "ssim_y"), **fields: Any
) -> Job:
    fields |= {"grids": [{"backbones": ["edsr-tiny"], "losses": [loss]}], "metrics": metrics}
    fields |= {"train": "Photos", "tests": ["Photos"], "recipe": {"steps": STEPS, "batch": 2, "patch": 8}}
    sweep = build(fields, "tiny")
    return Job.of(make_plan("tiny", sweep, data, store, retry=True).runs[0], data, sweep, store.storage)


def weights(store: Store, job: Job) -> dict[str, bytes]:
    loaded = Checkpoints(store.storage, job.run_id).load_weights()
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.items()}


@pytest.fixture
def validated(data: Data, tmp_path: Path, cache: Path) -> Data:
    """The same with a validation set of two images."""
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        write_png(tmp_path / "mine" / f"{number}.png", pixels)
    source = resolve(f"Mine={tmp_path / 'mine'}", "test")
    mine = prepare(source, scale=4, degradation=Degradation(), cache=cache)
    return dataclasses.replace(data, validation=(mine,))


VALIDATE = {"sets": ["Mine"], "every": 2, "metrics": ["psnr_y", "lpips_alex"]}


def found(store: Store) -> list[dict[str, Any]]:
    """Return the validation of the only run, but for times."""
    return store.validation().drop_columns(["seconds", "upscaling_seconds"]).to_pylist()


def test_a_run_leaves_a_row_scores_history_and_weights_and_no_checkpoint(data: Data, store: Store) -> None:
    job, witness = a_job(data, store), Witness()
    assert run_here(job, witness) == ("done", "")

    row = store.run(job.run_id)
    assert row is not None
    expected = {"status": "done", "error": None, "step": STEPS, "workers": 1, "backbone": "edsr-tiny", "loss": "l1"}
    assert {key: row[key] for key in expected} == expected
    assert row["train_sha256"] == data.train.sha256
    assert row["started"] < row["finished"]
    assert row["steps_per_second"] == pytest.approx(STEPS / row["wall_seconds"])
    assert row["peak_memory_bytes"] > 2**20
    assert torch.__version__.partition("+")[0] in row["versions"]

    assert [each["step"] for each in store.history().to_pylist()] == list(range(1, STEPS + 1))
    scores = store.scores().to_pylist()
    assert [(each["metric"], each["image"]) for each in scores] == [
        (metric, image) for metric in ("psnr_y", "ssim_y") for image in ("photo0", "photo1", None)
    ]
    assert all(each["status"] == "ok" and each["dataset_sha256"] == data.tests[0].sha256 for each in scores)
    assert has_weights(store.storage, job.run_id)
    assert latest_step(store.storage, job.run_id) == 0

    run_id = job.run_id
    assert witness.seen == [
        ("started", run_id, "edsr-tiny · l1 · seed 0"),
        *(("progress", run_id, step, STEPS) for step in range(1, STEPS + 1)),
        ("scoring", run_id),
        ("finished", run_id, "done", ""),
    ]
    history = {each["step"]: each for each in store.history().to_pylist()}
    assert witness.values.keys() == history.keys()
    totals = {f"scores/{each['dataset']}/{each['metric']}": each["value"] for each in scores if not each["image"]}
    for step, values in witness.values.items():
        curves = {key: history[step][key] for key in ("loss", "lr", "steps_per_second")}
        terms = {f"terms/{term}": value for term, value in history[step]["terms"]}
        assert values == {**curves, **terms, **(totals if step == STEPS else {})}


def test_a_finished_run_is_scored_and_not_trained_again(data: Data, store: Store) -> None:
    job = a_job(data, store, metrics=("psnr_y",))
    run_here(job, Witness())
    row = store.run(job.run_id)
    more, witness = a_job(data, store), Witness()
    assert more.missing == (("Photos", "ssim_y"),)
    assert run_here(more, witness) == ("done", "")
    assert [event for event, *_ in witness.seen] == ["started", "scoring", "finished"]
    assert store.run(job.run_id) == row
    assert set(store.scores().column("metric").to_pylist()) == {"psnr_y", "ssim_y"}


@pytest.mark.parametrize(("how", "error"), [("nan", "loss is NaN at step 3"), ("inf", "loss is infinite at step 3")])
def test_a_loss_that_is_not_finite_is_a_failed_row_with_its_step(
    data: Data, store: Store, how: str, error: str
) -> None:
    job, witness = a_job(data, store, f"breaks(how={how})"), Witness()
    assert run_here(job, witness) == ("failed", error)
    row = store.run(job.run_id)
    assert row is not None
    assert (row["status"], row["step"], row["error"]) == ("failed", 3, error)
    assert row["peak_memory_bytes"] > 2**20
    assert [each["step"] for each in store.history().to_pylist()] == [1, 2]
    assert witness.seen[-1] == ("finished", job.run_id, "failed", error)
    assert store.scores().num_rows == 0
    assert not has_weights(store.storage, job.run_id)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("RuntimeError", "RuntimeError: no room"),
        ("OSError", "OSError: [Errno 28] No space left on device"),
        ("SystemExit", "SystemExit: 0"),
        ("StopIteration", "StopIteration"),
        ("SilentError", "SilentError"),
    ],
)
def test_whatever_a_plug_in_raises_is_a_failed_row_of_one_line(data: Data, store: Store, how: str, said: str) -> None:
    job, witness = a_job(data, store, f"breaks(how={how})"), Witness()
    error = f"loss 'breaks(how={how})': {said}"
    assert run_here(job, witness) == ("failed", error)
    row = store.run(job.run_id)
    assert row is not None
    assert (row["status"], row["step"], row["error"]) == ("failed", 0, error)
    assert [each["step"] for each in store.history().to_pylist()] == [1, 2]
    assert witness.seen[-1] == ("finished", job.run_id, "failed", error)


def test_ctrl_c_is_no_fault_of_a_plug_in_but_in_a_thread_which_gets_none(data: Data, store: Store) -> None:
    job = a_job(data, store, "breaks(how=KeyboardInterrupt)")
    with pytest.raises(KeyboardInterrupt):
        train_job(job)
    assert store.run(job.run_id) is None
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(train_job, job).result()
    assert end == ("failed", "loss 'breaks(how=KeyboardInterrupt)': KeyboardInterrupt")


@pytest.mark.parametrize("how", ["MemoryError", "allocator", "group"])
def test_what_is_no_fault_of_the_run_interrupts_it_and_it_resumes(data: Data, store: Store, how: str) -> None:
    job, witness = a_job(data, store, f"breaks(how={how})", checkpoint_seconds=0), Witness()
    end, message = run_here(job, witness)
    assert end == "interrupted"
    assert str(RAISED[how]) in message
    assert witness.seen[-1] == ("finished", job.run_id, "interrupted", message)
    assert (store.run(job.run_id), store.history().num_rows) == (None, 0)
    assert latest_step(store.storage, job.run_id) > 0
    assert [status for _, status, _ in planned(data, store, job)] == ["resumable"]


def planned(data: Data, store: Store, job: Job) -> list[tuple[str, str, int]]:
    """Return what is to be done for a job's run, as another command sees it."""
    fields = {"grids": [{"backbones": [job.spec.backbone], "losses": [str(job.spec.loss)]}], "tests": ["Photos"]}
    recipe = job.spec.recipe.model_dump(mode="json")
    sweep = build({**fields, "train": "Photos", "metrics": ["psnr_y", "ssim_y"], "recipe": recipe}, "tiny")
    return [(str(run.spec.run_id), run.status, run.step) for run in make_plan("tiny", sweep, data, store).runs]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("folder", ["checkpoints", "weights", "history", "runs", "scores"])
def test_a_fault_of_storage_is_no_end_of_a_run(
    data: Data, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, number: int
) -> None:
    write = Storage.write

    def full(storage: Storage, name: str, content: bytes) -> None:
        if name.startswith(f"{folder}/"):
            raise OSError(number, os.strerror(number), storage.path(name))
        write(storage, name, content)

    job = a_job(data, store, checkpoint_seconds=0)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", full)
        end, message = run_here(job, Witness())
    assert end == "interrupted"
    assert os.strerror(number) in message
    row, trained = store.run(job.run_id), folder == "scores"
    assert (row is not None and row["status"] == "done") is trained
    step = {"checkpoints": 0, "scores": STEPS}.get(folder, STEPS)
    status = {"checkpoints": "to do", "scores": "to score"}.get(folder, "resumable")
    assert planned(data, store, job) == [(job.run_id, status, step)]
    assert run_here(a_job(data, store), Witness()) == ("done", "")


def test_a_checkpoint_that_cannot_be_read_now_interrupts_the_run_which_then_resumes(
    data: Data, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, steps = a_job(data, store), []
    assert train_job(job, should_stop=iter([False, False, True]).__next__)[0] == "stopped"

    def fail(storage: Storage, name: str) -> bytes:
        raise PermissionError(13, "Permission denied", storage.path(name))

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "read", fail)
        end, message = run_here(job, Witness())
    assert (end, "Permission denied" in message) == ("interrupted", True)
    assert planned(data, store, job) == [(job.run_id, "resumable", 3)]
    assert train_job(job, on_progress=lambda progress: steps.append(progress.step))[0] == "done"
    assert steps == [4, 5]


def test_the_node_of_a_run_is_in_its_row(data: Data, store: Store) -> None:
    job = a_job(data, store)
    assert train_job(job, node="node7")[0] == "done"
    row = store.run(job.run_id)
    assert row is not None
    assert row["node"] == "node7"


def test_a_run_checkpoints_as_often_as_its_sweep_says(data: Data, store: Store) -> None:
    job = a_job(data, store, "breaks(how=RuntimeError)", checkpoint_seconds=0)
    assert Job.from_json(job.to_json()) == job
    assert train_job(job)[0] == "failed"
    assert latest_step(store.storage, job.run_id) > 0


def test_of_a_run_whose_process_died_the_curves_are_those_of_its_newest_checkpoint(
    validated: Data, store: Store
) -> None:
    job = a_job(validated, store, validate=VALIDATE)
    assert train_job(job, should_stop=iter([False, False, True]).__next__)[0] == "stopped"
    record_failure(job, "its process died", Lane("node2", "0", "NVIDIA H100"))
    row = store.run(job.run_id)
    assert row is not None
    assert (row["node"], row["gpu"]) == ("node2", "NVIDIA H100")
    assert [each["step"] for each in store.history().to_pylist()] == [1, 2, 3]
    assert [(each["step"], each["metric"]) for each in found(store)] == [(2, "lpips_alex"), (2, "psnr_y")]


def test_a_run_that_fails_after_it_was_resumed_keeps_the_history_of_before(data: Data, store: Store) -> None:
    job = a_job(data, store, "breaks(how=nan)")
    assert train_job(job, should_stop=lambda: True)[0] == "stopped"
    assert train_job(job) == ("failed", "loss is NaN at step 4")  # the third call of this process
    assert [each["step"] for each in store.history().to_pylist()] == [1, 2, 3]


def test_a_failed_run_that_is_retried_and_stopped_stays_on_record_until_its_next_end(data: Data, store: Store) -> None:
    record_failure(a_job(data, store), "its process died")
    before = store.run(a_job(data, store).run_id)
    job = a_job(data, store)
    assert train_job(job, should_stop=lambda: True) == ("stopped", "the same command resumes it")
    assert store.run(job.run_id) == before
    assert latest_step(store.storage, job.run_id) == 1
    assert record_failure(job, "it died again") == "it died again"
    assert store.run(job.run_id)["error"] == "it died again"
    assert train_job(a_job(data, store)) == ("done", "")
    assert store.run(job.run_id)["error"] is None


def test_a_stopped_run_goes_on_and_ends_with_the_same_bits(data: Data, store: Store, tmp_path: Path) -> None:
    job, steps = a_job(data, store), []
    assert train_job(job, should_stop=iter([False, False, True]).__next__)[0] == "stopped"
    assert latest_step(store.storage, job.run_id) == 3
    assert store.run(job.run_id) is None
    assert train_job(job, on_progress=lambda progress: steps.append(progress.step))[0] == "done"
    assert steps == [4, 5]

    other = Store(Storage(str(tmp_path / "other")))
    straight = a_job(data, other)
    assert train_job(straight)[0] == "done"
    assert weights(store, job) == weights(other, straight)
    columns = ["step", "loss", "terms", "lr"]
    assert store.history().select(columns).equals(other.history().select(columns))


def test_validation_scores_as_final_weights_are_scored_and_changes_no_bit(
    validated: Data, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGBENCH_WEIGHTS", str(tmp_path))
    job = Job.from_json(a_job(validated, store, validate=VALIDATE).to_json())
    assert run_here(job, Witness()) == ("done", "")
    rows, mine = found(store), validated.validation[0]
    assert [(row["step"], row["metric"], row["status"]) for row in rows] == [
        (step, *metric) for step in (2, 4, 5) for metric in (("lpips_alex", "no weights"), ("psnr_y", "ok"))
    ]
    assert {(row["run_id"], row["dataset"], row["dataset_sha256"], row["n_images"]) for row in rows} == {
        (job.run_id, "Mine", mine.sha256, 2)
    }
    score_subject(trained(job.spec, store), [(mine, ["psnr_y"])], store, locator=Locator(download=False))
    (final,) = (row for row in store.totals().to_pylist() if row["dataset"] == "Mine")
    assert {key: final[key] for key in rows[-1].keys() - {"step"}} == {
        key: value for key, value in rows[-1].items() if key != "step"
    }
    assert rows[1]["value"] != rows[-1]["value"]

    without = Store(Storage(str(tmp_path / "without")))
    assert train_job(a_job(validated, without)) == ("done", "")
    assert weights(without, job) == weights(store, job)
    columns = ["step", "loss", "terms", "lr"]
    assert store.history().select(columns).equals(without.history().select(columns))
    assert list(verify(store)) == []


def test_a_stopped_run_keeps_its_validation_and_ends_with_that_of_one_that_was_not(
    validated: Data, store: Store, tmp_path: Path
) -> None:
    job = a_job(validated, store, validate=VALIDATE | {"metrics": ["psnr_y"]})
    for stop in (2, 3):
        asked = iter([False] * (stop - 1 - latest_step(store.storage, job.run_id)) + [True])
        assert train_job(job, should_stop=asked.__next__)[0] == "stopped"
        assert found(store) == []
    assert train_job(job) == ("done", "")

    other = Store(Storage(str(tmp_path / "other")))
    assert train_job(dataclasses.replace(job, store=other.storage.root)) == ("done", "")
    assert found(store) == found(other)
    assert [row["step"] for row in found(store)] == [2, 4, 5]
    assert weights(store, job) == weights(other, job)


def test_a_run_that_fails_keeps_its_validation_of_before(validated: Data, store: Store) -> None:
    job = a_job(validated, store, "breaks(how=nan)", validate=VALIDATE | {"metrics": ["psnr_y"]})
    assert train_job(job) == ("failed", "loss is NaN at step 3")
    assert [row["step"] for row in found(store)] == [2]


def test_a_score_that_fails_is_told_and_the_run_is_done(
    data: Data, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, witness = a_job(data, store), Witness()
    monkeypatch.setattr("skimage.metrics.structural_similarity", None)
    end, message = run_here(job, witness)
    assert end == "failed"
    assert message.startswith("ssim_y on Photos: image 'photo0' and 1 more: TypeError: ")
    assert witness.seen[-1] == ("finished", job.run_id, "failed", message)
    statuses = dict(zip(*store.scores().select(["metric", "status"]).to_pydict().values(), strict=True))
    assert statuses == {"psnr_y": "ok", "ssim_y": "failed"}


class Halving(nn.Module):
    """Returns too little where a side of the image is odd; a patch of 8×8 is not."""

    def __init__(self, *, scale: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3 * (2 * scale) ** 2, 3, padding=1)
        self.scale = scale

    def forward(self, lr: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(nn.functional.max_pool2d(lr, 2)), 2 * self.scale)


def test_a_network_that_returns_another_size_fails_on_that_set_and_is_scored_on_the_others(
    data: Data, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES._loaded, "halving", Halving)
    write_png(tmp_path / "even" / "square.png", data.tests[0].hr(0)[:40])
    source = resolve(f"Even={tmp_path / 'even'}", "test")
    even = prepare(source, scale=4, degradation=Degradation(), cache=tmp_path / "cache")
    fields: dict[str, Any] = {
        "grids": [{"backbones": ["halving"], "losses": ["l1"]}],
        "metrics": ["psnr_y"],
        "train": "Photos",
    }
    sweep = build({**fields, "tests": ["Photos", "Even"], "recipe": {"steps": 1, "batch": 2, "patch": 8}}, "tiny")
    data = Data(data.train, (*data.tests, even))
    job = Job.of(make_plan("tiny", sweep, data, store).runs[0], data, sweep, store.storage)
    end, fault = run_here(job, Witness())
    assert end == "failed"
    assert (store.run(job.run_id) or {})["status"] == "done"
    said = "the network returns [1, 3, 40, 40]; [1, 3, 44, 40] is needed"
    assert fault == f"psnr_y on Photos: image 'photo0' and 1 more: for [1, 3, 11, 10] {said}"
    totals = {row["dataset"]: row["status"] for row in store.totals().to_pylist()}
    assert totals == {"Photos": "failed", "Even": "ok"}
    (planned,) = make_plan("tiny", sweep, data, store).runs
    assert (planned.status, planned.error) == ("failed", fault)


def test_a_missing_network_is_an_outcome_and_no_fault(
    data: Data, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    job = a_job(data, store, metrics=("fid",))
    assert train_job(job)[0] == "done"
    assert score_job(job, locator=Locator(download=False)) == []
    (score,) = store.scores().to_pylist()
    assert (score["status"], score["value"]) == ("no weights", None)


def test_what_a_loss_needs_is_there_before_it_trains(
    data: Data, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = as_file(STATE)
    entry = dataclasses.replace(NETWORKS.load("alexnet"), sha256=hashlib.sha256(content).hexdigest(), archive=None)

    class Perceptual(L1):
        networks = ("alexnet",)

        def __init__(self) -> None:
            super().__init__()
            assert (tmp_path / "node" / "weights" / entry.file).read_bytes() == content

    monkeypatch.setitem(NETWORKS._loaded, "alexnet", entry)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    put(networks_folder(), content)
    send(parcels([], ["alexnet"], store.storage), store.storage)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "node"))
    monkeypatch.setitem(LOSSES._loaded, "perceptual", Perceptual)
    assert train_job(a_job(data, store, loss="perceptual")) == ("done", "")


def test_a_job_survives_the_way_to_another_machine(data: Data, store: Store) -> None:
    job = dataclasses.replace(a_job(data, store, "l1 + 0.1*sg(order=2)"), planned=now())
    again = Job.from_json(job.to_json())
    assert again == job
    assert again.run_id == job.run_id
    assert len(job.to_json()) < 5000


def test_a_recorded_failure_replaces_nothing(data: Data, store: Store) -> None:
    job = a_job(data, store)
    Checkpoints(store.storage, job.run_id).save(2, {})
    record_failure(job, "its process died")
    row = store.run(job.run_id)
    assert row is not None
    assert (row["status"], row["step"], row["error"]) == ("failed", 2, "its process died")
    assert record_failure(job, "something less exact") == "its process died"
    assert store.run(job.run_id) == row

    store.forget(job.run_id)
    assert train_job(job) == ("done", "")
    assert record_failure(job, "its process died") == "its process died; its previous results are kept"
    assert store.run(job.run_id)["status"] == "done"


def test_the_first_signal_asks_and_the_second_interrupts() -> None:
    calls: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    with stop_signal(lambda: calls.append(1)) as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert calls == [1]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def command(tmp_path: Path, train_folder: Path, test_folder: Path) -> tuple[list[str], dict[str, Any]]:
    """``sgbench train`` on a run of 200 steps, for subprocess."""
    arguments = ["train", "quick", "--loss", "l1", "--seeds", "0", "--metric", "psnr_y", "--train", "mine=train"]
    arguments += ["--test", "few=test"]
    arguments += [f"--set=recipe.{field}" for field in ("steps=200", "batch=2", "patch=8")]
    environment = {"PYTHONPATH": str(Path(sgbench.__file__).parent.parent), "SGBENCH_CACHE": str(tmp_path / "cache")}
    options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, **environment}, "text": True}
    # Whoever runs the tests in the background of a script has them ignore SIGINT, and with them what they start.
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return [sys.executable, "-m", "sgbench", *arguments], options


@pytest.mark.slow
def test_ctrl_c_in_train_writes_a_checkpoint_and_the_same_command_continues(
    tmp_path: Path, command: tuple[list[str], dict[str, Any]]
) -> None:
    words, options = command
    first = subprocess.Popen([*words, "--results", "broken"], stderr=subprocess.PIPE, start_new_session=True, **options)
    assert first.stderr is not None
    said = ""
    while "step" not in said:
        said = first.stderr.readline()
        assert said, f"it ended with {first.wait()}"
    os.killpg(first.pid, signal.SIGINT)
    rest = first.stderr.read()
    first.stderr.close()
    assert first.wait(60) == 130
    assert rest.endswith("Interrupted; run the same command to resume.\n")
    assert "Traceback" not in rest
    (run,) = (tmp_path / "broken" / "checkpoints").iterdir()
    step = latest_step(Storage(str(tmp_path / "broken")), run.name)
    assert 0 < step < 200
    assert not (tmp_path / "broken" / "runs").exists()

    for store in ("broken", "whole"):
        answer = subprocess.run([*words, "--results", store], capture_output=True, timeout=120, check=True, **options)
        begin = step + 1 if store == "broken" else 1
        progress = next(line for line in answer.stderr.splitlines() if ": step " in line)
        # Progress is told every second step of 200.
        assert f": step {begin + begin % 2}/200" in progress or f": step {begin}/200" in progress
        assert "psnr_y" in answer.stdout
    broken, whole = (Checkpoints(Storage(str(tmp_path / store)), run.name) for store in ("broken", "whole"))
    for name, tensor in whole.load_weights().items():
        assert torch.equal(tensor, broken.load_weights()[name]), name
    values = [sgbench.load_results(str(tmp_path / store)).scores.column("value") for store in ("broken", "whole")]
    assert values[0].equals(values[1])


@pytest.mark.slow
def test_ctrl_c_before_training_ends_without_a_traceback(
    tmp_path: Path, command: tuple[list[str], dict[str, Any]]
) -> None:
    words, options = command
    # Far more steps than are done before a busy machine sends the signal.
    words = ["--set=recipe.steps=100000" if word == "--set=recipe.steps=200" else word for word in words]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True, **options)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cache").exists():  # packing: everything is imported
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said


# Where it was made


@pytest.mark.parametrize("taken", [True, False])
def test_a_run_whose_sweep_has_lost_its_lock_writes_nothing(
    data: Data, store: Store, tmp_path: Path, taken: bool
) -> None:
    with store.storage.lock("sgbench sweep tiny"):
        job = Job.from_json(a_job(data, store).to_json())  # as a worker on another machine has it
    with store.storage.lock("sgbench sweep of another") if taken else contextlib.nullcontext():
        before = store.storage.sizes()
        with pytest.raises(InterruptionError, match="was lost to 'sgbench sweep of another'" if taken else "has ended"):
            train_job(job)
        with pytest.raises(InterruptionError):
            record_failure(job, "its process died")
        assert store.storage.sizes() == before
