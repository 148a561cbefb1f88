"""Fixtures that tests of several rooms share: small sets of made-up photographs, as folders and packed."""

from pathlib import Path

import numpy as np
import pytest

from sgbench.data import PackedImages, default_cache, prepare, resolve, write_png
from sgbench.spec import Degradation


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
