"""Searches for the settings of losses, as they are kept in a store."""

import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.spec.space import RATE, Searched
from sgbench.store import Candidate, Search, Store, Trial, Tuning
from sgbench.store.layout import tuning_of
from sgbench.store.rows import RunEnd

SSIM = Candidate("edsr-tiny", "l1 + λ*ssim", (Searched("λ", 0.01, 10, log=True), Searched(RATE, 1e-4, 1e-2, log=True)))
OPERATOR = Candidate("edsr-tiny", "sg(operator=λ)", (Searched("sg.operator", choices=("central", "sobel")),))

SEARCH = Search(
    candidates=(SSIM, OPERATOR),
    trials=3,
    steps=200,
    method="random",
    scheduler="asha",
    metric="psnr_y",
    higher=True,
    dataset="held-out",
    dataset_sha256="ab" * 32,
    seed=0,
    trial_seeds=(1000, 1001, 1002),
    final_seeds=(1, 2),
    conditions="0123456789ab",
    options={"grace": 50},
)


def trial(candidate: int, number: int, end: RunEnd | None = None, value: float | None = None) -> Trial:
    values = {"λ": 0.5 + number, RATE: 1e-3} if candidate == 0 else {"sg.operator": "sobel"}
    loss = f"l1 + {number}.0*ssim"
    return Trial(candidate, values, loss, 1000 + number, f"{candidate}{number:011x}", end, 200, value)


TUNING = Tuning(
    SEARCH,
    (trial(0, 0, RunEnd.DONE, 30.0), trial(0, 1, RunEnd.STOPPED, 33.0), trial(1, 0), trial(0, 2, RunEnd.DONE, 31.5)),
    datetime.datetime(2026, 11, 28, 9, 30, tzinfo=datetime.UTC),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path)))


def test_a_search_is_read_as_it_was_written(store: Store) -> None:
    store.write_tuning("mine", TUNING)
    assert store.tunings() == {"mine": TUNING}
    assert store.tunings()["mine"].digest == TUNING.digest, "whole numbers and fractions of one value are the same"


def test_the_digest_is_of_what_was_fixed_before_the_first_trial() -> None:
    assert replace(TUNING, trials=()).digest == TUNING.digest
    assert replace(TUNING, search=replace(SEARCH, trials=4)).digest != TUNING.digest


def test_the_best_of_the_trials_that_were_trained_to_the_end_is_chosen_once_all_have_ended() -> None:
    best = TUNING.chosen(0)
    assert best
    assert best.value == 31.5, "the one that was stopped early had a higher value"
    assert TUNING.chosen(1) is None, "its trials have not ended"
    lower = replace(TUNING, search=replace(SEARCH, higher=False)).chosen(0)
    assert lower
    assert lower.value == 30.0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data["search"].update(trials=4), "the search has been changed"),
        (lambda data: data["trials"][0]["values"].pop("λ"), "values of something else than is searched"),
        (lambda data: data["trials"][0]["values"].update({"λ": 11.0}), "has a value of λ that is not searched"),
        (lambda data: data["trials"][2]["values"].update({"sg.operator": "x"}), "of sg.operator that is not searched"),
        (lambda data: data["trials"][0].update(seed=2**63), "is not from 0 to"),
        (lambda data: data["trials"][0].update(candidate=2), "of no candidate"),
        (lambda data: data["trials"][0].update(run_id="../../x"), "run_id"),
        (lambda data: data["trials"].extend(data["trials"][:2]), "has 5 trials and was given 3"),
        (lambda data: data["trials"][0].update(end="won"), "end: Input should be 'done'"),
        (lambda data: data.pop("search"), "search: Field required"),
    ],
)
def test_a_file_that_is_damaged_or_changed_is_refused(
    store: Store, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    data = json.loads(json.dumps(TUNING.to_data()))
    change(data)
    store.storage.write(tuning_of("mine"), json.dumps(data).encode())
    with pytest.raises(InputError, match=rf"mine\.json' is not a search of 'sgbench tune': .*{why}"):
        store.tunings()
