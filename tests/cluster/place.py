"""A place in which commands of sgbench run as a person starts them, and what is left there afterwards."""

import contextlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import sgbench
from sgbench.cli import main
from sgbench.cluster.ray_internals import ENVIRONMENT
from sgbench.core.storage import UNFINISHED, Storage
from sgbench.data import write_png

STEPS = 30
SWEEP = f"""
grids:
- backbones: [edsr-tiny]
  losses: [l1 + 1.0*sg, "odd_losses:Slow"]
  seeds: [0, 1]
train: mine=train
tests: [few=test]
metrics: [psnr_y, ssim_y]
recipe: {{steps: {STEPS}, batch: 2, patch: 8}}
"""

ODD_LOSSES = """
import os, pathlib, signal, time
import torch

HERE = pathlib.Path(os.environ["SGBENCH_TEST_FOLDER"])

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        with (HERE / "constructed").open("a") as file:
            file.write(f"{os.getpid()}\\n")
    def forward(self, sr, hr, *, step):
        if step == 5:  # which no trial before a sweep reaches
            os.write(2, b"chatter of a C library\\n")
        time.sleep(float((HERE / "slow").read_text()))
        return (sr - hr).abs().mean()

class NotFinite(torch.nn.Module):
    def forward(self, sr, hr, *, step):
        factor = float("nan") if (HERE / "broken").exists() and step == 5 else 1.0
        return factor * (sr - hr).abs().mean()

class DiesOnce(torch.nn.Module):
    def forward(self, sr, hr, *, step):
        died = HERE / "died"
        if step == 5 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return (sr - hr).abs().mean()
"""


PATIENCE_SECONDS = 600.0
"""How long anything may take on a busy machine that is not said to be quick."""

MARK = "SGBENCH_TEST"
"""The variable by which processes of a test are found."""

FOLDER = "SGBENCH_TEST_FOLDER"
"""The variable by which the losses of `ODD_LOSSES` find their files, wherever the module itself is."""


def marked(mark: str, words: str = "") -> list[int]:
    """Return the processes that carry a mark and have some words in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            environment, line = ((folder / name).read_bytes() for name in ("environ", "cmdline"))
            if f"{MARK}={mark}".encode() in environment and words.encode() in line:
                found.append(int(folder.name))
    return found


def has_tune(raylets: Iterable[int]) -> bool:
    """Return whether Tune keeps its files in the folder of a Ray, of which some processes are the raylets."""
    words = [word for process in raylets for word in psutil.Process(process).cmdline()]
    logs = [Path(word.partition("=")[2]) for word in words if word.startswith("--log_dir=")]
    return any(any(log.parent.glob("tune-*/tune")) for log in logs)


def kill(processes: Iterable[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def wait_until(
    condition: Callable[[], bool], seconds: float, what: Callable[[], object] = lambda: None, pause: float = 0.05
) -> None:
    """Wait until something is so; what is told if it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(pause)


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Add variables to the environment of this process, which is as it was when the context ends."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Said:
    """What a command has printed."""

    stdout: str
    stderr: str

    def started(self) -> list[str]:
        return re.findall(r"^started (.*)$", self.stderr, re.MULTILINE)


@dataclass
class Command:
    """A command of sgbench in a session of its own."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def stderr(self) -> str:
        return self.err.read_text()

    @property
    def stdout(self) -> str:
        return self.out.read_text()

    def started(self) -> list[str]:
        return Said(self.stdout, self.stderr).started()

    def wait_until(self, condition: Callable[[str], bool], seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition(self.stderr):
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.stderr[-1000:]}"
            assert time.monotonic() < deadline, f"nothing happened: {self.stderr[-1000:]}"
            time.sleep(0.1)

    def end(self, seconds: float = PATIENCE_SECONDS) -> int:
        return self.process.wait(seconds)

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)


@dataclass
class Place:
    """A folder with images, a sweep file and odd losses, in which commands run."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    commands: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(0)
        for name, count in (("train", 2), ("test", 2)):
            for i in range(count):
                write_png(self.folder / name / f"{name}{i}.png", random.integers(0, 256, (44, 40, 3), dtype=np.uint8))
        (self.folder / "tiny.yaml").write_text(SWEEP)
        (self.folder / "odd_losses.py").write_text(ODD_LOSSES)

    def slow_down(self, seconds: float) -> None:
        """Say how long a step takes with the loss that is slow, wherever it runs, from now on."""
        (self.folder / ".slow").write_text(str(seconds))
        (self.folder / ".slow").replace(self.folder / "slow")

    def environment(self, mark: str) -> dict[str, str]:
        """Return the variables of a process that is to be found again."""
        return {
            "PYTHONPATH": str(Path(sgbench.__file__).parent.parent),
            "RAY_USAGE_STATS_ENABLED": "0",
            "SGBENCH_CACHE": str(self.folder / "cache"),
            FOLDER: str(self.folder),
            MARK: mark,
        }

    def start(self, *arguments: str, python: tuple[str, ...] = (), slow: float = 0.0, **environment: str) -> Command:
        self.slow_down(slow)
        number = len(self.commands)
        out, err = self.folder / f"out{number}", self.folder / f"err{number}"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, *python, "-m", "sgbench", *arguments],
                cwd=self.folder,
                env={**os.environ, **self.environment(self.mark), **environment},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.commands.append(Command(process, out, err))
        return self.commands[-1]

    def run(
        self,
        *arguments: str,
        code: int = 0,
        python: tuple[str, ...] = (),
        slow: float = 0.0,
        seconds: float = PATIENCE_SECONDS,
        **environment: str,
    ) -> Command:
        command = self.start(*arguments, python=python, slow=slow, **environment)
        assert command.end(seconds) == code, command.stderr[-2000:]
        return command

    def call(self, *arguments: str, code: int = 0, slow: float = 0.0) -> Said:
        """Do as `run` does, but in this process: Python and what is imported have been started already."""
        self.slow_down(slow)
        out, err, disabled = io.StringIO(), io.StringIO(), logging.root.manager.disable
        with (
            environment({**ENVIRONMENT, "SGBENCH_CACHE": str(self.folder / "cache"), FOLDER: str(self.folder)}),
            pytest.MonkeyPatch.context() as patch,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["sgbench", *arguments])
            patch.setattr(sys, "path", [str(self.folder), *sys.path])
            warnings.simplefilter("ignore", DeprecationWarning)  # as where pytest does not ask for them
            with pytest.raises(SystemExit) as end:
                main()
        logging.disable(disabled)
        assert (end.value.code or 0) == code, err.getvalue()[-2000:]
        return Said(out.getvalue(), err.getvalue())

    def processes(self, words: str = "") -> list[int]:
        """Return the processes that carry our mark, the commands and whatever they started, by their command line."""
        return marked(self.mark, words)

    def assert_no_processes(self, seconds: float = 60) -> None:
        wait_until(lambda: not self.processes(), seconds, lambda: f"processes {self.processes()} are left")

    def plan(self, *arguments: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.call("plan", *arguments, "--json").stdout)
        return rows

    def storage(self, store: str) -> Storage:
        """Return a store of this folder, or one with a URI."""
        return Storage(store if "://" in store else str(self.folder / store))

    def outcome(self, store: str) -> dict[str, Any]:
        """Return all that must be the same bit for bit, by run."""
        storage = self.storage(store)
        results = sgbench.load_results(storage.root)
        found: dict[str, Any] = {}
        for row in results.runs.to_pylist():
            content = torch.load(io.BytesIO(storage.read(f"weights/{row['run_id']}.pt")), weights_only=True)
            weights = {name: tensor.numpy().tobytes() for name, tensor in content["params"].items()}
            found[row["run_id"]] = {"weights": weights, "scores": [], "history": []}
        for row in results.scores.to_pylist():
            keys = ("dataset", "image", "metric", "status", "value")
            found[row["run_id"]]["scores"].append([row[key] for key in keys])
        for row in results.history.to_pylist():
            found[row["run_id"]]["history"].append([row["step"], row["loss"], row["terms"], row["lr"]])
        return found

    def times(self, store: str) -> dict[str, int]:
        """Return when each file of a store's tables and weights was written."""
        tables = ("runs", "scores", "history", "weights")
        files = [path for table in tables for path in (self.folder / store / table).iterdir()]
        return {f"{path.parent.name}/{path.name}": path.stat().st_mtime_ns for path in files}


@contextlib.contextmanager
def a_place(folder: Path) -> Iterator[Place]:
    place = Place(folder)
    try:
        yield place
    finally:
        kill(place.processes())


def assert_clean(place: Place, store: str) -> None:
    """Neither processes nor files that a sweep needs only while it runs are left, nor halves of files."""
    place.assert_no_processes()
    storage = place.storage(store)
    names = storage.sizes()
    left = {name.partition("/")[0] for name in names}
    if storage.is_local:
        left |= {path.name for path in Path(storage.path()).iterdir()}
    usual = {".lock", "history", "logs", "plans", "runs", "scores", "sgbench.json", "tensorboard", "weights"}
    assert left - {"checkpoints", "packed", "progress", "sources", "validation"} == usual, left ^ usual
    assert [name for name in names if name.startswith("checkpoints/") and name.endswith(".pt")] == []
    assert [name for name in names if name.startswith("progress/")] == []
    assert [name for name in names if UNFINISHED.fullmatch(name.rpartition("/")[2])] == []
