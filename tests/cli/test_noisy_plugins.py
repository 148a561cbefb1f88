"""Plug-ins that print: what a command answers is what another program can read."""

import json
import sys
import warnings
from pathlib import Path

import pytest

from sgbench.cli import main

NOISY = """
import os, sys, warnings
import torch
from torch import nn
from torch.nn.functional import interpolate
from sgbench.metrics.distortion import psnr_y

def noise():
    print("Python")
    os.write(1, b"system\\n")
    os.system("echo program")
    warnings.warn("warning")

noise()

class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        noise()
    def forward(self, sr, hr):
        noise()
        return (sr - hr).abs().mean()

class Net(nn.Module):
    def __init__(self, *, scale):
        super().__init__()
        noise()
        self.scale, self.conv = scale, nn.Conv2d(3, 3, 1)
    def forward(self, x):
        noise()
        return interpolate(self.conv(x), scale_factor=self.scale)

class Metric(type(psnr_y)):
    def score(self, pair, runtime):
        noise()
        return super().score(pair, runtime)

fields = {name: getattr(psnr_y, name) for name in type(psnr_y).__dataclass_fields__}
metric = Metric(**(fields | {"name": "noisy:metric"}))
"""

ONE = ("tiny.yaml", "--backbone", "noisy:Net", "--loss", "noisy:Loss", "--seeds", "0", "--metric", "noisy:metric")


@pytest.fixture
def answer(place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs a command with ``--json``, and returns what its standard output has as JSON."""
    (place / "noisy.py").write_text(NOISY)

    def answer(*arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["sgbench", *arguments, "--json"])
        monkeypatch.setattr(sys, "path", [str(place), *sys.path])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        assert not end.value.code, said.err
        for kind in ("Python", "system", "program"):
            assert said.err.count(f"{kind}\n") == said.err.count("Python\n") > 0
        return json.loads(said.out)

    yield answer
    sys.modules.pop("noisy", None)


def test_a_plan_and_scores_are_json_whatever_a_plug_in_prints(answer, place: Path) -> None:
    ((run,), results) = answer("plan", *ONE), "store"
    assert (run["status"], run["loss"]) == ("to do", "noisy:Loss")
    assert answer("train", *ONE, "--results", results)
    weights = str(next((place / results / "weights").iterdir()))
    assert answer("eval", weights, "--backbone", "noisy:Net", "--test", "few=test", "--metric", "noisy:metric")
