"""What is called by one name in public tables and computed in different ways, each on the same images.

Where two papers disagree about one method, the reason is often here and not in the method.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch.nn.functional import avg_pool2d, interpolate

from sgbench.assets.base import MissingWeights
from sgbench.assets.locator import Locator
from sgbench.calibration.pictures import Pictures
from sgbench.calibration.references import given
from sgbench.core.errors import InputError, described
from sgbench.core.plugins import FAULTS
from sgbench.metrics import METRICS, HrCache, Image, Pair, Suite
from sgbench.metrics.frechet import frechet_distance
from sgbench.metrics.niqe_statistics import distance as niqe_distance
from sgbench.metrics.niqe_statistics import luma as rounded_luma
from sgbench.training.numerics import single_precision

Planes = NDArray[Any]
View = Callable[[Image], Planes]
Compute = Callable[[Pair], float]


@dataclass(frozen=True)
class Variant:
    """One way to compute what is called by a name."""

    called: str
    """The name in tables."""
    text: str
    compute: str | Callable[[Locator], Compute]
    """A metric of sgbench, or what returns, given where weights are found, a function of a pair of images."""
    digits: int


@dataclass(frozen=True)
class Value:
    """What a variant gives for some images."""

    variant: Variant
    value: float | None
    """The mean over the images."""
    reason: str | None
    """Why there is none."""

    @property
    def metric(self) -> str | None:
        """The metric of sgbench that is computed so, if there is one."""
        return self.variant.compute if isinstance(self.variant.compute, str) else None


def values(pictures: Pictures, locator: Locator, variants: Iterable[Variant]) -> Iterator[Value]:
    """Yield each variant's value for some images.

    Args:
        pictures: The images.
        locator: Finds networks.
        variants: Some of `VARIANTS`.
    """
    for variant in variants:
        value, reason = None, None
        with warnings.catch_warnings(), single_precision():
            warnings.simplefilter("ignore")  # such as those of arguments that torchvision no longer has
            try:
                compute = (
                    _metric(variant.compute, locator) if isinstance(variant.compute, str) else variant.compute(locator)
                )
                found = [compute(pair) for pair in pictures.pairs(HrCache(0))]
                value = math.fsum(found) / len(found)
            except (InputError, MissingWeights) as error:
                reason = str(error)
            except FAULTS as error:
                reason = described(error)
        yield Value(variant, value, reason)


def _metric(name: str, locator: Locator) -> Compute:
    METRICS.load(name)

    def compute(pair: Pair) -> float:
        (result,) = Suite([name], locator).measure(pair).results
        if result.score.value is None:
            raise InputError(str(result.score.reason))
        return result.score.value

    return compute


# Views of an image, [H, W] or [3, H, W] in [0, 255]


def _rgb(image: Image) -> Planes:
    return image.pixels


def _luma(image: Image) -> Planes:
    return image.luma


def _rounded(image: Image) -> Planes:
    return np.floor(image.luma + 0.5)


def _full_range(image: Image) -> Planes:
    """Return JPEG's Y, which runs from 0 to 255, as OpenCV and Pillow convert."""
    return np.asarray(Pillow.fromarray(image.pixels.transpose(1, 2, 0)).convert("L"))


# PSNR and SSIM


def _of_views(
    function: Callable[[Planes, Planes], float], view: View, *, crop: bool = True
) -> Callable[[Locator], Compute]:
    def compute(pair: Pair) -> float:
        sr, hr = pair.cropped(view) if crop else (view(pair.sr), view(pair.hr))
        return function(sr, hr)

    return lambda locator: compute


def _psnr(sr: Planes, hr: Planes) -> float:
    from skimage.metrics import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(hr.astype(np.float64), sr.astype(np.float64), data_range=255))


def _ssim(sr: Planes, hr: Planes, **options: Any) -> float:
    """Return scikit-image's SSIM, by default with its own defaults: a uniform 7×7 window and sample covariance."""
    from skimage.metrics import structural_similarity

    axis = 0 if sr.ndim == 3 else None
    sr, hr = sr.astype(np.float64), hr.astype(np.float64)
    return float(structural_similarity(hr, sr, data_range=255, channel_axis=axis, **options))


_WANG: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "win_size": 11, "use_sample_covariance": False}
"""The options with which scikit-image computes what the authors' MATLAB code does."""


def _mirrored(sr: Planes, hr: Planes) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure

    tensors = (torch.from_numpy(each.astype(np.float64))[None, None] for each in (sr, hr))
    return float(structural_similarity_index_measure(*tensors, sigma=1.5, data_range=255.0))


def _shrunk_first(sr: Planes, hr: Planes) -> float:
    """Return SSIM of images shrunk to about 256 pixels by averages, as the authors recommend and piq does."""
    factor = max(1, round(min(sr.shape) / 256))
    tensors = (torch.from_numpy(each.astype(np.float64))[None, None] for each in (sr, hr))
    return _ssim(*(avg_pool2d(each, factor)[0, 0].numpy() for each in tensors), **_WANG)


# Metrics with networks


def _lpips(locator: Locator, *, lowest: int = -1, version: str = "0.1", crop: bool = False) -> Compute:
    import lpips

    with given("alexnet", locator.load("alexnet")):
        model = lpips.LPIPS(net="alex", version=version, verbose=False)

    def compute(pair: Pair) -> float:
        sides = pair.cropped(_rgb) if crop else (pair.sr.pixels, pair.hr.pixels)
        with torch.no_grad():
            tensors = (torch.from_numpy(side.copy())[None] / 255 * (1 - lowest) + lowest for side in sides)
            return float(model(*tensors))

    return compute


def _dists_at_256(locator: Locator) -> Compute:
    """Return DISTS of images whose shorter side is resized to 256, as DISTS-pytorch's ``prepare_image`` does."""
    compute = _metric("dists", locator)

    def resized(image: Image) -> Planes:
        width, height = image.size
        if min(width, height) <= 256:
            return image.pixels
        scale = 256 / min(width, height)
        picture = Pillow.fromarray(image.pixels.transpose(1, 2, 0))
        smaller = picture.resize((int(width * scale), int(height * scale)), Pillow.Resampling.BILINEAR)
        return np.asarray(smaller).transpose(2, 0, 1)

    return lambda pair: compute(Pair(pair.name, resized(pair.sr), resized(pair.hr), pair.crop))


def _niqe(locator: Locator, *, view: View, crop: bool) -> Compute:
    model = locator.load("niqe").state

    def compute(pair: Pair) -> float:
        luma = pair.cropped_sr(view) if crop else view(pair.sr)
        return niqe_distance(luma.astype(np.float32), model)

    return compute


# FID


def _resized_apart(locator: Locator) -> Compute:
    """Return by how much the inputs that two tools give to Inception differ, root mean square, in [0, 255]."""

    def compute(pair: Pair) -> float:
        pixels = torch.from_numpy(pair.hr.pixels)[None].float()
        bilinear = interpolate(pixels, size=(299, 299), mode="bilinear", align_corners=False)[0].numpy()
        planes = (Pillow.fromarray(plane.astype(np.float32)) for plane in pair.hr.pixels)
        resized = (plane.resize((299, 299), Pillow.Resampling.BICUBIC) for plane in planes)
        bicubic = np.stack([np.asarray(plane) for plane in resized])
        return float(np.sqrt(np.mean((bilinear - bicubic) ** 2)))

    return compute


def _of_equal_distributions(n: int) -> Callable[[Locator], Compute]:
    def compute(pair: Pair) -> float:
        x, y = np.random.default_rng(0).normal(size=(2, n, 2048)) / math.sqrt(2048)
        return frechet_distance(x, y)

    return lambda locator: compute


def _variants() -> Iterator[Variant]:
    yield Variant("PSNR", "Y, not rounded, a border of the scale left out", "psnr_y", 2)
    yield Variant(
        "PSNR", "the same, Y rounded to integers, as MATLAB's rgb2ycbcr of uint8", _of_views(_psnr, _rounded), 2
    )
    yield Variant("PSNR", "the same, nothing left out", _of_views(_psnr, _luma, crop=False), 2)
    yield Variant("PSNR", "the same, Y from 0 to 255, as OpenCV and Pillow", _of_views(_psnr, _full_range), 2)
    yield Variant("PSNR", "RGB, a border of the scale left out", "psnr_rgb", 2)
    yield Variant("PSNR", "RGB, nothing left out", _of_views(_psnr, _rgb, crop=False), 2)
    yield Variant("SSIM", "Y, Gaussian 11×11 inside the image (the authors' MATLAB code), border left out", "ssim_y", 4)
    yield Variant("SSIM", "the same, Y rounded to integers", _of_views(partial(_ssim, **_WANG), _rounded), 4)
    yield Variant("SSIM", "the same, nothing left out", _of_views(partial(_ssim, **_WANG), _luma, crop=False), 4)
    yield Variant(
        "SSIM",
        "the same, also where the window meets the mirrored border (torchmetrics)",
        _of_views(_mirrored, _luma),
        4,
    )
    yield Variant("SSIM", "the same, images shrunk to about 256 pixels first (piq)", _of_views(_shrunk_first, _luma), 4)
    yield Variant("SSIM", "Y, scikit-image's defaults: uniform 7×7, sample covariance", _of_views(_ssim, _luma), 4)
    yield Variant("SSIM", "RGB, Gaussian 11×11, border left out", "ssim_rgb", 4)
    yield Variant("SSIM", "RGB, scikit-image's defaults, nothing left out", _of_views(_ssim, _rgb, crop=False), 4)
    yield Variant("LPIPS", "AlexNet, v0.1, values in [-1, 1]", "lpips_alex", 4)
    yield Variant("LPIPS", "the same, values in [0, 1] given by mistake", partial(_lpips, lowest=0), 4)
    yield Variant("LPIPS", "the same, a border of the scale left out", partial(_lpips, crop=True), 4)
    yield Variant("LPIPS", "AlexNet, v0.0", partial(_lpips, version="0.0"), 4)
    yield Variant("LPIPS", "VGG-16, v0.1", "lpips_vgg", 4)
    yield Variant("LPIPS", "SqueezeNet, v0.1", "lpips_squeeze", 4)
    yield Variant("DISTS", "the image as it is", "dists", 4)
    yield Variant("DISTS", "the shorter side resized to 256, as DISTS-pytorch's prepare_image", _dists_at_256, 4)
    yield Variant("NIQE", "BasicSR's: Y rounded, a border of the scale left out", "niqe", 3)
    yield Variant("NIQE", "the same, nothing left out", partial(_niqe, view=rounded_luma, crop=False), 3)
    yield Variant("NIQE", "the same, Y not rounded", partial(_niqe, view=_luma, crop=True), 3)
    yield Variant("NIQE", "pyiqa's", "pyiqa:niqe", 3)
    yield Variant(
        "FID", "no FID: RMS grey levels between pytorch-fid's and clean-fid's image of 299×299", _resized_apart, 1
    )
    for n in (5, 14, 100):
        text = f"of two sets of {n} images from one normal distribution, of total variance 1: infinitely many have 0"
        yield Variant("FID", text, _of_equal_distributions(n), 2)


VARIANTS = tuple(_variants())
"""Those of one name stand together, and begin with sgbench's."""
