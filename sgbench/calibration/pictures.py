"""The images on which metrics are compared with their references: of test sets, and made ones that are difficult."""

from dataclasses import dataclass

import numpy as np

from sgbench.core.resize import downscale, upscale
from sgbench.data import PackedImages, Pixels
from sgbench.metrics import Pair

MADE = "made"
"""The name of the made images."""

MADE_SCALE = 3


@dataclass(frozen=True)
class Pictures:
    """Pairs of images that have a name."""

    name: str
    pairs: tuple[Pair, ...]


def of_test_set(images: PackedImages) -> Pictures:
    """Return the images of a test set with MATLAB's bicubic upscaling of their LR."""
    pairs = []
    for index, image in enumerate(images.images):
        sr = upscale(images.lr(index), images.scale)
        pairs.append(_pair(image.name, sr, images.hr(index), images.lr(index), images.scale))
    return Pictures(images.name, tuple(pairs))


def made() -> Pictures:
    """Return five pairs: of odd sides, tiny, constant, of extreme values, and equal; all sides are multiples of 3."""
    random = np.random.default_rng(18)
    odd = _waves(129, 99)
    tiny = _waves(33, 33)
    noise = random.integers(0, 2, (75, 63, 3), dtype=np.uint8) * np.uint8(255)
    pairs = {
        "odd": (np.clip(odd + random.normal(0, 12, odd.shape), 0, 255).astype(np.uint8), odd),
        "tiny": (np.clip(tiny + random.normal(0, 40, tiny.shape), 0, 255).astype(np.uint8), tiny),
        "constant": (np.full((63, 75, 3), 124, np.uint8), np.full((63, 75, 3), 120, np.uint8)),
        "extreme": (255 - noise, noise),
        "equal": (_waves(51, 57), _waves(51, 57)),
    }
    return Pictures(
        MADE,
        tuple(_pair(name, sr, hr, downscale(hr, MADE_SCALE), MADE_SCALE) for name, (sr, hr) in pairs.items()),
    )


def _pair(name: str, sr: Pixels, hr: Pixels, lr: Pixels, scale: int) -> Pair:
    planes = [image.transpose(2, 0, 1) for image in (sr, hr, lr)]
    return Pair(name, planes[0], planes[1], scale, planes[2])


def _waves(height: int, width: int) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    image = [128 + 60 * np.sin(rows / (5 + k) + columns / 7) + 60 * np.cos(columns / (3 + 2 * k)) for k in range(3)]
    return np.stack(image, axis=2).round().astype(np.uint8)
