"""``sgbench data``: what its commands print, and how they end."""

import hashlib
import importlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sgbench
from sgbench.core.resize import downscale
from sgbench.data import CATALOG, read_image, write_png

Run = Callable[..., tuple[str, str]]

pytestmark = pytest.mark.usefixtures("place")

SWEEP = """
grids:
- backbones: [edsr-tiny]
  losses: [l1]
train: mine=train
tests: [few=test]
metrics: [psnr_y]
recipe: {steps: 3, batch: 2, patch: 8}
"""


@pytest.fixture
def server(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the network: the archive of Set5 and Set14, with images of 8×8 pixels."""
    folder = place / "server"
    folder.mkdir()
    buffer = io.BytesIO()
    write_png(folder / "image.png", np.full((8, 8, 3), 7, np.uint8))
    content = (folder / "image.png").read_bytes()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, count in (("Set5", 5), ("Set14", 14)):
            for kind, suffix in (("HR", ""), *((f"LR_bicubic/X{scale}", f"x{scale}") for scale in (2, 3, 4))):
                for i in range(count):
                    info = tarfile.TarInfo(f"benchmark/{name}/{kind}/{i}{suffix}.png")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    (folder / "benchmark.tar").write_bytes(buffer.getvalue())
    digest = f"sha256:{hashlib.sha256(buffer.getvalue()).hexdigest()}"
    catalog = {
        name: replace(
            entry,
            archives=tuple(
                replace(archive, url=(folder / archive.url.rpartition("/")[2]).as_uri(), digest=digest)
                for archive in entry.archives
            ),
        )
        for name, entry in CATALOG.items()
    }
    monkeypatch.setattr(importlib.import_module("sgbench.data.fetch"), "CATALOG", catalog)
    return folder


# Listing


def test_list_says_what_is_here_and_how_to_get_the_rest(place: Path, run: Run) -> None:
    for i in range(5):
        write_png(place / "cache" / "sets" / "Set5" / "HR" / f"{i}.png", np.zeros((16, 16, 3), np.uint8))
    run("data", "prepare", "Set5", "--role", "test")
    out = " ".join(run("data", "list")[0].split())
    assert f"Set5 5 of 5 test images in {place}/cache/sets/Set5/HR prepared: test ×4 Five classic photographs." in out
    assert "Set14 not here" in out
    assert "'sgbench data fetch DIV2K' downloads 3,980 MB, checked by SHA256." in out
    assert "Lies inside BSDS500." in out
    assert "Contains B100." in out
    assert f"put one page of each volume into '{place}/cache/sets/Manga109'." in out


def _parts(run: Run) -> list[dict[str, Any]]:
    return [part for entry in json.loads(run("data", "list", "--json")[0]) for part in entry["parts"]]


def test_list_is_readable_on_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    out, _ = run("data", "list")
    whole = {*(entry.homepage for entry in CATALOG.values()), *(part["folder"] for part in _parts(run))}
    assert {line.strip("'.") for line in out.splitlines() if len(line) > 50} <= whole
    assert "Eleven photographs and textures that" in out


@pytest.mark.parametrize("width", [40, 60, 100])
@pytest.mark.parametrize("what", ["data", "weights"])
def test_list_breaks_no_url(run: Run, monkeypatch: pytest.MonkeyPatch, what: str, width: int) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    out, _ = run(what, "list")
    listed = json.loads(run(what, "list", "--json")[0])
    urls = {entry["homepage" if what == "data" else "url"] for entry in listed}
    lines = out.splitlines()
    assert all(any(url in line for line in lines) for url in urls)
    assert all(len(line) <= width or " " not in line for line in lines)


def test_list_as_json_holds_everything(place: Path, run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("data", "list", "--json")[0])}
    assert list(rows) == list(CATALOG)
    assert rows["demo"]["parts"][1]["found"] == 3
    assert rows["B100"]["inside"] == ["BSDS500"]
    assert rows["BSDS500"]["contains"] == ["B100", "BSDS400"]
    assert rows["Set5"]["archives"] == [
        {
            "url": "https://cv.snu.ac.kr/research/EDSR/benchmark.tar",
            "size": 250_112_000,
            "digest": "md5:4ace41d33c2384b97e6b320cd0afd6ba",
        }
    ]
    assert rows["Set5"]["parts"] == [
        {
            "role": "test",
            "folder": str(place / "cache" / "sets" / "Set5"),
            "found": 0,
            "expected": 5,
            "lr_scales": [],
        }
    ]


# Training on several folders


def test_flags_for_training_are_the_parts_of_one_set_and_the_plan_says_what_is_held_out(place: Path, run: Run) -> None:
    for i in range(2):
        write_png(place / "more" / "deep" / f"photo{i}.png", np.full((40, 40, 3), 50 * i, np.uint8))
    parts = ("--train", "a=train", "--train", "b=more,recursive,split=1/2")
    out, err = run("plan", "tiny.yaml", *parts, "--json")
    (row,) = json.loads(out)
    _, err = run("plan", "tiny.yaml", *parts)
    assert "a-b: 3 training images, 2 held out" in err
    again = {"name": "other", "of": ["train", "b=more"], "recursive": True, "split": 0.5}
    out, _ = run("plan", "tiny.yaml", "--set", f"train={json.dumps(again)}", "--json")
    assert json.loads(out)[0]["run_id"] == row["run_id"]
    out, _ = run("data", "verify", "a-b", "--json")
    assert [each["result"] for each in json.loads(out)] == ["ok"]
    _, err = run("plan", "tiny.yaml", "--train", "a=train,split=.4", "--train", "few=test", code=2)
    assert "training on test images is refused: image 'few-photo0' of a-few is 'photo0' of few" in err


# Fetching


def test_fetch_puts_sets_where_their_names_find_them(place: Path, run: Run, server: Path) -> None:
    out, err = run("data", "fetch", "Set5", "Set14")
    assert out.count("fetched") == 2
    assert err == ""
    (row,) = json.loads(run("data", "fetch", "Set5", "--lr", "--scale", "2", "--json")[0])
    assert row == {"name": "Set5", "outcome": "here", "folder": str(place / "cache" / "sets" / "Set5"), "remark": ""}
    (packed,) = json.loads(run("data", "prepare", "Set5", "--role", "test", "--json")[0])
    assert packed["images"] == 5
    assert "LR ×2, LR ×3, LR ×4" in " ".join(run("data", "list")[0].split())


def test_fetch_of_what_is_given_out_on_request_is_no_failure(run: Run) -> None:
    out, err = run("data", "fetch", "Manga109", "demo")
    assert "by hand" in out
    assert "Manga109 must be got by hand (http://www.manga109.org/en/): Request it from its authors" in err


def test_fetch_that_cannot_reach_a_server_says_what_to_do_and_fetches_the_others(
    run: Run, server: Path, place: Path
) -> None:
    out, err = run("data", "fetch", "BSDS500", "Set5", "--json", code=1)
    assert [row["outcome"] for row in json.loads(out)] == ["failed", "fetched"]
    assert (
        "BSR_bsds500.tgz' cannot be downloaded: No such file or directory; run the same command again to resume" in err
    )
    assert f"val and test into '{place}/cache/sets/BSDS500'." in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Set6"], "unknown data set 'Set6': did you mean 'Set5'?"),
        (["BSDS500", "--lr"], "BSDS500 ships no low-resolution files; fetch it without --lr."),
    ],
)
def test_fetch_refuses(run: Run, arguments: list[str], sentence: str) -> None:
    assert run("data", "fetch", *arguments, code=2)[1].startswith(f"error: {sentence}")


def test_fetch_into_a_folder_that_cannot_be_made_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGBENCH_DATA", "/proc/sgbench")
    assert "error: '/proc/sgbench': " in run("data", "fetch", "Set5", code=2)[1]


# Shipped low-resolution files


def test_shipped_files_are_packed_and_scored_where_they_are_asked_for(place: Path, run: Run) -> None:
    for path in (place / "test").iterdir():
        write_png(place / "lr" / f"{path.stem}_LR.png", 255 - downscale(read_image(path), 4))
    made, shipped = json.loads(run("data", "prepare", "few=test", "few=test,lr=lr", "--role", "test", "--json")[0])
    assert (made["lr"], shipped["lr"]) == ("made", str(place / "lr"))
    assert made["sha256"] != shipped["sha256"]

    def psnr(test: str, store: str) -> float:
        run("eval", "bicubic", "--test", test, "--metric", "psnr_y", "--results", store)
        scores = sgbench.load_results(store).scores.to_pylist()
        assert {row["dataset"] for row in scores} == {"few"}
        return float(np.mean([row["value"] for row in scores if row["image"]]))

    assert psnr("few=test", "made") > psnr("few=test,lr=lr", "shipped") + 5


def test_a_sweep_takes_shipped_files_and_knows_the_set_by_its_name(place: Path, run: Run) -> None:
    for path in (place / "test").iterdir():
        write_png(place / "lr" / path.name, downscale(read_image(path), 4))
    (row,) = json.loads(run("plan", "tiny.yaml", "--test", "few=test,lr=lr", "--train", "mine=train", "--json")[0])
    assert row["status"] == "to do"
    twice = run("plan", "tiny.yaml", "--test", "few=test,lr=lr", "--test", "few=test", code=2)[1]
    assert "test set 'few' is given twice" in twice
    assert "there is no folder" in run("sweep", "tiny.yaml", "--test", "few=test,lr=none", code=2)[1]


# Verifying


def test_verify_reads_everything_that_is_prepared(place: Path, run: Run) -> None:
    assert run("data", "verify") == ("", f"no such sets are prepared in '{place}/cache/data'\n")
    assert run("data", "verify", "--json")[0] == "[]\n"
    run("data", "prepare", "mine=train", "other=test")
    run("data", "prepare", "mine=train", "--scale", "2")
    rows = json.loads(run("data", "verify", "--json")[0])
    assert [(row["name"], row["role"], row["scale"], row["result"]) for row in rows] == [
        ("mine", "train", 2, "ok"),
        ("mine", "train", 4, "ok"),
        ("other", "train", 4, "ok"),
    ]
    assert run("data", "verify", "mine", "--scale", "2")[0].count("ok") == 1
    assert run("data", "verify", "mine=train")[0].count("ok") == 2
    assert "no such sets" in run("data", "verify", "mine", "--role", "test")[1]


def test_verify_says_which_image_has_changed_and_goes_on(place: Path, run: Run) -> None:
    first, second = json.loads(run("data", "prepare", "mine=train", "other=test", "--json")[0])
    pixels = Path(first["folder"]) / "hr.bin"
    content = bytearray(pixels.read_bytes())
    content[-1] ^= 1
    pixels.write_bytes(content)
    mine, other = json.loads(run("data", "verify", "--json", code=1)[0])
    assert mine["result"].startswith("the prepared image 'photo2' in '")
    assert other == {
        "name": "other",
        "role": "train",
        "scale": 4,
        "result": "ok",
        "folder": second["folder"],
    }
    (Path(second["folder"]) / "manifest.json").write_text("{")
    mine, other = json.loads(run("data", "verify", "--json", code=1)[0])
    assert "has changed on disk" in mine["result"]
    assert "are damaged" in other["result"]


def test_verify_of_what_was_never_prepared_is_refused(place: Path, run: Run) -> None:
    err = run("data", "verify", "Set5", code=2)[1]
    assert f"Set5 is not prepared in '{place}/cache/data'; run 'sgbench data prepare Set5'." in err


def test_prepared_sets_are_deleted_when_they_are_old_and_a_person_agrees(run: Run, place: Path) -> None:
    write_png(place / "photos" / "photo.png", np.full((8, 8, 3), 7, np.uint8))
    (row,) = json.loads(run("data", "prepare", "mine=photos", "--json")[0])
    folder = Path(row["folder"])
    assert run("data", "clean", "--older-than", "1") == ("", "0.0 MB freed\n")
    for path in (folder, *folder.iterdir()):
        os.utime(path, (0, 0))
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert "pass --yes to delete" in run("data", "clean", code=2)[1]
    assert folder.is_dir()
    assert json.loads(run("data", "clean", "--json", "--yes")[0]) == {str(folder): size}
    assert not folder.exists()
