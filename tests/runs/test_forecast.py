"""How long runs will take, and which one goes first."""

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.runs.forecast import Estimate, expect, longest_first, makespan
from sgbench.runs.plan import PlannedRun
from sgbench.spec import Recipe, RunSpec, TrainingData, Validation
from sgbench.store import Dataset, Store, identity_columns
from sgbench.store.layout import MEASURED
from sgbench.store.times import StepTime, keep_times, read_times

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DATA = TrainingData(name="mine", sha256="ab" * 32)


def a_run(backbone: str = "edsr-tiny", loss: str = "l1", seed: int = 0, **recipe: Any) -> RunSpec:
    fields = {"steps": 100, "batch": 2, "patch": 8} | recipe
    return RunSpec(backbone=backbone, loss=loss, seed=seed, train=DATA, recipe=Recipe.model_validate(fields))


def planned(status: str = "to do", step: int = 0, **fields: Any) -> PlannedRun:
    return PlannedRun(a_run(**fields), status, step)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path)))


def record(store: Store, seconds: float, device: str = "cpu", workers: int = 1, **fields: Any) -> RunSpec:
    spec = a_run(**fields)
    row = {"status": "done", "step": spec.recipe.steps, "wall_seconds": seconds, "device": device, "workers": workers}
    store.write_run(identity_columns(spec) | row)
    return spec


def estimates(store: Store, *runs: PlannedRun, **more: Any) -> list[tuple[float, str] | None]:
    found = (each.training for each in expect(runs, store, **more))
    return [each and (pytest.approx(each.seconds), each.basis) for each in found]


def test_an_empty_store_tells_nothing_and_the_work_orders_the_runs(store: Store) -> None:
    small, large, longer = planned(), planned(backbone="edsr-light"), planned(steps=200)
    assert estimates(store, small, large) == [None, None]
    assert longest_first(expect([small, large, longer], store)) == [large, longer, small]


def test_a_run_takes_what_the_median_of_its_like_took(store: Store) -> None:
    for seed, each in enumerate([10.0, 11.0, 50.0]):
        record(store, each, seed=seed)
    assert estimates(store, planned(seed=3), planned(seed=3, steps=300)) == [
        (11.0, "3 runs here"),
        (33.0, "3 runs here"),
    ]


def test_a_loss_whose_cost_nothing_tells_is_never_priced_like_another(store: Store) -> None:
    record(store, 10.0)
    costly = planned(loss="l1 + 1.0*sg")
    assert estimates(store, costly, planned(loss="l2"), planned(loss="charbonnier + 0.5*l1")) == [
        None,
        (10.0, "1 run here"),  # of a few operations per pixel, like L1
        (10.0, "1 run here"),
    ]
    record(store, 80.0, loss="0.1*l2 + 0.3*sg")  # coefficients and cheap losses take no time
    assert estimates(store, costly, planned(loss="sg(order=1)")) == [(80.0, "1 run here"), None]


def test_what_a_loss_takes_on_one_backbone_it_takes_on_another(store: Store) -> None:
    record(store, 10.0)
    record(store, 70.0, loss="l1 + 1.0*sg")
    record(store, 25.0, backbone="rdn-tiny")
    assert estimates(store, planned(backbone="rdn-tiny", loss="l1 + 1.0*sg")) == [(85.0, "scaled by the loss's cost")]
    light, costly = expect([planned(backbone="rdn-light"), planned(backbone="rdn-light", loss="sg")], store)
    assert light.training
    assert costly.training
    assert light.training.basis == "scaled by MACs"
    assert costly.training.seconds == pytest.approx(light.training.seconds + 60.0)


def test_a_loss_without_anything_cheaper_beside_it_is_scaled_by_macs(store: Store) -> None:
    record(store, 70.0, loss="sg")
    (costly, cheap) = expect([planned(backbone="edsr-light", loss="sg"), planned()], store)
    assert costly.training
    assert costly.training.scaled
    assert cheap.training is None


def test_times_of_different_devices_are_never_mixed(store: Store, tmp_path: Path) -> None:
    record(store, 10.0, device="A10")
    record(store, 1.0, device="H100", backbone="rdn-tiny")
    record(store, 2.0, device="H100", loss="sg")
    both = [planned(seed=5), planned(seed=5, loss="sg"), planned(seed=5, backbone="rdn-tiny")]
    assert [each.device for each in expect(both, store)] == ["H100"] * 3
    assert estimates(store, both[0])[0] == (10.0, "1 run here")
    assert estimates(store, *both)[0] != (10.0, "1 run here")

    other = Store(Storage(str(tmp_path / "other")))
    for each, device in ((20.0, "A10"), (200.0, "V100")):
        record(other, each, device=device, loss="sg", seed=int(each))
    empty = Store(Storage(str(tmp_path / "empty")))
    more = {"others": {"s3://b/x": other}}
    assert estimates(store, both[0], both[1], **more) == [(10.0, "1 run here"), (20.0, "1 run in s3://b/x")]
    assert expect(both[1:2], empty, **more)[0].device in ("A10", "V100")


def test_a_group_of_workers_takes_another_time(store: Store) -> None:
    record(store, 10.0, workers=2)
    assert estimates(store, planned(seed=1)) == [None]
    assert estimates(store, planned(seed=1), workers=2) == [(10.0, "1 run here")]


def test_a_measurement_tells_what_no_run_does(store: Store) -> None:
    with store.writing("a test"):
        keep_times(store.storage, [StepTime(device="cpu", spec=a_run(loss="l1 + 2.0*sg"), seconds=0.5)])
        keep_times(store.storage, [StepTime(device="cpu", spec=a_run(loss="l1 + 2.0*sg"), seconds=0.4)])
    costly = planned(loss="l1 + 1.0*sg")
    assert len(read_times(store.storage)) == 1
    assert estimates(store, costly) == [(40.0, "measured here")]
    record(store, 30.0, loss="sg")
    assert estimates(store, costly) == [(30.0, "1 run here")]
    store.storage.write(MEASURED, b'[{"kind": "step", "seconds": -1}]')
    with pytest.raises(InputError, match="has no times that can be read; delete it"):
        expect([costly], store)


def test_scoring_takes_what_it_took_before(store: Store) -> None:
    test = Dataset("Set5", "5" * 64)
    tests = {"tests": [test]}
    rows = []
    for metric, each in {"psnr_y": 1.0, "lpips_alex": 3.0}.items():
        row = {"run_id": str(record(store, 10.0).run_id), "dataset": test.name, "dataset_sha256": test.sha256}
        row |= {"metric": metric, "metric_version": "1", "protocol": "{}", "n_images": 5, "value": 1.0, "status": "ok"}
        rows.append(row | {"scored": NOW, "seconds": each, "upscaling_seconds": 5.0})
    store.write_scores(rows)
    run = replace(planned(seed=1), missing=(("Set5", "psnr_y"), ("Set5", "lpips_alex")))
    (known,) = expect([run], store, **tests)
    assert known.scoring == Estimate(9.0, "scored")
    assert known.seconds == pytest.approx(19.0)
    large = replace(planned(backbone="edsr-light"), missing=(("Set5", "psnr_y"),))
    unknown = replace(run, missing=(("Set5", "fid"),))
    scaled, without = expect([large, unknown], store, **tests)
    assert scaled.scoring
    assert scaled.scoring.scaled
    assert scaled.scoring.seconds > 50.0
    assert (without.scoring, without.seconds) == (None, pytest.approx(10.0))


def test_validation_takes_what_it_took_before_each_time(store: Store) -> None:
    mine, run_id = Dataset("mine", "c" * 64), str(record(store, 10.0).run_id)
    row = {"run_id": run_id, "dataset": mine.name, "dataset_sha256": mine.sha256, "metric": "psnr_y"}
    row |= {"metric_version": "1", "protocol": "{}", "n_images": 5, "value": 1.0, "status": "ok"}
    store.write_validation(
        [row | {"step": step, "seconds": 1.0, "upscaling_seconds": 2.0} for step in (30, 60, 90, 100)]
    )
    runs = [planned(seed=1), planned("resumable", 60, seed=1), planned("resumable", 59, seed=1)]
    runs += [planned("to score", 100, seed=1)]

    def scoring(*metrics: str) -> list[float | None]:
        validation = Validation(sets=("mine",), every=30, metrics=metrics)
        expected = expect(runs, store, validation=validation, validation_sets=[mine])
        return [each.scoring and each.scoring.seconds for each in expected]

    assert scoring("psnr_y") == [4 * 3.0, 2 * 3.0, 3 * 3.0, 0.0]
    assert scoring("psnr_y", "fid") == [None, None, None, 0.0]


def test_what_is_done_of_a_run_is_not_done_again(store: Store) -> None:
    record(store, 10.0)
    runs = [planned("resumable", 75, seed=1), planned("to score", 100, seed=1), planned("failed", 75, seed=1)]
    assert estimates(store, *runs) == [(2.5, "1 run here"), (0.0, "trained"), (10.0, "1 run here")]


def test_another_backbone_is_scaled_by_its_multiplications(store: Store) -> None:
    record(store, 10.0)
    tiny, light = expect([planned(seed=1), planned(backbone="edsr-light")], store)
    assert light.training
    assert light.training.basis == "scaled by MACs"
    assert light.seconds == pytest.approx(10.0 * light.work / tiny.work)
    assert light.work > 20 * tiny.work


def test_another_precision_is_no_measurement(store: Store) -> None:
    record(store, 10.0, precision="bf16")
    assert estimates(store, planned()) == [None]


def test_failed_runs_tell_nothing(store: Store) -> None:
    spec = a_run()
    store.write_run(identity_columns(spec) | {"status": "failed", "step": 3, "wall_seconds": 1.0})
    assert estimates(store, planned(seed=1)) == [None]


def test_nothing_is_measured_where_runs_of_the_kind_tell_or_none_do(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: Any) -> None:
        raise AssertionError("it takes seconds")

    monkeypatch.setattr("sgbench.runs.forecast._macs", measure)
    assert estimates(store, planned(seed=1)) == [None]
    record(store, 10.0)
    assert estimates(store, planned(seed=1)) == [(10.0, "1 run here")]


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
