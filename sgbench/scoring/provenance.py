"""On which machine, and with which versions, a result was computed."""

import functools
import importlib.metadata
import json
import platform
import socket
import subprocess
from pathlib import Path

import torch

from sgbench.store.rows import RunRow


@functools.cache
def _versions() -> dict[str, str]:
    ours = ("sgbench", "torch", "numpy", "ray", "lpips", "pytorch-fid", "scikit-image")
    names = (*ours, "spandrel", "torchmetrics", "pyiqa")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _git_revision(package: Path = Path(__file__).parent.parent) -> str | None:
    """Return the commit of the running checkout, with ``+`` if the package has changes; None if it is not one."""
    if not (package.parent / ".git").exists():
        return None

    def git(*words: str) -> str:
        answer = subprocess.run(["git", "-C", package, *words], capture_output=True, text=True, timeout=10, check=True)
        return answer.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return None


def provenance(device: torch.device) -> RunRow:
    """Return the columns of a row that record the machine and versions of a run on a device."""
    gpu, memory = None, None
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device)
        gpu, memory = there.name, there.total_memory
    return {
        "device": gpu or _cpu(),
        "gpu": gpu,
        "gpu_memory_bytes": memory,
        "host": socket.gethostname(),
        "versions": json.dumps(_versions(), sort_keys=True),
        "git_revision": _git_revision(),
    }


def _cpu() -> str:
    models = (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name"))
    return next(models, platform.machine())


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
