"""How fast images are scored, compared with a plain script around the packages that define the metrics.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --set Set5=DIR --set Set14=DIR

The plain script is what the READMEs of `lpips` and `pytorch_fid` show: it reads a pair of files at a time and compares
them with LPIPS, then hands both folders to pytorch_fid, one image at a time since they differ in size. Both sides start
from the same PNG files: MATLAB's bicubic ×4, and nearest neighbours where the references are known. In the first
evaluation both build their networks, from weights that are in memory; sgbench also packs references that are new to
it. If their values differ, the script fails. If Inception's weights are not available locally, both get the same
random ones, which take as long.
"""

import argparse
import contextlib
import inspect
import io
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import harness
import lpips
import numpy as np
import pytorch_fid.inception
import scipy.linalg
import torch
import torchvision
from PIL import Image
from pytorch_fid.fid_score import calculate_frechet_distance, compute_statistics_of_path
from torch import Tensor, nn

import sgbench.metrics.inception_network
import sgbench.perceptual.network
from sgbench.assets.base import LoadedWeights
from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint
from sgbench.data import PackedImages, Source, list_images, prepare, resolve, write_png
from sgbench.metrics import HrCache
from sgbench.metrics.frechet import frechet_distance
from sgbench.metrics.inception_network import Inception
from sgbench.scoring.evaluation import score
from sgbench.scoring.upscaling import bicubic, from_folder
from sgbench.spec import Degradation
from sgbench.training.numerics import single_precision

SCALE = 4
FEATURES = 2048

TOLERANCES = {"lpips_alex": (0, 1e-6), "fid": (1e-3, 1e-3)}
"""Relative and absolute tolerance, by metric, within which both sides must agree."""

HAS_DISTANCE = "disp" in inspect.signature(scipy.linalg.sqrtm).parameters
"""Whether pytorch_fid can compute its distance: SciPy 1.18 removed an argument that it needs."""

Values = dict[str, list[float]]
"""By metric: LPIPS of every image, FID of every set."""


@dataclass(frozen=True)
class Files:
    """A test set as folders of PNG files with the same names."""

    name: str
    hr: Path
    bicubic: Path
    nearest: Path


def as_files(packed: PackedImages, folder: Path) -> Files:
    """Write the references of a set, and two super-resolved images of each."""
    files = Files(packed.name, *(folder / packed.name / images for images in ("hr", "bicubic", "nearest")))
    for index, image in enumerate(packed.images):
        name = f"{image.name}.png"
        write_png(files.hr / name, packed.hr(index))
        write_png(files.bicubic / name, bicubic(packed, index))
        write_png(files.nearest / name, packed.lr(index).repeat(SCALE, axis=0).repeat(SCALE, axis=1))
    return files


class RandomInception(Locator):
    """Finds weights as usual, but random ones for Inception, scaled so that the values of its layers stay alike."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        network = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        state = network.state_dict()
        self.inception = LoadedWeights(fingerprint(state), Path("random"), state)

    def load(self, name: str) -> LoadedWeights:
        """Return the tensors of a network."""
        return self.inception if name == "inception" else super().load(name)


class PlainScript:
    """What the packages' READMEs show, given their weights instead of downloading them."""

    def __init__(self, metrics: Sequence[str], locator: Locator, device: torch.device) -> None:
        self.metrics = metrics
        self.device = device
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # lpips uses old argument names of torchvision
            self.lpips = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).to(device)
        trunk, state = self.lpips.net, locator.load("alexnet").state
        trunk.load_state_dict({name: state[f"features.{name.partition('.')[2]}"] for name in trunk.state_dict()})
        if "fid" not in metrics:
            return
        inception = locator.load("inception").state
        with mock.patch.object(pytorch_fid.inception, "load_state_dict_from_url", return_value=inception):
            self.inception = pytorch_fid.inception.InceptionV3().to(device)

    def score(self, sets: Sequence[tuple[Path, Path]]) -> Values:
        """Score folders of super-resolved images against folders of references."""
        values: Values = {
            "lpips_alex": [self.distance(sr / hr.name, hr) for sr, folder in sets for hr in list_images(folder)]
        }
        if "fid" in self.metrics:
            values["fid"] = [self.fid(sr, hr) for sr, hr in sets]
        return values

    def distance(self, sr: Path, hr: Path) -> float:
        """Return LPIPS of two files."""
        with torch.no_grad():
            return self.lpips(self.read(sr), self.read(hr)).item()

    def read(self, path: Path) -> Tensor:
        """Return an image as lpips wants it, [1, 3, H, W] in [−1, 1]."""
        return lpips.im2tensor(np.asarray(Image.open(path).convert("RGB"))).to(self.device)

    def fid(self, sr: Path, hr: Path) -> float:
        """Return FID of two folders."""
        workers = min(8, os.cpu_count() or 1)  # as pytorch_fid's command line
        moments = []
        for folder in (sr, hr):
            with contextlib.redirect_stderr(io.StringIO()):  # a bar of progress
                moments += compute_statistics_of_path(str(folder), self.inception, 1, FEATURES, self.device, workers)
        return float(calculate_frechet_distance(*moments))


@dataclass(frozen=True)
class Evaluator:
    """sgbench."""

    metrics: Sequence[str]
    locator: Locator
    device: torch.device

    def score(self, tests: Mapping[Path, PackedImages], hr_cache: HrCache) -> Values:
        """Score folders of super-resolved images against packed references."""
        values: Values = {metric: [] for metric in self.metrics}
        for sr, packed in tests.items():
            rows = score(
                from_folder(sr, packed),
                packed,
                self.metrics,
                run_id="benchmark",
                locator=self.locator,
                device=self.device,
                hr_cache=hr_cache,
                side_by_side=True,
            )
            for row in rows:
                if (row["image"] is None) == (row["metric"] == "fid"):  # the mean of LPIPS has no image either
                    values[row["metric"]].append(row["value"])
        return values

    def score_files(self, sets: Sequence[tuple[Path, Path]]) -> Values:
        """Score folders of super-resolved images against folders of references, of which nothing is known."""
        with tempfile.TemporaryDirectory() as cache:
            tests = {sr: pack(hr.parent.name, list_images(hr), Path(cache)) for sr, hr in sets}
            return self.score(tests, HrCache())


def pack(name: str, images: Sequence[Path], cache: Path) -> PackedImages:
    """Prepare images as a test set."""
    return prepare(Source(name, "test", tuple(images)), scale=SCALE, degradation=Degradation(), cache=cache)


@contextlib.contextmanager
def counted_passes() -> Iterator[list[str]]:
    """Yield a list that grows by a name whenever an image goes through one of sgbench's networks."""
    passes: list[str] = []

    def note(module: nn.Module, inputs: object) -> None:
        if isinstance(module, lpips.ScalingLayer | Inception):  # the first thing that LPIPS does to an image
            passes.append(type(module).__name__)

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield passes
    finally:
        handle.remove()


def difference(ours: Values, theirs: Values) -> dict[str, float]:
    """Return the largest difference of each metric.

    Raises:
        AssertionError: If both sides do not agree.
    """
    for metric, values in ours.items():
        relative, absolute = TOLERANCES[metric]
        np.testing.assert_allclose(values, theirs[metric], rtol=relative, atol=absolute, err_msg=metric)
    return {metric: float(np.abs(np.subtract(ours[metric], theirs[metric])).max()) for metric in ours}


def timed(call: Callable[[], Values]) -> tuple[Values, float]:
    """Call once, and return what came back and the seconds."""
    began = time.perf_counter()
    values = call()
    return values, time.perf_counter() - began


def row(
    what: str, seconds: Mapping[str, Sequence[float]], apart: float, aim: str | None, passes: int | None = None
) -> dict[str, object]:
    """Return a row of the table."""
    return {
        "what": what,
        "plain script, s": statistics.median(seconds["plain"]),
        "sgbench, s": statistics.median(seconds["sgbench"]),
        "sgbench is faster by": harness.ratio(seconds, "plain", "sgbench")["median"],
        "passes of references": passes,
        "largest difference": apart,
        harness.AIM: aim,
    }


def measure_evaluation(
    files: Sequence[Files], metrics: Sequence[str], locator: Locator, device: torch.device, rounds: int
) -> list[dict[str, object]]:
    """Time evaluations in which less and less is new, and return their rows."""
    first, second = ([(getattr(each, method), each.hr) for each in files] for method in ("bicubic", "nearest"))
    plain, evaluator = PlainScript(metrics, locator, device), Evaluator(metrics, locator, device)

    def first_of_a_process() -> Values:
        for built in (sgbench.perceptual.network._built, sgbench.metrics.inception_network._network):
            built.cache_clear()
        return evaluator.score_files(first)

    with tempfile.TemporaryDirectory() as cache:
        packed = [pack(each.name, list_images(each.hr), Path(cache)) for each in files]
        tests, others = (dict(zip((sr for sr, _ in sets), packed, strict=True)) for sets in (first, second))
        known = HrCache()
        evaluator.score(tests, known)
        cases: dict[str, tuple[Callable[[], Values], Callable[[], Values]]] = {
            "first evaluation": (lambda: PlainScript(metrics, locator, device).score(first), first_of_a_process),
            "other references": (partial(plain.score, first), partial(evaluator.score_files, first)),
            "same references": (partial(plain.score, second), partial(evaluator.score, others, known)),
        }
        if "fid" in metrics:  # the plain script does again what it did before, for a minute
            del cases["other references"]
        aims = {"first evaluation": "≥ 3×" if "fid" in metrics else "≥ 1.5×", "same references": "0 passes"}
        rows = []
        for case, (theirs, ours) in cases.items():
            expected, once = timed(theirs)
            with counted_passes() as counted:
                apart = difference(ours(), expected)
            passes = len(counted) - sum(map(len, packed)) * len(metrics)  # less those of super-resolved images
            if "fid" in metrics:
                seconds = {"plain": [once] * rounds} | harness.take_turns({"sgbench": ours}, rounds=rounds)
            else:
                seconds = harness.take_turns({"plain": theirs, "sgbench": ours}, rounds=rounds)
            rows.append(row(f"{' and '.join(metrics)}, {case}", seconds, max(apart.values()), aims.get(case), passes))
    return rows


def measure_distance(n: int, rounds: int) -> dict[str, object]:
    """Time the Fréchet distance between random features of two sets, and return a row."""
    x, y = np.random.default_rng(0).normal(size=(2, n, FEATURES))
    y = 1.1 * y + 0.1

    def theirs() -> Values:
        moments = (x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False))
        return {"fid": [float(calculate_frechet_distance(*moments))]}

    expected, once = timed(theirs)
    seconds = {"plain": [once] * rounds} | harness.take_turns(
        {"sgbench": partial(frechet_distance, x, y)}, rounds=rounds, calls=5
    )
    apart = difference({"fid": [frechet_distance(x, y)]}, expected)
    return row(f"Fréchet distance, {n} images", seconds, apart["fid"], "≥ 1,000×")


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--set", action="append", metavar="NAME=DIR", help="a test set (repeatable); else the demo set")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="pytorch_fid")  # an argument that will go, a matrix that has no root
    has_distance = HAS_DISTANCE and not harness.DRY_RUN
    random = has_distance and Locator().find("inception") is None
    locator, device = RandomInception() if random else Locator(), harness.device()
    with tempfile.TemporaryDirectory() as temporary, single_precision():
        folder = Path(temporary)
        sources = [resolve(reference, "test") for reference in arguments.set or ["demo"]]
        packed = [pack(source.name, source.images, folder / "packed") for source in sources]
        files = [as_files(images, folder / "files") for images in packed]
        rows = measure_evaluation(files, ["lpips_alex"], locator, device, arguments.rounds)
        notes = [
            f"{', '.join(f'{images.name} ({len(images)} images)' for images in packed)}, ×{SCALE}, from PNG files.",
            "first evaluation: networks are to be built, references to be packed. other references: to be packed only. "
            "same references: neither.",
        ]
        if has_distance:
            rows += measure_evaluation(files, ["lpips_alex", "fid"], locator, device, arguments.rounds)
            rows += [measure_distance(n, arguments.rounds) for n in (14, 100)]
            notes += [
                f"Inception has {'random' if random else 'its own'} weights.",
                "The plain script had one round where there is a Fréchet distance, sgbench as many as ever.",
            ]
        elif not HAS_DISTANCE:
            notes += [f"pytorch_fid computes no distance with SciPy {scipy.__version__}; below 1.18 it does."]
    peers = {name: version(name) for name in ("lpips", "pytorch-fid", "scipy")}
    harness.publish("evaluation", rows, notes=notes, **peers)


if __name__ == "__main__":
    main()
