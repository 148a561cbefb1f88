"""Sweeps that add seeds until their questions are decided; runs are made up, as only their scores matter."""

import contextlib
import datetime
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgbench.core.storage import Storage
from sgbench.data import write_png
from sgbench.metrics import METRICS
from sgbench.runs.delivery import open_packed
from sgbench.runs.execute import Job, Watcher
from sgbench.runs.plan import Choices, read_sweep
from sgbench.runs.sweep import Outcome, Quiet, Summary, carry_out
from sgbench.spec import RunSpec, SweepSpec, canonical_json
from sgbench.store import Store, identity_columns

IMAGES = 12
QUESTION = "l1 vs l2 on psnr_y"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

Scores = Callable[[RunSpec], Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for name, count in {"train": 2, "many": IMAGES, "more": IMAGES, "few": 3}.items():
        for at in range(count):
            write_png(folder / name / f"{at}.png", random.integers(0, 256, (32, 32, 3), np.uint8))
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache of rounds"))
    monkeypatch.setattr("sgbench.runs.sweep.rehearse", lambda sweep: None)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "store"))


@pytest.fixture
def asked(folders: dict[str, Path]) -> Callable[..., SweepSpec]:
    def asked(*questions: str, backbones: Sequence[str] = ("edsr-tiny",), **choices: Any) -> SweepSpec:
        fields = {"grids": [{"backbones": list(backbones), "losses": ["l1", "l2"]}], "metrics": ["psnr_y"]}
        fields |= {"train": f"Mine={folders['train']}", "tests": [f"Many={folders['many']}"]}
        fields |= {"recipe": {"steps": 1, "batch": 1, "patch": 8}}
        return read_sweep(fields, Choices(questions=questions or (QUESTION,), **choices))[1]

    return asked


def differing(effect: float, sd: float = 1.0) -> Scores:
    """Return scores of which those by L2 are larger, by an effect that varies over seeds."""

    def value(run: RunSpec) -> Any:
        number = int(hashlib.sha256(f"{run.backbone} {run.seed}".encode()).hexdigest(), 16) % 2**32
        noise = np.random.default_rng(number).normal(0, sd)
        base = 25 + np.random.default_rng(run.seed).normal(0, 1)
        return base + (effect + noise if str(run.loss) == "l2" else 0) + np.linspace(-0.1, 0.1, 100)

    return value


class MadeUp:
    """A runner that makes up scores; some runs fail, and it is interrupted before more than so many runs are done."""

    def __init__(
        self, value: Scores, failing: Callable[[RunSpec], bool] = lambda run: False, most: int = 10**9
    ) -> None:
        self.value, self.failing, self.most = value, failing or (lambda run: False), most
        self.done: list[tuple[str, str, int]] = []

    def __call__(self, name: str, jobs: Sequence[Job], sweep: SweepSpec, storage: Storage, watcher: Watcher) -> Summary:
        summary, store = Summary(), Store(storage)
        for job in jobs:
            if len(self.done) >= self.most:
                raise KeyboardInterrupt
            run = job.spec
            self.done.append((run.backbone, str(run.loss), run.seed))
            row = identity_columns(run) | {"step": 1, "finished": NOW}
            if self.failing(run):
                store.write_run({**row, "status": "failed", "error": "loss is NaN"})
                summary.failed[job.run_id] = "loss is NaN"
                continue
            metric = METRICS.load("psnr_y")
            for test in (open_packed(packed, storage) for packed in job.tests):
                values = self.value(run)[:IMAGES]
                columns = {"run_id": job.run_id, "dataset": test.name, "dataset_sha256": test.sha256}
                columns |= {"metric": metric.name, "metric_version": metric.version}
                columns |= {"protocol": canonical_json(dict(metric.protocol))}
                columns |= {"n_images": len(values), "status": "ok", "scored": NOW}
                rows = [{**columns, "image": f"{at}", "value": float(each)} for at, each in enumerate(values)]
                store.write_scores([*rows, {**columns, "image": None, "value": float(values.mean())}])
            store.write_run({**row, "status": "done"})
        return summary


def decide(sweep: SweepSpec, storage: Storage, runner: MadeUp, **choices: Any) -> Outcome:
    return carry_out("asked", sweep, storage, contextlib.nullcontext(runner), Quiet(), **choices)


def test_seeds_are_added_until_the_question_is_decided(asked: Callable[..., SweepSpec], storage: Storage) -> None:
    runner = MadeUp(differing(2.0))
    outcome = decide(asked(), storage, runner)
    (decision,) = outcome.decisions
    assert decision.state == "decided"
