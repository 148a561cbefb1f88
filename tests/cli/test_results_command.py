import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from crash_points import NOW
from made_up_runs import tuned

from sgbench.cli.output import print_tuned
from sgbench.core.storage import Storage
from sgbench.runs.tuning import Tuned
from sgbench.spec import RunSpec, TrainingData
from sgbench.store import Store, identity_columns
from sgbench.store.layout import has_weights
from sgbench.store.schema import TABLES
from sgbench.training import Checkpoints

Run = Callable[..., tuple[str, str]]
SPECS = [
    RunSpec(backbone="edsr-tiny", loss="l1", seed=seed, train=TrainingData(name="mine", sha256="ab" * 32))
    for seed in (0, 1)
]
FIRST, SECOND = (str(spec.run_id) for spec in SPECS)


def fill(root: str, *specs: RunSpec) -> Store:
    store = Store(Storage(root))
    for spec in specs:
        store.write_run({**identity_columns(spec), "status": "done", "step": spec.recipe.steps})
        row = {"run_id": spec.run_id, "step": spec.recipe.steps, "loss": 0.1, "terms": {"l1": 0.1}, "lr": 1e-3}
        store.write_history([row | {"steps_per_second": 9.0}])
        checkpoints = Checkpoints(store.storage, str(spec.run_id))
        checkpoints.save_weights({"weight": torch.zeros(2)}, spec.model_dump(mode="json"))
    return store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    return fill("results/quick", *SPECS)


class Terminal:
    """Stands for somebody at a terminal who answers once."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self, *_: int) -> str:
        return f"{self.answer}\n"


def test_compact_says_how_many_files_it_gathered(run: Run, store: Store) -> None:
    assert run("results", "compact") == (
        "",
        "runs: 2 files gathered; scores: 0 files gathered; history: 2 files gathered; validation: 0 files gathered\n",
    )
    assert store.storage.list("runs") == ["runs/compacted-000001.parquet"]
    assert json.loads(run("results", "compact", "--json")[0]) == dict.fromkeys(TABLES, 0)


def test_merge_says_what_it_takes_and_with_dry_run_takes_nothing(run: Run, store: Store) -> None:
    fill("bob", SPECS[1])
    _, err = run("results", "merge", "results/all", "results/quick", "bob", "--dry-run")
    assert "results/quick: 2 runs would be added, 0 would be replaced, 0 are the same; " in err
    assert "; 0 files of scores, 0 plans and 0 labels would be taken\n" in err
    assert not Path("results/all").exists()
    _, err = run("results", "merge", "results/some", "results/quick")
    assert "results/quick: 2 runs added, 0 replaced, 0 the same; 0 files of scores, 0 plans and 0 labels taken" in err
    out, _ = run("results", "merge", "results/all", "results/quick", "bob", "--json")
    first, second = json.loads(out)
    assert (first["added"], second["added"], second["shared"]) == (sorted([FIRST, SECOND]), [], [SECOND])
    merged = Store(Storage("results/all"))
    assert merged.runs().equals(store.runs())
    assert has_weights(merged.storage, FIRST)


def test_merge_of_a_plugin_with_other_results_wants_a_preference(run: Run, store: Store) -> None:
    for hour, name in enumerate(("alice", "bob")):
        theirs = fill(name, SPECS[0])
        row = {**theirs.rows()[FIRST], "loss": "own:Mine", "finished": NOW + datetime.timedelta(hours=hour)}
        theirs.write_run(row)
        theirs.storage.write(f"weights/{FIRST}.pt", name.encode())
    run("results", "merge", "all", "alice")
    _, err = run("results", "merge", "all", "bob", code=2)
    assert "its plug-in may be other code; pass --prefer ours or --prefer theirs." in err
    _, err = run("results", "merge", "all", "bob", "--prefer", "theirs")
    assert "bob: 0 runs added, 1 replaced, 0 the same" in err


def test_tunings_shows_what_each_loss_was_given(run: Run, store: Store) -> None:
    assert run("results", "tunings", code=2)[1].endswith("has no tuning; 'sgbench tune' makes one.\n")
    assert run("results", "tunings", "--json")[0] == "[]\n"
    store.write_tuning("mine", tuned(1))
    out, _ = run("results", "tunings", "mine")
    assert "mine: 2 trials of 7 steps for each loss, chosen by psnr_y on Mine" in out
    assert "1 trial has not ended; `sgbench tune` resumes it." in out
    (each,) = json.loads(run("results", "tunings", "--json")[0])
    assert (each["loss"], each["trials"], each["ended"]) == ("0.5:2*l1", 2, 1)
    _, err = run("results", "tunings", "other", code=2)
    assert "unknown tuning 'other'; valid: mine." in err


def test_a_store_in_which_only_a_search_has_begun_shows_it(run: Run, store: Store) -> None:
    Store(Storage("results/begun")).write_tuning("mine", tuned(0))
    assert "2 trials have not ended" in run("results", "tunings", "--results", "results/begun")[0]


def test_a_search_that_chose_nothing_ends_with_what_was_given_and_1(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = Tuned("mine", tuned(1), lost=("0.5:2*l1 with edsr-tiny",))
    with pytest.raises(typer.Exit) as end:
        print_tuned(nothing, "results/quick", as_json=False)
    out, err = capsys.readouterr()
    assert end.value.exit_code == 1
    assert "mine: 2 trials of 7 steps for each loss" in out
    assert "No trial of 0.5:2*l1 with edsr-tiny came to a value" in err


def test_verify_ends_with_1_where_anything_is_wrong(run: Run, store: Store) -> None:
    out, err = run("results", "verify")
    assert "checked: 4 files of rows, 2 runs, 2 points of training curves, 2 final weights; not checked: " in err
    assert (out, err.endswith("results/quick: no problems\n")) == ("", True)
    store.storage.write("plans/quick.json", b"[")
    out, err = run("results", "verify", "results/quick", code=1)
    assert "quick.json' is not a plan of sgbench" in out
    assert err.endswith(": 1 problem\n")
    assert json.loads(run("results", "verify", "--json", code=1)[0]) == [out.strip()]


def test_verify_remarks_once_that_weights_are_missing(run: Run, store: Store) -> None:
    for run_id in (FIRST, SECOND):
        store.storage.delete(f"weights/{run_id}.pt")
    out, err = run("results", "verify")
    assert out == ""
    remark, _, verdict = err.splitlines()
    assert remark.startswith("2 runs without weights cannot be scored again: ")
    assert FIRST in remark
    assert verdict.endswith("results/quick: no problems")
    assert json.loads(run("results", "verify", "--json")[0]) == []


def test_rm_asks_and_does_nothing_without_a_yes(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = run("results", "rm", FIRST[:6], code=2)
    assert "error: not a terminal, so it cannot ask for confirmation; pass --yes to delete." in err
    monkeypatch.setattr(sys, "stdin", Terminal("n"))
    _, err = run("results", "rm", FIRST[:6], code=1)
    assert f"{FIRST}  edsr-tiny · l1 · seed 0  done" in err
    assert "Delete 1 run with everything that belongs to them?" in err
    assert store.runs().num_rows == 2
    monkeypatch.setattr(sys, "stdin", Terminal("y"))
    run("results", "rm", FIRST[:6])
    assert store.runs().column("run_id").to_pylist() == [SECOND]
    run("results", "rm", SECOND, "--yes")
    assert store.storage.list("weights") == []


def test_clean_says_what_it_freed_and_asks_before_it_deletes_what_could_be_continued(run: Run, store: Store) -> None:
    Checkpoints(store.storage, FIRST).save(7, {"value": torch.zeros(50_000)})
    Checkpoints(store.storage, "c" * 12).save(7, {})
    _, err = run("results", "clean")
    assert err == f"checkpoints/{FIRST}: 0.2 MB\n0.2 MB freed\n"
    assert "cannot ask for confirmation" in run("results", "clean", "--all", code=2)[1]
    assert list(json.loads(run("results", "clean", "--all", "--yes", "--json")[0])) == [f"checkpoints/{'c' * 12}"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["compact"],
        ["merge", "results/quick", "other"],
        ["rm", FIRST, "--yes"],
        ["clean"],
    ],
)
def test_a_store_that_a_sweep_holds_is_left_alone(run: Run, store: Store, arguments: list[str]) -> None:
    fill("other", SPECS[0])
    before = store.storage.sizes()
    with store.storage.lock("sgbench sweep quick"):
        _, err = run("results", *arguments, code=2)
    assert "is in use by 'sgbench sweep quick'" in err
    after = {name: size for name, size in store.storage.sizes().items() if name != ".lock"}
    assert after == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["compact", "--results", "nowhere"],
        ["merge", "results/all", "nowhere"],
        ["verify", "nowhere"],
        ["rm", FIRST, "--results", "nowhere"],
        ["clean", "--results", "nowhere"],
    ],
)
def test_no_store_is_a_sentence_and_none_is_made(run: Run, store: Store, arguments: list[str]) -> None:
    assert "holds no results" in run("results", *arguments, code=2)[1]
    assert not Path("nowhere").exists()
    assert not Path("results/all").exists()
