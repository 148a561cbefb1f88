"""Bad input: one sentence on standard error, exit code 2, no traceback, nothing written."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sgbench.backbones import build_backbone
from sgbench.cli import main
from sgbench.core.storage import Storage
from sgbench.data import write_png

Refused = Callable[..., str]

SWEEP = """
grids:
- backbones: [edsr-tiny]
  losses: [l1 + 1.0*sg]
train: mine=train
tests: [few=test]
metrics: [psnr_y]
recipe: {steps: 3, batch: 2, patch: 8}
"""


def words(value: list[str] | str) -> str:
    return " ".join(value) if isinstance(value, list) else "says"


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Refused]:
    """Runs a command that must be refused, and returns what it says."""

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in place.rglob("*") if "cache" not in path.parts}

    def refused(*arguments: str) -> str:
        before = files()
        monkeypatch.setattr(sys, "argv", ["sgbench", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 2
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.endswith(".\n")
        assert said.err.count("\n") == 1
        assert files() == before  # neither a store nor a lock nor anything else
        assert not list(place.glob("cache/data/.*"))
        return said.err.removeprefix("error: ").removesuffix(".\n")

    return refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--backbone", "edrs"], "--backbone: unknown backbone 'edrs': did you mean 'edsr'?"),
        (["--backbone", "edsr-huge"], "unknown size of backbone 'edsr' 'huge'; valid: light, paper, tiny"),
        (["--backbone", "edsr-tinyy"], "unknown size of backbone 'edsr' 'tinyy': did you mean 'tiny'"),
        (["--backbone", "no_such_module:Net"], "cannot be imported from 'no_such_module:Net'"),
        (["--loss", "l1 + sq"], "--loss: unknown loss 'sq'"),
        (["--loss", "l1 +"], "loss 'l1 +' ends where"),
        (["--loss", "0*l1"], "has no term with a coefficient above 0"),
        (["--loss", "l1 + -1*sg"], "the coefficient of 'sg' is -1"),
        (["--loss", "sg(oder=2)"], "did you mean 'order'"),
        (["--lambda", "-1"], "--lambda is -1.0: input should be greater than or equal to 0"),
        (["--lambda", "nan"], "--lambda: nan is not finite"),
        (["--lambda", "0,inf"], "--lambda: inf is not finite"),
        (["--lambda", "1e-400"], "--lambda: 1e-400 is too small to differ from 0"),
        (["--lambda", "a"], "--lambda is 'a'; a list of numbers such as 0,0.1,1 is needed"),
        (["--seeds", "0,x"], "--seeds is '0,x'; a list of numbers such as 0,1,2 is needed"),
        (["--seeds", ""], "--seeds is ''; a list of numbers"),
        (["--seeds", "-1"], "--seeds is -1: input should be greater than or equal to 0"),
        (["--seeds", str(2**63)], "--seeds is 9223372036854775808: input should be less than"),
        (["--metric", "psnr"], "--metric: unknown metric 'psnr': did you mean 'psnr_"),
        (["--metric", "os:path"], "--metric: metric 'os:path' is a module; a metric object is needed"),
        (["--metric", "sgbench.metrics.distortion:psnr_y"], ": its attribute 'name' is 'psnr_y'; 'sgbench.metrics."),
        (["--set", "recipe.step=3"], "recipe: unknown key 'step': did you mean 'steps'"),
        (["--set", "recipe.optimizer.rl=3"], "recipe.optimizer: unknown key 'rl'"),
        (["--set", "recipe.steps"], "--set 'recipe.steps' is not of the form a.b=value"),
        (["--set", "recipe.steps=0"], "recipe.steps is 0: input should be greater than or equal to 1"),
        (["--set", "recipe.steps=many"], "recipe.steps is 'many': input should be a valid integer"),
        (["--set", "recipe.steps.a=1"], "'steps' is a value and has no field 'a'"),
        (["--set", "recipe.steps=[1"], "--set recipe.steps: '[1' is not valid YAML: line 1: "),
        (["--set", "recipe.steps=1", "--set", "recipe.steps=2"], "--set recipe.steps is given twice, as 1 and 2"),
        (
            ["--train", "a=train", "--train", "b=train"],
            "--train is given 2 times, as 'a=train' and 'b=train'",
        ),
        (["--set", "recipe.scale=5"], "recipe.scale is 5: input should be 2, 3 or 4"),
        (["--set", "grids=5"], "grids is 5: input should be a valid"),
        (["--set", "grids.x=1"], "--set grids.x: 'x' is not an index into a list of 1"),
        (["--set", "grids.x.seeds=1"], "'x' is not an index into a list of 1"),
        (["--set", "grids.7.seeds=1"], "'7' is not an index into a list of 1"),
        (["--train", "nowhere"], "unknown data set 'nowhere'"),
        (["--train", "mine=missing"], "there is no folder '"),
        (["--train", "mine=tiny.yaml"], "is a file; a folder of images is needed"),
        (["--train", "mine="], "'mine=' gives no folder after '='; write NAME=DIR"),
        (["--train", "BSDS500=train", "--test", "B100=test"], "B100 lies inside BSDS500"),
        (["--train", "mine=test"], "training on test images is refused: image 'photo0' of mine is 'photo0' of few"),
        (["--test", "few=test", "--test", "few=train"], "test set 'few' is given twice"),
        (["--test", "Set5"], "SGBENCH_DATA is not set"),
        (["--set", "recipe.patch=10"], "pixels; patches of 10 at scale 4 need 40×40: use a smaller patch or leave"),
        (["--results", "tiny.yaml"], "tiny.yaml' is a file; a folder is needed"),
        (["--results", "tiny.yaml/store"], "tiny.yaml/store': Not a directory"),
        (["--results", "ftp://host/store"], "is neither a folder nor a URI that can be opened"),
    ],
    ids=words,
)
def test_a_sweep_refuses(refused: Refused, arguments: list[str], sentence: str) -> None:
    assert sentence in refused("sweep", "tiny.yaml", *arguments)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("5", "bad.yaml holds a single value; the keys of a sweep are expected"),
        (SWEEP.replace("l1", "sq"), "bad: grids.0.losses.0: unknown loss 'sq'"),
        ("train: demo\ntrain: mine=train\n", "not valid YAML: line 2: key 'train' is given twice"),
        ("grids: [", "bad.yaml is not valid YAML: "),
        ("[1, 2]", "bad.yaml holds a list; the keys of a sweep are expected, such as 'grids'"),
        ("", "bad.yaml is empty; the keys of a sweep are expected"),
        ("grids: 5", "grids is 5: input should be a valid"),
        ("grids: [5]", "grids.0 is 5: input should be a valid"),
        ("grids: []", "grids is []: "),
        ("train: demo", "'grids' is missing"),
        ("a: !!python/object:os.system {}", "bad.yaml is not valid YAML: "),
        (SWEEP.replace("steps", "stesp"), "recipe: unknown key 'stesp': did you mean 'steps'"),
        (SWEEP + "1: 2", "unknown key '1'; valid: checkpoint_seconds"),
    ],
)
def test_a_sweep_file_is_refused(place: Path, refused: Refused, content: str, sentence: str) -> None:
    (place / "bad.yaml").write_text(content)
    assert sentence in refused("sweep", "bad.yaml")


def test_a_sweep_that_is_not_there_is_refused(place: Path, refused: Refused) -> None:
    assert "unknown preset 'qick': did you mean 'quick'" in refused("sweep", "qick")
    assert refused("plan", "none.yaml") == "sweep file 'none.yaml' cannot be read: No such file or directory"
    assert refused("plan", str(place)) == f"'{place}' is a folder; a preset or a sweep file in YAML is needed"
    (place / "folder.yaml").mkdir()
    assert "sweep file 'folder.yaml' cannot be read" in refused("sweep", "folder.yaml")


def test_images_that_cannot_be_used_are_refused(place: Path, refused: Refused) -> None:
    folder = place / "photos"
    folder.mkdir()
    assert "photos' holds no image" in refused("sweep", "tiny.yaml", "--train", "mine=photos")

    (folder / "a.png").write_bytes((place / "train" / "photo0.png").read_bytes()[:500])
    assert "a.png' cannot be read" in refused("sweep", "tiny.yaml", "--train", "mine=photos")

    (folder / "a.png").write_bytes(b"no picture")
    assert "a.png' cannot be read" in refused("sweep", "tiny.yaml", "--train", "mine=photos")

    Image.fromarray(np.zeros((40, 40, 4), np.uint8)).save(folder / "a.png")
    assert "a.png' has an alpha channel" in refused("sweep", "tiny.yaml", "--train", "mine=photos")

    write_png(folder / "a.png", np.zeros((31, 40, 3), np.uint8))
    assert "image 'a' of mine has 28×40 pixels" in refused("sweep", "tiny.yaml", "--train", "mine=photos")

    write_png(folder / "a.png", np.zeros((3, 40, 3), np.uint8))
    assert "a.png' is smaller than 4×4" in refused("sweep", "tiny.yaml", "--train", "mine=photos")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_folders_without_permission_are_refused(place: Path, refused: Refused) -> None:
    (place / "train").chmod(0)
    assert "train': Permission denied" in refused("sweep", "tiny.yaml")
    (place / "train").chmod(0o700)
    (place / "closed").mkdir(mode=0o500)
    assert "Permission denied" in refused("sweep", "tiny.yaml", "--results", "closed/store")


def test_a_folder_in_which_nothing_can_be_made_is_refused(refused: Refused) -> None:
    assert "/proc/sgbench': " in refused("sweep", "tiny.yaml", "--results", "/proc/sgbench")


def test_train_does_one_run_only(refused: Refused) -> None:
    said = refused("train", "tiny.yaml", "--seeds", "0,1")
    assert (
        "train does exactly one run, but this selects 2; select one with --backbone, --loss, --lambda and --seeds"
        in said
    )


def test_a_store_in_use_names_who_uses_it(place: Path, refused: Refused) -> None:
    with Storage(str(place / "busy")).lock("sgbench sweep quick"):
        for command in (["sweep", "tiny.yaml"], ["train", "tiny.yaml"], ["eval", "bicubic", "--test", "few=test"]):
            said = refused(*command, "--results", "busy")
            assert f"busy' is in use by 'sgbench sweep quick' (process {os.getpid()} on " in said


def test_table_asks_which_store_where_there_is_not_one(place: Path, refused: Refused) -> None:
    assert "the folder 'results' has no store; 'sgbench sweep quick' makes one" in refused("table")
    for name in ("a", "b"):
        (place / "results" / name / "runs").mkdir(parents=True)
    assert "the folder 'results' has several stores: results/a, results/b; name one with --results" in refused("table")
    assert "holds no results" in refused("table", "--results", "train")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["bicubci"], "unknown subject 'bicubci': did you mean 'bicubic'? Valid: bicubic, a run id, a checkpoint file"),
        (["abcd"], "run 'abcd': '"),
        (["bicubic", "--metric", "psnr"], "unknown metric 'psnr'"),
        (["train", "--metric", "psnr_y"], "has no super-resolved image for"),
        (["empty"], "empty' holds no image"),
        (["tiny.yaml", "--backbone", "edsr-tiny"], "tiny.yaml' cannot be read"),
        (["numbers.pt", "--backbone", "edsr-tiny"], "numbers.pt' holds no weights"),
        (["light.pt"], "light.pt' does not name its backbone; give it with --backbone"),
        (["light.pt", "--backbone", "edsr-tiny"], "light.pt' is no checkpoint of backbone 'edsr-tiny': it has an"),
        (["light.pt", "--backbone", "edsr-lite"], "unknown size of backbone 'edsr' 'lite'"),
        (["light.pt", "--backbone", "edsr-light", "--scale", "2"], "light.pt' is no checkpoint of backbone 'edsr-li"),
        (["ours.pt", "--backbone", "edsr-tiny"], "is a checkpoint of backbone 'edsr-light', not 'edsr-tiny'"),
        (
            ["strange.pt"],
            "strange.pt' needs the plug-in 'no_such_module:Net'; to let its code run, name it with --backbone",
        ),
    ],
    ids=words,
)
def test_eval_refuses(place: Path, refused: Refused, arguments: list[str], sentence: str) -> None:
    (place / "empty").mkdir()
    for image in (place / "train").iterdir():
        image.rename(image.with_name(f"other{image.name}"))
    weights = build_backbone("edsr-light", 4).state_dict()
    spec = {"backbone": "edsr-light", "loss": "l1", "seed": 0, "train": {"name": "demo"}}
    torch.save({"a": 1.0}, place / "numbers.pt")
    torch.save(weights, place / "light.pt")
    torch.save({"params": weights, "spec": spec}, place / "ours.pt")
    torch.save({"params": weights, "spec": {**spec, "backbone": "no_such_module:Net"}}, place / "strange.pt")
    assert sentence in refused("eval", *arguments, "--test", "few=test")


def test_eval_refuses_images_of_another_size(place: Path, refused: Refused) -> None:
    for image in (place / "test").iterdir():
        write_png(place / "sr" / image.name, np.zeros((32, 32, 3), np.uint8))
    said = refused("eval", "sr", "--test", "few=test", "--metric", "psnr_y")
    assert "SR is 32×32 pixels and HR is 40×44" in said
    assert said.startswith("'sr/photo0.png': ")


def test_eval_refuses_two_test_sets_of_one_name(refused: Refused) -> None:
    said = refused("eval", "bicubic", "--test", "few=test", "--test", "few=train")
    assert said == "test set 'few' is given twice; give one of them another name, as in 'mine=DIR'"


def test_plan_refuses_what_can_never_run(refused: Refused) -> None:
    assert "patches of 1000 at scale 4 need" in refused("plan", "tiny.yaml", "--set", "recipe.patch=1000")
    assert "there is no folder" in refused("plan", "tiny.yaml", "--train", "mine=nowhere")


def test_a_process_prints_no_traceback_either(place: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "sgbench", "sweep", "tiny.yaml", "--backbone", "edrs"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1


def test_a_full_disk_is_told_in_a_sentence(
    place: Path, disk: Path, fill: Callable[..., Path], run: Callable[..., tuple[str, str]]
) -> None:
    fill(but=0)
    _, said = run("sweep", "tiny.yaml", "--results", str(disk), code=2)
    assert re.fullmatch(rf"error: '{disk}/\S+': No space left on device\.\n", said)


def test_a_read_only_store_is_refused_in_a_sentence_and_can_be_read(
    place: Path, disk: Path, run: Callable[..., tuple[str, str]]
) -> None:
    run("train", "tiny.yaml", "--results", str(disk))
    shown = run("table", "--results", str(disk))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    _, said = run("sweep", "tiny.yaml", "--results", str(disk), code=2)
    assert said == f"error: '{disk}/.lock': Read-only file system.\n"
    assert run("table", "--results", str(disk)) == shown
