"""A store of an earlier version opens with every command that reads, without torch, Ray or anybody's plug-in."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sgbench

STORES = Path(__file__).parent / "stores"

READER = """
import contextlib, importlib.abc, io, json, runpy, sys, traceback

allowed, imports = [], []

class Ban(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {"torch", "ray", "lab", "matplotlib", "duckdb", "pandas"} - set(allowed):
            imports.append("".join(traceback.format_stack()))
            raise ImportError(f"{name} is not to be imported here")

def run(words):
    imports.clear()
    sys.argv = words
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = exec(words[2]) if words[0] == "python" else runpy.run_module(words[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
        except Exception:
            code = traceback.format_exc()
    code = code if isinstance(code, int | str) else 0
    return {"code": code, "said": out.getvalue() + err.getvalue(), "imports": list(imports)}

sys.meta_path.insert(0, Ban())
answers = []
for allowed, words in json.load(sys.stdin):
    answers.append(run(words))
json.dump(answers, sys.__stdout__)
"""
"""Runs commands in one process, each with the modules that it may import."""


@dataclass(frozen=True)
class Command:
    """A command that reads, with ``STORE``, ``IMAGES`` and ``OUT`` for folders, and words of what it prints."""

    line: str
    says: tuple[str, ...]
    code: int = 0
    loads: tuple[str, ...] = ()
    """What it may import of what takes long, or is not installed here."""


DRAWS = ("matplotlib",)

READING = [
    Command(
        "sgbench table --results STORE",
        ("lab:Net", "0.5*lab:Edge(sigma=2.0)", "lab:shifted", "failed at step 2", "18.62 ± 0.64", "0.9608 ± 0.0558"),
    ),
    Command("sgbench table --results STORE --loss l1 --metric lab:shifted", ("18.62 ± 0.6448",)),
    Command("sgbench table --results STORE --rows metric --columns backbone,loss --format latex", ("lab:Net",)),
    Command("sgbench table 1 --results STORE", ("EDSR", "1.0113 ± 0.0253")),
    Command("sgbench table 2 --results STORE --show both", ("EDSR",)),
    Command("sgbench table 3 --results STORE", ("EDSR",)),
    Command("sgbench table 5 --results STORE", ("EDSR",)),
    Command("sgbench table --results STORE --json", ('"lab:shifted"',)),
    Command("sgbench compare l1 'l1 + sg' --results STORE", ("edsr-tiny", "demo", "lpips_alex")),
    Command("sgbench compare l1 'l1 + 0.5*lab:Edge(sigma=2)' --results STORE --json", ("lab:Edge", "edsr-tiny")),
    Command("sgbench metrics agree --results STORE", ("edsr-tiny", "demo", "lpips_alex")),
    Command("sgbench status --results STORE", ("quick",)),
    Command("sgbench losses", ("l1", "charbonnier(eps=0.001)", "sg(", "my_module:MyLoss")),
    Command("sgbench metrics", ("lpips_alex", "fid", "torchmetrics:")),
    Command("sgbench data list", ("Set5", "DIV2K")),
    Command("sgbench weights list", ("alexnet", "inception")),
    Command("sgbench logs 645b8a8d4472 --results STORE", ("has no log of a run",), code=2),
    Command("sgbench results merge OUT/all STORE --dry-run", ("8 runs would be added",)),
    Command('python -c \'import sgbench; print(sgbench.table("STORE", losses="l1"))\'', ("lab:Net", "18.62 ± 0.64")),
    Command('python -c \'import sgbench; print(sgbench.compare("STORE", "l1", "l1 + sg"))\'', ("edsr-tiny",)),
    Command(
        "sgbench query 'SELECT name FROM runs ORDER BY name' --results STORE --format csv",
        ("lab:Net · l1 · seed 0", "bicubic"),
        loads=("duckdb",),
    ),
    Command("sgbench figure lambda --results STORE --out OUT/lambda.svg", ("written to",), loads=DRAWS),
    Command("sgbench figure forest l1 l1+sg --results STORE --out OUT/forest.svg", ("written to",), loads=DRAWS),
    Command("sgbench figure agreement --results STORE --out OUT/agreement.svg", ("written to",), loads=DRAWS),
    Command("sgbench figure rank --results STORE --out OUT/rank.svg", ("written to",), loads=DRAWS),
    Command(
        "sgbench figure crops --test demo --results IMAGES --out OUT/crops.svg --image chelsea --box 100,60,48,48 "
        "--metric psnr_y --backbone edsr-tiny",
        ("written to",),
        loads=DRAWS,
    ),
    Command("sgbench report --results IMAGES --out OUT/images.html", ("written to",), loads=DRAWS),
    Command("sgbench figure plane --results STORE --out OUT/plane.svg", ("written to",), loads=DRAWS),
    Command("sgbench figure curves --results STORE --out OUT/curves.svg", ("written to",), loads=DRAWS),
    Command("sgbench report --results STORE --out OUT/report.html", ("written to",), loads=DRAWS),
    # verifying reads tensors, and a plan may count the operations of a network
    Command("sgbench results verify STORE", ("no problems",), loads=("torch",)),
    Command("sgbench plan quick --results STORE", ("quick: 4 runs",), loads=("torch", "pandas")),
    Command("sgbench plan quick --results STORE --train DIV2K", ("4 unknown", "not known yet"), loads=("torch",)),
]
"""Those that load nothing come first, for what one has imported the others cannot be kept from."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store that 27d0b6c wrote."""
    return Path(shutil.copytree(STORES / "27d0b6c", tmp_path_factory.mktemp("reading") / "store"))


@pytest.fixture(scope="module")
def with_images(store: Path) -> Path:
    """Another copy, with an image that each run of edsr-tiny and seed 0 made of the set `demo`."""
    copy = Path(shutil.copytree(store, store.parent / "images"))
    runs = sgbench.load_results(str(copy)).runs.to_pylist()
    for run in runs:
        if (run["backbone"], run["seed"]) == ("edsr-tiny", 0):
            image = copy / "images" / run["run_id"] / "demo@782e5afe" / "chelsea.png"
            image.parent.mkdir(parents=True)
            Image.fromarray(np.full((300, 448, 3), 128, np.uint8)).save(image)
    return copy


Answer = dict[str, Any]


@pytest.fixture(scope="module")
def answers(store: Path, with_images: Path) -> dict[str, Answer]:
    """What each command says, by its line, all run in one process."""
    out = store.parent / "out"
    out.mkdir()

    bare = str(store.parent / "cache")  # a machine without pretrained networks
    environment = {**os.environ, "SGBENCH_CACHE": bare, "TORCH_HOME": bare, "SGBENCH_WEIGHTS": "", "COLUMNS": "200"}
    folders = {"STORE": store, "IMAGES": with_images, "OUT": out}
    lines = [re.sub("|".join(folders), lambda name: str(folders[name[0]]), each.line) for each in READING]
    words = [shlex.split(line) for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps([(each.loads, line) for each, line in zip(READING, words, strict=True)]),
        capture_output=True,
        text=True,
        env=environment,
        cwd=store.parent,
        timeout=300,
        check=True,
    )
    return dict(zip((each.line for each in READING), json.loads(done.stdout), strict=True))


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.mark.parametrize("command", READING, ids=lambda command: command.line)
def test_a_store_of_an_earlier_version_opens_without_torch_or_plug_ins(
    answers: dict[str, Answer], command: Command
) -> None:
    answer = answers[command.line]
    assert answer["imports"] == []
    assert answer["code"] == command.code, answer["said"]
    for word in command.says:
        assert word in answer["said"]


@pytest.mark.usefixtures("answers")
def test_reading_changes_no_file_of_a_store(store: Path) -> None:
    assert files(store) == files(STORES / "27d0b6c")
