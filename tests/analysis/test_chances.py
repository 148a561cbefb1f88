"""What chance each loss was given, from made-up searches."""

import datetime
import json
from dataclasses import replace

import pytest

from sgbench.analysis.results import Results
from sgbench.analysis.stores import together
from sgbench.analysis.tunings import TRIALS, Chance, chances
from sgbench.report.tunings import FORMATS, grids, notes, shown
from sgbench.spec.space import RATE, Searched
from sgbench.store import RUNS, SCORES, Candidate, Search, Trial, Tuning
from sgbench.store.rows import RunEnd

SSIM = Candidate("edsr-tiny", "l1 + 0.01:10*ssim", (Searched.ranged("λ", 0.01, 10.0, 1.0),))
RATED = Candidate(
    "edsr-tiny",
    "sg(operator=central|sobel)",
    (
        Searched("sg.operator", choices=("central", "sobel"), default="central"),
        Searched.ranged(RATE, 1e-4, 1e-2, 1e-3),
    ),
)
PLAIN = Candidate("edsr-tiny", "l1", ())

SEARCH = Search(
    candidates=(SSIM, RATED, PLAIN),
    trials=3,
    steps=600,
    method="random",
    scheduler="asha",
    metric="lpips_alex",
    higher=False,
    dataset="Photos-held-out",
    dataset_sha256="ab" * 32,
    seed=1000,
    trial_seeds=(1000,),
    final_seeds=(1, 2, 3),
    conditions="0123456789ab",
    options={"eta": 3},
)


def trial(
    candidate: int,
    settings: dict[str, float | str],
    value: float | None,
    end: RunEnd | None = RunEnd.DONE,
    step: int = 600,
) -> Trial:
    loss = f"l1 + {settings['λ']}*ssim" if "λ" in settings else "sg" if settings else "l1"
    return Trial(candidate, settings, loss, 1000, "ab" * 6, end, step, value)


TRIALS_MADE = (
    trial(0, {"λ": 1.0}, 0.30),
    trial(0, {"λ": 0.011}, 0.25),
    trial(0, {"λ": 5.0}, 0.20, RunEnd.STOPPED, 200),
    trial(1, {"sg.operator": "central", RATE: 1e-3}, None, RunEnd.FAILED, 17),
    trial(1, {"sg.operator": "sobel", RATE: 3e-3}, 0.28),
    trial(1, {"sg.operator": "sobel", RATE: 2e-3}, None, None, 0),
    trial(2, {}, 0.31),
)
TUNING = Tuning(SEARCH, TRIALS_MADE, datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC))


@pytest.fixture
def found() -> list[Chance]:
    return chances({"mine": TUNING})


def test_it_is_told_what_each_loss_was_given_and_what_was_chosen(found: list[Chance]) -> None:
    ssim, rated, plain = found
    assert (ssim.due, ssim.ended(), ssim.ended(RunEnd.STOPPED), ssim.steps) == (3, 3, 1, 1400)
    assert ssim.chosen is TRIALS_MADE[1] or ssim.chosen == TRIALS_MADE[1], "not the better one that was stopped early"
    assert ssim.default == TRIALS_MADE[0]
    assert [(edge.searched.name, edge.end) for edge in ssim.edges] == [("λ", "lower")]
    assert (rated.ended(), rated.chosen, rated.edges) == (2, None, [])
    assert rated.default == TRIALS_MADE[3]
    assert (plain.due, plain.chosen, plain.default) == (1, TRIALS_MADE[6], TRIALS_MADE[6])


def test_the_table_has_a_row_for_each_loss_and_says_what_is_unfair_or_incomplete(found: list[Chance]) -> None:
    (grid,) = grids(found)
    assert grid.title == "mine: 3 trials of 600 steps for each loss, chosen by lpips_alex on Photos-held-out"
    heads = ("loss", "backbone", "searched", "trials", "stopped early", "failed", "steps", "chosen", "lpips_alex ↓")
    assert grid.heads == (*heads, "default")
    ssim, rated, plain = grid.rows
    assert ssim[2:] == ("λ: 0.01 to 10, logarithmic", "3", "1", "0", "1,400", "λ = 0.011", "0.2500", "0.3000")
    assert rated[2:] == (
        "sg.operator: central, sobel; learning rate: 0.0001 to 0.01, logarithmic",
        *("2 of 3", "0", "1", "617", "not yet", "–", "–"),
    )
    assert plain[2:] == ("nothing", "1", "0", "0", "600", "as it is", "0.3100", "0.3100")
    assert grid.after == (
        "1 trial has not ended; `sgbench tune` resumes it. λ of l1 + 0.01:10*ssim was chosen at the lower end of its "
        "range, 0.011: a better value may lie beyond, so search a wider range. Fewer different settings than trials, "
        "and so each once: l1."
    )
    assert notes(found)[0] == (
        "mine: settings were suggested at random, at the same places of the range of each loss, and trials trained "
        "with seed 1000; asha let the best (one in 3) of the trials of a loss that came to a step go on from there; "
        "what was chosen is trained with 3 other seeds."
    )


def test_a_default_that_was_stopped_early_says_after_how_many_steps() -> None:
    tuning = replace(TUNING, trials=(replace(TRIALS_MADE[0], end=RunEnd.STOPPED, step=200), *TRIALS_MADE[1:]))
    (grid,) = grids(chances({"mine": tuning}))
    assert grid.rows[0][-2:] == ("0.2500", "0.3000 after 200 steps")


def test_columns_are_left_out_where_nothing_was_stopped_and_nothing_failed() -> None:
    tuning = replace(TUNING, search=replace(SEARCH, scheduler="none"), trials=TRIALS_MADE[:2])
    (grid,) = grids(chances({"mine": tuning}))
    assert not {"stopped early", "failed"} & {*grid.heads}


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_has_what_was_chosen(found: list[Chance], form: str) -> None:
    assert "0.011" in FORMATS[form](found)
    assert "0.011" in str(shown(found))


def test_json_has_what_the_table_has(found: list[Chance]) -> None:
    ssim, rated, _ = json.loads(FORMATS["json"](found))
    assert ssim["chosen"] == {"loss": "l1 + 0.011*ssim", "settings": {"λ": 0.011}}
    assert (ssim["value"], ssim["default_value"], ssim["at_edge"]) == (0.25, 0.3, {"λ": "lower"})
    assert (rated["chosen"], rated["ended"], rated["failed"]) == (None, 2, 1)


def results(**tunings: Tuning) -> Results:
    return Results.of(RUNS.empty_table(), SCORES.empty_table(), tunings=tunings)


def test_a_query_reads_each_trial() -> None:
    sql = "SELECT settings ->> 'λ' AS lam, value FROM trials WHERE chosen AND searched LIKE '%ssim'"
    assert results(mine=TUNING).query(sql).to_pylist() == [{"lam": "0.011", "value": 0.25}]
    assert results().query("SELECT * FROM trials").schema.names == TRIALS.names


def test_of_several_stores_each_search_is_shown_once() -> None:
    other = replace(TUNING, search=replace(SEARCH, seed=2000))
    merged = together({"a": results(mine=TUNING), "b": results(mine=TUNING), "c": results(mine=other)}).merged
    assert merged.tunings == {"mine": TUNING, "c: mine": other}


def test_names_in_a_store_of_others_cannot_reach_a_terminal() -> None:
    hostile = Candidate("edsr-tiny", "l1\x1b[2J", (Searched("λ\x1b", choices=("a\x1b", "b")),))
    search = replace(SEARCH, candidates=(hostile,), dataset="x\x1b", method="y\x1b", options={"eta": "\x1b"})
    tuning = Tuning(search, (trial(0, {"λ\x1b": "a\x1b"}, 0.1, None),), TUNING.begun)
    assert "\x1b" not in str(shown(chances({"z\x1b": tuning})))
