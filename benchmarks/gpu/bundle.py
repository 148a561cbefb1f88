"""Collects what a machine without a package index needs for `session.py`: wheels and images.

    make gpu-bundle
    python benchmarks/gpu/bundle.py --to DIR --python 3.12 --images DIV2K_train_HR --set Set5=DIR

Run it where sgbench is installed with its extra ``dev``: the wheels are those of this environment's versions, for the
other machine's Python on Linux x86-64. What that machine has already, `--there` leaves out, with all that it needs.
"""

import argparse
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console
from rich.table import Table

TORCH = ("torch", "torchvision")
"""What is never carried, with all that it needs: a torch that fits the card is the other machine's own."""

THERE = ("typer", "rich")
"""What is never carried either; other versions of these may need other packages, which are carried."""

NOT_NEEDED = ("ray",)
"""Only sweeps on a cluster import it."""

PEERS = ("torchsr", "spandrel", "lmdb", "pytest", "hypothesis")
"""What benchmarks and tests need beside what sgbench does."""

PLATFORMS = tuple(
    f"{name}_x86_64" for name in (*(f"manylinux_2_{minor}" for minor in range(5, 40)), "manylinux2014", "manylinux1")
)
"""Tags of wheels that run on a Linux of today; pip takes each literally."""


def needed(names: Iterable[str], without: Iterable[str] = ()) -> set[str]:
    """Return installed packages and everything that they need, by canonical name.

    Args:
        names: Of packages.
        without: Packages that are left out, with all that only they need.
    """
    left_out = {canonicalize_name(name) for name in without}
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name in left_out:
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another system
        found.add(name)
        waiting += [
            canonicalize_name(each.name)
            for each in map(Requirement, requires)
            if each.marker is None or each.marker.evaluate({"extra": ""})
        ]
    return found


def fetch(names: Iterable[str], python: str, folder: Path) -> None:
    """Fetch wheels of the versions that are installed here.

    Raises:
        subprocess.CalledProcessError: If a package has no wheel for that Python.
    """
    pins = [f"{name}=={distribution(name).version}" for name in sorted(names)]
    target = ["--only-binary=:all:", "--no-deps", "--python-version", python, "--implementation", "cp"]
    platforms = [word for tag in (*PLATFORMS, "any") for word in ("--platform", tag)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *target, *platforms, "--dest", str(folder), *pins], check=True)


def carry(images: Path | None, sets: Sequence[str], most: int, folder: Path) -> None:
    """Copy images for training and test sets, so that `session.py` finds them.

    Args:
        images: A folder with images for training.
        sets: Test sets as ``NAME=DIR``.
        most: How many images of each are copied, the first by name.
        folder: Of the bundle.
    """
    sources = {"train": images} if images else {}
    for text in sets:
        name, _, path = text.partition("=")
        sources[name] = Path(path)
    for name, source in sources.items():
        target = folder / "images" / name
        target.mkdir(parents=True)
        for file in sorted(path for path in source.iterdir() if path.is_file() and path.name[0] != ".")[:most]:
            shutil.copy(file, target)


def main() -> None:
    """Make the bundle and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--to", type=Path, default=Path("gpu-bundle"), help="a folder, whose content is replaced")
    parser.add_argument("--python", default=platform.python_version(), help="of the other machine, such as 3.12")
    parser.add_argument(
        "--there",
        nargs="*",
        default=[],
        metavar="PACKAGE",
        help="what that machine has already; what only these need is left out too",
    )
    parser.add_argument("--images", type=Path, help="a folder of images to train on")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=DIR", help="a test set (repeatable)")
    parser.add_argument("--most", type=int, default=24, help="images of each folder")
    arguments = parser.parse_args()
    without = [*needed(TORCH), *THERE, *arguments.there, *NOT_NEEDED]
    names = needed(["sgbench", *PEERS], without) - {"sgbench"}
    if arguments.to.exists():
        if not (arguments.to / "wheels").is_dir():
            parser.error(f"--to {arguments.to} is a folder, and not one that this script made")
        shutil.rmtree(arguments.to)
    fetch(names, ".".join(arguments.python.split(".")[:2]), arguments.to / "wheels")
    carry(arguments.images, arguments.set, arguments.most, arguments.to)
    table = Table("in the bundle", "files", "MB")
    for path in sorted((arguments.to / "wheels").iterdir(), key=lambda path: -path.stat().st_size):
        table.add_row(path.name, "1", f"{path.stat().st_size / 1e6:.1f}")
    for folder in sorted(arguments.to.glob("images/*")):
        files = list(folder.iterdir())
        table.add_row(
            f"images/{folder.name}", str(len(files)), f"{sum(file.stat().st_size for file in files) / 1e6:.1f}"
        )
    everything = [path for path in arguments.to.rglob("*") if path.is_file()]
    table.add_section()
    table.add_row("all", str(len(everything)), f"{sum(path.stat().st_size for path in everything) / 1e6:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
