"""Two laboratories that declared the same question, each with seeds of its own, put their stores together."""

import datetime
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgbench.core.storage import Storage
from sgbench.spec import Question, Recipe, RunSpec, TrainingData
from sgbench.spec.decisions import looks_until
from sgbench.store import Declaration, Store, identity_columns

START = datetime.datetime(2026, 11, 28, 8, tzinfo=datetime.UTC)
LOSSES = A, B = "l1", "l1 + 1.0*sg"
IMAGES = 14
SET14 = ("Set14", "14" * 32)

Run = Callable[..., tuple[str, str]]


def lab(root: str, seeds: Iterable[int], done: int, hour: int) -> Store:
    """A store in which a question was declared for some seeds, of which the first are done; B lowers LPIPS by 0.05."""
    store, seeds, random = Store(Storage(root)), tuple(seeds), np.random.default_rng(hour)
    started = START + datetime.timedelta(hours=hour)
    by_image = random.normal(0, 0.03, IMAGES)
    for seed in seeds[:done]:
        for loss in LOSSES:
            data = TrainingData(name="demo", sha256="ab" * 32)
            spec = RunSpec(backbone="edsr-tiny", loss=loss, seed=seed, train=data, recipe=Recipe(steps=8))
            store.write_run(identity_columns(spec) | {"status": "done", "planned": started, "finished": started})
            values = 0.4 + (random.normal(-0.05, 0.01) + by_image) * (loss == B) + random.normal(0, 0.001, IMAGES)
            row = {"run_id": spec.run_id, "dataset": SET14[0], "dataset_sha256": SET14[1], "metric": "lpips_alex"}
            row |= {"metric_version": "1", "protocol": '{"direction":"lower"}', "n_images": IMAGES, "status": "ok"}
            scores: list[Any] = [*((f"i{at}", float(value)) for at, value in enumerate(values)), (None, values.mean())]
            store.write_scores([{**row, "image": image, "value": value, "scored": started} for image, value in scores])
    question, limits = Question(A, B, "lpips_alex", ("Set14",)), looks_until(len(seeds))
    place = (("edsr-tiny",), (SET14,), str(spec.conditions))
    store.declare(Declaration(question, 0.05, 4.0, seeds, limits, *place, sweep=root, declared=started))
    return store


def test_evidence_of_two_labs_multiplies_once_their_stores_are_merged(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for store in (lab("ours", range(20), 3, hour=0), lab("theirs", range(20, 40), 4, hour=1)):
        with store.writing("a test"):
            pass

    def compared(root: str) -> dict[str, Any]:
        (cell,) = json.loads(run("compare", A, B, "--results", root, "--json")[0])["comparisons"]
        return dict(cell)

    ours, theirs = compared("ours"), compared("theirs")
    for taken in (14, 0):
        out, _ = run("results", "merge", "both", "ours", "theirs", "--json")
        assert sum(len(each["added"]) for each in json.loads(out)) == taken
        both = compared("both")
        assert both["seeds"] == [0, 1, 2, 20, 21, 22, 23]
        assert [each["declaration"] for each in both["sequences"]] == [
            each["declaration"] for lab in (ours, theirs) for each in lab["sequences"]
        ]
        assert both["by_seed"]["p"] == pytest.approx(ours["by_seed"]["p"] * theirs["by_seed"]["p"])
        assert both["overall"]["p"] == pytest.approx(2 * min(ours["overall"]["p"], theirs["overall"]["p"]))
        assert both["by_image"]["p"] == pytest.approx(2 * min(ours["by_image"]["p"], theirs["by_image"]["p"]))
    assert "by seed, the evidence of each is multiplied" in run("compare", A, B, "--results", "both")[0]
