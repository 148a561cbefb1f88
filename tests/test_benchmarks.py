"""What the benchmarks compute rather than measure, and that none is forgotten."""

import datetime
import importlib
import itertools
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest

from sgbench.analysis import stats
from sgbench.analysis.sequential import (
    anytime_p,
    at_looks,
    sequential_crossed,
    sequential_sign_flip,
    sequential_t,
    t_e_process_above,
)
from sgbench.core.storage import Storage
from sgbench.runs.plan import PlannedRun
from sgbench.spec import Recipe, RunSpec, TrainingData
from sgbench.store import Store, identity_columns

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name != "harness.py")
PARTS = ["bits", "step of edsr-paper", "losses", "waiting", "lanes", "evaluation", "memory"]
"""Of a session on a GPU, that a dry run has."""
DATA = TrainingData(name="mine", sha256="ab" * 32)


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script scale.py as a module; it leaves no trace in those of other tests."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("scale", "harness"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("scale")


@pytest.fixture
def significance(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script significance.py as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("significance", "harness"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("significance")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path)))


def a_run(backbone: str = "edsr-tiny", seed: int = 0, batch: int = 4) -> RunSpec:
    return RunSpec(backbone=backbone, loss="l1", seed=seed, train=DATA, recipe=Recipe(steps=100, batch=batch, patch=8))


def planned(*specs: RunSpec) -> list[PlannedRun]:
    return [PlannedRun(spec, "to do") for spec in specs]


def record(store: Store, spec: RunSpec, seconds: float) -> None:
    row = {"status": "done", "step": spec.recipe.steps, "wall_seconds": seconds, "device": "a card"}
    store.write_run(identity_columns(spec) | row)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_in_the_table_of_contents(script: str) -> None:
    assert f"python benchmarks/{script}" in (BENCHMARKS / "README.md").read_text(encoding="utf-8")


def test_without_a_measurement_work_and_an_assumed_rate_tell(scale: ModuleType, store: Store) -> None:
    slow, fast = (scale.timed(planned(a_run()), 1, store, scale.Cluster(tflops=rate)) for rate in (1.0, 2.0))
    assert slow[0].seconds == pytest.approx(2 * fast[0].seconds)
    assert {each.source for each in slow} == {"assumed"}


def test_a_store_tells_what_was_measured_and_the_rest_is_scaled(scale: ModuleType, store: Store) -> None:
    record(store, a_run(seed=9), 50.0)
    times = scale.timed(planned(a_run(), a_run("edsr-light")), 1, store, scale.Cluster())
    assert [(each.run.spec.backbone, each.source) for each in times] == [
        ("edsr-light", "scaled"),  # the longest first
        ("edsr-tiny", "measured"),
    ]
    assert times[1].seconds == 50.0


def test_workers_share_a_batch_and_add_up_gradients(scale: ModuleType, store: Store) -> None:
    record(store, a_run(seed=9), 50.0)
    record(store, a_run(seed=9, batch=2), 30.0)
    cluster = scale.Cluster(node=2)
    alone, two, four = (scale.timed(planned(a_run()), workers, store, cluster)[0] for workers in (1, 2, 4))
    ring = 100 * 4 * scale.measure("edsr-tiny", 4, 8).parameters / 1e9
    assert alone.seconds == 50.0
    assert (two.seconds, two.source) == (pytest.approx(30.0 + ring / cluster.inside), "measured")
    assert four.source == "scaled"
    assert cluster.reduction(10**9, 4) == pytest.approx(2 * 3 / 4 * 4 / cluster.between)


def test_what_is_beside_the_steps_is_told_by_a_run_from_its_start_to_its_last_score(
    scale: ModuleType, store: Store
) -> None:
    assert scale.beside_steps(store) is None
    began, spec = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), a_run()
    store.write_run(identity_columns(spec) | {"status": "done", "step": 100, "wall_seconds": 50.0, "started": began})
    score = {"run_id": spec.run_id, "dataset": "demo", "dataset_sha256": "ab" * 32, "image": None, "metric": "psnr_y"}
    score |= {"metric_version": "1", "protocol": "{}", "n_images": 1, "status": "ok", "value": 30.0}
    for seconds, metric in ((70, "psnr_y"), (80, "ssim_y")):
        store.write_scores([{**score, "metric": metric, "scored": began + datetime.timedelta(seconds=seconds)}])
    assert scale.beside_steps(store) == 30.0


def test_what_limits_a_sweep(scale: ModuleType) -> None:
    cluster = scale.Cluster(once_seconds=0.0, run_seconds=0.0)
    runs = planned(*(a_run(seed=seed) for seed in range(4)))
    times = [scale.Timed(run, hours * 3600, "measured") for run, hours in zip(runs, [4, 2, 2, 1], strict=True)]
    found = {gpus: scale.simulate(times, gpus, 1, cluster) for gpus in (1, 2, 3, 5)}
    assert [(each["hours"], each["limit"]) for each in found.values()] == [
        (9, "GPUs"),
        (5, "GPUs"),
        (4, "the longest run"),
        (4, "the number of runs"),
    ]
    assert scale.stops_at(times, cluster) == 3
    assert found[2]["GPU-hours"] == 10
    assert found[2]["busy, %"] == 90


def test_the_paper_is_simulated_alike_twice_and_more_gpus_take_no_longer(scale: ModuleType, store: Store) -> None:
    name, sweep = scale.read_sweep("paper", scale.Choices(seeds=scale.SEEDS))
    runs = scale.make_plan(name, sweep, None, store, rerun=True).pending
    rows = scale.scale_sweep(runs, store, scale.Cluster())
    assert rows == scale.scale_sweep(runs, store, scale.Cluster())
    assert [row["GPUs"] for row in rows] == [2**power for power in range(11)]
    for fewer, more in itertools.pairwise(rows):
        assert more["hours"] <= fewer["hours"]
        assert more["hours then"] <= min(more["hours"], fewer["hours then"])
    assert all(0 < row["busy, %"] <= 100 for row in rows)
    assert rows[-1]["limit"] == "the number of runs"


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script of a session on a GPU as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS / "gpu")
    monkeypatch.delitem(sys.modules, "session", raising=False)
    return importlib.import_module("session")


def test_a_dry_run_has_every_part_that_is_not_like_another(session: ModuleType) -> None:
    assert [part.name for part in session.parts() if part.dry is not None] == PARTS


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_a_session_on_a_gpu_runs(session: ModuleType, part: str, tmp_path: Path) -> None:
    records = session.session(tmp_path, None, 0.0, dry=True, only=[part])
    log = (tmp_path / "session.log").read_text()
    assert [(each["part"], each["exit code"]) for each in records] == [(part, 0)], log[-3000:]
    assert any(records[0]["tables"].values()) == (part != "bits")
    assert json.loads((tmp_path / "session.json").read_text())["parts"] == records


def lives(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_part_that_takes_too_long_is_ended_with_what_it_has_started(session: ModuleType, tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = ["sh", "-c", f"sleep 600 & echo $! > {started}; wait"]
    assert session.run(command, 2.0, dict(os.environ), tmp_path / "log") is None
    child = int(started.read_text())
    patience = time.monotonic() + 30  # it has been killed, and dies once it has a turn
    while lives(child) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not lives(child)


@pytest.mark.parametrize(("mean", "significant"), [(0.0, 0), (1.5, 3), (3.0, 3)])
def test_many_matrices_are_tested_at_once_as_each_is_by_itself(
    significance: ModuleType, mean: float, significant: int
) -> None:
    matrices = mean + np.random.default_rng(0).standard_normal((3, 20, 14))
    fixed, anytime = significance.p_fixed(matrices)[1], significance.p_anytime(matrices)[:, -1]
    below, above = (significance.p_beyond(sign * matrices, -2.0)[1][:, -1] for sign in (-1, 1))
    assert sum(anytime <= 0.05) == significant
    for at, matrix in enumerate(matrices):
        by_seed, by_image = matrix.mean(axis=1), matrix.mean(axis=0)
        expected = max(stats.paired_t(by_seed, 0.05).p, stats.sign_flip(by_image).p, stats.crossed_mean(matrix).p())
        assert fixed[at] == pytest.approx(expected) or min(fixed[at], expected) > 0.05
        looks = significance.LOOKS
        tests = (sequential_t(by_seed, 0.05, 4.0), sequential_sign_flip(matrix, looks))
        expected = max(*(test.p for test in tests), sequential_crossed(matrix, 0.05, looks).p)
        assert anytime[at] == pytest.approx(expected) or min(anytime[at], expected) > 0.05
        for p, sign in ((below[at], -1), (above[at], 1)):
            one_sided = (
                anytime_p(t_e_process_above(sign * by_seed, 4.0, -2.0)),
                at_looks(lambda seen: stats.crossed_mean(seen).above(-2.0), sign * matrix, looks),
                at_looks(lambda seen: stats.sign_flip_above(2.0 + seen.mean(axis=0)).p, sign * matrix, looks),
            )
            assert p == pytest.approx(max(one_sided)) or min(p, max(one_sided)) > 0.05


def test_the_simulations_run_and_their_tables_are_those_of_the_documentation(significance: ModuleType) -> None:
    tables = {table.__name__: table for table in significance.TABLES}
    for name in ("power", "sequences", "sets"):
        rows = tables[name](lambda count: 8)
        assert len({tuple(row) for row in rows}) == 1
    page = significance.DOCS.read_text(encoding="utf-8")
    assert significance.documented(page, BENCHMARKS / "results") == page
    assert all(f"<!-- significance-{name} -->" in page for name in tables)
