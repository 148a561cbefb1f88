"""Test sets that have only low-resolution images, with a no-reference metric of one's own."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sgbench
from sgbench.backbones import build_backbone
from sgbench.core.registry import METRICS
from sgbench.core.resize import downscale, upscale
from sgbench.data import read_image, write_png
from sgbench.metrics import ImageMetric, Pair, Runtime

Run = Callable[..., tuple[str, str]]

SWEEP = """
grids:
- backbones: [edsr-tiny]
  losses: [l1, l1 + 1.0*sg]
train: mine=train
tests: ["real=none,lr=photos", few=test]
metrics: [psnr_y, spread]
recipe: {steps: 2, batch: 2, patch: 8}
"""

REAL = ("--test", "real=none,lr=photos")


class Spread(ImageMetric):
    """Standard deviation of the pixels of SR."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        return float(pair.cropped_sr(lambda image: image.pixels).std())


@pytest.fixture(autouse=True)
def photos(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Low-resolution images in ``photos``, and the metric ``spread``."""
    for name in ("a_LR", "bx4"):
        photo = read_image(Path("test/photo0.png" if name == "a_LR" else "test/photo1.png"))
        write_png(Path(f"photos/{name}.png"), downscale(photo, 4))
    spread = Spread(
        name="spread",
        direction="higher",
        version="1",
        description="spread",
        source="nobody",
        protocol={"implementation": "test"},
        needs_hr=False,
    )
    monkeypatch.setitem(METRICS._loaded, "spread", spread)


def outcomes(store: str = "results/eval") -> dict[tuple[str, str, str | None], tuple[str, str | None]]:
    rows = sgbench.load_results(store).scores.to_pylist()
    return {(row["dataset"], row["metric"], row["image"]): (row["status"], row["reason"]) for row in rows}


def test_no_reference_metrics_score_sr_and_the_others_say_that_they_need_hr(run: Run) -> None:
    out, err = run("eval", "bicubic", *REAL, "--test", "few=test", "--metric", "spread", "--metric", "psnr_y")
    assert err == ""
    assert "needs HR" in out
    needs = ("needs HR", "the test set has no HR images")
    real = {(metric, image): how for (test, metric, image), how in outcomes().items() if test == "real"}
    assert real == {
        **{("spread", image): ("ok", None) for image in ("a_LR", "bx4", None)},
        **{("psnr_y", image): needs for image in ("a_LR", "bx4", None)},
    }
    values = {row["image"]: row["value"] for row in sgbench.load_results("results/eval").scores.to_pylist()}
    for name in ("a_LR", "bx4"):
        expected = upscale(read_image(Path(f"photos/{name}.png")), 4)[4:-4, 4:-4].std()
        assert values[name] == pytest.approx(expected)
    before = {path: path.stat().st_mtime_ns for path in Path("results/eval/scores").iterdir()}
    run("eval", "bicubic", *REAL, "--metric", "spread", "--metric", "psnr_y", "--json")
    assert {path: path.stat().st_mtime_ns for path in Path("results/eval/scores").iterdir()} == before


def test_a_no_reference_metric_has_the_same_value_whether_there_is_hr_or_not(run: Run) -> None:
    run("eval", "bicubic", *REAL, "--test", "few=test", "--metric", "spread", "--metric", "lr_psnr")
    rows = [row for row in sgbench.load_results("results/eval").scores.to_pylist() if row["image"]]
    for metric in ("spread", "lr_psnr"):
        by_set = {
            name: [row["value"] for row in rows if (row["dataset"], row["metric"]) == (name, metric)]
            for name in ("real", "few")
        }
        assert by_set["real"] == by_set["few"]
        assert all(by_set["real"])


def test_results_of_other_tools_are_matched_with_the_low_resolution_files(run: Run) -> None:
    for name, file in (("a_LR", "a_SwinIR"), ("bx4", "b_x4_SwinIR")):
        write_png(Path(f"SwinIR/{file}.png"), upscale(read_image(Path(f"photos/{name}.png")), 4))
    _, err = run("eval", "SwinIR", "bicubic", *REAL, "--metric", "spread")
    assert err == (
        "SwinIR on real: matched 2 of 2 by the longest common stem: a_SwinIR.png → a_LR, b_x4_SwinIR.png → bx4\n"
    )
    rows = [row for row in sgbench.load_results("results/eval").scores.to_pylist() if row["image"] is None]
    assert rows[0]["value"] == rows[1]["value"]
    write_png(Path("small/a_LR.png"), read_image(Path("photos/a_LR.png")))
    _, err = run("eval", "small", *REAL, "--metric", "spread", code=2)
    assert (
        err == "error: 'small/a_LR.png': image 'a_LR': SR is 10×11 pixels and LR ×4 is 40×44; SR is as large as LR.\n"
    )


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            ("eval", "bicubic", *REAL),
            "'real' has no HR images, which every metric that is asked for needs (lpips_alex, fid, ",
        ),
        (
            ("eval", "bicubic", "--test", "real=none", "--metric", "spread"),
            "'real=none' names no images: write NAME=none",
        ),
        (("eval", "bicubic", "--test", "real=none,lr=nowhere", "--metric", "spread"), "there is no folder '"),
        (
            ("eval", "bicubic", "--test", "Set5=none,lr=photos", "--metric", "spread"),
            "has the name of a known set, which has HR images",
        ),
        (("eval", "bicubic", "--test", "b100=none,lr=photos", "--metric", "spread"), "did you mean 'B100'?"),
        (("train", "tiny.yaml", "--train", "x=none,lr=photos", "--loss", "l1"), "and training needs them"),
        (
            ("plan", "tiny.yaml", "--metric", "psnr_y"),
            "'real' has no HR images, which every metric that is asked for needs (psnr_y); add",
        ),
        (("plan", "tiny.yaml", "--train", "mine=test"), "training on test images is refused: image 'photo0' of mine"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_starts(run: Run, asked: tuple[str, ...], says: str) -> None:
    _, err = run(*asked, code=2)
    assert says in err
    assert not Path("results").exists()


def test_prepared_sets_without_hr_are_packed_once_and_verified(run: Run) -> None:
    out, _ = run("data", "prepare", "real=none,lr=photos", "--role", "test", "--json")
    (row,) = json.loads(out)
    assert row["lr"].endswith("photos")
    assert Path(row["folder"], "hr.bin").stat().st_size == 0
    assert run("data", "prepare", "real=none,lr=photos", "--role", "test", "--json")[0] == out
    assert "ok" in run("data", "verify", "real=none,lr=photos")[0]
    with Path(row["folder"], "lr.bin").open("r+b") as file:
        file.write(b"changed")
    (row,) = json.loads(run("data", "verify", "--json", code=1)[0])
    assert "has changed on disk" in row["result"]


def test_a_sweep_scores_its_runs_on_a_set_without_hr_and_figures_and_page_show_its_images(run: Run) -> None:
    run("train", "tiny.yaml", "--results", "store", "--loss", "l1")
    found = outcomes("store")
    assert {(test, metric): found[test, metric, None][0] for test, metric, _ in found} == {
        ("real", "psnr_y"): "needs HR",
        ("real", "spread"): "ok",
        ("few", "psnr_y"): "ok",
        ("few", "spread"): "ok",
    }
    (plan, _) = json.loads(run("plan", "tiny.yaml", "--results", "store", "--json")[0])
    assert plan["status"] == "done"
    out, _ = run("table", "--results", "store")
    assert "needs HR" in out
    run("eval", plan["run_id"], "--results", "store", *REAL, "--metric", "psnr_y", "--save-images")
    crops = ("figure", "crops", "--results", "store", *REAL, "--metric", "spread", "--out", "crops.svg")
    run(*crops, "--image", "a_LR", "--box", "0,0,16,16")
    assert "LR" in Path("crops.svg").read_text(encoding="utf-8")
    assert "which needs HR, and real has none; choose one with --image and --box" in run(*crops, code=2)[1]
    run("report", "--results", "store", *REAL, "--out", "page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    assert re.search(r'"LR": ?"LR"', page)
    assert not re.search(r'"HR": ?"HR"', page)


def test_a_checkpoint_is_scored_on_a_set_without_hr(run: Run) -> None:
    torch.manual_seed(0)
    torch.save(build_backbone("edsr-tiny", 4).state_dict(), "net.pt")
    run("eval", "net.pt", "--backbone", "edsr-tiny", *REAL, "--metric", "spread")
    assert {status for status, _ in outcomes().values()} == {"ok"}
