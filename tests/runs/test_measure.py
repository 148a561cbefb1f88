"""Measuring what steps and scores take, in this process."""

import contextlib
import re
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import sgbench
from sgbench.core.errors import InputError
from sgbench.core.registry import LOSSES
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.runs import measure as module
from sgbench.runs.forecast import expect
from sgbench.runs.measure import measure, measure_here
from sgbench.runs.plan import Data, Plan, make_plan
from sgbench.runs.sweep import Quiet
from sgbench.spec import build
from sgbench.store import Store
from sgbench.store.times import ScoringTime, StepTime, read_times

SECONDS = 0.02


class Sleeps(nn.Module):
    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        time.sleep(SECONDS)
        return (sr - hr).abs().mean()


class Fails(nn.Module):
    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        raise RuntimeError("no such thing")


class Said(Quiet):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "store")))


@pytest.fixture(autouse=True)
def _losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_loaded", dict(LOSSES._loaded))
    monkeypatch.setattr(module, "STEPS", 5)
    monkeypatch.setattr(module, "FIRST_STEPS", 1)
    sgbench.register_loss("sleeps")(Sleeps)
    sgbench.register_loss("fails")(Fails)


@pytest.fixture
def planned(
    train_images: PackedImages, test_images: PackedImages, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Any:
    data = Data(train_images, (test_images,))
    monkeypatch.setattr(module, "gather", lambda sweep, storage, observer: data)

    def plan(*losses: str, **more: Any) -> Plan:
        grid = {"backbones": ["edsr-tiny"], "losses": list(losses), "seeds": [0, 1]}
        fields = {"grids": [grid], "metrics": ["psnr_y", "fid"], "train": "Photos", "tests": ["Photos"]}
        recipe = {"steps": 1000, "batch": 2, "patch": 8}
        sweep = build({**fields, "recipe": recipe, **more}, "tiny")
        return make_plan("tiny", sweep, data, store)

    return plan


def test_each_loss_is_measured_once_and_scoring_once_for_each_backbone(planned: Any, store: Store) -> None:
    observer, plan = Said(), planned("l1", "l2", "l1 + 0.1*sleeps", "l1 + 2.0*sleeps", "l1 + 1.0*fails")
    assert {each.training for each in expect(plan.pending, store)} == {None}
    measure(plan, store.storage, contextlib.nullcontext(measure_here), observer)
    times = read_times(store.storage)
    cheap, costly = (each for each in times if isinstance(each, StepTime))
    assert cheap.seconds > 0
    assert SECONDS < costly.seconds < SECONDS + 20 * cheap.seconds
    assert {each.metric for each in times if isinstance(each, ScoringTime)} == {None, "psnr_y"}  # fid has no network
    words = [line for line in observer.said if line.startswith("edsr-tiny")]
    measured, slept, failed = words
    assert re.fullmatch(r"edsr-tiny · l1: \S+ s a step and \S+ s to score on .*", measured)
    assert re.fullmatch(r"edsr-tiny · .*sleeps.*: \S+ s a step on .*", slept)
    assert failed.endswith("cannot be measured: loss 'fails': RuntimeError: no such thing")
    assert store.runs().num_rows == 0
    assert sorted(path.name for path in Path(store.storage.path()).iterdir()) == [".lock", "sgbench.json", "times"]

    known = {str(each.run.spec.loss): each.training for each in expect(plan.pending, store, tests=plan.tests)}
    assert [each and each.basis for each in known.values()] == [*["measured here"] * 4, None]


def test_a_measurement_that_is_repeated_replaces_the_earlier_one(planned: Any, store: Store) -> None:
    for steps in (1000, 2000):
        plan = planned("l1", recipe={"steps": steps, "batch": 2, "patch": 8}, metrics=["psnr_y"])
        measure(plan, store.storage, contextlib.nullcontext(measure_here), Said())
    assert len(read_times(store.storage)) == 3


def test_the_share_of_one_of_several_workers_is_measured(planned: Any, store: Store) -> None:
    plan = planned("l1", workers=2, metrics=["psnr_y"])
    measure(plan, store.storage, contextlib.nullcontext(measure_here), Said())
    (step,) = (each for each in read_times(store.storage) if isinstance(each, StepTime))
    assert (step.workers, step.spec.recipe.batch) == (2, 2)
    assert expect(plan.pending, store, workers=2)[0].training is not None
    assert expect(plan.pending, store, workers=1)[0].training is None


def test_a_store_that_is_in_use_is_not_measured_into(planned: Any, store: Store) -> None:
    plan = planned("l1")
    other = Store(Storage(store.storage.root))
    with (
        other.writing("another sweep"),
        pytest.raises(InputError, match="another sweep"),
    ):
        measure(plan, store.storage, contextlib.nullcontext(measure_here), Said())
    assert read_times(store.storage) == []
