"""The code of others with which metrics are compared, each called as its own instructions say.

A reference gets pairs of images and the weights that the metric has, since most of this code would download them. Its
package is imported when it is first used: only some of them are installed with sgbench, the others with the extra
``sgbench[references]``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgbench.assets.base import LoadedWeights
from sgbench.calibration.networks import ARCHITECTURES, with_weights
from sgbench.metrics import Image, Pair

Weights = Mapping[str, LoadedWeights]
OfPair = Callable[[Pair], float]
OfSet = Callable[[Sequence[Pair]], float]


@dataclass(frozen=True)
class Reference:
    """Code of others that computes a metric."""

    projects: tuple[str, ...]
    """The distributions on the package index that have it."""
    prepare: Callable[[Weights], OfPair] | Callable[[Weights], OfSet]
    """Given the metric's networks, returns what computes a value: for a pair of images, or for all of a set metric."""

    @property
    def missing(self) -> list[str]:
        """The distributions that are not installed."""
        return [project for project in self.projects if _version(project) is None]

    def __str__(self) -> str:
        return ", ".join(f"{project} {_version(project) or '(not installed)'}" for project in self.projects)


def _version(project: str) -> str | None:
    try:
        return version(project)
    except PackageNotFoundError:
        return None


def _tensor(image: Image) -> Tensor:
    """Return an image [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(image.pixels)[None] / 255


def _cropped(image: Image, crop: int) -> NDArray[np.uint8]:
    """Return an image [H, W, 3] without its border."""
    _, height, width = image.pixels.shape
    return image.pixels.transpose(1, 2, 0)[crop : height - crop, crop : width - crop]


def given(name: str, weights: LoadedWeights) -> AbstractContextManager[object]:
    """Let torchvision give out a network with these weights, instead of downloading others."""
    network = with_weights(name, weights)
    return mock.patch(f"torchvision.models.{ARCHITECTURES[name]}", return_value=network)


def _lpips(net: str, weights: Weights) -> OfPair:
    import lpips

    ((name, loaded),) = weights.items()
    with given(name, loaded):
        model = lpips.LPIPS(net=net, verbose=False)

    def distance(pair: Pair) -> float:
        with torch.no_grad():
            return float(model(2 * _tensor(pair.sr) - 1, 2 * _tensor(pair.hr) - 1))

    return distance


def dists(weights: Weights, *, dtype: torch.dtype = torch.float64) -> OfPair:
    """Return what computes DISTS; in float32, it subtracts large numbers that are almost equal."""
    from DISTS_pytorch import DISTS

    with given("vgg16", weights["vgg16"]):
        model = DISTS(load_weights=False)
    model.load_state_dict(weights["dists"].state, strict=False)
    model.to(dtype)

    def distance(pair: Pair) -> float:
        with torch.no_grad():
            return float(model(_tensor(pair.sr).to(dtype), _tensor(pair.hr).to(dtype)))

    return distance


def _flip(weights: Weights) -> OfPair:
    from flip_evaluator import evaluate

    def error(pair: Pair) -> float:
        sr, hr = (image.pixels.transpose(1, 2, 0) / np.float32(255) for image in (pair.sr, pair.hr))
        _, mean, _ = evaluate(hr, sr, "LDR", applyMagma=False)
        return float(mean)

    return error


def _inception(weights: Weights) -> Callable[[Sequence[Pair]], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return what computes the features of the images of a set and of their references, as pytorch-fid does."""
    from pytorch_fid.inception import InceptionV3

    with mock.patch("pytorch_fid.inception.load_state_dict_from_url", return_value=weights["inception"].state):
        model = InceptionV3().eval()

    def vector(image: Image) -> NDArray[np.float64]:
        with torch.no_grad():
            features: NDArray[np.float64] = model(_tensor(image))[0].flatten().double().numpy()
        return features

    def features(pairs: Sequence[Pair]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        key = ("pytorch-fid", weights["inception"].sha256)
        sr, hr = (
            np.stack([image.view(key, partial(vector, image)) for image in images])
            for images in zip(*((pair.sr, pair.hr) for pair in pairs), strict=True)
        )
        return sr, hr

    return features


def _frechet(sr: NDArray[np.float64], hr: NDArray[np.float64]) -> float:
    from pytorch_fid.fid_score import calculate_frechet_distance

    moments = (each for side in (sr, hr) for each in (side.mean(axis=0), np.cov(side, rowvar=False)))
    return float(calculate_frechet_distance(*moments))


def _fid(weights: Weights) -> OfSet:
    features = _inception(weights)
    return lambda pairs: _frechet(*features(pairs))


def _kid(estimate: str, weights: Weights) -> OfSet:
    from torch_fidelity.metric_kid import kernel_poly, mmd2

    features = _inception(weights)

    def distance(pairs: Sequence[Pair]) -> float:
        sr, hr = features(pairs)
        kernel = partial(kernel_poly, kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1)
        return float(mmd2(kernel(sr, sr), kernel(sr, hr), kernel(hr, hr), mmd_est=estimate))

    return distance


def _fd_alex(weights: Weights) -> OfSet:
    import lpips

    with given("alexnet", weights["alexnet"]):
        model = lpips.LPIPS(net="alex", verbose=False)

    def features(images: Sequence[Image]) -> NDArray[np.float64]:
        with torch.no_grad():
            maps = (model.net(model.scaling_layer(2 * _tensor(image) - 1)).relu5 for image in images)
            return np.stack([each[0].double().mean(dim=(1, 2)).numpy() for each in maps])

    return lambda pairs: _frechet(features([pair.sr for pair in pairs]), features([pair.hr for pair in pairs]))


def _views(pair: Pair, *, luma: bool) -> list[NDArray[np.float64]]:
    """Return SR and HR without their border, [H, W, C] in [0, 255], with scikit-image's Y if that is asked for."""
    from skimage.color import rgb2ycbcr

    views = [_cropped(image, pair.crop) for image in (pair.sr, pair.hr)]
    return [rgb2ycbcr(view)[..., :1] if luma else view.astype(np.float64) for view in views]


def _psnr(weights: Weights, *, luma: bool) -> OfPair:
    from skimage.metrics import peak_signal_noise_ratio

    def ratio(pair: Pair) -> float:
        sr, hr = _views(pair, luma=luma)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a division by the 0 of equal images
            return float(peak_signal_noise_ratio(hr, sr, data_range=255))

    return ratio


def _ssim(weights: Weights, *, luma: bool) -> OfPair:
    from torchmetrics.functional.image import structural_similarity_index_measure

    def similarity(pair: Pair) -> float:
        sr, hr = (torch.from_numpy(view.transpose(2, 0, 1)[None].copy()) for view in _views(pair, luma=luma))
        options = {"sigma": 1.5, "data_range": 255.0, "return_full_image": True}
        _, full = structural_similarity_index_measure(sr, hr, **options)
        return float(full[..., 5:-5, 5:-5].mean())  # where the window lies inside; its own mean has a mirrored border

    return similarity


REFERENCES: Mapping[str, Reference] = {
    "dists": Reference(("DISTS-pytorch",), dists),
    "fd_alex": Reference(("lpips", "pytorch-fid"), _fd_alex),
    "fid": Reference(("pytorch-fid",), _fid),
    "flip": Reference(("flip-evaluator",), _flip),
    "kid": Reference(("pytorch-fid", "torch-fidelity"), partial(_kid, "u-statistic")),
    "kid_standard": Reference(("pytorch-fid", "torch-fidelity"), partial(_kid, "unbiased")),
    "lpips_alex": Reference(("lpips",), partial(_lpips, "alex")),
    "lpips_squeeze": Reference(("lpips",), partial(_lpips, "squeeze")),
    "lpips_vgg": Reference(("lpips",), partial(_lpips, "vgg")),
    "psnr_rgb": Reference(("scikit-image",), partial(_psnr, luma=False)),
    "psnr_y": Reference(("scikit-image",), partial(_psnr, luma=True)),
    "ssim_rgb": Reference(("torchmetrics",), partial(_ssim, luma=False)),
    "ssim_y": Reference(("torchmetrics",), partial(_ssim, luma=True)),
}
"""By metric."""

RECORDED = ("fd_dinov2", "lr_psnr", "niqe", "ssimulacra2")
"""Metrics whose reference no package has in a form that runs here; tests have values that it computed elsewhere."""
