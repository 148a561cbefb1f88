"""What a script registers works in Ray's workers: in a trial's process, in worker groups, and in scoring tasks."""

import importlib
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sgbench
from sgbench.cluster.registered import pack, unpack
from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES, LOSSES, OPTIMIZERS
from sgbench.core.sources import Own, Source
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.metrics import METRICS
from sgbench.runs.code import names_of_jobs
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


@sgbench.register_discriminator("judge")
class Judge(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, features, 3)

    def forward(self, images):
        return FACTOR * self.layer(images)


@dataclass(frozen=True, kw_only=True)
class Distance(ImageMetric):
    def score(self, pair, runtime):
        return float(abs(pair.sr.luma - pair.hr.luma).mean())


sgbench.register_metric(
    Distance(
        name="distance", direction="lower", version="1", protocol={}, description="Mean distance of Y.", source="test"
    )
)


@sgbench.register_metric
@sgbench.metric(direction="lower")
def double(sr, hr):
    return FACTOR * (sr - hr).abs().mean()


if __name__ == "__main__":
    losses = ["l1", "0.5*mine", "l1 + gan(discriminator=judge, features=2)"]
    fields = {
        "grids": [{"backbones": ["net"], "losses": losses, "seeds": [0]}],
        "train": "mine=train", "tests": ["few=test"], "metrics": ["distance", "double"],
        "recipe": {"steps": 3, "batch": 2, "patch": 8},
    }
    for workers in (0, 1):
        results = sgbench.sweep(fields, settings={"workers": workers}, results=f"results/{workers}")
        frame = results.to_pandas()
        whole = frame[frame.image.isna()].sort_values(["metric", "loss"])
        code = {}
        for row in results.runs.to_pylist():
            code |= json.loads(row["code"] or "{}")
        for metric, of_metric in frame.groupby("metric"):
            code[f"metric {metric}"], = set(of_metric.metric_code)
        print(json.dumps([list(whole.run_id), list(whole.metric), list(whole.value), code]))
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
    assert alone[1] == ["distance"] * 3 + ["double"] * 3
    assert grouped == alone
    assert alone[2][0] == alone[2][2] > 0  # 0.5*mine is l1
    assert alone[2][1] != alone[2][0]
    assert alone[2][3] == alone[2][5] > 0
    script = {"__main__": Own(SCRIPT, is_package=False)}
    plugins = {
        "loss mine": "Mine",
        "discriminator judge": "Judge",
        "backbone net": "Net",
        "metric distance": "Distance",
        "metric double": "double",
    }
    sources = {plugin: Source.of(f"__main__:{name}", script.get) for plugin, name in plugins.items()}
    assert alone[3] == {plugin: source and source.digest for plugin, source in sources.items()}
    kept = {path.stem for path in tmp_path.glob("results/0/sources/*.json")}
    assert kept | {alone[3]["metric distance"], alone[3]["metric double"]} == {*alone[3].values()}


class Held(nn.Module):
    """A loss that holds what cannot be sent."""

    lock = threading.Lock()

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        with Held.lock:
            return (sr - hr).abs().mean()


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (LOSSES, BACKBONES, METRICS, OPTIMIZERS):
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    unpack.cache_clear()


def jobs_of(loss: str, tmp_path: Path, train: PackedImages, test: PackedImages, **recipe: dict[str, Any]) -> list[Job]:
    fields: dict[str, Any] = {"grids": [{"backbones": ["edsr-tiny"], "losses": [loss]}], "metrics": ["psnr_y"]}
    fields |= {"train": "Photos", "tests": ["Photos"], "recipe": {"steps": 3, "batch": 2, "patch": 8} | recipe}
    sweep, data, store = build(fields, "tiny"), Data(train, (test,)), Store(Storage(str(tmp_path / "store")))
    return [Job.of(run, data, sweep, store.storage) for run in make_plan("tiny", sweep, data, store).runs]


BESIDE = {
    "beside.py": "import torch\nimport factors\n\nclass Own(torch.nn.Module):\n    def forward(self, sr, hr):\n"
    "        return factors.THREE * sr.mean()\n",
    "factors.py": "THREE = 3\n",
    "signs.py": "import torch\n\nclass Signs(torch.optim.Optimizer):\n    def __init__(self, params, lr):\n"
    "        super().__init__(params, {'lr': lr})\n",
    "of_cells.py": "def twice(value):\n    return 2 * value\n",
    "of_a_cell.py": "FIVE = 5\n",
}

CELL = """
import torch
from of_cells import twice

class Celled(torch.nn.Module):
    def forward(self, sr, hr):
        import of_a_cell
        return twice(of_a_cell.FIVE * sr.mean())
"""

ELSEWHERE = """
import sys
from pathlib import Path
import torch
from sgbench.cluster.registered import unpack
from sgbench.core.registry import LOSSES, OPTIMIZERS

unpack(Path(sys.argv[1]).read_bytes())
one = torch.ones(1)
for name in ("own", "celled", "beside:Own"):
    print(float(LOSSES.load(name)()(one, one)))
print(OPTIMIZERS.load("signs:Signs")([one], lr=0.5).param_groups[0]["lr"])
"""


def test_the_code_of_losses_and_optimizer_travels_with_the_modules_beside_the_person_that_it_imports(
    tmp_path: Path, train_images: PackedImages, test_images: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, text in BESIDE.items():
        (mine / name).write_text(text)
    monkeypatch.syspath_prepend(mine)
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # as in a notebook, where it is no file
    own = importlib.import_module("beside").Own
    sgbench.register_loss("own")(own)
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL, cell)
    sgbench.register_loss("celled")(cell["Celled"])
    cell["Celled"]()(torch.ones(1), torch.ones(1))  # as it is tried before a sweep
    signs = {"name": "signs:Signs", "lr": 1}
    jobs = jobs_of("own + 1.0*celled + 1.0*beside:Own", tmp_path, train_images, test_images, optimizer=signs)
    (tmp_path / "packed").write_bytes(pack(names_of_jobs(jobs), remote=True).code)
    shutil.rmtree(mine)
    command = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "packed")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert command.returncode == 0, command.stderr
    assert command.stdout.splitlines() == ["3.0", "10.0", "3.0", "0.5"]


def test_what_is_not_used_is_not_sent_and_what_cannot_be_sent_is_refused(
    tmp_path: Path, train_images: PackedImages, test_images: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Held, "__module__", "__main__")  # as if it were defined in a script
    sgbench.register_loss("held")(Held)
    unpack(pack(names_of_jobs(jobs_of("l1", tmp_path, train_images, test_images)), remote=True).code)
    with pytest.raises(InputError, match=r"loss 'held' cannot be sent to Ray's workers: .*; put it into a module"):
        pack(names_of_jobs(jobs_of("held", tmp_path, train_images, test_images)), remote=False)
