"""Stores in which an id or a name leads elsewhere, and folders of another purpose: nothing outside is touched."""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sgbench.cli import main
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.runs.delivery import Packed, open_packed, parcels, send
from sgbench.runs.maintenance import clean
from sgbench.spec import Recipe, RunSpec, TrainingData
from sgbench.store import Dataset, Planned, Store, identity_columns
from sgbench.store.schema import TABLES
from sgbench.training import Checkpoints

Run = Callable[..., tuple[str, str]]
SPECS = [
    RunSpec(
        backbone="edsr-tiny",
        loss="l1",
        seed=seed,
        train=TrainingData(name="mine", sha256="ab" * 32),
        recipe=Recipe(steps=7),
    )
    for seed in (0, 1)
]
ID, OTHER = (str(spec.run_id) for spec in SPECS)
OUT = "../../../precious"
SCORED = "2026-01-02T03:04:05Z"


def run_row(**columns: Any) -> dict[str, Any]:
    return {**identity_columns(SPECS[0]), "status": "done", "step": 7} | columns


def score(**columns: Any) -> dict[str, Any]:
    row = {"run_id": ID, "dataset": "Set5", "dataset_sha256": "ab" * 32, "metric": "psnr_y", "metric_version": "1"}
    scored = pa.scalar(SCORED).cast(pa.timestamp("ms", tz="UTC")).as_py()
    return row | {"protocol": "{}", "n_images": 1, "value": 9.0, "status": "ok", "scored": scored} | columns


def history(**columns: Any) -> dict[str, Any]:
    row = {"run_id": ID, "step": 7, "loss": 0.1, "terms": {"l1": 0.1}, "lr": 1e-3, "steps_per_second": 9.0}
    return row | columns


def validation(**columns: Any) -> dict[str, Any]:
    row = {"run_id": ID, "step": 1, "dataset": "Mine", "dataset_sha256": "ab" * 32, "metric": "psnr_y"}
    row |= {"metric_version": "1", "protocol": "{}", "n_images": 1, "value": 1.0, "status": "ok"}
    return row | columns


def planned(run_id: str | None = ID, test: object = ("Set5", "ab" * 32), metric: str = "psnr_y") -> bytes:
    run = identity_columns(SPECS[0]) | {"run_id": run_id}
    return json.dumps([{"run": run, "tests": [test], "metrics": [metric]}]).encode()


HOSTILE: dict[str, tuple[str, Any, str]] = {
    "the id of a run": ("runs", run_row(run_id=OUT), OUT),
    "an id that is too short": ("runs", run_row(run_id=ID[:11]), ID[:11]),
    "an id in capitals": ("runs", run_row(run_id=ID.upper()), ID.upper()),
    "the id of scores": ("scores", score(run_id=OUT), OUT),
    "the id of a history": ("history", history(run_id=OUT), OUT),
    "a validation set": ("validation", validation(dataset="../../x"), "../../x"),
    "a test set": ("scores", score(dataset="../../x"), "../../x"),
    "a hash": ("scores", score(dataset_sha256="/../../x"), "/../../x"),
    "a metric": ("scores", score(metric="../../x"), "../../x"),
    "an image": ("scores", score(metric="ssim_y", image="a/../../x"), "a/../../x"),
    "an image that is hidden": ("scores", score(metric="ssim_y", image=".."), ".."),
    "a name with a line break": ("scores", score(dataset="Set5\nSet14"), r"Set5\nSet14"),
    "no name": ("scores", score(dataset=""), "''"),
    "the id in a plan": ("plans", planned(run_id=OUT), OUT),
    "no id in a plan": ("plans", planned(run_id=None), "run_id"),
    "a test set in a plan": ("plans", planned(test=("../../x", "ab" * 32)), "../../x"),
    "a hash in a plan": ("plans", planned(test=("Set5", "../../x")), "../../x"),
    "an id in what is replaced": ("replaced", {OUT: [None, True, []]}, OUT),
    "a test set in what is replaced": ("replaced", {ID: [None, True, [["../../x", "ab" * 32, "fid"]]]}, "../../x"),
    "a metric in a plan": ("plans", planned(metric="../../x"), "../../x"),
    "a label": ("labels", {"l1": "\x1b[2Jours"}, r"\x1b[2Jours"),
}


@pytest.fixture
def bob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store ``deep/results/bob`` with a run, beside a store ``deep/results/all``, below a folder that is precious."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    for file in (
        "precious/thesis.tex",
        "precious.pt",
        "deep/x/y",
        "deep/results/x/y",
        "x",
        "deep/results/all/notes.md",
    ):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the only copy")
    for name, spec in (("all", SPECS[1]), ("bob", SPECS[0])):
        store = Store(Storage(f"deep/results/{name}"))
        store.write_run({**identity_columns(spec), "status": "done", "step": 7})
        store.write_scores([score(run_id=spec.run_id)])
        store.write_history([history(run_id=spec.run_id)])
        Checkpoints(store.storage, str(spec.run_id)).save_weights({"w": torch.zeros(2)}, spec.model_dump(mode="json"))
    return store


def spoil(store: Store, table: str, content: Any, *, compacted: bool) -> str:
    """Put something hostile into a store, and return the name of its file."""
    if table == "plans":
        store.storage.write("plans/theirs.json", content)
        return "theirs.json"
    if table == "labels":
        store.storage.write("plans/labels", json.dumps(content).encode())
        return "labels"
    if table == "replaced":
        store.storage.write("checkpoints/replaced.json", json.dumps(content).encode())
        return "replaced.json"
    files = store.tables[table]
    stem = "e" * 12 + "-set@00000000-metric" * (table == "scores")
    files.write(stem, [content])
    if compacted:
        path = Path(store.storage.path(files.name(stem)))
        path.rename(path.with_name("compacted-000007.parquet"))
    return "compacted-000007.parquet" if compacted else f"{stem}.parquet"


def outside(place: Path, *inside: str) -> dict[str, bytes]:
    """Return all files that are not in some folders."""
    files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(inside)}


def attempt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """Run a command that may end in any way, and return its exit code and what it says on standard error."""
    monkeypatch.setattr(sys, "argv", ["sgbench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "compacted"),
    [
        (what, compacted)
        for what in HOSTILE
        for compacted in (False, True)
        if HOSTILE[what][0] in TABLES or not compacted
    ],
)
def test_a_name_that_leads_out_is_told_and_nothing_outside_is_touched(
    what: str,
    compacted: bool,
    bob: Store,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, content, value = HOSTILE[what]
    file = spoil(bob, table, content, compacted=compacted)
    root = str(bob.storage)
    before = outside(tmp_path)
    reading = {"plans": ["status"], "replaced": ["results", "clean"]}.get(table, ["query", f"FROM {table}"])
    merge = ["results", "merge", "deep/results/all", root]
    for command in ([*reading, "--results", root], *([merge] if table != "replaced" else [])):
        _, err = run(*command, code=2)
        assert all(word in err for word in ("error: ", file, value)), err
        assert "needed" in err or "lacks a" in err
        assert len(err.strip().splitlines()) == 1
    out, _ = run("results", "verify", root, "--json", code=1)
    assert [file in fault and value in fault for fault in json.loads(out)] == [True]
    own = ("deep/results/bob/.lock", "deep/results/bob/sgbench.json")  # of a command that asked for what is damaged
    assert outside(tmp_path, *own) == before
    for command in (
        *(["table"], ["compare", "l1", "l2"], ["report", "--out", "page.html"], ["status"], ["logs", ID[:6]]),
        *(["results", "rm", ID, "--yes"], ["results", "clean", "--all", "--yes"], ["results", "compact"]),
        *(["results", "rm", OUT, "--yes"], ["logs", OUT], ["figure", "curves", "--out", "curves.png"]),
    ):
        _, err = attempt(capsys, monkeypatch, *command, "--results", root)
        assert "Traceback" not in err
    inside = ("deep/results/bob", "page.html", "curves.png", "cache")
    assert outside(tmp_path, *inside) == {name: file for name, file in before.items() if not name.startswith(inside)}


def test_what_is_saved_beside_rows_is_merged_only_under_names_of_images(bob: Store, run: Run, tmp_path: Path) -> None:
    names = [
        "Set5@abababab/baby.png",
        "Set5@abababab/ein Bild, größer.png",
        "Set5@abababab/.baby.png.0123abcd",
        "x.png",
    ]
    for name in names:
        bob.storage.write(f"images/{ID}/{name}", b"pixels")
    run("results", "merge", "deep/results/all", str(bob.storage))
    there = Store(Storage("deep/results/all")).storage.sizes("images")
    assert list(there) == [f"images/{ID}/{name}" for name in names[:2]]


def test_weights_whose_specification_leads_out_are_scored_and_nothing_outside_is_touched(
    bob: Store, run: Run, place: Path, tmp_path: Path
) -> None:
    spec = SPECS[0].model_dump(mode="json") | {"train": {"name": OUT, "sha256": OUT}}
    Checkpoints(bob.storage, ID).save_weights({"w": torch.zeros(2)}, spec)
    before = outside(tmp_path, "cache")
    out, _ = run("results", "verify", str(bob.storage), code=1)
    assert f"the weights of run {ID} belong to run" in out
    run("eval", f"deep/results/bob/weights/{ID}.pt", "--test", "few=test", "--results", "scored", code=2)
    assert outside(tmp_path, "cache") == before


@pytest.mark.parametrize("name", ["../../x", "a/b", ".hidden", "", "a\nb", "a\x9bb", "a\u202eb"])
def test_packed_images_of_a_name_that_leads_out_are_refused(
    bob: Store, test_images: PackedImages, name: str, tmp_path: Path
) -> None:
    send(parcels([test_images], [], bob.storage), bob.storage)
    manifest = json.loads(bob.storage.read(f"packed/{test_images.digest}/manifest.json"))
    manifest["images"][0]["name"] = name
    content = json.dumps(manifest).encode()
    digest = hashlib.sha256(content).hexdigest()
    for file in bob.storage.sizes(f"packed/{test_images.digest}"):
        bob.storage.write(file.replace(test_images.digest, digest), bob.storage.read(file))
    bob.storage.write(f"packed/{digest}/manifest.json", content)
    with pytest.raises(InputError, match="is damaged") as raised:
        open_packed(Packed(str(tmp_path / "elsewhere"), digest), bob.storage)
    assert re.search(r"a name without slashes .* is needed", str(raised.value.__cause__))


def test_images_are_packed_only_under_names_that_a_store_can_have(place: Path, run: Run) -> None:
    (place / "test" / "photo0.png").rename(place / "test" / "a\nb.png")
    _, err = run("eval", "bicubic", "--test", "few=test", "--results", "scored", code=2)
    assert "has an image named 'a\\nb.png'; a name without slashes and control characters" in err
    for name in ("..", ".few"):
        assert "names no data set" in run("eval", "bicubic", "--test", f"{name}=test", code=2)[1]


# Folders of another purpose

FOREIGN = (
    ".ray/auth_token",
    ".ray/cluster/.state.json.0123abcd",
    ".x.0123abcd",
    "photos/.x.0123abcd",
    "photos/2019/deep/.cat.png.0123abcd",
    "runs/.x.0123abcd",
    "images/holiday/.beach.png.0123abcd",
    "checkpoints/mine/model.pt",
    "logs/0123abcd/syslog",
    "plans/house.json",
)


@pytest.fixture
def home(bob: Store, tmp_path: Path) -> Path:
    """The home folder of somebody whose folders bear the names of a store's."""
    home = tmp_path / "home"
    for name in FOREIGN:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text('{"rooms": 4}')
    pq.write_table(pa.table({"km": [42.2]}), home / "runs" / "marathons.parquet")
    return home


WRITING = (
    ["results", "clean", "--all", "--yes", "--results", "home"],
    ["results", "compact", "--results", "home"],
    ["results", "rm", ID, "--yes", "--results", "home"],
    ["results", "merge", "home", "deep/results/bob"],
    ["eval", "bicubic", "--test", "few=test", "--metric", "psnr_y", "--results", "home"],
    ["train", "tiny.yaml", "--loss", "l1", "--seeds", "0", "--results", "home"],
    ["sweep", "tiny.yaml", "--results", "home"],
)


@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_a_folder_of_another_purpose_is_refused_and_left_as_it_is(
    home: Path, place: Path, run: Run, command: list[str]
) -> None:
    before = outside(place, "cache")
    _, err = run(*command, code=2)
    assert "home' is no results store and has a folder 'runs' already; give --results a folder that is new or " in err
    assert outside(place, "cache") == before


def test_a_folder_that_is_a_store_too_is_tidied_only_of_what_the_store_made(home: Path, place: Path, run: Run) -> None:
    (home / "runs" / "marathons.parquet").unlink()
    (home / "plans" / "house.json").unlink()
    foreign = outside(home)
    Store(Storage(str(home))).write_run(run_row())
    for name in (".ray/0123abcd/tune/state.json", ".ray/0123abcd.stop", f"runs/.{ID}.parquet.0123abcd"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("left")
    for command in WRITING[:2] + WRITING[4:5] + WRITING[2:4]:
        run(*command)
    there = outside(home)
    assert {name: content for name, content in there.items() if name in foreign} == foreign
    assert not any("0123abcd" in name for name in there.keys() - foreign.keys())


def test_the_first_command_that_writes_marks_a_store_and_reading_does_not(bob: Store, run: Run, place: Path) -> None:
    mark = place / "deep/results/bob/sgbench.json"
    run("table", "--results", str(bob.storage))
    run("results", "merge", "deep/results/all", str(bob.storage), "--dry-run")
    assert not mark.exists()
    run("results", "compact", "--results", str(bob.storage))
    assert json.loads(mark.read_text()) == {"format": 1}
    run("eval", "bicubic", "--test", "few=test", "--metric", "psnr_y", "--results", "scored")
    assert (place / "scored" / "sgbench.json").exists()


@pytest.mark.parametrize("command", WRITING[3:5], ids=" ".join)
def test_a_folder_with_a_readme_may_become_a_store(bob: Store, place: Path, run: Run, command: list[str]) -> None:
    for name in ("README.md", "tiny.yaml", "notes/.draft.md.0123abcd", ".git/config"):
        (place / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "home" / name).write_text("mine")
    before = outside(place / "home")
    run(*command)
    run(*WRITING[0])
    after = outside(place / "home")
    assert {name: after[name] for name in before} == before
    assert "sgbench.json" in after


@pytest.mark.parametrize(
    ("mark", "sentence"),
    [('{"format": 2}', "is a store of format 2; this sgbench writes 1."), ("[]", "is not the mark of a results store")],
)
def test_a_store_of_a_newer_format_is_not_written_to(bob: Store, run: Run, mark: str, sentence: str) -> None:
    bob.storage.write("sgbench.json", mark.encode())
    before = bob.storage.sizes()
    assert sentence in run("results", "compact", "--results", str(bob.storage), code=2)[1]
    assert bob.storage.sizes() == before


def test_cleaning_asks_for_no_lock_to_refuse(home: Path) -> None:
    with pytest.raises(ValueError, match="is no results store"):
        clean(Store(Storage(str(home))))
    assert not (home / ".lock").exists()


# What is left of runs


def test_what_is_left_of_a_run_without_a_row_is_removed_too(bob: Store, run: Run) -> None:
    bob.storage.write(f"logs/{ID}/run.log", b"what it printed")
    bob.tables["runs"].forget(ID)
    bob.write_plan("tiny", [Planned({"run_id": OTHER}, (Dataset("Set5", "ab" * 32),), ("psnr_y",))])
    _, err = run("results", "rm", ID[:6], "--results", str(bob.storage), "--yes")
    assert f"{ID}  not done, or remains of a run" in err
    assert not [name for name in bob.storage.sizes() if ID in name]
    assert "has no such run" in run("results", "rm", ID, "--results", str(bob.storage), "--yes", code=2)[1]
