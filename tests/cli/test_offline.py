"""A machine without internet: what it is brought is all that scores need, and nobody is asked for anything else."""

import dataclasses
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sgbench.assets.base import LoadedWeights
from sgbench.assets.catalogue import NETWORKS

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the process has asked of the network, which is not there."""
    asked: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return asked


def test_a_bundle_is_all_that_a_machine_without_internet_needs(
    run: Run, place: Path, alexnet_weights: LoadedWeights, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    file = place / "cache" / "weights" / NETWORKS.load("alexnet").file
    file.parent.mkdir(parents=True)
    torch.save(dict(alexnet_weights.state), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = dataclasses.replace(NETWORKS.load("alexnet"), sha256=digest, archive=None)
    monkeypatch.setitem(NETWORKS._loaded, "alexnet", entry)
    monkeypatch.delenv("SGBENCH_WEIGHTS", raising=False)
    metrics = ("--metric", "lpips_alex", "--metric", "fd_alex")
    run("weights", "bundle", "tiny.yaml", *metrics)

    there = place / "there"
    for variable in ("HOME", "SGBENCH_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(there))
    run("weights", "import", "tiny-networks.tar")
    out, _ = run("eval", "bicubic", "--test", "few=test", *metrics)
    assert "lpips_alex ↓  fd_alex ↓" in out
    assert "no weights" not in out
    assert asked == []
    out, err = run("eval", "bicubic", "--test", "few=test", "--metric", "fd_dinov2")
    assert "no weights" in out
    assert "download dinov2_vitl14_pretrain.pth (1.2 GB) from https://dl.fbaipublicfiles.com/" in err
    assert asked
