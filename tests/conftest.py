"""What tests of several rooms share: sets of made-up photographs, and agreement with other people's implementations."""

import math
import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.squeezenet import Fire
from torchvision.models.vgg import make_layers

# Ray looks at these once, when it is imported. The cluster that tests share lets in only who has this token.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "the-token-of-the-tests-of-sgbench"}

from sgbench.assets.base import LoadedWeights, MissingWeights
from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint
from sgbench.data import PackedImages, default_cache, prepare, resolve, write_png
from sgbench.perceptual.trunks import Trunk
from sgbench.spec import Degradation

hypothesis.settings.register_profile("sgbench", deadline=None)  # machines are shared, and no test is of speed
hypothesis.settings.register_profile("many", deadline=None, max_examples=10_000)
hypothesis.settings.load_profile("sgbench")

Agreement = Callable[[str, str, float, float], None]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from threads, and lose much where tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def agreement(record_property: Callable[[str, object], None]) -> Agreement:
    """A function that is told the difference between ours and a peer's, and its bound; it records both and checks them.

    It takes what of ours was compared, with what, the largest difference, and what that may be.
    """

    def check(ours: str, peer: str, difference: float, bound: float) -> None:
        record_property("agreement", (ours, peer, float(difference), bound))
        assert difference <= bound

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the largest of what the fixture recorded for each pair, also of tests that failed."""
    largest: dict[tuple[str, str, float], float] = defaultdict(float)
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for key, record in report.user_properties:
            if key == "agreement":
                ours, peer, difference, bound = record
                largest[ours, peer, bound] = max(difference, largest[ours, peer, bound])
    if largest:
        terminalreporter.section("largest differences from other implementations")
        for (ours, peer, bound), difference in sorted(largest.items()):
            terminalreporter.write_line(f"{ours:<24} {peer:<42} {difference:.1e}, at most {bound:.0e}")


def photograph(height: int, width: int, seed: int) -> np.ndarray:
    """Waves of random directions and colours: smooth, with some detail, and never twice the same."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 128.0)
    for _ in range(6):
        frequency, phase, colour = random.uniform(-0.5, 0.5, 2), random.uniform(0, 6), random.uniform(-30, 30, 3)
        image += np.sin(frequency[0] * rows + frequency[1] * columns + phase)[..., None] * colour
    return image.clip(0, 255).round().astype(np.uint8)


def photographs(folder: Path, sizes: list[tuple[int, int]], seed: int) -> Path:
    for i, (height, width) in enumerate(sizes):
        write_png(folder / f"photo{i}.png", photograph(height, width, seed + i))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for the test."""
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    return default_cache()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "sgbench-test", folder], check=False).returncode != 0:
        pytest.skip("a file system cannot be mounted here; root can")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def fill(disk: Path) -> Callable[..., Path]:
    """A function that fills the disk but for some bytes and returns the file that does so."""

    def fill(but: int) -> Path:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler = disk / "filler"
        filler.write_bytes(bytes(free - but))
        return filler

    return fill


@pytest.fixture
def train_folder(tmp_path: Path) -> Path:
    """Three images to train on, patches of up to 9 at ×4."""
    return photographs(tmp_path / "train", [(40, 48), (48, 40), (36, 44)], seed=10)


@pytest.fixture
def test_folder(tmp_path: Path) -> Path:
    """Two images to test on, large enough for SSIM at ×4."""
    return photographs(tmp_path / "test", [(44, 40), (36, 48)], seed=20)


@pytest.fixture
def train_images(train_folder: Path, cache: Path) -> PackedImages:
    return prepare(resolve(f"Photos={train_folder}", "train"), scale=4, degradation=Degradation(), cache=cache)


@pytest.fixture
def test_images(test_folder: Path, cache: Path) -> PackedImages:
    return prepare(resolve(f"Photos={test_folder}", "test"), scale=4, degradation=Degradation(), cache=cache)


ALEXNET = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
"""The shape of the convolution in each layer of torchvision's AlexNet that has one."""


@pytest.fixture(scope="session")
def alexnet_weights() -> LoadedWeights:
    """Random weights for AlexNet, of a size that keeps the values of its layers alike."""
    generator = torch.Generator().manual_seed(7)
    state = {}
    for layer, shape in ALEXNET.items():
        scale = (2 / math.prod(shape[1:])) ** 0.5
        state[f"features.{layer}.weight"] = torch.randn(shape, generator=generator) * scale
        state[f"features.{layer}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    return LoadedWeights(fingerprint(state), Path("random"), state)


@pytest.fixture(scope="module")
def alexnet(alexnet_weights: LoadedWeights) -> Iterator[None]:
    """AlexNet at hand, with random weights, whatever is on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Locator, "load", lambda self, name: {"alexnet": alexnet_weights}[name])
        yield


VGG = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions in each block of a network of torchvision."""


def _small_alexnet() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, side, stride in ((3, 4, 11, 4), (4, 6, 5, 1), (6, 8, 3, 1), (8, 6, 3, 1), (6, 6, 3, 1)):
        layers += [nn.Conv2d(before, after, side, stride, 2 if side > 3 else 1), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] * (side > 3)
    return nn.Sequential(*layers)


def _small_squeezenet() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 6, 3, stride=2), nn.ReLU()]
    for number in (2, 2, 4):
        layers += [nn.MaxPool2d(3, 2, ceil_mode=True), *(Fire(6, 2, 3, 3) for _ in range(number))]
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def networks() -> Iterator[dict[str, nn.Module]]:
    """The features of torchvision's networks, available with few channels and random weights; also what DISTS and NIQE
    need; no other network is."""
    torch.manual_seed(0)
    features = {"alexnet": _small_alexnet(), "squeezenet": _small_squeezenet()}
    for name, blocks in VGG.items():
        layers = [
            layer
            for number, channels in zip(blocks, (4, 4, 6, 6, 8), strict=True)
            for layer in [channels] * number + ["M"]
        ]
        torch.manual_seed(0)
        features[name] = make_layers(layers)
    channels = 3 + 4 + 4 + 6 + 6 + 8
    others = {"dists": {name: 0.01 + torch.rand(1, channels, 1, 1) for name in ("alpha", "beta")}}
    others["niqe"] = {"mu_pris_param": torch.zeros(1, 36).double(), "cov_pris_param": torch.eye(36).double()}

    def load(self: Locator, name: str) -> LoadedWeights:
        if name not in others and name not in features:
            raise MissingWeights(f"there are no small {name} weights")
        state = others.get(name) or {f"features.{key}": each for key, each in features[name].state_dict().items()}
        state = {key: tensor.clone() for key, tensor in state.items()}
        return LoadedWeights(fingerprint(state), Path("random"), state)

    def linear_layers(trunk: Trunk, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
        small = features[trunk.weights]
        with torch.no_grad():
            maps = [small[: layer + 1](torch.zeros(1, 3, 64, 64)) for layer in trunk.activations]
        return [torch.linspace(0.1, 1, each.shape[1], device=device, dtype=dtype)[None, :, None, None] for each in maps]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Locator, "load", load)
        for user in ("sgbench.perceptual.lpips", "sgbench.metrics.lpips_network"):
            patch.setattr(f"{user}.linear_layers", linear_layers)
        yield features
