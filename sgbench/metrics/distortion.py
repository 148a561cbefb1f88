"""PSNR and SSIM, on Y and on RGB, and PSNR of the low-resolution image.

The border is cropped by the scale, values are in [0, 255], and Y is not rounded. Public tables mix the two colour
spaces under one name; here the name carries it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgbench.core.resize import downscale
from sgbench.metrics.base import Image, ImageMetric, Pair, Runtime, Undefined

PEAK = 255.0
WINDOW = 11
"""Side of SSIM's Gaussian window in pixels; its σ is 1.5."""
STRIP = 512
"""For how many rows of positions SSIM is computed at a time; it takes fifteen times the memory of their pixels."""


def psnr(sr: NDArray[Any], hr: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio, 10·log10(255² / MSE), in dB.

    Args:
        sr: Values in [0, 255], any shape.
        hr: The reference, of the same shape.

    Raises:
        Undefined: If the two are identical, as the ratio is then infinite.
    """
    error = np.mean(np.square(np.subtract(sr, hr, dtype=np.float64)))
    if error == 0:
        raise Undefined("the images are identical")
    return 10 * math.log10(PEAK**2 / error)


def ssim(sr: NDArray[Any], hr: NDArray[Any]) -> float:
    """Return the structural similarity (Wang et al., 2004), in [-1, 1].

    An 11×11 Gaussian window with σ 1.5 and population covariance; the mean over the positions where the window lies
    inside the image, then over channels.

    Args:
        sr: Values in [0, 255], shape [H, W] or [C, H, W].
        hr: The reference, of the same shape.

    Raises:
        Undefined: If the image is smaller than the window.
    """
    from skimage.metrics import structural_similarity  # here, as it loads SciPy, which a plan does not need

    height, width = sr.shape[-2:]
    if min(height, width) < WINDOW:
        raise Undefined(f"{width}×{height} pixels are left, fewer than SSIM's {WINDOW}×{WINDOW} window")
    value, positions = 0.0, height - WINDOW + 1
    for top in range(0, positions, STRIP):
        rows = min(STRIP, positions - top)
        strips = (image[..., top : top + rows + WINDOW - 1, :].astype(np.float64) for image in (sr, hr))
        mean = structural_similarity(
            *strips,
            data_range=PEAK,
            win_size=WINDOW,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=0 if sr.ndim == 3 else None,
        )
        value += float(mean) * (rows / positions)
    return value


@dataclass(frozen=True, kw_only=True)
class Distortion(ImageMetric):
    """A function of the cropped pixels of a pair, in one colour space."""

    view: Callable[[Image], NDArray[Any]]
    """Gives [H, W] or [3, H, W] in [0, 255]."""
    compute: Callable[[NDArray[Any], NDArray[Any]], float]

    def score(self, pair: Pair, runtime: Runtime | None = None) -> float:
        """Return the value for one pair of images; it runs on the CPU and needs no ``runtime``."""
        return self.compute(*pair.cropped(self.view))


@dataclass(frozen=True, kw_only=True)
class LrPsnr(ImageMetric):
    """PSNR of LR against SR that is shrunk as LR images of its test set are: whether LR may come from it."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the value for one pair of images.

        Raises:
            Undefined: If SR is shrunk to exactly LR, as HR is, since the ratio is then infinite.
        """
        image, degradation = pair.sr.pixels.transpose(1, 2, 0), runtime.degradation
        shrunk = downscale(image, pair.scale, edges=degradation.edges, rounding=degradation.rounding)
        lr = pair.lr.pixels.transpose(1, 2, 0)
        if np.array_equal(shrunk, lr):
            raise Undefined("SR is shrunk to exactly LR")
        return psnr(shrunk, lr)


def _luma(image: Image) -> NDArray[Any]:
    return image.luma


def _rgb(image: Image) -> NDArray[Any]:
    return image.pixels


def _protocol(implementation: str, colour_space: str) -> dict[str, Any]:
    return {
        "implementation": implementation,
        "colour_space": colour_space,
        "value_range": [0, 255],
        "border_crop": "scale",
        "resize": None,
    }


_SKIMAGE = f"scikit-image {version('scikit-image')}"
_SSIM = "scikit-image, Gaussian window 11×11, σ 1.5, population covariance"

psnr_y = Distortion(
    name="psnr_y",
    direction="higher",
    unit="dB",
    digits=2,
    rank=90,
    version="1",
    protocol=_protocol("sgbench", "Y of BT.601, not rounded"),
    description="PSNR in dB on luma",
    source="10·log10(255² / MSE), Y of ITU-R BT.601",
    reference="scikit-image 0.26.0",
    difference=1e-9,
    view=_luma,
    compute=psnr,
)
psnr_rgb = Distortion(
    name="psnr_rgb",
    direction="higher",
    unit="dB",
    digits=2,
    rank=100,
    version="1",
    protocol=_protocol("sgbench", "RGB"),
    description="PSNR in dB over all values of R, G and B",
    source="10·log10(255² / MSE)",
    reference="scikit-image 0.26.0",
    difference=1e-9,
    view=_rgb,
    compute=psnr,
)
ssim_y = Distortion(
    name="ssim_y",
    direction="higher",
    digits=4,
    rank=110,
    version=_SKIMAGE,
    protocol=_protocol(_SSIM, "Y of BT.601, not rounded"),
    description="structural similarity on luma",
    source="Wang et al., IEEE TIP 2004",
    reference="torchmetrics 1.9.0",
    difference=1e-9,
    view=_luma,
    compute=ssim,
)
ssim_rgb = Distortion(
    name="ssim_rgb",
    direction="higher",
    digits=4,
    rank=120,
    version=_SKIMAGE,
    protocol=_protocol(_SSIM, "RGB"),
    description="structural similarity, mean over R, G and B",
    source="Wang et al., IEEE TIP 2004",
    reference="torchmetrics 1.9.0",
    difference=1e-9,
    view=_rgb,
    compute=ssim,
)
lr_psnr = LrPsnr(
    name="lr_psnr",
    direction="higher",
    unit="dB",
    digits=2,
    rank=140,
    version="1",
    protocol={
        "implementation": "sgbench",
        "colour_space": "RGB",
        "value_range": [0, 255],
        "border_crop": None,
        "resize": "to the size of LR, MATLAB's imresize to the bit",
    },
    needs_hr=False,
    needs_lr=True,
    description="PSNR in dB of shrunk SR against LR; NTIRE's Learning the Super-Resolution Space asks for 45",
    source="Lugmayr et al., CVPR Workshops 2021 (NTIRE Learning the Super-Resolution Space)",
    reference="NTIRE 2021 (cd4d574), halves rounded up",
    difference=1e-9,
)
