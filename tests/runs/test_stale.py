"""A run is stale once the code of a plug-in is another than it was trained with, in whole or in part."""

import contextlib
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgbench.core.errors import InputError, MissingDataError
from sgbench.core.registry import LOSSES
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.runs import sweep as engine
from sgbench.runs.execute import Job, begin, train_job
from sgbench.runs.maintenance import Merge
from sgbench.runs.plan import Data, Plan, make_plan
from sgbench.runs.sweep import Quiet, carry_out, run_all_here
from sgbench.runs.verification import verify
from sgbench.spec import SweepSpec, build
from sgbench.store import Store
from sgbench.store.layout import latest_step
from sgbench.training import Checkpoints

STEPS = 5

LOSS = """
import torch

class Aging(torch.nn.Module):
    def forward(self, sr, hr):
        return {factor} * (sr - hr).abs().mean()
"""

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the module of the loss ``aging:Aging`` with a factor, as a later process will import it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(LOSSES, "_loaded", dict(LOSSES._loaded))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(factor: float, more: str = "") -> None:
        (tmp_path / "aging.py").write_text(LOSS.format(factor=factor) + more)
        LOSSES._loaded.pop("aging:Aging", None)
        sys.modules.pop("aging", None)
        importlib.invalidate_caches()

    write(1)
    return write


@pytest.fixture
def data(train_images: PackedImages, test_images: PackedImages) -> Data:
    return Data(train_images, (test_images,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "store")))


def a_sweep(*losses: str) -> SweepSpec:
    fields: dict[str, Any] = {"grids": [{"backbones": ["edsr-tiny"], "losses": losses or ["aging:Aging"]}]}
    fields |= {"train": "Photos", "tests": ["Photos"], "metrics": ["psnr_y"]}
    return build(fields | {"recipe": {"steps": STEPS, "batch": 2, "patch": 8}}, "tiny")


def planned(store: Store, data: Data, **asked: bool) -> Plan:
    return make_plan("tiny", a_sweep(), data, store, **asked)


def standing(store: Store, data: Data, **asked: bool) -> tuple[str, int]:
    (run,) = planned(store, data, **asked).runs
    return str(run.status), run.step


def train(store: Store, data: Data, stop: int | None = None, **asked: bool) -> str:
    """Train the run as far as a step, as a sweep would; return its id."""
    (run,) = planned(store, data, **asked).runs
    job = Job.of(run, data, a_sweep(), store.storage)
    begin([job])
    answers = iter([*[False] * ((stop or 99) - run.step - 1), True])
    train_job(job, should_stop=lambda: next(answers))
    return job.run_id


def code(store: Store) -> str:
    (row,) = store.runs().to_pylist()
    ((plugin, digest),) = json.loads(row["code"]).items()
    assert plugin == "loss aging:Aging"
    return str(digest)


def weights(store: Store, run_id: str) -> list[bytes]:
    return [each.numpy().tobytes() for each in Checkpoints(store.storage, run_id).load_weights().values()]


def test_a_finished_run_is_stale_until_it_is_repeated_or_its_code_is_what_it_was(
    data: Data, store: Store, write: Write
) -> None:
    run_id = train(store, data)
    first, before = code(store), weights(store, run_id)
    write(1, "# a comment\n\nclass Another(Aging):\n    pass\n")
    assert standing(store, data) == ("to score", STEPS)
    write(1000)
    assert standing(store, data) == ("stale", STEPS)
    assert standing(store, data, keep_stale=True) == ("to score", STEPS)
    assert standing(store, data, rerun_stale=True) == standing(store, data, rerun=True) == ("to do", 0)
    (run,) = planned(store, data, keep_stale=True).runs
    assert run.stale == ("loss aging:Aging",)
    write(1)
    assert standing(store, data) == ("to score", STEPS)
    write(1000)
    train(store, data, rerun_stale=True)
    assert standing(store, data) == ("to score", STEPS)
    assert code(store) != first
    assert weights(store, run_id) != before


def test_a_run_that_was_interrupted_is_stale_and_goes_on_or_starts_over(data: Data, store: Store, write: Write) -> None:
    run_id = train(store, data, stop=3)
    assert standing(store, data) == ("resumable", 3)
    write(1000)
    assert standing(store, data) == ("stale", 3)
    assert standing(store, data, rerun_stale=True) == ("to do", 0)
    train(store, data, stop=4, keep_stale=True)
    assert standing(store, data) == ("stale", 4)
    train(store, data, keep_stale=True)
    mixed, both = weights(store, run_id), code(store)
    assert len(both.split("+")) == 2
    assert standing(store, data) == ("stale", STEPS)
    write(1)
    assert standing(store, data) == ("stale", STEPS)  # whichever it is, half of it was trained with the other
    write(1000)
    train(store, data, stop=2, rerun_stale=True)
    assert code(store) == both
    assert standing(store, data, rerun_stale=True) == ("resumable", 2)
    write(500)
    assert standing(store, data, rerun_stale=True) == ("to do", 0)  # what is repeated is of one code
    train(store, data, stop=2, rerun_stale=True)
    assert latest_step(store.storage, run_id) == 2
    train(store, data, rerun_stale=True)
    assert len(code(store).split("+")) == 1
    assert weights(store, run_id) != mixed


def test_a_run_that_is_killed_and_resumed_has_the_bits_and_the_code_of_one_that_is_not(
    data: Data, store: Store, tmp_path: Path, write: Write
) -> None:
    whole = Store(Storage(str(tmp_path / "whole")))
    run_id = train(whole, data)
    train(store, data, stop=2)
    write(1, "\n# on which nothing depends\n")
    train(store, data, stop=4)
    train(store, data)
    assert (code(store), weights(store, run_id)) == (code(whole), weights(whole, run_id))


def test_a_store_without_recorded_code_has_no_stale_runs(data: Data, store: Store, write: Write) -> None:
    run_id = train(store, data, stop=3)
    store.storage.delete(f"checkpoints/{run_id}/code.json")
    write(1000)
    assert standing(store, data) == ("resumable", 3)
    train(store, data)
    (row,) = store.runs().to_pylist()
    store.write_run({**row, "code": None})
    write(1)
    assert standing(store, data) == ("to score", STEPS)


def test_code_that_is_not_here_is_no_other_code(
    data: Data, store: Store, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(store, data)
    monkeypatch.setattr(LOSSES, "source", lambda name: None)
    assert standing(store, data) == ("to score", STEPS)


@pytest.fixture
def sweep(data: Data, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., engine.Outcome]:
    monkeypatch.setattr(engine, "gather", lambda *_: data)

    def sweep(*losses: str, **asked: bool) -> engine.Outcome:
        here = contextlib.nullcontext(run_all_here)
        return carry_out("tiny", a_sweep(*losses), store.storage, here, Quiet(), **asked)

    return sweep


def test_a_sweep_of_stale_runs_is_refused_before_it_changes_anything_unless_a_person_decides(
    store: Store, write: Write, sweep: Callable[..., engine.Outcome]
) -> None:
    losses = ("l1", "aging:Aging")
    sweep(*losses)
    before, rows = store.storage.sizes(), store.rows()
    write(1000)
    said = r"^the code of loss 'aging:Aging' has changed since 1 run was trained, the first \w{12}; --rerun-stale "
    with pytest.raises(InputError, match=said) as refused:
        sweep(*losses)
    assert len(str(refused.value)) < 300
    with pytest.raises(InputError, match="give --rerun-stale or --keep-stale"):
        sweep(*losses, rerun_stale=True, keep_stale=True)
    with pytest.warns(UserWarning, match=r"has changed since 1 run was trained, the first \w{12}; they are kept"):
        sweep(*losses, keep_stale=True)
    assert (store.storage.sizes(), store.rows()) == (before, rows)
    sweep(*losses, rerun_stale=True)
    again = store.rows()
    assert [run_id for run_id in rows if rows[run_id] != again[run_id]] == [
        run_id for run_id, row in rows.items() if row["loss"] == "aging:Aging"
    ]
    assert sweep(*losses).plan.summary() == "2 runs: 2 done"
    assert not list(verify(store))


def test_the_code_of_runs_is_kept_and_copied_and_checked(
    data: Data, store: Store, tmp_path: Path, write: Write, sweep: Callable[..., engine.Outcome]
) -> None:
    sweep()
    digest = code(store)
    assert store.read_source(digest).modules == {"aging.py": LOSS.format(factor=1)}
    other = Store(Storage(str(tmp_path / "other")))
    with other.writing("test"):
        Merge.of(other, store).apply()
    assert other.read_source(digest) == store.read_source(digest)
    assert standing(other, data) == ("done", STEPS)
    name = f"sources/{digest}.json"
    other.storage.write(name, other.storage.read(name).replace(b"return 1", b"return 2"))
    (fault,) = verify(other)
    assert fault == f"'{other.storage.address(name)}' does not hold the code of that hash; delete it."
    other.storage.write(name, b"[]")
    assert "cannot be read: no source of a plug-in" in next(verify(other))
    other.storage.delete(name)
    with pytest.raises(MissingDataError, match="does not exist"):
        other.read_source(digest)
    with pytest.raises(InputError, match=r"has the hash '\.\./runs/x'; 12 of 0-9 and a-f are needed"):
        other.read_source("../runs/x")
