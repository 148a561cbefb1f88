"""Searching the settings of losses, carried out in this process."""

import contextlib
import datetime
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import write_png
from sgbench.runs.execute import Job, Watcher
from sgbench.runs.plan import Choices, read_sweep
from sgbench.runs.sweep import Quiet, Runner, Summary, run_all_here
from sgbench.runs.tuning import Ask, Tuned, final, read_tunable, rungs, suggestions, tune
from sgbench.runs.verification import verify
from sgbench.spec import SweepSpec, TrainingData
from sgbench.spec.space import RATE, Searched, Values
from sgbench.store import Candidate, Search, Store, Trial, Tuning
from sgbench.store.rows import RunEnd

LAMBDA, RATES = Searched.ranged("λ", 0.01, 100, 1.0), Searched.ranged(RATE, 1e-4, 1e-2, 1e-3)
ORDER = Searched("sg.order", choices=(1, 2), default=2)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "store"))


@pytest.fixture
def fields(train_folder: Path, test_folder: Path, tmp_path: Path, cache: Path) -> dict[str, Any]:
    """Two losses, of which one has nothing to search, and trials of 6 steps."""
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        write_png(tmp_path / "mine" / f"{number}.png", pixels)
    return {
        "grids": [{"backbones": ["edsr-tiny"], "losses": ["l1", "ours=charbonnier(eps=1e-4:0.1)"], "seeds": [3]}],
        "train": f"Photos={train_folder}",
        "tests": [f"Few={test_folder}"],
        "validate": {"sets": [f"Mine={tmp_path / 'mine'}"], "every": 2, "metrics": ["psnr_y"]},
        "metrics": ["psnr_y"],
        "tune": {"trials": 3, "scheduler": "asha"},
        "recipe": {"steps": 6, "batch": 2, "patch": 8, "optimizer": {"lr": 1e-3}},
    }


@contextlib.contextmanager
def dying(after: int) -> Iterator[Runner]:
    """A runner whose process dies after some jobs."""
    left = itertools.count(after, -1)

    def run(name: str, jobs: Sequence[Job], sweep: SweepSpec, storage: Storage, watcher: Watcher) -> Summary:
        for job in jobs:
            if next(left) == 0:
                raise KeyboardInterrupt
            run_all_here(name, [job], sweep, storage, watcher)
        return Summary()

    yield run


def here(
    fields: dict[str, Any], storage: Storage, runner: contextlib.AbstractContextManager[Runner] | None = None
) -> Tuned:
    return tune(read_tunable(fields), storage, runner or contextlib.nullcontext(run_all_here), Quiet())


def test_a_search_that_is_killed_goes_on_as_if_it_had_not_been(
    fields: dict[str, Any], storage: Storage, tmp_path: Path
) -> None:
    whole = here(fields, storage)
    search, trials = whole.tuning.search, whole.tuning.trials
    assert [search.given(number) for number in range(2)] == [1, 3]
    assert [trial.loss for trial in trials[:2]] == ["l1", "charbonnier"], "the first trial of each is its default"
    assert [(trial.end, trial.step) for trial in trials].count(("stopped", 2)) == 2, "one of three goes on"
    done = [trial for trial in trials if (trial.end, trial.step) == ("done", 6)]
    assert [trial.candidate for trial in done] == [0, 1]
    assert done == [whole.tuning.chosen(number) for number in range(2)]
    store = Store(storage)
    rows = {row["run_id"]: row for row in store.runs().to_pylist()}
    assert {trial.run_id for trial in done} == {run_id for run_id, row in rows.items() if row["seed"] == 1000}
    final = {run_id: row["loss"] for run_id, row in rows.items() if row["seed"] == 3}
    assert sorted(final.values()) == sorted(trial.loss for trial in done)
    assert {row["run_id"] for row in store.totals().to_pylist()} == final.keys(), "no trial sees a test set"
    assert store.labels() == {done[1].loss: "ours"}
    assert list(verify(store)) == []

    killed = Storage(str(tmp_path / "killed"))
    for after in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            here(fields, killed, dying(after))
    again = here(fields, killed)
    assert (again.name, again.tuning.trials) == (whole.name, trials)
    weights, others = ({name: each.read(name) for name in each.list("weights", ".pt")} for each in (storage, killed))
    assert weights == others
    assert len(weights) == len(rows) == 4
    with dying(0) as nobody:
        assert here(fields, killed, contextlib.nullcontext(nobody)).tuning == again.tuning


def search(*searched: Searched, **changes: Any) -> Search:
    asked: dict[str, Any] = {"trials": 4, "method": "random", "scheduler": "none", "higher": False, "options": {}}
    candidates = (Candidate("edsr-tiny", "l1", ()), Candidate("edsr-tiny", "l2", searched))
    fixed = {"metric": "psnr_y", "dataset": "Mine", "dataset_sha256": "ab" * 32, "conditions": "0" * 12}
    seeds = {"seed": 1000, "trial_seeds": (1000,), "final_seeds": (1,)}
    return Search(candidates, steps=6, **{**asked, **fixed, **seeds, **changes})


def suggested(asked: Search, so_far: Sequence[Trial] = (), ask: Ask | None = None) -> list[Values]:
    return suggestions(asked, 1, so_far, ask)


def test_random_settings_begin_with_the_default_and_are_the_first_of_a_longer_search() -> None:
    few = suggested(search(LAMBDA, RATES))
    assert few[0] == {"λ": 1.0, RATE: 1e-3}
    assert suggested(search(LAMBDA, RATES, trials=8))[:4] == few
    assert suggested(search(LAMBDA, RATES, seed=1))[1:] != few[1:]
    assert all(0.01 <= float(each["λ"]) <= 100 and 1e-4 <= float(each[RATE]) <= 1e-2 for each in few)
    many = [math.log10(float(each["λ"])) for each in suggested(search(LAMBDA, trials=400))]
    assert np.histogram(many, bins=4, range=(-2, 2))[0].min() > 70, "they are spread evenly over the logarithm"
    other = Searched.ranged("charbonnier.eps", 0.01, 100, 1.0)
    places = [each["charbonnier.eps"] for each in suggested(search(other))]
    assert places == [each["λ"] for each in suggested(search(LAMBDA))], "each loss is tried at the same places"


def test_a_loss_with_few_settings_is_given_each_of_them_once() -> None:
    asked = search(ORDER, Searched("sg.operator", choices=("central", "sobel"), default="central"), trials=9)
    assert asked.given(0) == 1
    found = suggested(asked)
    assert len(found) == asked.given(1) == len({tuple(each.values()) for each in found}) == 4
    assert suggestions(asked, 0, (), None) == [{}]


@pytest.mark.parametrize(
    ("searched", "trials", "levels"),
    [((LAMBDA,), 6, (5,)), ((LAMBDA, ORDER), 8, (3, 2)), ((LAMBDA, RATES), 9, (4, 2)), ((ORDER, ORDER), 4, (2, 2))],
)
def test_a_grid_has_the_ends_of_its_ranges_and_every_choice(
    searched: tuple[Searched, ...], trials: int, levels: tuple[int, ...]
) -> None:
    searched = tuple(replace(each, name=f"{each.name} {at}") for at, each in enumerate(searched))
    asked = search(*searched, method="grid", trials=trials)
    found = suggested(asked)
    assert len(found) == asked.given(1)
    on_grid = found[1 : 1 + math.prod(levels)]
    for each, level in zip(searched, levels, strict=True):
        values = {values[each.name] for values in (on_grid if math.isinf(each.count) else found)}
        assert len(values) == level
        assert values >= {each.at(0.0), each.at(1.0)}


def test_optuna_is_asked_in_batches_and_told_what_was_found() -> None:
    asked = search(LAMBDA, method="optuna", higher=True, options={"batch": 3}, trials=5)
    told: list[Any] = []

    def ask(searched: Sequence[Searched], so_far: Any, count: int, seed: int) -> list[Values]:
        told.append((list(so_far), count, seed))
        return [{"λ": float(2 + at)} for at in range(count)]

    first = suggested(asked, ask=ask)
    assert first == [{"λ": 1.0}, {"λ": 2.0}, {"λ": 3.0}]
    trials = [Trial(1, each, "l2", 1000, f"{at:012x}", value=30.0 + at) for at, each in enumerate(first)]
    assert suggested(asked, [*trials[:2], replace(trials[2], value=None)], ask) == [{"λ": 2.0}, {"λ": 3.0}]
    assert [each[:2] for each in told] == [
        ([], 2),
        ([({"λ": 1.0}, -30.0), ({"λ": 2.0}, -31.0), ({"λ": 3.0}, None)], 2),
    ]
    assert told[0][2] != told[1][2]


def test_trials_are_compared_where_they_are_validated_and_until_one_is_left() -> None:
    assert rungs(20, 1200, 100) == (100, 400)
    assert rungs(8, 600, 50) == (50, 200)
    assert rungs(3, 600, 50) == (200,)
    assert rungs(20, 500_000, 500) == (18_500, 55_500, 166_500)
    assert rungs(20, 600, 600) == rungs(1, 600, 50) == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"validate": None}, "has no validation set to choose by, and test sets are not for that"),
        ({"validate.sets": ["Mine", "Set14"]}, "settings are chosen by one set"),
        ({"grids.0.losses": ["l1", "l2"]}, "no loss of sweep has anything to search; write a range"),
        ({"grids.0.seeds": [7, 1000]}, "seed 1000 is that of the trials and one of the sweep"),
        ({"validate.every": 6}, r"validate\.every is 6; a smaller one is needed"),
        ({"tune.rate": "1e-2:1e-4"}, r"tune\.rate is '1e-2:1e-4': a range such as 1e-4:1e-2 is needed"),
        ({"tune.trials": 0}, r"tune\.trials is 0"),
        ({"tune.trails": 4}, "key 'trails'"),
        ({"tune.by": "nothing"}, "metric 'nothing'"),
        ({"tune.search": "grid", "grids.0.losses": ["sg(order=1|2, operator=central|sobel) + l1"]}, "needs 4 trials"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_starts(
    fields: dict[str, Any], storage: Storage, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(InputError, match=why) as refused:
        tune(read_tunable(fields, Choices(settings=change)), storage, contextlib.nullcontext(run_all_here), Quiet())
    assert len(str(refused.value)) < 300
    assert not Path(storage.root).exists()


def test_a_loss_with_lambda_is_given_the_values_of_the_sweep(fields: dict[str, Any]) -> None:
    tunable = read_tunable(fields, Choices(losses=["l1 + λ*sg", "mine=0.5*l2"], lambdas=[0.1, 1.0, 10.0]))
    first, second = tunable.spaces[0]
    assert (first.count, first.default, second.count, second.label) == (3, {"λ": 1.0}, 1, "mine")
    with pytest.raises(InputError, match="'sgbench tune' searches"):
        read_sweep(fields)


def test_what_was_chosen_for_different_backbones_has_labels_that_differ(
    fields: dict[str, Any], storage: Storage
) -> None:
    fields["grids"][0]["backbones"] = ["edsr-tiny", "rcan-tiny"]
    tunable = read_tunable(fields, Choices(settings={"tune.rate": "1e-4:1e-2"}))
    settings = [(0, {RATE: 1e-3}), (1, {"charbonnier.eps": 0.01, RATE: 2e-3}), (2, {RATE: 1e-3})]
    settings.append((3, {"charbonnier.eps": 0.02, RATE: 1e-3}))
    searched = [(each, *space) for each in ("edsr-tiny", "rcan-tiny") for space in (("l1", (RATES,)), ("ours", ()))]
    asked = replace(search(trials=1), candidates=tuple(Candidate(*each) for each in searched))
    trials = [Trial(at, values, "", 1000, f"{at:012x}", RunEnd.DONE, 6, 30.0) for at, values in settings]
    sweep = final(tunable, Tuning(asked, tuple(trials), datetime.datetime.now(datetime.UTC)))
    assert [(grid.backbones[0], grid.rate, list(map(str, grid.losses))) for grid in sweep.grids] == [
        ("edsr-tiny", 1e-3, ["l1"]),
        ("edsr-tiny", 2e-3, ["charbonnier(eps=0.01)"]),
        ("rcan-tiny", 1e-3, ["l1", "charbonnier(eps=0.02)"]),
    ]
    assert set(sweep.labels().values()) == {f"ours (charbonnier.eps = {eps})" for eps in (0.01, 0.02)}
    rates = {(run.backbone, str(run.loss)): run.recipe.optimizer.lr for run in sweep.runs(TrainingData(name=""))}
    assert rates["edsr-tiny", "charbonnier(eps=0.01)"] == 2e-3
