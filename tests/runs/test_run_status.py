"""One judge: `status`, `plan` and `sweep` say the same of every store."""

import contextlib
import datetime
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from sgbench.assets.locator import Locator
from sgbench.cli import main
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.metrics import METRICS
from sgbench.runs import sweep as engine
from sgbench.runs.execute import Job
from sgbench.runs.plan import Data, make_plan
from sgbench.runs.status import Judge, RunStatus
from sgbench.runs.sweep import Quiet, Summary, carry_out
from sgbench.spec import RunSpec, build
from sgbench.store import Dataset, Store, identity_columns
from sgbench.training import Checkpoints

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
NAMES = ("psnr_y", "lpips_alex")
"""A metric without a network and one with."""

SWEEP = build(
    {
        "grids": [{"backbones": ["edsr-tiny"], "losses": ["l1", "l2"]}],
        "train": "Photos",
        "tests": ["Photos"],
        "metrics": NAMES,
        "recipe": {"steps": 30, "batch": 2, "patch": 8},
    },
    "two",
)

OUTCOMES = ("none", "ok", "failed", "no weights", "undefined", "other version", "other pixels")

a_run = st.fixed_dictionaries(
    {
        "row": st.sampled_from(["none", "done", "failed"]),
        "checkpoint": st.sampled_from([0, 7]),
        "weights": st.booleans(),
        "scores": st.fixed_dictionaries({name: st.sampled_from(OUTCOMES) for name in NAMES}),
    }
)
a_store = st.tuples(a_run, a_run)


def write(store: Store, spec: RunSpec, test: PackedImages, what: dict[str, Any]) -> None:
    run_id = str(spec.run_id)
    if what["row"] != "none":
        error = "loss is NaN" if what["row"] == "failed" else None
        store.write_run({**identity_columns(spec), "status": what["row"], "error": error, "step": 30, "finished": NOW})
    if what["checkpoint"]:
        Checkpoints(store.storage, run_id).save(what["checkpoint"], {"step": what["checkpoint"]})
    if what["weights"]:
        Checkpoints(store.storage, run_id).save_weights({"a": torch.zeros(1)}, {})
    for metric, outcome in what["scores"].items():
        row = {"run_id": run_id, "dataset": test.name, "dataset_sha256": test.sha256, "metric": metric}
        row |= {"metric_version": METRICS.load(metric).version, "protocol": "{}", "n_images": 2, "scored": NOW}
        row |= {"status": outcome, "reason": None if outcome == "ok" else "so"}
        if outcome.startswith("other"):
            row |= {"status": "ok", "reason": None}
            row |= {"metric_version": "0"} if outcome == "other version" else {"dataset_sha256": "0" * 64}
        if outcome != "none":
            store.write_scores([{**row, "value": 1.0 if row["status"] == "ok" else None}])


def counted(root: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return what `sgbench status` says of the only sweep of a store."""
    monkeypatch.setattr(sys, "argv", ["sgbench", "status", "--results", root, "--json"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    (row,) = json.loads(capsys.readouterr().out)["sweeps"]
    return {str(status): row[status] for status in RunStatus if row.get(status)}


@hypothesis.settings(max_examples=60, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(what=a_store, network=st.booleans())
def test_status_plan_and_sweep_say_the_same_of_every_store(
    what: tuple[dict[str, Any], dict[str, Any]],
    network: bool,
    train_images: PackedImages,
    test_images: PackedImages,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = Data(train_images, (test_images,))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Locator, "find", lambda self, name: Path(name) if network else None)
        patch.setattr(engine, "gather", lambda *_: data)
        patch.setattr(engine, "fetch_networks", lambda *_: None)
        store = Store(Storage(folder))
        specs = SWEEP.named_runs(data.training)
        for spec, each in zip(specs, what, strict=True):
            write(store, spec, test_images, each)
        plan = make_plan("two", SWEEP, data, store, locator=Locator(download=False))
        with store.writing("test"):
            store.write_plan("two", plan.records())
        assert counted(folder, capsys, patch) == Counter(str(run.status) for run in plan.runs)

        started: dict[str, tuple[tuple[str, str], ...]] = {}

        def runner(name: str, jobs: Sequence[Job], *_: Any) -> Summary:
            started.update({job.run_id: job.missing for job in jobs})
            return Summary(interrupted=True)

        carry_out("two", SWEEP, store.storage, contextlib.nullcontext(runner), Quiet())
        assert started == {str(run.spec.run_id): run.missing for run in plan.pending}
        assert counted(folder, capsys, patch) == Counter(str(run.status) for run in plan.runs)


def test_scores_of_a_plugin_count_in_any_version_where_its_code_must_not_run(tmp_path: Path) -> None:
    store = Store(Storage(str(tmp_path)))
    row = {"run_id": "0" * 12, "kind": "train", "name": "a", "backbone": "edsr-tiny", "loss": "l1", "seed": 0}
    row |= {"scale": 4, "status": "done", "finished": NOW}
    store.write_run(row)
    score = {"run_id": row["run_id"], "dataset": "few", "dataset_sha256": "ab" * 32, "metric": "nowhere:metric"}
    score |= {"metric_version": "7", "protocol": "{}", "n_images": 1, "status": "ok", "scored": NOW, "value": 1.0}
    store.write_scores([score])
    judge = Judge(store, plugins=False)
    tests = [Dataset("few", "ab" * 32)]
    assert judge.standing("0" * 12, SWEEP.recipe, tests, ["nowhere:metric"], dict).status is RunStatus.DONE
    assert (
        judge.standing("0" * 12, SWEEP.recipe, tests, ["nowhere:metric", "nowhere:other"], dict).status
        is RunStatus.TO_RETRAIN
    )
