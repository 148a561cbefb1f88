"""``sgbench compare`` on a store in the current folder."""

import datetime
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sgbench.core.storage import Storage
from sgbench.store import Store

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
SG = "l1 + 1.0*sg"

Compare = Callable[..., tuple[str, str]]


def fill(root: str, metrics: tuple[str, ...] = ("lpips_alex", "psnr_y")) -> None:
    """Three seeds of two losses with two backbones on two test sets; SG lowers every score of one backbone."""
    store = Store(Storage(root))
    random = np.random.default_rng(0)
    for number, (backbone, loss, seed) in enumerate(
        (backbone, loss, seed) for backbone in ("edsr-tiny", "rdn-tiny") for loss in ("l1", SG) for seed in range(3)
    ):
        run = {"run_id": f"{number:012x}", "kind": "train", "name": "run", "backbone": backbone, "loss": loss}
        store.write_run({**run, "seed": seed, "scale": 4, "status": "done"})
        for dataset, images in (("Set5", 5), ("Set14", 14)):
            gain = -0.1 if (loss, backbone) == (SG, "edsr-tiny") else 0.0
            values = 0.4 + gain + random.normal(0, 0.005, images)
            row = {
                "run_id": run["run_id"],
                "dataset": dataset,
                "dataset_sha256": f"{images:064x}",
                "metric_version": "1",
            }
            row |= {"protocol": '{"direction":"lower"}', "n_images": images, "status": "ok", "scored": NOW}
            for metric in metrics:
                images_and_set = [*((f"i{at}", float(value)) for at, value in enumerate(values)), (None, values.mean())]
                store.write_scores(
                    [{**row, "metric": metric, "image": image, "value": value} for image, value in images_and_set]
                )


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Compare) -> Compare:
    """Runs ``sgbench compare`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(run, "compare")


def test_it_finds_the_only_store_and_shows_lpips(compare: Compare) -> None:
    fill("results/quick")
    out, err = compare("l1", "sg + l1")
    assert err == ""
    assert out.startswith(f"A is l1, B is {SG}.\n\nlpips_alex ↓\n")
    assert re.search(
        r"^- l1 \+ 1\.0\*sg lowers lpips_alex on Set14 with edsr-tiny by .*: significant, better\.$", out, re.M
    )
    assert "psnr_y" not in out
    assert compare("l1", SG, "--results", "results/quick", "--metric", "lpips_alex")[0] == out
    assert compare("l1", SG)[0] == out  # the same store prints the same intervals


def test_without_lpips_it_shows_all_there_is(compare: Compare) -> None:
    fill("store", metrics=("psnr_y", "ssim_y"))
    data = json.loads(compare("l1", SG, "--results", "store", "--json")[0])
    assert [cell["metric"] for cell in data["comparisons"]] == ["psnr_y"] * 6 + ["ssim_y"] * 6


def test_filters_choose_what_is_shown_and_not_what_p_is_corrected_for(compare: Compare) -> None:
    fill("results/quick")
    everything = json.loads(compare("l1", SG, "--json")[0])["comparisons"]
    assert [(cell["dataset"], cell["backbone"]) for cell in everything] == [
        ("Set5", "edsr-tiny"),
        ("Set5", "rdn-tiny"),
        ("Set14", "edsr-tiny"),
        ("Set14", "rdn-tiny"),
        ("all sets", "edsr-tiny"),
        ("all sets", "rdn-tiny"),
    ]
    (cell,) = json.loads(compare("l1", SG, "--backbone", "edsr-tiny", "--test", "Set14", "--json")[0])["comparisons"]
    assert cell == everything[2]
    assert (cell["family"], cell["verdict"], cell["seeds"], cell["images"]) == (4, "significant", [0, 1, 2], 14)
    (cell,) = json.loads(compare("l1", SG, "--backbone", "edsr-tiny", "--test", "all sets", "--json")[0])["comparisons"]
    assert cell == everything[4]
    assert (cell["family"], cell["sets"], cell["images"]) == (2, ["Set5", "Set14"], 19)


def test_all_sets_come_last_and_a_note_says_what_they_are(compare: Compare) -> None:
    fill("results/quick")
    out, _ = compare("l1", SG)
    assert f"{SG} lowers lpips_alex on all sets with edsr-tiny by" in out
    assert "All sets: the images of Set5 and Set14 as one sample" in out
    assert "(4 by lpips_alex, 2 by lpips_alex on all sets)" in out
    assert "all sets" not in compare("l1", SG, "--test", "Set5")[0].lower()


def test_equivalence_is_asked_for_with_a_margin_and_its_metric(compare: Compare) -> None:
    fill("results/quick")
    asked = ("l1", SG, "--metric", "lpips_alex", "--equivalent", "0.05")
    out, _ = compare(*asked)
    assert re.search(r"on Set14 with rdn-tiny by .*: equivalent within 0\.05 \(corrected p 0\.0", out)
    assert re.search(r"with edsr-tiny by .*: significant, better; not shown to be equivalent within 0\.05 \(", out)
    assert "Equivalent: two one-sided tests show that the difference is within the margin, 0.05" in out
    cells = json.loads(compare(*asked, "--test", "Set14", "--json")[0])["comparisons"]
    assert [cell["verdict"] for cell in cells] == ["significant", "equivalent"]
    assert [cell["margin"] for cell in cells] == [0.05, 0.05]
    assert cells[1]["equivalence"]["p"] <= 0.05


def test_where_nothing_is_significant_the_minimum_detectable_effect_is_told(compare: Compare) -> None:
    fill("results/quick")
    out, _ = compare("l1", SG, "--test", "Set14")
    (effect,) = re.findall(r"not significant \(corrected p [\d.]+; minimum detectable effect ([\d.]+)\)", out)
    *_, cell = json.loads(compare("l1", SG, "--test", "Set14", "--json")[0])["comparisons"]
    assert f"{cell['detectable']:.4f}" == effect
    assert "Minimum detectable effect: what so many seeds and images find significant in 80% of cases" in out


def test_alpha_is_that_of_intervals_and_verdicts(compare: Compare) -> None:
    fill("results/quick")
    (at_5, at_50) = (
        json.loads(compare("l1", SG, "--alpha", alpha, "--json")[0])["comparisons"][0] for alpha in ("0.05", "0.5")
    )
    assert (at_5["verdict"], at_50["verdict"]) == ("inconclusive", "significant")
    assert at_5["overall"]["interval"]["low"] < at_50["overall"]["interval"]["low"]


def test_anytime_judges_any_store_by_tests_that_allow_for_looks(compare: Compare) -> None:
    fill("results/quick")
    usual, asked = (
        json.loads(compare("l1", SG, "--test", "Set14", *options, "--json")[0])["comparisons"]
        for options in ((), ("--anytime", "--g", "1"))
    )
    assert [cell["sequences"] for cell in usual] == [[], []]
    assert [[(each["seeds"], each["g"], each["declaration"]) for each in cell["sequences"]] for cell in asked] == [
        [([0, 1, 2], 1.0, None)]
    ] * 2
    assert all(later["p"] >= first["p"] for first, later in zip(usual, asked, strict=True))
    out, _ = compare("l1", SG, "--anytime")
    assert "lpips_alex ↓ anytime-valid" in out
    assert "Nothing was declared for lpips_alex, so that g = 4 may have been chosen after a look." in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["l1", "l1 + 0.1*sg"], f"unknown loss 'l1 + 0.1*sg': did you mean '{SG}'? Valid: l1, {SG}."),
        (["l1", "l1"], "'l1' and 'l1' are the same loss, l1; give two different ones."),
        (["l1", SG, "--metric", "psnry"], "unknown metric 'psnry': did you mean 'psnr_y'? Valid: lpips_alex, psnr_y."),
        (["l1", SG, "--backbone", "edsr"], "unknown backbone 'edsr': did you mean 'edsr-tiny'?"),
        (["l1", SG, "--test", "Urban100"], "unknown test set 'Urban100'; valid: Set14, Set5, all sets."),
        (["l1", SG, "--equivalent", "0.1"], "--equivalent is 0.1, in the unit of one metric, which --metric names"),
        (["l1", SG, "--equivalent", "-1", "--metric", "psnr_y"], "the margin is -1; a number above 0 is needed."),
        (["l1", SG, "--alpha", "5"], "alpha is 5; a number from 0.001 to 0.5 is needed."),
        (["l1", SG, "--results", "nowhere"], "nowhere' holds no results"),
        (["l1", SG, "--g", "1"], "--g is 1, which only --anytime needs; add that or leave --g out."),
        (["l1", SG, "--anytime", "--g", "0"], "g is 0; a number above 0 is needed."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(compare: Compare, arguments: list[str], sentence: str) -> None:
    fill("results/quick")
    out, err = compare(*arguments, code=2)
    assert out == ""
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1
