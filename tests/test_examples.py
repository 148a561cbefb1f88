"""The examples: what their README shows runs as it is written, but for the number of steps."""

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from notebook_cells import run, sources
from scipy.ndimage import laplace

import sgbench
from sgbench.backbones import build_backbone, count_parameters
from sgbench.cli import main
from sgbench.core.registry import BACKBONES, LOSSES, METRICS
from sgbench.core.resize import upscale
from sgbench.data import write_png
from sgbench.losses import Batch, build_loss
from sgbench.spec import check_backbone, check_loss
from sgbench.testing import checks, outcomes

ROOT = Path(sgbench.__file__).parent.parent
README = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
TINY = ["--set", "recipe.steps=2", "--set", "recipe.batch=2", "--metric", "psnr_y"]


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(text)


COMMANDS = block("sh").splitlines()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the examples, which is the current folder; what is imported or named there is forgotten afterwards."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("results", "__pycache__"))
    monkeypatch.chdir(tmp_path / "examples")
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    for registry in (LOSSES, BACKBONES, METRICS):
        monkeypatch.setattr(registry, "_loaded", {})
    yield tmp_path / "examples"
    for module in ("custom_loss", "custom_backbone", "custom_metric"):
        sys.modules.pop(module, None)


def outcome(folder: Path) -> set[tuple[str, str, int, str]]:
    rows = sgbench.load_results(str(folder / "results" / "quick")).runs.to_pylist()
    return {(row["backbone"], row["loss"], row["seed"], row["status"]) for row in rows}


@pytest.mark.parametrize(
    ("command", "backbone", "losses"),
    [
        pytest.param(
            COMMANDS[0],
            "edsr-tiny",
            ["l1", "0.1*custom_loss:FrequencyL1 + 1.0*l1"],
            marks=[pytest.mark.ray, pytest.mark.slow],
            id="loss",
        ),
        pytest.param(
            f"{COMMANDS[1]} --shard 1/1",  # without Ray, which need not be started twice
            "custom_backbone:ESPCN-paper",
            ["l1", "l1 + 1.0*sg"],
            id="backbone",
        ),
    ],
)
def test_one_command_sweeps_it_against_l1(folder: Path, command: str, backbone: str, losses: list[str]) -> None:
    """In a process without the current folder on its path, as that of the script ``sgbench`` is."""
    program, *arguments = shlex.split(command)
    assert program == "sgbench"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sgbench", *arguments, *TINY],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert outcome(folder) == {(backbone, loss, seed, "done") for loss in losses for seed in (0, 1)}
    assert all(loss in done.stdout for loss in losses)


@pytest.mark.parametrize("command", COMMANDS, ids=["loss", "backbone"])
def test_what_is_swept_can_also_be_trained_alone(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = shlex.split(command.replace("sweep", "train").replace(" --loss l1 ", " "))
    monkeypatch.setattr(sys, "argv", [*arguments, "--seeds", "0", *TINY])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    ((_, _, seed, status),) = outcome(folder)
    assert (seed, status) == (0, "done")


@pytest.mark.parametrize(("module", "command"), [("custom_loss", COMMANDS[0]), ("custom_backbone", COMMANDS[1])])
def test_each_example_names_its_command(module: str, command: str) -> None:
    assert f"\n    {command}\n" in (ROOT / "examples" / f"{module}.py").read_text(encoding="utf-8")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "name", ["custom_loss:FrequencyL1(amplitude=true)", "custom_backbone:ESPCN-tiny", "custom_metric:sharpness"]
)
def test_each_example_keeps_the_rules(name: str) -> None:
    assert [outcome for outcome in outcomes(checks(name, patch=8)) if not outcome.passed] == []


def test_the_metric_scores_images_without_hr(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    write_png(folder / "photos" / "photo.png", photo)
    command = "sgbench eval bicubic --test real=none,lr=photos --metric custom_metric:sharpness"
    assert command in README
    assert f"\n    {command}\n" in (folder / "custom_metric.py").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    grey = upscale(photo, 4)[4:-4, 4:-4].mean(axis=2) / 255
    expected = laplace(grey)[1:-1, 1:-1].var()
    scores = sgbench.load_results(str(folder / "results" / "eval")).scores.to_pylist()
    assert [(row["image"], row["value"]) for row in scores] == [
        (each, pytest.approx(expected, rel=1e-5)) for each in ("photo", None)
    ]


def test_the_entry_points_give_the_names_that_the_readme_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "site" / "examples-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: examples\nVersion: 1.0\n")
    lines = []
    for group, points in tomllib.loads(block("toml"))["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path / "site")
    (loss,) = re.findall(r"--loss '([^']*frequency[^']*)'", README)
    (backbone,) = re.findall(r"--backbone (espcn\S*)`", README)
    assert str(check_loss(loss)) == "0.1*frequency + 1.0*l1"
    assert check_backbone(backbone) == backbone == "espcn-tiny"
    assert count_parameters(build_backbone(backbone, 2)) > 0


def test_the_python_block_runs(folder: Path) -> None:
    names: dict[str, object] = {}
    exec(block("python"), names)
    assert names["loss"].names == ["frequency(amplitude=true)", "l1"]


# What the examples compute


def test_the_notebook_runs_and_shows_what_it_is_committed_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few steps, a metric that needs no network, and without Ray; `tests/cluster/test_registered.py` has Ray."""
    path = folder / "own_loss.ipynb"
    quicker = {"lpips_alex": "ssim_y", '"recipe.steps": 300': '"recipe.steps": 2'}
    codes = [re.sub("|".join(quicker), lambda found: quicker[found[0]], code) for code in sources(path)]
    monkeypatch.setattr("sgbench.api.sweep", functools.partial(sgbench.sweep, local=True))
    shown = [[output["output_type"] for output in outputs] for outputs in run(codes)]
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert shown == [[output["output_type"] for output in cell["outputs"]] for cell in cells]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert {row[1] for row in outcome(folder)} == {"l1", "l1 + 1.0*sharp"}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("amplitude", [False, True])
def test_the_loss_is_what_numpy_computes_and_can_be_learned_from(amplitude: bool) -> None:
    random = np.random.default_rng(0)
    sr, hr = random.random((2, 3, 9, 12)), random.random((2, 3, 9, 12))
    theirs = [np.fft.fft2(image, norm="ortho") for image in (sr, hr)]
    theirs = [np.abs(image) for image in theirs] if amplitude else theirs
    loss = LOSSES.load("custom_loss:FrequencyL1")(amplitude=amplitude)
    value = loss(torch.tensor(sr), torch.tensor(hr)).item()
    assert value == pytest.approx(np.abs(theirs[0] - theirs[1]).mean())
    corner = torch.tensor(sr[:1, :, :3, :4], requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.tensor(hr[:1, :, :3, :4])), (corner,))
    flat = torch.zeros(1, 3, 8, 8, requires_grad=True)
    loss(flat, torch.zeros(1, 3, 8, 8)).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


@pytest.mark.usefixtures("folder")
def test_amplitudes_do_not_change_when_an_image_is_shifted() -> None:
    image = torch.rand(1, 3, 16, 16)
    shifted = image.roll((3, 5), (2, 3))
    losses = [check_loss(f"custom_loss:FrequencyL1(amplitude={on})") for on in ("false", "true")]
    values = [build_loss(loss)(Batch(image, image, shifted, 1, 0, 1))[0] for loss in losses]
    assert values[0] > 0.1
    assert values[1] < 1e-6


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_backbone_upscales_and_has_the_paper_s_layers(scale: int) -> None:
    network = build_backbone(check_backbone("custom_backbone:ESPCN"), scale)
    assert network(torch.rand(1, 3, 5, 7)).shape == (1, 3, scale * 5, scale * 7)
    weights = 25 * 3 * 64 + 9 * 64 * 32 + 9 * 32 * 3 * scale**2
    assert count_parameters(network) == weights + 64 + 32 + 3 * scale**2
