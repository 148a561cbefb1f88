"""``sgbench report``: a page from a store in the current folder."""

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

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a store in ``results/quick``, and the HR images of its test set in ``HR``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        write_png(tmp_path / "HR" / f"{name}.png", np.full((16, 16, 3), ord(name), np.uint8))
    packed = pack_set("Photos=HR", "test", Recipe())
    store = Store(Storage(str(tmp_path / "results" / "quick")))
    for at, loss in enumerate(("l1", "l1 + 1.0*sg")):
        run_id = f"{at:012x}"
        row = {"run_id": run_id, "kind": "train", "name": f"edsr-tiny · {loss} · seed 0", "backbone": "edsr-tiny"}
        row |= {"loss": loss, "lambda": float(at), "seed": 0, "scale": 4, "status": "done"}
        store.write_run(row)
        store.write_scores([score(run_id, packed.sha256)])
        for index, image in enumerate(packed.images):
            folder = Dataset(packed.name, packed.sha256).versioned
            store.storage.write(f"images/{run_id}/{folder}/{image.name}.png", encode_png(np.asarray(packed.hr(index))))
    return tmp_path


def score(run_id: str, sha256: str) -> dict[str, object]:
    row = {"run_id": run_id, "dataset": "Photos", "dataset_sha256": sha256, "metric": "lpips_alex"}
    row |= {"metric_version": "1", "protocol": '{"direction":"lower"}', "n_images": 2, "value": 0.3, "status": "ok"}
    return row | {"scored": np.datetime64("2026-01-02", "ms").item()}


def test_the_page_is_written_into_the_store(place: Path, run: Run) -> None:
    target = place / "results" / "quick" / "report.html"
    assert run("report") == ("", f"written to {target}\n")
    page = target.read_text(encoding="utf-8")
    assert "<h1>sgbench report: quick</h1>" in page
    assert '"HR":' not in page
    assert json.loads(run("table", "--results", "results/quick", "--json")[0]), "the page in a store is in nobody's way"


def test_a_page_of_what_is_asked_for_under_a_name_of_ones_own(place: Path, run: Run) -> None:
    given = ["--test", "Photos=HR", "--backbone", "edsr-tiny", "--loss", "l1+sg", "--lambda", "1", "--seeds", "0"]
    run("report", *given, "--metric", "lpips_alex", "--images", "1", "--title", "Mine & yours", "--out", "mine.html")
    page = (place / "mine.html").read_text(encoding="utf-8")
    assert "<h1>Mine &amp; yours</h1>" in page
    assert '"HR":' in page
    assert "Left out to keep the page small: 1 image of Photos;" in page
    assert "seed 0" in page
    assert "edsr-tiny · l1 · seed 0" not in page


def test_images_can_be_left_out_altogether(place: Path, run: Run) -> None:
    run("report", "--images", "0", "--out", "mine.html")
    page = (place / "mine.html").read_text(encoding="utf-8")
    assert "2 images of Photos" in page
    assert 'id="viewer"' not in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--results", "nowhere"], "nowhere' holds no results"),
        (["--out", "none/a.html"], "'none/a.html': No such file or directory."),
        (["--loss", "l2"], "unknown loss 'l2'"),
        (["--test", "Photo"], "unknown test set 'Photo'"),
        (["--test", "Photos=none"], "none"),
        (["--seeds", "x"], "--seeds is 'x': numbers such as 0,1,2 or a range such as 0-4 are needed."),
        (["--lambda", "7"], "unknown λ '7'"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    place: Path, run: Run, arguments: list[str], sentence: str
) -> None:
    out, said = run("report", *arguments, code=2)
    assert out == ""
    assert said.startswith("error: ")
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(place.rglob("*.html"))


def test_a_store_that_is_no_folder_needs_a_place_for_the_page(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Storage, "is_local", False)
    _, said = run("report", "--results", "results/quick", code=2)
    assert said.endswith("is not a local folder; say with --out where to write the page.\n")


def test_help_loads_neither_matplotlib_nor_jinja() -> None:
    code = "import sys, sgbench.cli; sys.argv = ['sgbench', 'report', '--help']; sgbench.cli.main()"
    report = "import atexit, sys; atexit.register(lambda: print({'matplotlib', 'jinja2'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "set()"
