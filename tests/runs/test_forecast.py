"""How long runs will take, and which one goes first."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgbench.core.storage import Storage
from sgbench.runs.forecast import expect, longest_first, makespan
from sgbench.runs.plan import PlannedRun
from sgbench.spec import Recipe, RunSpec, TrainingData
from sgbench.store import Store, identity_columns

DATA = TrainingData(name="mine", sha256="ab" * 32)


def a_run(backbone: str = "edsr-tiny", loss: str = "l1", seed: int = 0, **recipe: Any) -> RunSpec:
    fields = {"steps": 100, "batch": 2, "patch": 8} | recipe
    return RunSpec(backbone=backbone, loss=loss, seed=seed, train=DATA, recipe=Recipe.model_validate(fields))


def planned(status: str = "to do", step: int = 0, **fields: Any) -> PlannedRun:
    return PlannedRun(a_run(**fields), status, step)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path)))


def record(store: Store, seconds: float, **fields: Any) -> None:
    spec = a_run(**fields)
    row = {"status": "done", "step": spec.recipe.steps, "wall_seconds": seconds}
    store.write_run(identity_columns(spec) | row)


def seconds(store: Store, *runs: PlannedRun) -> list[tuple[float | None, bool]]:
    return [(each.seconds, each.alike) for each in expect(runs, store)]


def test_an_empty_store_tells_nothing_and_the_work_orders_the_runs(store: Store) -> None:
    small, large, longer = planned(), planned(backbone="edsr-light"), planned(steps=200)
    assert seconds(store, small, large) == [(None, False)] * 2
    assert longest_first(expect([small, large, longer], store)) == [large, longer, small]


def test_a_run_takes_what_the_median_of_its_like_took(store: Store) -> None:
    for seed, each in enumerate([10.0, 11.0, 50.0]):
        record(store, each, seed=seed)
    assert seconds(store, planned(seed=3), planned(seed=3, steps=300)) == [(11.0, True), (pytest.approx(33.0), True)]


def test_the_same_loss_tells_more_than_another(store: Store) -> None:
    record(store, 10.0)
    assert seconds(store, planned(loss="l1 + 1.0*sg")) == [(10.0, True)]
    record(store, 20.0, loss="l1 + 1.0*sg", seed=1)
    assert seconds(store, planned(loss="l1 + 1.0*sg"), planned(seed=1)) == [(20.0, True), (10.0, True)]


def test_what_is_done_of_a_run_is_not_done_again(store: Store) -> None:
    record(store, 10.0)
    runs = [planned("resumable", 75, seed=1), planned("to score", 100, seed=1), planned("failed", 75, seed=1)]
    assert seconds(store, *runs) == [(2.5, True), (0.0, True), (10.0, True)]


def test_another_backbone_is_scaled_by_its_multiplications(store: Store) -> None:
    record(store, 10.0)
    tiny, light = expect([planned(seed=1), planned(backbone="edsr-light")], store)
    assert not light.alike
    assert light.seconds == pytest.approx(10.0 * light.work / tiny.work)
    assert light.work > 20 * tiny.work


def test_another_precision_is_no_measurement(store: Store) -> None:
    record(store, 10.0, precision="bf16")
    ((_, alike),) = seconds(store, planned())
    assert not alike


def test_failed_runs_tell_nothing(store: Store) -> None:
    spec = a_run()
    store.write_run(identity_columns(spec) | {"status": "failed", "step": 3, "wall_seconds": 1.0})
    assert seconds(store, planned(seed=1)) == [(None, False)]


def test_nothing_is_measured_where_runs_of_the_kind_tell_or_none_do(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: Any) -> None:
        raise AssertionError("it takes seconds")

    monkeypatch.setattr("sgbench.runs.forecast._macs", measure)
    assert seconds(store, planned(seed=1)) == [(None, False)]
    record(store, 10.0)
    assert seconds(store, planned(seed=1)) == [(10.0, True)]


def test_the_longest_starts_first_and_seeds_keep_their_order(store: Store) -> None:
    record(store, 10.0)
    record(store, 30.0, backbone="rdn-tiny")
    runs = [
        planned(seed=1),
        planned(seed=2),
        planned(backbone="rdn-tiny", seed=1),
        planned(backbone="rdn-tiny", seed=2),
    ]
    order = [(run.spec.backbone, run.spec.seed) for run in longest_first(expect(runs, store))]
    assert order == [("rdn-tiny", 1), ("rdn-tiny", 2), ("edsr-tiny", 1), ("edsr-tiny", 2)]


@given(st.lists(st.floats(0, 1e6), max_size=20), st.integers(1, 8))
def test_a_makespan_lies_between_its_bounds(times: list[float], lanes: int) -> None:
    end = makespan(times, lanes)
    least = max(max(times, default=0.0), sum(times) / lanes)
    assert least * (1 - 1e-9) <= end <= sum(times) / lanes + max(times, default=0.0) + 1e-6
    assert makespan(times, 1) == pytest.approx(sum(times))
