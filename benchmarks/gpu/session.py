"""Everything that waits for a GPU, in one command of eight minutes, the most important part first.

    make gpu-bundle                                         # where packages can be fetched
    python benchmarks/gpu/session.py --bundle gpu-bundle    # on the machine with the GPU

The second machine needs Python, torch, torchvision, typer and rich, and this checkout; the rest is in the bundle. Each
part is a process with its own time limit, so that one that hangs costs no other. After each part, ``session.json`` is
written anew: what every part printed as tables, its exit code and its seconds. ``session.log`` has all output.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"

FAMILIES = ("edsr", "rcan", "rdn", "swinir")

DRY_SECONDS = 1800.0
"""Limit of a dry run, which may be on a busy machine and says nothing of time."""


@dataclass(frozen=True)
class Part:
    """A process of the session."""

    name: str
    seconds: float
    """When it is ended, whatever it has done."""
    program: Sequence[str]
    """What Python runs: a script, or a module."""
    options: Sequence[str] = ()
    dry: Sequence[str] | None = ()
    """The options of a dry run; None if it leaves the part out, since another differs only in its networks."""
    images: str | None = None
    """The option for the training images of the bundle."""
    sets: str | None = None
    """The option for each of its test sets, as ``NAME=DIR``."""

    def command(self, images: Path | None, *, dry: bool) -> list[str]:
        """Return the command line.

        Args:
            images: The images of the bundle, if it has any.
            dry: Whether this is a dry run.
        """
        command = [sys.executable, *self.program, *((self.dry or ()) if dry else self.options)]
        for folder in sorted(images.iterdir()) if images else ():
            if folder.name == "train" and self.images:
                command += [self.images, str(folder)]
            elif folder.name != "train" and self.sets:
                command += [self.sets, f"{folder.name}={folder}"]
        return command


def script(name: str) -> list[str]:
    """Return the path of a benchmark, as Python is told it."""
    return [str(BENCHMARKS / f"{name}.py")]


def files_with_gpu_tests() -> list[str]:
    """Return the test files that have tests for a GPU."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file) for file in files if "mark.gpu" in file.read_text(encoding="utf-8")]


def parts() -> list[Part]:
    """Return the parts of the session, the most important first."""
    tests = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files_with_gpu_tests()]
    step = script("train_step")
    return [
        Part("bits", 120, tests, dry=["--collect-only"]),
        Part("step of edsr-paper", 60, step, ["--network", "edsr-paper"], dry=["--network", "edsr-tiny"]),
        Part("losses", 60, script("losses")),
        Part("step of swinir-paper", 60, step, ["--network", "swinir-paper"], dry=None),
        Part("step of rcan-paper", 60, step, ["--network", "rcan-paper"], dry=None),
        Part("step of rdn-paper", 60, step, ["--network", "rdn-paper"], dry=None),
        Part(
            "waiting",
            45,
            script("patches"),
            ["--rounds", "2", "--network", "edsr-light"],
            dry=["--network", "edsr-tiny"],
            images="--images",
        ),
        Part("lanes", 60, script("lanes"), ["--rounds", "2"], images="--images"),
        Part("evaluation", 60, script("evaluation"), ["--rounds", "1"], sets="--set"),
        Part("memory", 45, script("memory")),
        Part("step of light networks", 90, step, [f"--network={name}-light" for name in FAMILIES], dry=None),
    ]


def unpack(wheels: Path, target: Path) -> None:
    """Install the wheels of a bundle into a folder, without an index.

    Raises:
        subprocess.CalledProcessError: If pip cannot.
    """
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    files = sorted(str(path) for path in wheels.glob("*.whl"))
    subprocess.run([*install, "--disable-pip-version-check", "--target", str(target), *files], check=True)


def run(command: Sequence[str], seconds: float, environment: Mapping[str, str], log: Path) -> int | None:
    """Run a part, its output appended to a log, and return its exit code; None if its time was over."""
    with log.open("a") as output:
        output.write(f"\n$ {' '.join(command)}\n")
        output.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also what it has started
            process.wait()


def device() -> str:
    """Return the name of the GPU, or that there is none."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{name}, torch {torch.__version__}"


def outcome(code: int | None, seconds: float) -> str:
    """Return what became of a part, in words."""
    if code is None:
        return f"ended after {seconds:.0f} s"
    return "done" if code == 0 else f"exit code {code}"


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """Print what became of the parts."""
    table = Table("part", "seconds", "outcome", "rows")
    for each in records:
        table.add_row(
            each["part"], f"{each['seconds']:.0f}", each["outcome"], str(sum(map(len, each["tables"].values())))
        )
    Console().print(table)


def session(
    folder: Path, bundle: Path | None, seconds: float, *, dry: bool, only: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Run the parts one after the other, and return what became of them.

    Args:
        folder: For ``session.json`` and ``session.log``.
        bundle: What ``bundle.py`` made; None if all packages are installed.
        seconds: When the session ends, unless it is a dry run. A part that has not begun by then is left out.
        dry: Whether to run each part once, as small as it can be, on whatever device there is.
        only: Names of parts; None for all.
    """
    ends = time.monotonic() + (DRY_SECONDS if dry else seconds)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "session.log"
    log.write_text("")
    images = bundle / "images" if bundle and (bundle / "images").is_dir() else None
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        packages = Path(temporary) / "packages"
        if bundle:
            unpack(bundle / "wheels", packages)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages), os.environ.get("PYTHONPATH", "")]),
            "SGBENCH_CACHE": f"{temporary}/cache",
            "PYTHONUNBUFFERED": "1",
        }
        for part in parts():
            left = ends - time.monotonic()
            if (only and part.name not in only) or (dry and part.dry is None) or left <= 0:
                continue
            results = Path(temporary) / part.name
            extra = {"BENCHMARK_RESULTS": str(results)} | ({"BENCHMARK_DRY_RUN": "1"} if dry else {})
            began, limit = time.monotonic(), min(left, DRY_SECONDS if dry else part.seconds)
            code = run(part.command(images, dry=dry), limit, environment | extra, log)
            tables = {file.stem: json.loads(file.read_text()) for file in sorted(results.glob("*.json"))}
            records.append(
                {
                    "part": part.name,
                    "seconds": time.monotonic() - began,
                    "exit code": code,
                    "outcome": outcome(code, limit),
                    "tables": {name: table["rows"] for name, table in tables.items()},
                    "notes": {name: table["notes"] for name, table in tables.items()},
                }
            )
            written = {"device": device(), "date": time.strftime("%Y-%m-%d"), "dry run": dry, "parts": records}
            (folder / "session.json").write_text(json.dumps(written, indent=1) + "\n")
            show(records[-1:])
    return records


def main() -> None:
    """Run the session."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, help="what bundle.py made; without it, all packages must be installed")
    parser.add_argument("--to", type=Path, default=Path("gpu-session"), help="the folder to write to")
    parser.add_argument("--seconds", type=float, default=480, help="when the session ends")
    parser.add_argument("--part", action="append", help=f"repeatable; else {', '.join(part.name for part in parts())}")
    parser.add_argument("--dry-run", action="store_true", help="one step of each part, on a CPU too")
    arguments = parser.parse_args()
    records = session(
        arguments.to.absolute(),
        arguments.bundle and arguments.bundle.absolute(),
        arguments.seconds,
        dry=arguments.dry_run,
        only=arguments.part,
    )
    show(records)
    sys.exit(any(each["exit code"] != 0 for each in records))


if __name__ == "__main__":
    main()
