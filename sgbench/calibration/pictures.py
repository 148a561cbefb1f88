"""The images on which metrics are compared with their references: of test sets, and made ones that are difficult."""

from dataclasses import dataclass

import numpy as np

from sgbench.core.resize import downscale, upscale
from sgbench.data import DEMO, PackedImages, Pixels, pack_set
from sgbench.metrics import HrCache, Image, Pair
from sgbench.spec import Recipe

MADE = "made"
"""The name of the made images."""

MADE_SCALE = 3

PHOTOGRAPH = "motorcycle_left"
"""The name of an image of the demo set."""


Shown = tuple[str, Pixels, Pixels, Pixels]
"""The name of an image, its SR, HR and LR, uint8 H×W×3."""


@dataclass(frozen=True)
class Pictures:
    """Images that have a name."""

    name: str
    images: tuple[Shown, ...]
    scale: int

    def pairs(self, cache: HrCache) -> list[Pair]:
        """Return new pairs of the images; what is computed of them lives as long as the pairs, or in the cache."""
        pairs = []
        for name, *images in self.images:
            sr, hr, lr = (Image(image.transpose(2, 0, 1)) for image in images)
            sr.keep_views(cache)
            hr.keep_views(cache)
            pairs.append(Pair(name, sr, hr, self.scale, lr))
        return pairs


def of_test_set(images: PackedImages) -> Pictures:
    """Return the images of a test set with MATLAB's bicubic upscaling of their LR."""
    shown = []
    for index, image in enumerate(images.images):
        lr = images.lr(index)
        shown.append((image.name, upscale(lr, images.scale), images.hr(index), lr))
    return Pictures(images.name, tuple(shown), images.scale)


def photograph() -> Pictures:
    """Return one photograph of the demo set, large enough to be shrunk by what shrinks large images."""
    demo = of_test_set(pack_set(DEMO, "test", Recipe()))
    return Pictures(PHOTOGRAPH, tuple(each for each in demo.images if each[0] == PHOTOGRAPH), demo.scale)


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
    shown = tuple((name, sr, hr, downscale(hr, MADE_SCALE)) for name, (sr, hr) in pairs.items())
    return Pictures(MADE, shown, MADE_SCALE)


def _waves(height: int, width: int) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    image = [128 + 60 * np.sin(rows / (5 + k) + columns / 7) + 60 * np.cos(columns / (3 + 2 * k)) for k in range(3)]
    return np.stack(image, axis=2).round().astype(np.uint8)
