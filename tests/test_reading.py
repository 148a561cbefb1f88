"""A store of an earlier version opens with every command that reads, without torch, Ray or anybody's plug-in."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

STORES = Path(__file__).parent / "stores"

READER = """
import contextlib, importlib.abc, io, json, sys, traceback
from sgbench.cli import main

banned = {"torch", "ray", "lab"}
imports = []

class Ban(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in banned:
            imports.append("".join(traceback.format_stack()))
            raise ImportError(f"{name} is not to be imported here")

def run(arguments):
    imports.clear()
    sys.argv = ["sgbench", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        except Exception:
            code = traceback.format_exc()
    return {"code": code or 0, "out": out.getvalue(), "err": err.getvalue(), "imports": list(imports)}

sys.meta_path.insert(0, Ban())
without, plain = json.load(sys.stdin)
answers = [run(arguments) for arguments in without]
banned = {"lab"}
json.dump([*answers, *map(run, plain)], sys.__stdout__)
"""
"""Runs commands in one process: the first list where neither torch nor Ray can be imported, the second with them."""


@dataclass(frozen=True)
class Command:
    """A command that reads, as words with ``STORE`` and ``OUT`` in them, and words of what it prints."""

    line: str
    says: tuple[str, ...]
    code: int = 0
    loads: bool = False
    """Whether it may import torch: verifying reads tensors, and a plan may count the operations of a network."""


READING = [
    Command(
        "table --results STORE", ("lab:Net", "0.5*lab:Edge(sigma=2.0)", "lab:shifted", "failed at step 2", "18.62")
    ),
    Command("table --results STORE --loss l1 --metric lab:shifted", ("18.62",)),
    Command("table 1 --results STORE", ("EDSR",)),
    Command("table 1 --show paper", ("EDSR", "RCAN")),
    Command("table --results STORE --json", ('"lab:shifted"',)),
    Command("compare l1 l1+1.0*sg --results STORE", ("edsr-tiny", "demo", "lpips_alex")),
    Command("compare l1 l1+0.5*lab:Edge(sigma=2) --results STORE", ("lab:Edge", "edsr-tiny")),
    Command("query SELECT\tname\tFROM\truns\tORDER\tBY\tname --results STORE", ("lab:Net · l1 · seed 0", "bicubic")),
    Command("status --results STORE", ("quick",)),
    Command("losses", ("l1", "charbonnier(eps=0.001)", "sg(", "my_module:MyLoss")),
    Command("metrics", ("lpips_alex", "fid", "torchmetrics:")),
    Command("data list", ("Set5", "DIV2K")),
    Command("weights list", ("alexnet", "inception")),
    Command("logs 645b8a8d4472 --results STORE", ("has no log of such a run",), code=2),
    Command("results verify STORE", ("nothing wrong",), loads=True),
    Command("figure lambda --results STORE --out OUT/lambda.svg", ("written to",)),
    Command("figure plane --results STORE --out OUT/plane.svg", ("written to",)),
    Command("figure curves --results STORE --out OUT/curves.svg", ("written to",)),
    Command("report --results STORE --out OUT/report.html", ("written to",)),
    Command("plan quick --results STORE", ("quick: 4 runs",), loads=True),
    Command("plan quick --results STORE --train DIV2K", ("quick: 4 runs", "not known yet"), loads=True),
    Command("results merge OUT/all STORE --dry-run", ("would be added",)),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store that 27d0b6c wrote."""
    return Path(shutil.copytree(STORES / "27d0b6c", tmp_path_factory.mktemp("reading") / "store"))


Answer = dict[str, object]


@pytest.fixture(scope="module")
def answers(store: Path) -> dict[str, Answer]:
    """What each command says, by its line, all run in one process."""
    out = store.parent / "out"
    out.mkdir()

    def words(command: Command) -> list[str]:
        line = command.line.replace("STORE", str(store)).replace("OUT", str(out))
        return [word.replace("\t", " ") for word in line.split(" ")]

    ordered = sorted(READING, key=lambda command: command.loads)
    lists = [[words(command) for command in ordered if command.loads == loads] for loads in (False, True)]
    bare = str(store.parent / "cache")  # a machine without pretrained networks
    environment = {**os.environ, "SGBENCH_CACHE": bare, "TORCH_HOME": bare, "SGBENCH_WEIGHTS": "", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps(lists),
        capture_output=True,
        text=True,
        env=environment,
        cwd=store.parent,
        timeout=300,
        check=True,
    )
    return dict(zip((command.line for command in ordered), json.loads(done.stdout), strict=True))


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.mark.parametrize("command", READING, ids=lambda command: command.line.replace("\t", " "))
def test_a_store_of_an_earlier_version_opens_without_torch_or_plug_ins(
    answers: dict[str, Answer], command: Command
) -> None:
    answer = answers[command.line]
    assert not answer["imports"]
    assert answer["code"] == command.code, answer
    said = f"{answer['out']}{answer['err']}"
    for word in command.says:
        assert word in said


@pytest.mark.usefixtures("answers")
def test_reading_changes_no_file_of_a_store(store: Path) -> None:
    assert files(store) == files(STORES / "27d0b6c")
