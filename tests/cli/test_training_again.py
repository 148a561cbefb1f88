"""What commands say and do where final weights are gone, and where a training fails."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import sgbench
from sgbench.core.storage import Storage
from sgbench.store import Store

Run = Callable[..., tuple[str, str]]

ONE = ("tiny.yaml", "--loss", "l1", "--seeds", "0")
SENTENCE = (
    "1 run must be retrained for missing scores, because the final weights are missing too; sweep and train do "
    "that with --retrain.\n"
)


@pytest.fixture
def published(place: Path, run: Run) -> Store:
    """A store with one run that is done and scored, and no final weights."""
    run("train", *ONE)
    shutil.rmtree(place / "results" / "tiny" / "weights")
    return Store(Storage(str(place / "results" / "tiny")))


def scores(store: Store) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in store.totals().to_pylist()}


def test_plan_says_that_a_run_would_be_trained_again_and_changes_nothing(published: Store, run: Run) -> None:
    before = published.storage.sizes()
    out, err = run("plan", *ONE, "--metric", "ssim_y")
    assert "to retrain" in out
    assert err == f"tiny: 1 run: 1 to retrain\n{SENTENCE}"
    (row,) = json.loads(run("plan", *ONE, "--metric", "ssim_y", "--json")[0])
    assert (row["status"], row["step"]) == ("to retrain", "3/3")
    assert row["expected_seconds"] > 0
    assert "1 done" in run("plan", *ONE)[1]
    assert published.storage.sizes() == before


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_without_retrain_a_run_is_left_as_it_is_and_the_command_ends_with_1(
    published: Store, run: Run, command: str
) -> None:
    before = (published.runs(), published.scores(), published.history())
    out, err = run(command, *ONE, "--metric", "ssim_y", code=1)
    assert err.endswith(SENTENCE)
    assert "nothing to do" not in err
    assert {"train": "psnr_y", "sweep": "pending"}[command] in out  # what is asked for, if the store knows of it
    assert (published.runs(), published.scores(), published.history()) == before


def test_with_retrain_a_run_has_the_new_score_and_all_that_it_had(published: Store, run: Run) -> None:
    before, row = scores(published), published.runs().to_pylist()
    run("train", *ONE, "--metric", "ssim_y", "--retrain")
    assert scores(published).items() > before.items()  # on one machine a training repeats to the bit
    assert set(scores(published)) == {"psnr_y", "ssim_y"}
    assert published.runs().to_pylist() != row
    assert "1 done" in run("plan", *ONE, "--metric", "ssim_y", "--metric", "psnr_y")[1]


def test_scores_on_a_set_that_is_not_asked_for_are_not_given_up(published: Store, run: Run, place: Path) -> None:
    (row,) = published.totals().to_pylist()
    published.write_scores([{**row, "dataset": "more"}])
    before = published.storage.sizes()
    _, err = run("train", *ONE, "--metric", "ssim_y", "--retrain", code=2)
    assert "\nerror: retraining is refused, because it would lose scores that this command cannot recompute" in err
    assert "psnr_y on more (1 of the runs); name their test sets with --test" in err
    assert published.storage.sizes() == before


BREAKING = """
import os
import torch

class Breaks(torch.nn.Module):
    def forward(self, sr, hr, *, step):
        factor = float("nan") if "BROKEN" in os.environ and step == 2 else 1.0
        return factor * (sr - hr).abs().mean()
"""


@pytest.fixture
def breaking(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Arguments of a run whose third step gives NaN while the variable BROKEN is set, as it is."""
    (place / "breaking.py").write_text(BREAKING)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("BROKEN", "1")
    return ("tiny.yaml", "--loss", "breaking:Breaks", "--seeds", "0")


def test_the_curve_of_a_run_that_failed_is_kept_and_drawn(place: Path, run: Run, breaking: tuple[str, ...]) -> None:
    _, err = run("train", *breaking, code=1)
    assert "FAILED edsr-tiny · breaking:Breaks · seed 0 (1 of 1): loss is NaN at step 3\n" in err
    results = sgbench.load_results(str(place / "results" / "tiny"))
    assert results.history.column("step").to_pylist() == [1, 2]
    run("figure", "curves", "--out", "curves.svg")
    assert "breaking:Breaks" in (place / "curves.svg").read_text()


def test_a_run_that_fails_when_it_is_trained_again_says_that_it_keeps_what_it_had(
    place: Path, run: Run, breaking: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BROKEN")
    run("train", *breaking)
    store = Store(Storage(str(place / "results" / "tiny")))
    before = (store.runs(), store.scores(), store.history())
    store.storage.delete_folder("weights")
    monkeypatch.setenv("BROKEN", "1")
    _, err = run("train", *breaking, "--metric", "ssim_y", "--retrain", code=1)
    assert "loss is NaN at step 3; its previous results are kept\n" in err
    assert err.endswith("1 of 1 runs failed when they were retrained; they keep their previous results.\n")
    assert (store.runs(), store.scores(), store.history()) == before
