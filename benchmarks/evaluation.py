"""How fast images are scored, beside a plain script around the packages whose values they are.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --set Set5=DIR --set Set14=DIR

The plain script is what the READMEs of `lpips` and `pytorch_fid` show: it reads a pair of files at a time and compares
them with LPIPS, then hands both folders to pytorch_fid, one image at a time since they differ in size. Both sides start
from the same PNG files (MATLAB's bicubic ×4, and nearest neighbours for the second evaluation) with their networks
built, and sgbench's time includes packing the references. Both must come to the same values, or the script fails. Where
Inception's weights are not at hand, both get the same random ones, which take as long.
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

from sgbench.data import PackedImages, Source, list_images, prepare, resolve, write_png
from sgbench.evaluation import score
from sgbench.metrics import HrCache, LoadedWeights
from sgbench.metrics.frechet import frechet_distance
from sgbench.metrics.inception import Inception
from sgbench.metrics.weights import Locator, fingerprint
from sgbench.spec import Degradation
from sgbench.training.numerics import single_precision
from sgbench.upscaling import bicubic, from_folder

SCALE = 4
FEATURES = 2048

TOLERANCES = {"lpips_alex": (0, 1e-6), "fid": (1e-3, 1e-3)}
"""Relative and absolute, by metric, within which both sides must agree."""

HAS_DISTANCE = "disp" in inspect.signature(scipy.linalg.sqrtm).parameters
"""Whether pytorch_fid can compute its distance: SciPy 1.18 took away an argument that it needs."""

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
    """Finds weights as ever, but random ones for Inception, of a size that keeps the values of its layers alike."""

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

    def __init__(self, locator: Locator, device: torch.device) -> None:
        self.device = device
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision by argument names of old
            self.lpips = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).to(device)
        trunk, state = self.lpips.net, locator.load("alexnet").state
        trunk.load_state_dict({name: state[f"features.{name.partition('.')[2]}"] for name in trunk.state_dict()})
        inception = locator.load("inception").state
        with mock.patch.object(pytorch_fid.inception, "load_state_dict_from_url", return_value=inception):
            self.inception = pytorch_fid.inception.InceptionV3().to(device)

    def score(self, sets: Sequence[tuple[Path, Path]], metrics: Sequence[str]) -> Values:
        """Score folders of super-resolved images against folders of references."""
        values: Values = {
            "lpips_alex": [self.distance(sr / hr.name, hr) for sr, folder in sets for hr in list_images(folder)]
        }
        if "fid" in metrics:
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

    locator: Locator
    device: torch.device

    def score(self, tests: Mapping[Path, PackedImages], metrics: Sequence[str], hr_cache: HrCache) -> Values:
        """Score folders of super-resolved images against packed references."""
        values: Values = {metric: [] for metric in metrics}
        for sr, packed in tests.items():
            rows = score(
                from_folder(sr, [packed]),
                packed,
                metrics,
                run_id="benchmark",
                locator=self.locator,
                device=self.device,
                hr_cache=hr_cache,
            )
            for row in rows:
                if (row["image"] is None) == (row["metric"] == "fid"):  # the mean of LPIPS has no image either
                    values[row["metric"]].append(row["value"])
        return values

    def score_files(self, sets: Sequence[tuple[Path, Path]], metrics: Sequence[str]) -> Values:
        """Score folders of super-resolved images against folders of references, of which nothing is known."""
        with tempfile.TemporaryDirectory() as cache:
            tests = {sr: pack(hr.parent.name, list_images(hr), Path(cache)) for sr, hr in sets}
            return self.score(tests, metrics, HrCache())


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
    what: str, seconds: Mapping[str, Sequence[float]], ours: str, apart: float, aim: str, passes: int | None = None
) -> dict[str, object]:
    """Return a row of the table."""
    return {
        "what": what,
        "plain script, s": statistics.median(seconds["plain"]),
        "sgbench, s": statistics.median(seconds[ours]),
        "sgbench is faster by": harness.ratio(seconds, "plain", ours)["median"],
        "passes of references": passes,
        "largest difference": apart,
        harness.AIM: aim,
    }


def measure_evaluation(
    files: Sequence[Files], metrics: Sequence[str], plain: PlainScript, evaluator: Evaluator, rounds: int
) -> tuple[list[dict[str, object]], Values]:
    """Time a first evaluation, and a second one of other images, and return their rows and the values of the first."""
    first, second = ([(getattr(each, method), each.hr) for each in files] for method in ("bicubic", "nearest"))
    values, once = timed(partial(plain.score, first, metrics))
    expected = {"first": values, "second": plain.score(second, metrics)}
    with tempfile.TemporaryDirectory() as cache:
        packed = [pack(each.name, list_images(each.hr), Path(cache)) for each in files]
        known = HrCache()
        evaluator.score(dict(zip((sr for sr, _ in first), packed, strict=True)), metrics, known)
        others = dict(zip((sr for sr, _ in second), packed, strict=True))
        candidates: dict[str, Callable[[], Values]] = {
            "first": partial(evaluator.score_files, first, metrics),
            "second": partial(evaluator.score, others, metrics, known),
        }
        apart, passes = {}, {}
        for name, evaluate in candidates.items():
            with counted_passes() as counted:
                apart[name] = difference(evaluate(), expected[name])
            passes[name] = len(counted) - sum(map(len, packed)) * len(metrics)  # less those of super-resolved images
        if "fid" in metrics:
            seconds = {"plain": [once] * rounds} | harness.take_turns(candidates, rounds=rounds)
        else:
            seconds = harness.take_turns({"plain": partial(plain.score, first, metrics)} | candidates, rounds=rounds)
    names = " and ".join(metrics)
    aims = {"first": "≥ 3×" if "fid" in metrics else "≥ 1.5×", "second": "0 passes"}
    rows = [
        row(f"{names}, {name} evaluation", seconds, name, max(apart[name].values()), aims[name], passes[name])
        for name in candidates
    ]
    return rows, values


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
    return row(f"Fréchet distance, {n} images", seconds, "sgbench", apart["fid"], "≥ 1,000×")


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--set", action="append", metavar="NAME=DIR", help="a test set (repeatable); else the demo set")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="pytorch_fid")  # an argument that will go, a matrix that has no root
    random = Locator().find("inception") is None
    locator, device = RandomInception() if random else Locator(), harness.device()
    with tempfile.TemporaryDirectory() as temporary, single_precision():
        folder = Path(temporary)
        sources = [resolve(reference, "test") for reference in arguments.set or ["demo"]]
        packed = [pack(source.name, source.images, folder / "packed") for source in sources]
        files = [as_files(images, folder / "files") for images in packed]
        plain, evaluator = PlainScript(locator, device), Evaluator(locator, device)
        rows, _ = measure_evaluation(files, ["lpips_alex"], plain, evaluator, arguments.rounds)
        notes = [
            f"{', '.join(f'{images.name} ({len(images)} images)' for images in packed)}, ×{SCALE}, from PNG files.",
            "first: nothing known, packing included. second: other images against the references of the first.",
            "The plain script's seconds are those of the first; it has the same work again in the second.",
        ]
        if HAS_DISTANCE:
            more, values = measure_evaluation(files, ["lpips_alex", "fid"], plain, evaluator, arguments.rounds)
            rows += more + [measure_distance(n, arguments.rounds) for n in (14, 100)]
            found = ", ".join(f"{each.name} {value:.4f}" for each, value in zip(files, values["fid"], strict=True))
            notes += [
                f"FID of bicubic by the plain script, {'random' if random else 'real'} Inception weights: {found}.",
                "The plain script had one round where there is a Fréchet distance, sgbench as many as ever.",
            ]
        else:
            notes += [f"pytorch_fid computes no distance with SciPy {scipy.__version__}; below 1.18 it does."]
    peers = {name: version(name) for name in ("lpips", "pytorch-fid", "scipy")}
    harness.publish("evaluation", rows, notes=notes, **peers)


if __name__ == "__main__":
    main()
