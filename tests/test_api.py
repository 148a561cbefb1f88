"""`sgbench.sweep`, `plan` and `evaluate`: what the commands do, for programs."""

import os
import re
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import sgbench
from sgbench.core.errors import InputError
from sgbench.losses.pixel import L1
from sgbench.runs.plan import read_sweep


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter("error")


@pytest.fixture
def fields(train_folder: Path, test_folder: Path) -> dict[str, Any]:
    """A sweep of two runs of three steps."""
    return {
        "grids": [{"backbones": ["edsr-tiny"], "losses": ["l1", "l2"]}],
        "train": f"mine={train_folder}",
        "tests": [f"few={test_folder}"],
        "metrics": ["psnr_y"],
        "recipe": {"steps": 3, "batch": 2, "patch": 8},
    }


def losses(results: sgbench.Results) -> list[tuple[str, int]]:
    return sorted(zip(*(results.runs.column(name).to_pylist() for name in ("loss", "seed")), strict=True))


def test_a_sweep_returns_the_results_of_its_own_runs_and_says_nothing(
    fields: dict[str, Any], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = sgbench.sweep(fields, local=True)
    assert losses(first) == [("l1", 0), ("l2", 0)]
    assert first.totals.num_rows == 2
    second = sgbench.sweep(fields, local=True, losses="l1", seeds=[0, 1], metrics=["psnr_y", "ssim_y"])
    assert losses(second) == [("l1", 0), ("l1", 1)]
    assert second.totals.num_rows == 4
    assert losses(sgbench.load_results("results/sweep")) == [("l1", 0), ("l1", 1), ("l2", 0)]
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_on_standard_error_if_asked_for(
    fields: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    sgbench.sweep(fields, local=True, losses="l1", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("sweep: 1 run: 1 to do\nstarted edsr-tiny · l1 · seed 0\n")


def test_a_preset_a_file_fields_and_a_specification_name_one_sweep(fields: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields))
    spec = read_sweep(fields)[1]
    plans = [sgbench.plan(what) for what in (fields, spec, "mine.yaml", tmp_path / "mine.yaml")]
    assert len({plan.runs for plan in plans}) == 1
    assert [plan.name for plan in plans] == ["sweep", "sweep", "mine", "mine"]
    assert sgbench.plan("quick", settings={"recipe.steps": 7}).sweep.recipe.steps == 7
    assert not (tmp_path / "results").exists()


def test_a_plan_is_a_table_for_programs_and_for_a_notebook(fields: dict[str, Any]) -> None:
    plan = sgbench.plan(fields)
    table = plan.to_pandas()
    assert list(table["loss"]) == ["l1", "l2"]
    assert list(table["status"]) == ["to do", "to do"]
    assert list(table["step"]) == ["0/3", "0/3"]
    assert "sweep: 2 runs: 2 to do" in plan._repr_html_()
    assert re.fullmatch(r"sweep: 2 runs: 2 to do\n.*\n0 +[0-9a-f]{12} +edsr-tiny +l1 .*\n1 .* l2 .*", repr(plan))


def test_a_plan_of_many_runs_is_shown_in_part(fields: dict[str, Any]) -> None:
    plan = sgbench.plan(fields, seeds=range(50))
    assert len(plan.to_pandas()) == 100
    for shown in (repr(plan), plan._repr_html_()):
        assert "100 runs: 100 to do" in shown
        assert "99" in shown
        assert len(re.findall("edsr-tiny", shown)) == 60


def test_a_run_that_fails_is_in_the_results_and_warned_of(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sgbench.losses.pixel.L2.forward", lambda self, sr, hr: (sr - hr).abs().mean() * float("nan"))
        with pytest.warns(UserWarning, match="1 of 2 runs failed, the first because loss is NaN at step 1; retry=True"):
            results = sgbench.sweep(fields, local=True)
    assert list(results.failed.values()) == ["loss is NaN at step 1"]
    assert sgbench.sweep(fields, local=True, retry=True).failed == {}


def test_an_interrupted_sweep_raises_and_the_same_call_continues(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupting(self: Any, sr: Any, hr: Any) -> Any:
        if not sr.is_meta:  # as when losses are tried before anything starts
            os.kill(os.getpid(), signal.SIGINT)
            monkeypatch.setattr(L1, "forward", forward)
        return forward(self, sr, hr)

    forward = L1.forward
    monkeypatch.setattr(L1, "forward", interrupting)
    with pytest.raises(KeyboardInterrupt, match="the same call resumes it"):
        sgbench.sweep(fields, local=True, losses="l1")
    (run,) = sgbench.plan(fields, losses="l1").runs
    assert (run.status, 0 < run.step < 3) == ("resumable", True)
    assert losses(sgbench.sweep(fields, local=True, losses="l1")) == [("l1", 0)]


def test_a_sweep_may_be_called_from_any_thread(fields: dict[str, Any]) -> None:
    found: list[sgbench.Results] = []
    thread = threading.Thread(target=lambda: found.append(sgbench.sweep(fields, local=True, losses="l1")))
    thread.start()
    thread.join()
    assert losses(found[0]) == [("l1", 0)]


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"losses": "l3"}, "sweep: grids.0.losses.0: unknown loss 'l3'"),
        ({"seeds": -1}, "sweep: grids.0.seeds.0 is -1"),
        ({"packages": "pytest"}, "packages is 'pytest', but there is no cluster to send it to"),
        ({"settings": {"train.folder": 1}}, "settings train.folder: 'train' is a value and has no field 'folder'"),
        ({"results": "results/x", "train": "mine=nowhere"}, "there is no folder"),
    ],
)
def test_bad_input_is_one_sentence_and_starts_nothing(
    fields: dict[str, Any], tmp_path: Path, choices: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        sgbench.sweep(fields, local=True, **choices)
    assert not (tmp_path / "results").exists()


def test_evaluate_returns_what_it_scored_and_nothing_else_of_the_store(
    test_folder: Path, fields: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    test = f"few={test_folder}"
    sgbench.sweep(fields, local=True, losses="l1", results="results/eval")
    results = sgbench.evaluate("bicubic", test, metrics="psnr_y")
    assert results.runs.column("name").to_pylist() == ["bicubic"]
    assert results.totals.column("metric").to_pylist() == ["psnr_y"]
    run_id = str(sgbench.plan(fields, losses="l1", results="results/eval").runs[0].spec.run_id)
    both = sgbench.evaluate([run_id, "bicubic"], [test], metrics=["psnr_y", "ssim_y"])
    assert both.totals.num_rows == 4
    assert capfd.readouterr() == ("", "")


def test_losses_are_compared_and_tabled_for_programs_and_for_a_notebook(fields: dict[str, Any]) -> None:
    results = sgbench.sweep(fields, local=True, seeds=[0, 1])
    table = sgbench.table(results, losses="l2")
    (row,) = table.to_pandas().to_dict("records")
    assert (row["dataset"], row["loss"], row["metric"], row["n"]) == ("few", "l2", "psnr_y", 2)
    assert f"{row['mean']:.2f}" in str(table)
    assert f"{row['mean']:.2f}" in table._repr_html_()
    assert str(sgbench.table("results/sweep", losses="l2")) == str(table)
    stores = sgbench.table({"one": results, "two": results}, columns=["store"]).to_pandas()
    assert sorted(set(stores["store"])) == ["one", "two"]

    compared = sgbench.compare(results, "l1", "l2")
    (cell,) = compared.to_pandas().to_dict("records")
    assert cell["mean_b"] == pytest.approx(row["mean"])
    assert cell["sentence"] in str(compared)
    assert cell["sentence"].split(" (")[0] in compared._repr_html_()
    with pytest.raises(InputError, match="unknown test set 'Set5'"):
        sgbench.compare(results, "l1", "l2", tests="Set5")
