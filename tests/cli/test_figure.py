"""``sgbench figure``: files from a store in the current folder."""

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sgbench.core.storage import Storage
from sgbench.data import encode_png, pack_set, write_png
from sgbench.spec import Recipe
from sgbench.store import Dataset, Store

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
LOSSES = ["l1", "l1 + 0.1*sg", "l1 + 1.0*sg"]

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a store in ``results/quick``, and the HR images of its test set in ``HR``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    write_png(tmp_path / "HR" / "noise.png", np.random.default_rng(0).integers(0, 256, (64, 176, 3), dtype=np.uint8))
    packed = pack_set("Photos=HR", "test", Recipe())
    dataset = Dataset(packed.name, packed.sha256)
    store = Store(Storage(str(tmp_path / "results" / "quick")))
    for at, loss in enumerate(LOSSES):
        run_id = f"{at:012x}"
        row = {"run_id": run_id, "kind": "train", "name": loss, "backbone": "edsr-tiny", "loss": loss, "seed": 0}
        row |= {"lambda": [0.0, 0.1, 1.0][at], "scale": 4, "status": "done", "spec": json.dumps({"recipe": {}})}
        store.write_run(row)
        score = {"run_id": run_id, "dataset": dataset.name, "dataset_sha256": dataset.sha256, "metric_version": "1"}
        score |= {"protocol": '{"direction":"lower"}', "n_images": 1, "status": "ok", "scored": NOW}
        for metric, value in (("lpips_alex", 0.3 - 0.1 * at), ("psnr_y", 28.0 - at)):
            store.write_scores([score | {"metric": metric, "image": name, "value": value} for name in (None, "noise")])
        step = {"run_id": run_id, "step": 10, "loss": 0.1, "terms": {"l1": 0.1}, "lr": 1e-3, "steps_per_second": 1.0}
        store.write_history([step, step | {"step": 20}])
        image = encode_png(np.asarray(packed.hr(0)) // (at + 1))
        store.storage.write(f"images/{run_id}/{dataset.versioned}/noise.png", image)
    return tmp_path


COMMANDS = {
    "gradient-maps": ["HR/noise.png"],
    "lambda": ["--test", "Photos", "--metric", "psnr_y"],
    "forest": ["l1", "l1+sg", "--metric", "psnr_y"],
    "plane": ["--loss", "l1"],
    "agreement": ["--test", "Photos"],
    "curves": ["--backbone", "edsr-tiny"],
    "crops": ["--test", "Photos=HR", "--loss", "l1", "--loss", "l1 + sg"],
}


@pytest.mark.parametrize("form", STARTS)
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("alexnet")
def test_every_figure_is_written_in_every_format(place: Path, run: Run, name: str, form: str) -> None:
    out, said = run("figure", name, *COMMANDS[name], "--out", f"fig.{form}")
    assert (out, said) == ("", f"written to fig.{form}\n")
    assert (place / f"fig.{form}").read_bytes().startswith(STARTS[form])


def test_a_part_that_is_chosen_by_hand(place: Path, run: Run) -> None:
    part = ["--image", "noise", "--box", "10,20,30,30"]
    run(
        "figure",
        "crops",
        "--test",
        "Photos=HR",
        *part,
        "--metric",
        "psnr_y",
        "--columns",
        "1",
        "--loss",
        "l1",
        "--out",
        "c.svg",
    )
    drawn = (place / "c.svg").read_text(encoding="utf-8")
    assert "28.00" in drawn
    assert "10,20,30,30" in drawn


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lambda", "--out", "a.jpg"], "--out is 'a.jpg'; a file that ends in .png, .svg or .pdf is needed."),
        (["lambda", "--out", "none/a.png"], "'none/a.png': No such file or directory."),
        (["lambda", "--out", "a.png", "--results", "nowhere"], "nowhere' holds no results"),
        (["plane", "--out", "a.png", "--test", "Photo"], "unknown test set 'Photo'"),
        (["curves", "--out", "a.png", "--loss", "l2"], "unknown loss 'l2'"),
        (["forest", "l1", "l2", "--out", "a.png"], "unknown loss 'l2'"),
        (["forest", "l1", "l1+sg", "--out", "a.png", "--test", "Set5"], "unknown test set 'Set5'"),
        (["forest", "l1", "l1+sg", "--out", "a.png", "--alpha", "0.9"], "alpha is 0.9; a number from 0.001 to 0.5"),
        (["rank", "--out", "a.png"], "there are no ranks by 'lpips_alex', whose scores are not of two losses with two"),
        (["agreement", "--out", "a.png", "--metric", "psnr_y"], "no two metrics have scores of three losses"),
        (["gradient-maps", "no.png", "--out", "a.png"], "'no.png' cannot be read as an image"),
        (["gradient-maps", "HR/noise.png", "--operator", "x", "--out", "a.png"], "operator is 'x'"),
        (
            ["crops", "--test", "Photos=HR", "--out", "a.png", "--box", "1,2,3"],
            "--box is '1,2,3'; LEFT,TOP,WIDTH,HEIGHT",
        ),
        (["crops", "--test", "Photos=HR", "--out", "a.png", "--box", "1,2,3,x"], "--box is '1,2,3,x'; LEFT,TOP"),
        (["crops", "--test", "Photos=HR", "--out", "a.png"], "regions are chosen between two losses, and there are 3"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    place: Path, run: Run, arguments: list[str], sentence: str
) -> None:
    out, said = run("figure", *arguments, code=2)
    assert out == ""
    assert said.startswith("error: ")
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(place.glob("a.*"))


@pytest.mark.parametrize(("name", "more"), [("plane", 38), ("curves", 6)])
def test_of_more_losses_than_can_be_told_apart_those_of_the_paper_are_drawn(
    place: Path, run: Run, name: str, more: int
) -> None:
    store = Store(Storage(str(place / "results" / "quick")))
    (row, *_) = store.runs().drop_columns(["schema_version"]).to_pylist()
    for at in range(more):
        run_id, loss = f"{100 + at:012x}", f"l1 + {at + 2}.0*ssim"
        store.write_run(row | {"run_id": run_id, "loss": loss, "backbone": "rdn-tiny"})
    _, said = run("figure", name, "--out", "fig.svg")
    assert said == (
        "Too many losses to tell apart: only those of the paper are drawn. --loss chooses others.\nwritten to fig.svg\n"
    )
    assert "ssim" not in (place / "fig.svg").read_text(encoding="utf-8")
    assert run("figure", name, "--backbone", "edsr-tiny", "--out", "fig.svg")[1] == "written to fig.svg\n"


def test_images_that_were_not_kept_are_asked_for_where_they_can_be_made(place: Path, run: Run) -> None:
    for file in place.glob("results/quick/images/*/*/*.png"):
        file.unlink()
    crops = ("figure", "crops", "--test", "Photos=HR", "--loss", "l1", "--loss", "l1+sg", "--out", "a.png")
    store = place / "results" / "quick"
    _, said = run(*crops, code=2)
    assert f"images of 2 runs were not kept, and '{store}' has no weights" in said
    assert f"from which to make those of {0:012x}, {2:012x}." in said
    assert "sgbench eval" not in said
    for run_id in (0, 2):
        Storage(str(store)).write(f"weights/{run_id:012x}.pt", b"")
    _, said = run(*crops, code=2)
    assert f"sgbench eval {0:012x} {2:012x} --results {store} --test Photos=HR --metric psnr_y --save-images" in said


def test_help_loads_no_matplotlib() -> None:
    code = "import sys, sgbench.cli; sys.argv = ['sgbench', 'figure', 'crops', '--help']; sgbench.cli.main()"
    report = "import atexit, sys; atexit.register(lambda: print('matplotlib' in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
