"""What a script registers works in Ray's workers: in a trial's process, in worker groups, and in scoring tasks."""

import json
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle
from torch import Tensor, nn

import sgbench
from sgbench.cluster.registered import pack, unpack
from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES, LOSSES
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.metrics import METRICS
from sgbench.runs.execute import Job
from sgbench.runs.plan import Data, make_plan
from sgbench.spec import build
from sgbench.store import Store

SCRIPT = """
import json, sys, warnings
from dataclasses import dataclass
import torch
import sgbench
from sgbench.metrics import ImageMetric

warnings.simplefilter("error", UserWarning)
FACTOR = 2.0


class Base(torch.nn.Module):
    def forward(self, sr, hr):
        return FACTOR * (sr - hr).abs().mean()


@sgbench.register_loss("mine")
class Mine(Base):
    pass


@sgbench.register_backbone("net")
class Net(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 3 * scale**2, 3, padding=1), torch.nn.PixelShuffle(scale))

    def forward(self, lr):
        return self.body(lr)


@dataclass(frozen=True, kw_only=True)
class Distance(ImageMetric):
    def score(self, pair, runtime):
        return float(abs(pair.sr.luma - pair.hr.luma).mean())


sgbench.register_metric(
    Distance(
        name="distance", direction="lower", version="1", protocol={}, description="Mean distance of Y.", source="test"
    )
)

if __name__ == "__main__":
    fields = {
        "grids": [{"backbones": ["net"], "losses": ["l1", "0.5*mine"], "seeds": [0]}],
        "train": "mine=train", "tests": ["few=test"], "metrics": ["distance"],
        "recipe": {"steps": 3, "batch": 2, "patch": 8},
    }
    for workers in (0, 1):
        results = sgbench.sweep(fields, settings={"workers": workers}, results=f"results/{workers}")
        frame = results.to_pandas()
        whole = frame[frame.image.isna()].sort_values("loss")
        print(json.dumps([list(whole.run_id), list(whole.metric), list(whole.value)]))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_trains_and_scores_with_what_a_script_registers(
    tmp_path: Path, train_folder: Path, test_folder: Path, cache: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
    )
    assert command.returncode == 0, command.stderr
    alone, grouped = map(json.loads, command.stdout.splitlines())
    assert alone[1] == ["distance", "distance"]
    assert grouped == alone
    assert alone[2][0] == alone[2][1] > 0  # 0.5*mine is l1


class Held(nn.Module):
    """A loss that holds what cannot be sent."""

    lock = threading.Lock()

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        with Held.lock:
            return (sr - hr).abs().mean()


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (LOSSES, BACKBONES, METRICS):
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    unpack.cache_clear()


def jobs_of(loss: str, tmp_path: Path, train: PackedImages, test: PackedImages) -> list[Job]:
    fields: dict[str, Any] = {"grids": [{"backbones": ["edsr-tiny"], "losses": [loss]}], "metrics": ["psnr_y"]}
    fields |= {"train": "Photos", "tests": ["Photos"], "recipe": {"steps": 3, "batch": 2, "patch": 8}}
    sweep, data, store = build(fields, "tiny"), Data(train, (test,)), Store(Storage(str(tmp_path / "store")))
    return [Job.of(run, data, sweep, store.storage) for run in make_plan("tiny", sweep, data, store).runs]


BESIDE = """
import torch

class Own(torch.nn.Module):
    def forward(self, sr, hr):
        return 3 * sr.mean()
"""


def test_a_module_beside_the_person_travels_to_a_cluster_by_value(
    tmp_path: Path, train_images: PackedImages, test_images: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("beside")
    exec(
        "import torch\nclass Own(torch.nn.Module):\n    def forward(self, sr, hr):\n        return 3 * sr.mean()",
        vars(module),
    )
    module.Own.__module__ = "beside"
    monkeypatch.setitem(sys.modules, "beside", module)
    sgbench.register_loss("own")(module.Own)
    jobs = jobs_of("own", tmp_path, train_images, test_images)
    here, there = pack(jobs, remote=False), pack(jobs, remote=True)
    monkeypatch.delitem(sys.modules, "beside")
    del LOSSES._loaded["own"]
    with pytest.raises(ModuleNotFoundError):
        unpack(here)
    unpack(there)
    assert float(LOSSES.load("own")()(torch.ones(1), torch.ones(1))) == 3
    assert cloudpickle.list_registry_pickle_by_value() == set()


def test_what_is_not_used_is_not_sent_and_what_cannot_be_sent_is_refused(
    tmp_path: Path, train_images: PackedImages, test_images: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Held, "__module__", "__main__")  # as if it were defined in a script
    sgbench.register_loss("held")(Held)
    unpack(pack(jobs_of("l1", tmp_path, train_images, test_images), remote=True))
    with pytest.raises(InputError, match=r"loss 'held' cannot be sent to Ray's workers: .*; put it into a module"):
        pack(jobs_of("held", tmp_path, train_images, test_images), remote=False)
