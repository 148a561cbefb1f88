"""What the commands print and leave behind when all is well; `sweep` is in ``tests/cluster``."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sgbench
from sgbench.assets.catalogue import NETWORKS
from sgbench.backbones import build_backbone
from sgbench.data import CATALOG

Run = Callable[..., tuple[str, str]]

pytestmark = pytest.mark.usefixtures("place")


def statuses(run: Run, *arguments: str) -> dict[str, str]:
    rows: list[dict[str, Any]] = json.loads(run("plan", "tiny.yaml", "--json", *arguments)[0])
    return {f"{row['loss']} {row['seed']}": row["status"] for row in rows}


def test_plan_lists_the_runs_and_writes_no_store(place: Path, run: Run) -> None:
    out, err = run("plan", "tiny.yaml")
    assert out.count("to do") == 4
    first, second = err.splitlines()
    assert first == "tiny: 4 runs: 4 to do"
    assert second.startswith(
        "Training time is unknown: no run in this store tells it; --measure times 20 steps of each"
    )
    rows = json.loads(run("plan", "tiny.yaml", "--json", "--lambda", "0,1")[0])
    assert [(row["loss"], row["seed"], row["step"]) for row in rows] == [
        ("l1", 0, "0/3"),
        ("l1 + 1.0*sg", 0, "0/3"),
        ("l1", 1, "0/3"),
        ("l1 + 1.0*sg", 1, "0/3"),
    ]
    assert all(row["run_id"] in out for row in rows)
    for flags in (("l1 + λ*ssim", "0,2"), ("lambda*ssim + l1", "ssim=0,2"), ("l1 + 0.5*ssim", "ssim=0,2")):
        asked = statuses(run, "--loss", flags[0], "--lambda", flags[1], "--seeds", "0")
        assert asked == dict.fromkeys(["l1 0", "l1 + 2.0*ssim 0"], "to do")
    assert not (place / "results").exists()


def test_plan_tells_how_long_the_rest_takes_and_what_it_costs(run: Run) -> None:
    run("train", "tiny.yaml", "--loss", "l1", "--seeds", "1")
    out, err = run("plan", "tiny.yaml", "--results", "results/tiny", "--devices", "2", "--price", "36")
    price = r"and \d+\.\d\d at 36 per hour, as measured on "
    known = rf"Training and scoring 1 of 3 runs will take about \S+ device-hours: \S+ s on 2 devices, {price}"
    assert re.search(known, err)
    assert "Nothing tells how long a step with 'l1 + 1.0*sg' takes; --measure finds out.\n" in err
    assert len(re.findall(r"0/3 +\S+ s +\S+ s +1 run here", out)) == 1
    assert len(re.findall(r"0/3 +unknown +\S+ s ", out)) == 2

    _, err = run("plan", "tiny.yaml", "--times", "nowhere", code=2)
    assert err == "error: --times: 'nowhere' has no runs that could tell times; a results store is needed.\n"
    out, _ = run("plan", "tiny.yaml", "--results", "results/other", "--times", "results/tiny")
    assert len(re.findall(r"0/3 +\S+ s +\S+ s +1 run in results/tiny", out)) == 2
    assert "--address is for --measure" in run("plan", "tiny.yaml", "--address", "auto", code=2)[1]
    for command in ("plan", "sweep", "doctor"):
        said = run(command, "tiny.yaml", "--with", "pytest", code=2)[1]
        assert "--with is 'pytest', but there is no cluster to send it to; give the address of one." in said

    out, err = run("plan", "tiny.yaml", "--measure", "--json")
    rows = json.loads(out)
    assert [row["expected_seconds"] is None for row in rows].count(True) == 1  # of the one that is done
    assert [row["basis"] for row in rows] == ["1 run here", "measured here", None, "measured here"]
    assert len({row["device"] for row in rows} - {None}) == 1
    assert all(row["expected_scoring_seconds"] > 0 for row in rows if row["basis"])
    assert len(re.findall(r"^edsr-tiny · .*: \S+ s a step", err, re.MULTILINE)) == 2

    _, err = run("plan", "tiny.yaml", "--devices", "0", code=2)
    assert err == "error: --devices is '0': input should be greater than or equal to 1.\n"


def test_plan_tells_how_many_seeds_an_effect_needs(run: Run) -> None:
    asked = ("plan", "tiny.yaml", "--detect", "0.5")
    pilot = ("--pilot", "seed=0.2,image=0.3,both=0.1")
    nothing = "nothing tells how differences vary: the results store has no two losses with scores of two seeds by"
    assert nothing in run(*asked, code=2)[1]
    out, err = run(*asked, *pilot, "--price", "36", "--devices", "2")
    assert re.search(r"edsr-tiny +l1 vs l1 \+ 1.0\*sg +few +2 +0.2, 0.3, 0.1 +stated +6 images, 20 seeds", out)
    assert err.startswith("An effect of 0.5 by psnr_y is to be shown in 80% of cases, with α = 0.05 for each ")
    assert err.endswith("As planned: 4 runs with 2 seeds; how long they take is not known.\n")
    run("train", "tiny.yaml", "--loss", "l1", "--seeds", "1")
    _, err = run(*asked, *pilot, "--loss", "l1", "--loss", "l2", "--price", "36")
    assert re.search(r"As planned: 4 runs with 2 seeds, about \S+ device-hours, and \d+\.\d\d at 36 per hour.\n", err)
    (found,) = json.loads(run(*asked, *pilot, "--json")[0])["comparisons"]
    assert (found["dataset"], found["planned_seeds"], found["seeds"], found["more"]["images"]) == ("few", 2, None, 6)

    assert nothing in run(*asked, code=2)[1]
    assert run("plan", "tiny.yaml", *pilot, code=2)[1].startswith("error: --pilot is for --detect")
    assert "--detect is -1; a number from 1e-09" in run("plan", "tiny.yaml", "--detect", "-1", code=2)[1]
    assert "--power is 2; a number from 0.5 to" in run(*asked, "--power", "2", code=2)[1]


def test_plan_counts_duplicates(run: Run) -> None:
    grid = "grids=[{backbones: [edsr-tiny], losses: [l1]}, {backbones: [edsr-tiny], losses: [l1, l2]}]"
    assert "tiny: 2 runs: 2 to do (3 named, 1 of them duplicates)\n" in run("plan", "tiny.yaml", "--set", grid)[1]


def test_plan_without_the_images_lists_names_and_says_why_there_are_no_ids(run: Run) -> None:
    out, err = run("plan", "tiny.yaml", "--train", "DIV2K", "--json")
    assert [row["run_id"] for row in json.loads(out)] == [None] * 4
    assert err.startswith("note: run ids are not known yet: the train images of DIV2K are not available locally ('")


def test_plan_without_the_images_finds_runs_by_what_the_store_has_on_record_of_them(run: Run) -> None:
    run("train", "tiny.yaml", "--train", "DIV2K=train", "--loss", "l1", "--seeds", "1")
    at_hand = run("plan", "tiny.yaml", "--train", "DIV2K=train", "--json")[0]
    out, err = run("plan", "tiny.yaml", "--train", "DIV2K", "--json")
    assert out == at_hand
    assert [row["status"] for row in json.loads(out)].count("done") == 1
    assert err.startswith("note: run ids are those of the images on record in the store: the train im")


def test_plan_does_not_say_what_there_is_of_runs_that_it_cannot_find(run: Run) -> None:
    run("train", "tiny.yaml", "--loss", "l1", "--seeds", "1")
    out, err = run("plan", "tiny.yaml", "--train", "DIV2K")
    assert out.count("unknown") == 4
    assert "0/3" not in out
    assert err.endswith("tiny: 4 runs: 4 unknown\n")  # and no guess at times


def test_train_does_one_run_of_the_sweep_and_the_table_knows_the_others(place: Path, run: Run) -> None:
    one = ("train", "tiny.yaml", "--loss", "l1", "--seeds", "1")
    out, err = run(*one)
    assert "started edsr-tiny · l1 · seed 1" in err
    assert "done edsr-tiny · l1 · seed 1 (1 of 1)" in err
    assert "psnr_y" in out
    assert statuses(run) == {"l1 0": "to do", "l1 + 1.0*sg 0": "to do", "l1 1": "done", "l1 + 1.0*sg 1": "to do"}
    assert statuses(run, "--metric", "psnr_y", "--metric", "ssim_y")["l1 1"] == "to score"
    assert statuses(run, "--test", "few=test", "--test", "demo")["l1 1"] == "to score"
    assert statuses(run, "--set", "recipe.steps=4")["l1 1"] == "to do"

    again, err = run(*one)
    assert again == out
    assert "started" not in err
    assert run("table")[0] == out  # the only store in results/
    row = sgbench.load_results("results/tiny").to_arrow().to_pylist()[0]
    assert (row["loss"], row["seed"], row["run_status"]) == ("l1", 1, "done")


def test_a_sweep_s_table_has_its_own_runs_and_scores_and_no_others_of_the_store(run: Run) -> None:
    whole = ("train", "tiny.yaml", "--loss", "l1", "--seeds", "1", "--metric", "psnr_y", "--metric", "ssim_y")
    assert "ssim_y" in run(*whole)[0]
    out, _ = run("train", "tiny.yaml", "--loss", "l2", "--seeds", "1")
    assert re.search(r"^few +edsr-tiny +l2 ", out, re.MULTILINE)
    assert not re.search(r"ssim_y|edsr-tiny +l1 ", out)


def test_train_that_fails_says_so_and_tries_again_the_next_time(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "nan_loss.py").write_text(
        "import os, torch\n"
        "class Loss(torch.nn.Module):\n"
        "    def forward(self, sr, hr):\n"
        "        smooth = hr.std() < 0.2  # as photographs are, and the random images of a rehearsal are not\n"
        "        return (sr - hr).abs().mean() * (float(os.environ['FACTOR']) if smooth else 1.0)\n"
    )
    one = ("train", "tiny.yaml", "--loss", "nan_loss:Loss", "--seeds", "0")
    monkeypatch.setenv("FACTOR", "nan")
    _, err = run(*one, code=1)
    assert "FAILED edsr-tiny · nan_loss:Loss · seed 0 (1 of 1): loss is NaN at step 1" in err
    assert "Traceback" not in err
    (row,) = json.loads(run("plan", "tiny.yaml", "--loss", "nan_loss:Loss", "--seeds", "0", "--json")[0])
    assert (row["status"], row["error"], row["step"]) == ("failed", "loss is NaN at step 1", "1/3")
    assert "loss is NaN" in run("table")[0]
    monkeypatch.setenv("FACTOR", "1")
    run(*one)
    (row,) = json.loads(run("plan", "tiny.yaml", "--loss", "nan_loss:Loss", "--seeds", "0", "--json")[0])
    assert row["status"] == "done"


def test_eval_shows_what_was_asked_for_and_keeps_it(place: Path, run: Run) -> None:
    asked = ("eval", "bicubic", "--test", "few=test", "--metric", "psnr_y", "--metric", "ssim_y")
    out, _ = run(*asked)
    assert "bicubic" in out
    assert run(*asked)[0] == out
    data = json.loads(run(*asked, "--json")[0])
    assert data == json.loads(run("table", "--results", "results/eval", "--json")[0])
    scores = sgbench.load_results("results/eval").scores.to_pylist()
    assert sorted((row["metric"], row["image"] or "") for row in scores) == [
        (metric, image) for metric in ("psnr_y", "ssim_y") for image in ("", "photo0", "photo1")
    ]


def test_eval_shows_several_things_in_one_table_and_nothing_else_of_the_store(place: Path, run: Run) -> None:
    run("train", "tiny.yaml", "--loss", "l1", "--seeds", "0")
    run("train", "tiny.yaml", "--loss", "l1 + 1.0*sg", "--seeds", "0")
    rows = sgbench.load_results("results/tiny").runs.select(["loss", "run_id"]).to_pydict()
    ids = dict(zip(rows["loss"], rows["run_id"], strict=True))
    asked = ("--results", "results/tiny", "--test", "few=test", "--metric", "psnr_y", "--json")

    def shown(*what: str) -> list[tuple[str, str]]:
        return sorted((row["backbone"], row["loss"]) for row in json.loads(run("eval", *what, *asked)[0])["lines"])

    assert shown("bicubic") == [("bicubic", "")]
    assert shown(ids["l1"]) == [("edsr-tiny", "l1")]
    assert shown("bicubic", "test", ids["l1"]) == [("bicubic", ""), ("edsr-tiny", "l1"), ("test", "")]


def test_eval_shows_the_name_that_was_asked_for(run: Run) -> None:
    torch.save(build_backbone("edsr-tiny", 4).state_dict(), "a.pth")
    shutil.copy("a.pth", "b.pth")
    asked = ("--backbone", "edsr-tiny", "--test", "few=test", "--metric", "psnr_y")
    first, second, both = (run("eval", *what, *asked)[0] for what in (["a.pth"], ["b.pth"], ["a.pth", "b.pth"]))
    assert "a.pth" in first
    assert second == first.replace("a.pth", "b.pth")
    assert "a.pth = b.pth" in both


def test_eval_of_a_run_adds_its_scores_to_the_store_of_the_sweep(place: Path, run: Run) -> None:
    run("train", "tiny.yaml", "--loss", "l1", "--seeds", "0")
    before = sgbench.load_results("results/tiny").runs
    (run_id,) = before.column("run_id").to_pylist()
    run("eval", run_id[:6], "--results", "results/tiny", "--test", "new=test", "--metric", "ssim_y")
    results = sgbench.load_results("results/tiny")
    assert results.runs.equals(before)
    assert set(zip(*results.scores.select(["dataset", "metric"]).to_pydict().values(), strict=True)) == {
        ("few", "psnr_y"),
        ("new", "ssim_y"),
    }


def test_a_store_may_have_a_name_with_spaces_and_be_a_uri(place: Path, run: Run) -> None:
    one = ("train", "tiny.yaml", "--loss", "l1", "--seeds", "0", "--results")
    out, _ = run(*one, "my results/été 50%")
    assert run("table", "--results", "my results/été 50%")[0] == out
    out, _ = run(*one, f"file://{place}/by-uri")
    assert (place / "by-uri" / "runs").is_dir()
    assert run("table", "--results", "by-uri")[0] == out


def test_data_list_and_weights_list_know_everything(run: Run) -> None:
    assert [row["name"] for row in json.loads(run("data", "list", "--json")[0])] == list(CATALOG)
    assert [row["name"] for row in json.loads(run("weights", "list", "--json")[0])] == NETWORKS.names()
    for command in ("data", "weights"):
        assert len(run(command, "list")[0].splitlines()) > 3


def test_data_prepare_packs_once(place: Path, run: Run) -> None:
    (first,) = json.loads(run("data", "prepare", "mine=train", "--json")[0])
    assert (first["name"], first["images"]) == ("mine", 3)
    assert Path(first["folder"]).is_relative_to(place / "cache")
    assert json.loads(run("data", "prepare", "mine=train", "--json")[0]) == [first]
    (other,) = json.loads(run("data", "prepare", "mine=train", "--scale", "2", "--json")[0])
    assert other["sha256"] != first["sha256"]


def test_weights_fetch_says_where_what_is_here_lies(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgbench.assets.locator.Locator.find", lambda self, name: Path(f"/weights/{name}.pth"))
    _, err = run("weights", "fetch")
    assert err.splitlines() == [f"{name}: /weights/{name}.pth" for name in NETWORKS.names()]


def test_version(run: Run) -> None:
    assert run("--version")[0] == f"sgbench {sgbench.__version__}\n"
