"""The read model on small stores: which runs there are, why numbers are missing, and what can be asked for."""

import datetime
import json
import subprocess
import sys
from typing import Any

import pytest

from sgbench.analysis import Filters, Results, View, compare
from sgbench.analysis.view import Fate, Status, Why
from sgbench.core.errors import InputError
from sgbench.store import Dataset, Planned
from sgbench.store.schema import to_table

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
SG = "l1 + 1.0*sg"


def run(run_id: str, loss: str = "l1", seed: int = 0, **columns: Any) -> dict[str, Any]:
    row = {"run_id": run_id, "kind": "train", "name": run_id, "backbone": "edsr-tiny", "loss": loss, "seed": seed}
    row |= {"scale": 4, "train": "demo", "train_sha256": "ab" * 32, "steps": 1200, "status": "done", "step": 1200}
    return row | {"lambda": float(loss == SG)} | columns


def score(run_id: str, value: float | None, metric: str = "lpips_alex", **columns: Any) -> dict[str, Any]:
    row = {"run_id": run_id, "dataset": "Set5", "dataset_sha256": "5" * 64, "metric": metric, "metric_version": "1"}
    row |= {"protocol": json.dumps({"direction": "lower"}), "n_images": 5, "value": value, "status": "ok"}
    return row | {"scored": NOW} | columns


def plan(run_id: str, loss: str = "l1", seed: int = 0, metrics: tuple[str, ...] = ("lpips_alex",)) -> Planned:
    (row,) = to_table("runs", [run(run_id, loss, seed)]).to_pylist()
    return Planned(row, (Dataset("Set5", "5" * 64),), metrics)


def view(runs: list[dict[str, Any]], scores: list[dict[str, Any]], plans: list[Planned] | None = None) -> View:
    return View(Results.of(to_table("runs", runs), to_table("scores", scores), planned=plans or []))


def fates(shown: View) -> dict[str, str]:
    return {each.run.run_id: str(each.fate) for each in shown.outcomes() if each.fate}


def test_each_fate_has_one_wording() -> None:
    runs = [run("a"), run("b", seed=1, status="failed", step=812, error="loss is NaN at step 812.\n")]
    runs += [run(name, seed=2) for name in "cdef"]
    scores = [score("a", 0.3), score("c", None, status="no weights", reason="bring alexnet.pth.")]
    scores += [score("d", None, status="undefined", reason="no spread"), score("e", float("inf"))]
    shown = view(runs, scores, [plan("f", seed=2), plan("g", seed=3), plan("h", metrics=("fid",))])
    assert fates(view(runs, scores, [plan("f", seed=2), plan("g", seed=3)])) == {
        "b": "failed at step 812: loss is NaN",
        "c": "no weights: bring alexnet.pth",
        "d": "undefined: no spread",
        "e": "failed: the value is inf",
        "f": "pending",
        "g": "pending",
    }
    by_metric = {each.metric: each.fate for each in shown.outcomes() if each.run.run_id == "h"}
    assert by_metric == {"lpips_alex": Fate(Why.NOT_SCORED), "fid": Fate(Why.PENDING)}


def test_runs_that_have_ended_come_with_those_that_are_planned() -> None:
    runs = [run("a"), run("b", SG, status="failed"), {**run("z"), "kind": "folder", "name": "out", "loss": None}]
    shown = view(runs, [], [plan("a"), plan("c", SG, 1)])
    assert [(each.run_id, each.status, each.trained) for each in shown.runs()] == [
        ("a", Status.DONE, True),
        ("b", Status.FAILED, True),
        ("z", Status.DONE, False),
        ("c", Status.PENDING, True),
    ]
    assert [str(each) for each in shown.runs(Filters(backbones=["out"]))] == ["out"]


def test_groups_differ_in_more_than_seeds_and_begin_with_the_baseline() -> None:
    runs = [run("a", "charbonnier"), run("b", SG, 1), run("c", SG), run("d", steps=2400), run("e"), run("f", scale=2)]
    found = [(each.loss, each.recipe, [one.run_id for one in each.runs]) for each in view(runs, []).groups()]
    assert found == [
        ("l1", "scale=2, steps=1200", ["f"]),
        ("l1", "scale=4, steps=1200", ["e"]),
        ("l1", "scale=4, steps=2400", ["d"]),
        ("charbonnier", "scale=4, steps=1200", ["a"]),
        (SG, "scale=4, steps=1200", ["c", "b"]),
    ]


def test_what_is_asked_for_keeps_its_order_and_may_be_spelled_otherwise() -> None:
    shown = view([run("a"), run("b", SG)], [score("a", 0.1), score("b", 0.2, "fid")])
    found = shown.resolved(Filters(losses=["sg + l1", "l1"], metrics=["lpips_alex", "fid"], lambdas=[1.0]))
    assert (found.losses, found.metrics, found.lambdas) == ([SG, "l1"], ["lpips_alex", "fid"], [1.0])


def test_a_loss_with_lambda_means_all_that_differ_in_it() -> None:
    there = {"a": "l1", "b": "l1 + 10.0*sg", "c": SG, "d": "l1 + 1.0*sg(order=1)", "e": "2.0*l1 + 1.0*sg"}
    shown = view([run(name, loss) for name, loss in there.items()], [score(name, 0.1) for name in there])
    found = shown.resolved(Filters(losses=["lambda*sg(order=2) + l1", "2*l1 + sg", SG]))
    assert found.losses == ["l1", SG, "l1 + 10.0*sg", "2.0*l1 + 1.0*sg"]


def test_lambda_is_that_of_the_term_which_a_sweep_varies() -> None:
    rows = [run(name, "l1 + 0.5*l2 + 1.0*sg", varied="l2") | {"lambda": 0.5} for name in "ab"]
    (row,) = to_table("runs", rows[1:]).to_pylist()
    shown = view(rows[:1], [score("a", 0.1)], [Planned(row, (), ()), plan("c")])
    assert [(each.lam, each.varied) for each in shown.runs()] == [(0.5, "l2"), (0.5, "l2"), (0.0, None)]
    assert [each.run_id for each in shown.runs(Filters(lambdas=[0.5]))] == ["a", "b"]


def test_a_loss_is_called_by_its_label_and_found_by_it() -> None:
    tables = (to_table("runs", [run("a"), run("b", SG)]), to_table("scores", [score("a", 0.1), score("b", 0.2)]))
    shown = View(Results.of(*tables, planned=[plan("c", SG, 1)], labels={SG: "ours", "l2": "l1"}))
    assert [str(each) for each in shown.runs()] == [
        "edsr-tiny · l1 · seed 0", "edsr-tiny · ours · seed 0", "edsr-tiny · ours · seed 1"
    ]  # fmt: skip
    assert [(each.loss, each.trained_with) for each in shown.groups()] == [("l1", "l1"), (SG, "ours")]
    assert shown.resolved(Filters(losses=["ours", "sg + l1", "l1"])).losses == [SG, "l1"]
    (cell,) = compare.comparisons(shown, "l1", "ours")
    assert (cell.a, cell.b, cell.label_a, cell.label_b) == ("l1", SG, "l1", "ours")
    assert cell.left_out == ("no run (l1, seed 1)", "pending (ours, seed 1)")
    with pytest.raises(InputError, match=r"^unknown loss 'our': did you mean 'ours'\? Valid: l1, ours\.$"):
        shown.resolved(Filters(losses=["our"]))
    assert shown.results.query("SELECT label, loss FROM labels ORDER BY loss").to_pylist() == [
        {"label": "ours", "loss": SG}, {"label": "l1", "loss": "l2"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Filters(backbones=["edsr"]), r"unknown backbone 'edsr': did you mean 'edsr-tiny'\?"),
        (Filters(losses=["l2"]), "unknown loss 'l2'"),
        (Filters(seeds=[7]), "unknown seed '7'; valid: 0"),
        (Filters(metrics=["fid"]), "unknown metric 'fid'"),
    ],
)
def test_what_is_not_there_is_named(asked: Filters, said: str) -> None:
    with pytest.raises(InputError, match=said):
        view([run("a")], [score("a", 0.1)]).resolved(asked)
    with pytest.raises(InputError, match=r"there is no metric 'fid', nor any other\."):
        view([], []).resolved(Filters(metrics=["fid"]))


def test_only_what_is_asked_for_is_shown() -> None:
    whole = view([run("a"), run("b", SG)], [score("a", 0.1), score("b", 0.2), score("b", 3.0, "fid")], [plan("c")])
    asked = Filters(losses=[SG], metrics=["fid"])
    assert [each.run_id for each in whole.runs(asked)] == ["b"]
    assert [(each.run.run_id, each.metric, each.value) for each in whole.outcomes(asked)] == [("b", "fid", 3.0)]
    assert whole.totals(asked)["value"].to_pylist() == [3.0]
    assert whole.rows(asked)["run_id"].to_pylist() == ["b"]


def test_scores_of_images_are_read_only_where_they_are_asked_for() -> None:
    scores = [score(name, 0.1, image=image) for name in "ab" for image in ("x", "y")]
    rows = view([run("a"), run("b", SG)], [*scores, score("a", 0.1)]).of_images(Filters(runs=["a"]))
    assert sorted(zip(rows["run_id"].to_pylist(), rows["image"].to_pylist(), strict=True)) == [("a", "x"), ("a", "y")]


def test_scores_without_a_run_are_no_outcomes() -> None:
    assert view([run("a")], [score("b", 0.1)]).outcomes() == []


def test_a_status_that_nobody_knows_is_named() -> None:
    with pytest.raises(InputError, match="a run has the status 'lost'; valid: done, failed, pending"):
        view([run("a", status="lost")], []).runs()
    with pytest.raises(InputError, match="a score has the status 'lost'"):
        view([run("a")], [score("a", None, status="lost")]).outcomes()


def test_a_comparison_is_computed_once_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run(f"{loss} {seed}", loss, seed) for loss in ("l1", SG) for seed in range(2)]
    scores = [score(row["run_id"], 0.1 * at, metric) for at, row in enumerate(runs) for metric in ("fid", "kid")]
    shown = view(runs, scores)
    calls = []
    measured = compare._measured
    monkeypatch.setattr(compare, "_measured", lambda *given: calls.append(given) or measured(*given))
    first = compare.comparisons(shown, "l1", "sg + l1", metrics=["fid"])
    both = compare.comparisons(shown, "l1", SG)
    assert (len(calls), [cell.metric for cell in both]) == (2, ["fid", "kid"])
    assert both[:1] == first


def test_reading_imports_neither_torch_nor_a_plug_in() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from sgbench.analysis import Filters, Results, View;"
        "from sgbench.store.schema import to_table;"
        "run = dict(run_id='a', kind='train', name='a', backbone='lab:Net', loss='l1 + 0.5*lab:Edge(sigma=2)', scale=4,"
        " status='done');"
        "view = View(Results.of(to_table('runs', [run]), to_table('scores', [])));"
        "print(view.resolved(Filters(losses=['0.5*lab:Edge(sigma=2) + l1'])).losses)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['l1 + 0.5*lab:Edge(sigma=2)']"
